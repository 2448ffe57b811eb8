//! Signing in with an access token, and out again.
//!
//! A token is good when the API takes it; the console keeps no list of its own. The form is taken only from a page of this host,
//! so that nobody is signed in by somebody else.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use url::form_urlencoded;

use super::Console;
use super::client::{self, Api};
use super::context::{Context, cookie, is_from_here, see_other, set_cookie, within};
use super::form::{Field, Form};
use super::pages::finish;
use super::show::{items, state, text, time};
use super::view::{Cell, Content, Notice, Page, Section, SignIn, Table};
use crate::config::Secret;
use crate::http::peer::Peer;

/// Largest form, in bytes.
const FORM_BYTES_MAX: usize = 16 * 1024;

/// Why a browser would not keep the cookie: it does so over encrypted connections, and on this machine itself.
const NOT_KEPT: &str = "This connection is not encrypted, so your browser will not keep you signed in. Open the console over \
https, or on the machine itself as http://localhost (an SSH tunnel does).";

/// The question for a token.
pub(super) async fn ask(State(console): State<Console>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let asked = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let to = asked.into_owned().find(|(name, _)| name == "to").map_or_else(String::new, |(_, to)| to);
    question(&console, &parts, &to, None)
}

fn question(console: &Console, parts: &Parts, to: &str, trouble: Option<Notice>) -> Response {
    let mut section = Section::new("sign-in", "");
    let status = if trouble.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    section.content.extend(trouble.map(Content::from));
    if !keeps_cookies(console, parts) {
        section.content.push(Notice::bad(NOT_KEPT).into());
    }
    let section = section.with(Content::SignIn(SignIn { to: within(to).to_owned() }));
    let page = Page { status, ..Page::new("Sign in").with(section) };
    page.answer(&parts.headers)
}

/// Whether the browser will send a cookie back that is for secure places only.
fn keeps_cookies(console: &Console, parts: &Parts) -> bool {
    let peer = parts.extensions.get::<Peer>();
    let trusted = &console.0.settings.trusted_proxies;
    if peer.is_some_and(|peer| peer.is_secure(&parts.headers, trusted)) {
        return true;
    }
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost"
        || name.ends_with(".localhost")
        || name.starts_with("127.")
        || host.starts_with("[::1]")
}

/// Takes the token, if the API does.
pub(super) async fn sign_in(State(console): State<Console>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<Peer>();
    if !is_from_here(&parts.headers, peer, &console) {
        let trouble = Notice::bad("The form did not come from this page. Open the console and try again.");
        return question(&console, &parts, "", Some(trouble));
    }
    let Ok(body) = axum::body::to_bytes(body, FORM_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let fields: Vec<(String, String)> = form_urlencoded::parse(&body).into_owned().collect();
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value.trim());
    let (token, to) = (field("token"), field("to"));
    let api = Api::new(&console.0.api, &Secret::new(token), &parts.headers, peer);
    match api.get("/v1/spaces?limit=1").await {
        Ok(_) => {}
        Err(refusal) if refusal.status == StatusCode::UNAUTHORIZED => {
            let trouble = Notice::bad("There is no such token, or it was revoked or has expired.");
            return question(&console, &parts, to, Some(trouble));
        }
        Err(refusal) => return question(&console, &parts, to, Some(super::show::refusal(&refusal))),
    }
    if let Some((key, _)) = cookie(&parts.headers).and_then(|id| console.0.sessions.find(id, false)) {
        console.0.sessions.close(&key);
    }
    let id = console.0.sessions.open(token);
    ([set_cookie(Some(&id))], see_other(within(to))).into_response()
}

/// Ends the session.
pub(super) async fn sign_out(State(console): State<Console>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, FORM_BYTES_MAX).await.unwrap_or_default();
    let found = cookie(&parts.headers).and_then(|id| console.0.sessions.find(id, false));
    let Some((key, session)) = found else { return see_other("/console/sign-in") };
    let brought = form_urlencoded::parse(&body).find(|(name, _)| name == "form_key");
    let is_ours = brought.is_some_and(|(_, form_key)| form_key == session.form_key.expose());
    if !(is_ours && is_from_here(&parts.headers, parts.extensions.get::<Peer>(), &console)) {
        return (StatusCode::FORBIDDEN, "only pages of this console may ask for that").into_response();
    }
    console.0.sessions.close(&key);
    ([set_cookie(None)], see_other("/console/sign-in")).into_response()
}

/// All spaces the token sees; where it is one, that one.
pub(super) async fn home(context: Context, headers: HeaderMap) -> Response {
    let listed = match context.api.get("/v1/spaces?limit=1000").await {
        Ok(listed) => listed,
        Err(refusal) => return finish(&context, Err(refusal), &headers),
    };
    match items(&listed, "data") {
        [only] if context.asked("all").is_none() => {
            see_other(&client::path(["console", "s", text(only, "id")], &[]))
        }
        spaces => finish(&context, Ok(spaces_page(&context, spaces)), &headers),
    }
}

fn spaces_page(context: &Context, spaces: &[Value]) -> Page {
    let rows = spaces.iter().map(|space| {
        let id = text(space, "id");
        vec![
            Cell::link(id, client::path(["console", "s", id], &[])),
            Cell::from(text(space, "name")),
            state(space.pointer("/plan/state").and_then(Value::as_str).unwrap_or_default()),
            time(space, "created_at"),
        ]
    });
    let table = Table::new("Spaces", &["Space", "Name", "Plan", "Made"]).rows(rows);
    let form = Form {
        path: "/v1/spaces".to_owned(),
        ..Form::new(context, "new-space", "POST", &[], "Make a space")
            .field(
                Field::text("id", "Id", "")
                    .required()
                    .hint("Stands in every address: letters, digits, - and _."),
            )
            .field(Field::text("name", "Name", ""))
    };
    Page::new("Spaces")
        .with(Section::new("spaces", "").with(table))
        .with(Section::new("new", "Make a space").note("Only the server's owner may.").with(form).folded())
}
