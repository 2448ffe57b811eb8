//! What forms do: one call of the API each. Where it cannot be taken back, the first press shows what would happen (the API's
//! own dry run, where it has one), and the second does it.
//!
//! A form names its call itself: it may do what the operator's token may, which the API decides, and nothing else.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::Console;
use super::client::{self, Refusal};
use super::context::{Context, is_from_here, see_other, within};
use super::form::{Ask, Field, Form};
use super::pages::finish;
use super::show;
use super::view::{Cell, Content, Frame, Notice, Page, Section};
use crate::http::peer::Peer;

/// Largest form, in bytes.
const FORM_BYTES_MAX: usize = 2 << 20;
/// The field that carries a body that was shown before.
const BODY: &str = "body";

/// What a form asks for.
#[derive(Debug)]
struct Act {
    method: Method,
    path: String,
    body: Option<Value>,
    ask: Ask,
    says: String,
    back: String,
    shows: bool,
}

/// Does what a form asks for.
pub(super) async fn act(State(console): State<Console>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let context = match Context::from_request_parts(&mut parts, &console).await {
        Ok(context) => context,
        Err(redirect) => return redirect,
    };
    let Ok(body) = axum::body::to_bytes(body, FORM_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let fields: Vec<(String, String)> = form_urlencoded::parse(&body).into_owned().collect();
    let peer = parts.extensions.get::<Peer>();
    let form_key = fields.iter().find(|(name, _)| name == "form_key").map(|(_, value)| value.as_str());
    if form_key != Some(context.session.form_key.expose()) || !is_from_here(&parts.headers, peer, &console) {
        return (StatusCode::FORBIDDEN, "only pages of this console may ask for that").into_response();
    }
    match Act::read(&fields) {
        Ok(act) => act.perform(&context, &parts.headers).await,
        Err(message) => {
            let refusal = Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, &message);
            let page = Page::new("That does not work").with(section(show::refusal(&refusal)));
            finish(&context, Ok(Page { status: refusal.status, ..page }), &parts.headers)
        }
    }
}

fn section(content: impl Into<Content>) -> Section {
    Section::new("outcome", "").with(content)
}

impl Act {
    /// Reads a form; what is wrong with it in words.
    fn read(fields: &[(String, String)]) -> Result<Self, String> {
        let field = |name: &str| fields.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value);
        let method = match field("method") {
            "POST" => Method::POST,
            "PATCH" => Method::PATCH,
            "PUT" => Method::PUT,
            "DELETE" => Method::DELETE,
            _ => return Err("the form has no method".to_owned()),
        };
        let path = field("path");
        if !path.starts_with("/v1/") {
            return Err("the form has no path of the API".to_owned());
        }
        let body = match field(BODY) {
            "" => body_of(fields)?,
            text => {
                Some(serde_json::from_str(text).map_err(|error| format!("the body is no JSON: {error}"))?)
            }
        };
        Ok(Self {
            body,
            method,
            path: path.to_owned(),
            ask: Ask::parse(field("ask")).unwrap_or(Ask::Confirm),
            says: field("says").to_owned(),
            back: within(field("back")).to_owned(),
            shows: !field("shows").is_empty(),
        })
    }

    async fn perform(self, context: &Context, headers: &HeaderMap) -> Response {
        if self.ask != Ask::No {
            return finish(context, Ok(self.asked(context).await), headers);
        }
        let done = context.api.call(self.method.clone(), &self.path, self.text()).await;
        match done {
            Ok(answer) if self.shows => {
                let page = self.page(context, "Done").with(section(Notice::good("It is done.")));
                let page = page.with(Section::new("answer", "The answer").with(Content::Tree(answer)));
                finish(context, Ok(page), headers)
            }
            Ok(answer) if !context.api.is_refused() => see_other(&self.done(&answer)),
            Ok(_) => finish(context, Ok(Page::default()), headers),
            Err(refusal) => {
                let page = self.page(context, "That does not work").with(section(show::refusal(&refusal)));
                finish(context, Ok(Page { status: refusal.status, ..page }), headers)
            }
        }
    }

    fn text(&self) -> Option<String> {
        self.body.as_ref().map(Value::to_string)
    }

    fn page(&self, context: &Context, title: &str) -> Page {
        let space = self.path.split('/').nth(3).unwrap_or_default();
        let frame = Frame::of(space, context.session.form_key.expose(), &self.back);
        let page = Page::new(title).back("Back", self.back.clone());
        Page { frame, ..page }
    }

    /// Where it goes on: the page it came from, which waits until what was done shows.
    fn done(&self, answer: &Value) -> String {
        let mut query = vec![("done", "1".to_owned())];
        let offset = answer.get("offset").or_else(|| answer.pointer("/effect/offset"));
        query.extend(offset.and_then(Value::as_u64).map(|offset| ("min_offset", offset.to_string())));
        // Where what was made is: its key is known only now.
        let key = client::path([show::text(answer, "key")], &[]);
        let back = self.back.replace("/:key", &key);
        let (path, known) = back.split_once('?').unwrap_or((&back, ""));
        let known = form_urlencoded::parse(known.as_bytes()).into_owned();
        let kept: Vec<(String, String)> =
            known.filter(|(name, _)| name != "done" && name != "min_offset").collect();
        let encoded =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(&kept).extend_pairs(&query).finish();
        format!("{path}?{encoded}")
    }

    /// The page that says what would happen, with the button that makes it happen.
    async fn asked(self, context: &Context) -> Page {
        let tried = self.tried(context).await;
        let mut meant =
            Section::new("meant", "What is meant").with(Content::Line(vec![self.says.as_str().into()]));
        if let Some(body) = &self.body {
            meant = meant.with(Content::Tree(body.clone()));
        }
        let call = Cell::Code(format!("{} {}", self.method, self.path));
        let page = self.page(context, "Is that what you want?").with(meant.with(Content::Line(vec![call])));
        let would = Section::new("would", "What would happen");
        match tried {
            Some(Err(refusal)) => {
                let page = page.with(would.with(show::refusal(&refusal)));
                Page { status: refusal.status, ..page }
            }
            Some(Ok(answer)) => {
                let gone =
                    show::whole(&answer, "events_gone") + show::whole(&answer["effect"], "events_gone");
                let section = would.with(Content::Tree(answer));
                if gone == 0 {
                    return page.with(section.with(self.confirm(context, "")));
                }
                let lost =
                    format!("{gone} events are kept no longer: what they left on the profile is lost.");
                page.with(section.with(Notice::bad(lost)).with(self.confirm(context, "accept_loss=true")))
            }
            None => {
                let note = Notice::plain("It is done when you press the button, and cannot be tried before.");
                page.with(would.with(note).with(self.confirm(context, "")))
            }
        }
    }

    async fn tried(&self, context: &Context) -> Option<Result<Value, Refusal>> {
        match self.ask {
            Ask::No | Ask::Confirm => None,
            Ask::Try => {
                let path = self.path_with("dry_run=true");
                Some(context.api.call(self.method.clone(), &path, self.text()).await)
            }
            Ask::TryInBody => {
                let mut body = self.body.clone().unwrap_or_else(|| json!({}));
                if let Some(body) = body.as_object_mut() {
                    body.insert("dry_run".to_owned(), Value::from(true));
                }
                Some(context.api.call(self.method.clone(), &self.path, Some(body.to_string())).await)
            }
        }
    }

    /// The path with one parameter more.
    fn path_with(&self, parameter: &str) -> String {
        match parameter {
            "" => self.path.clone(),
            _ if self.path.contains('?') => format!("{}&{parameter}", self.path),
            _ => format!("{}?{parameter}", self.path),
        }
    }

    fn confirm(&self, context: &Context, parameter: &str) -> Form {
        let method = ["POST", "PATCH", "PUT", "DELETE"].into_iter().find(|m| *m == self.method.as_str());
        let form = Form {
            path: self.path_with(parameter),
            shows: self.shows,
            ..Form::new(context, "confirm", method.unwrap_or("POST"), &[], "Do it")
        };
        let form = form.back(self.back.clone()).danger();
        match self.text() {
            Some(body) => form.field(Field::raw(BODY, body)),
            None => form,
        }
    }
}

/// The body that the fields of a form make; none when there are no fields.
fn body_of(fields: &[(String, String)]) -> Result<Option<Value>, String> {
    let mut body = Map::new();
    let mut has_fields = false;
    for (name, text) in fields {
        let Some((kind, path)) = name.split_once(':') else { continue };
        has_fields = true;
        let trimmed = text.trim();
        let value = match kind {
            "b" => Value::from(trimmed == "true"),
            "S" => Value::from(trimmed),
            _ if trimmed.is_empty() => continue,
            "s" => Value::from(trimmed),
            "n" => number(trimmed).ok_or_else(|| format!("{path}: {trimmed} is not a number"))?,
            "l" => trimmed.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty()).collect(),
            "j" => serde_json::from_str(trimmed).map_err(|error| format!("{path}: no JSON: {error}"))?,
            _ => continue,
        };
        put(&mut body, path, value);
    }
    Ok(has_fields.then_some(Value::Object(body)))
}

fn number(text: &str) -> Option<Value> {
    let whole = text.parse::<i64>().ok().map(Value::from);
    whole.or_else(|| text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from))
}

/// Sets what stands at a path such as `definition.query`.
fn put(body: &mut Map<String, Value>, path: &str, value: Value) {
    let Some((first, rest)) = path.split_once('.') else {
        body.insert(path.to_owned(), value);
        return;
    };
    let inner = body.entry(first).or_insert_with(|| json!({}));
    if let Some(inner) = inner.as_object_mut() {
        put(inner, rest, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(fields: &[(&str, &str)]) -> Result<Option<Value>, String> {
        let fields: Vec<_> = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        body_of(&fields)
    }

    #[test]
    fn fields_make_a_body() {
        let made = body(&[
            ("form_key", "x"),
            ("s:key", " buyers "),
            ("s:name", ""),
            ("S:description", ""),
            ("s:definition.query", "event('A').count() >= 1"),
            ("b:options.include_anonymous", "false"),
            ("b:options.include_anonymous", "true"),
            ("n:limit", "7"),
            ("l:ids", "a, b\nc,,"),
            ("j:settings", r#"{"url":"x"}"#),
        ]);
        let expected = json!({
            "key": "buyers", "description": "", "definition": {"query": "event('A').count() >= 1"},
            "options": {"include_anonymous": true}, "limit": 7, "ids": ["a", "b", "c"], "settings": {"url": "x"},
        });
        assert_eq!(made, Ok(Some(expected)));
        assert_eq!(body(&[("form_key", "x")]), Ok(None));
        assert!(body(&[("n:limit", "many")]).unwrap_err().contains("limit: many"));
        assert!(body(&[("j:settings", "{")]).unwrap_err().contains("settings"));
    }
}
