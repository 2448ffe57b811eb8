//! Who sees personal data: one place decides it for every answer of the service.
//!
//! An answer to a token without the scope `pii:read` passes through here before it is sent. What the table below calls
//! personal is replaced by [`MASKED`]; an answer of a route that is not in the table is masked whole, so a route that is new
//! shows nothing until somebody has said what is personal in it. Names of fields and ids of ours stay.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::etag::tag_of;
use super::problem::{Code, Problem, to_json};
use super::trace::Trace;
use crate::domain::Scope;
use crate::domain::sensitive::MASKED;

/// What ids of ours begin with.
const OWN_IDS: [&str; 9] = ["dlv", "dst", "mrg", "prf", "reg", "rej", "src", "sub", "tok"];
/// Fields that hold what customers sent, as they sent it.
const THEIRS: [&str; 10] = [
    "context",
    "event",
    "hint",
    "message",
    "properties",
    "request",
    "response",
    "traits",
    "value",
    "would_have_to_change",
];

/// What is in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing personal.
    Plain,
    /// What is below fields of these names is personal. It may be of settings or numbers that hold some personal value.
    Some(&'static [&'static str]),
    /// It is about particular people: below fields of these names, the rest says who they are by ids of ours only.
    People(&'static [&'static str]),
    /// Nobody has said: everything is taken for personal.
    Unknown,
}

use Content::{People, Plain, Some as Part};

const SPACE: &str = "/v1/spaces/{space}";
const PROFILE: &str = "/collections/{collection}/profiles/{profile}";

/// Below [`SPACE`]: what answers have in them. Without an entry, [`Content::Unknown`].
const CONTENTS: &[(&str, Content)] = &[
    ("", Plain),
    ("/usage", Plain),
    ("/purge", Plain),
    ("/pipeline", Plain),
    ("/events/tail", People(&["id", "properties", "traits", "context"])),
    ("/rejected-events", People(&["event"])),
    ("/sensitive-data/settings", Plain),
    ("/sensitive-data/findings", Plain),
    // Its caller's own call.
    ("/sensitive-data/try", Plain),
    ("/sources", Plain),
    ("/sources/{id}", Plain),
    ("/sources/{id}/write-keys", Plain),
    ("/sources/{id}/write-keys/{prefix}", Plain),
    ("/tokens", Plain),
    ("/tokens/{id}", Plain),
    ("/audit-log", People(&["act", "id", "refused"])),
    ("/audit-log/verify", Plain),
    ("/retention", Plain),
    ("/consent/settings", Plain),
    ("/consent/categories", Plain),
    ("/consent/categories/{category}", Plain),
    // Nobody's values are kept with them.
    ("/regulations", Plain),
    ("/regulations/{regulation}", Plain),
    ("/suppressions", Plain),
    ("/suppressions/{selector}", Plain),
    ("/identity/settings", Part(&["id"])),
    ("/identity/settings/import", Part(&["id"])),
    ("/identity/problems", People(&["id"])),
    ("/identity/quarantine", People(&["id"])),
    ("/identity/quarantine/{identifier}", People(&["id"])),
    ("/identity/merges", People(&["id"])),
    ("/identity/merges/{merge}/undo", People(&["id"])),
    ("/identity/blocks", People(&["id"])),
    ("/identity/blocks/lift", People(&["id"])),
    ("/search/settings", Plain),
    ("/queries/format", Plain),
    ("/schema/events", Plain),
    ("/schema/events/{name}/properties", Part(&["value"])),
    ("/schema/traits", Part(&["value"])),
    ("/destinations", Part(&["message"])),
    ("/destinations/{id}", Part(&["message"])),
    ("/destinations/{id}/test", Part(&["message", "request", "response"])),
    ("/destinations/{id}/pause", Part(&["message"])),
    ("/destinations/{id}/resume", Part(&["message"])),
    ("/destinations/{id}/resync", Part(&["message"])),
    ("/destinations/{id}/rotate-secret", Plain),
    ("/destinations/{id}/subscriptions", Plain),
    ("/destinations/{id}/subscriptions/{subscription}", Plain),
    ("/deliveries", People(&["value", "message"])),
    ("/deliveries/{id}", People(&["value", "message", "request", "response"])),
    ("/deliveries/replay", Plain),
    ("/deliveries/discard", Plain),
    ("/audiences", Plain),
    ("/audiences/sizes", Plain),
    ("/audiences/preview", People(&["value"])),
    ("/audiences/{key}", Plain),
    ("/audiences/{key}/clone", Plain),
    ("/audiences/{key}/versions", Plain),
    ("/audiences/{key}/references", Plain),
    ("/audiences/{key}/size", Plain),
    ("/audiences/{key}/size/history", Plain),
    ("/audiences/{key}/identifiers", Plain),
    ("/audiences/{key}/overlap/{other}", Plain),
    ("/audiences/{key}/members", People(&["id", "traits"])),
    ("/audiences/{key}/transitions", People(&[])),
    ("/memberships/check", People(&[])),
    ("/computed-traits", Plain),
    ("/computed-traits/preview", People(&["value"])),
    ("/computed-traits/{key}", Plain),
    ("/computed-traits/{key}/clone", Plain),
    ("/computed-traits/{key}/versions", Plain),
    ("/computed-traits/{key}/references", Plain),
    ("/computed-traits/{key}/values", People(&["value"])),
    ("/collections/{collection}/profiles", People(&["id"])),
];

/// Below [`SPACE`] and [`PROFILE`].
const OF_A_PROFILE: &[(&str, Content)] = &[
    ("/traits", People(&["traits"])),
    ("/external_ids", People(&["id"])),
    ("/external_ids/delete", People(&["id"])),
    ("/external_ids/move", People(&["id"])),
    ("/events", People(&["id", "properties", "traits", "context"])),
    ("/metadata", People(&[])),
    ("/links", People(&["id"])),
    ("/links/delete", People(&["id"])),
    ("/audiences", People(&[])),
    ("/identity", People(&["id"])),
    ("/consent", People(&[])),
    ("/consent/history", People(&[])),
    ("/objections", People(&[])),
    ("/objections/lift", People(&["id"])),
    ("/explain/{key}", People(&["value", "to", "hint", "would_have_to_change"])),
];

/// The links of the audit log's chain are texts that are hashed as they stand, so that anybody can check them; they name
/// nobody.
const KEPT: (&str, &str) = ("/v1/spaces/{space}/audit-log", "entry");

/// What answers of a route have in them.
pub(super) fn content_of(route: &str) -> Content {
    let Some(path) = route.strip_prefix(SPACE) else { return Plain };
    let (table, path) = match path.strip_prefix(PROFILE) {
        Some(path) => (OF_A_PROFILE, path),
        None => (CONTENTS, path),
    };
    table.iter().find(|(known, _)| *known == path).map_or(Content::Unknown, |(_, content)| *content)
}

/// The answer as the token of the request may see it.
pub(super) async fn apply(trace: &Trace, route: Option<&str>, response: Response) -> Response {
    let Some(token) = trace.token() else { return response };
    if token.scopes.contains(&Scope::PiiRead) {
        return response;
    }
    let content = route.map_or(Content::Unknown, content_of);
    // A refusal says what its caller said; it is written down later.
    let is_problem = response.extensions().get::<Problem>().is_some();
    let fields = match content {
        _ if is_problem => return response,
        Plain => None,
        Part(fields) | People(fields) => Some(fields),
        Content::Unknown => Some(&[] as &[&str]),
    };
    let is_whole = content == Content::Unknown;
    let known = trace.known();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_json = kind == Some("application/json");
    match (fields, kind) {
        (None, _) if !response.headers().contains_key(header::ETAG) => response,
        (Some(_), Some("application/x-ndjson")) => {
            let kept = (route == Some(KEPT.0)).then_some(KEPT.1);
            mask_lines(
                response,
                Lines { fields: fields.unwrap_or_default(), is_whole, kept, is_events: false },
            )
        }
        (Some(fields), Some("text/event-stream")) => {
            mask_lines(response, Lines { fields, is_whole, kept: None, is_events: true })
        }
        (_, None) => response,
        _ if is_json => {
            let (mut parts, body) = response.into_parts();
            let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
                return Problem::new(Code::Internal, "the answer could not be read").into_response();
            };
            // Of a HEAD there is nothing to hide, and no telling how long it would be.
            if body.is_empty() {
                parts.headers.remove(header::ETAG);
                parts.headers.remove(header::CONTENT_LENGTH);
                return Response::from_parts(parts, Body::empty());
            }
            let body = fields.map_or(body.clone(), |fields| mask_text(&body, fields, is_whole));
            parts.headers.remove(header::CONTENT_LENGTH);
            if parts.headers.contains_key(header::ETAG) {
                let tag = tag_of(&body);
                let is_known = known.has(&tag);
                if let Ok(tag) = HeaderValue::from_str(&tag) {
                    parts.headers.insert(header::ETAG, tag);
                }
                if is_known {
                    parts.status = StatusCode::NOT_MODIFIED;
                    parts.headers.remove(header::CONTENT_TYPE);
                    return Response::from_parts(parts, Body::empty());
                }
            }
            Response::from_parts(parts, Body::from(body))
        }
        _ => {
            let message = format!(
                "the token `{}` lacks what this needs: scope pii:read. Files of this kind hold personal data; NDJSON and \
                 pages are shown with it masked",
                token.name
            );
            Problem::new(Code::Forbidden, message).into_response()
        }
    }
}

/// How the lines of a stream are masked.
#[derive(Debug, Clone, Copy)]
struct Lines {
    fields: &'static [&'static str],
    is_whole: bool,
    /// What stands in this field of a line stays, byte by byte.
    kept: Option<&'static str>,
    /// They are server-sent events: what is said stands behind [`DATA`], and the rest says nothing of anybody.
    is_events: bool,
}

/// What leads a line of an event that was sent.
const DATA: &[u8] = b"data: ";

/// A stream, line by line as it comes.
fn mask_lines(response: Response, how: Lines) -> Response {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let lines = body.into_data_stream().map(Some).chain(futures_util::stream::once(async { None }));
    let masked = lines.scan(Vec::new(), move |rest: &mut Vec<u8>, piece| {
        let out = match piece {
            Some(Ok(piece)) => {
                rest.extend_from_slice(&piece);
                let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let whole: Vec<u8> = rest.drain(..end).collect();
                Ok(whole)
            }
            Some(Err(error)) => Err(error),
            None => Ok(std::mem::take(rest)),
        };
        let out = out.map(|text| {
            let lines = text.split_inclusive(|byte| *byte == b'\n');
            let mut masked = Vec::with_capacity(text.len());
            for line in lines {
                how.mask(line, &mut masked);
            }
            Bytes::from(masked)
        });
        std::future::ready(Some(out))
    });
    Response::from_parts(parts, Body::from_stream(masked))
}

impl Lines {
    fn mask(self, line: &[u8], into: &mut Vec<u8>) {
        let said = match (self.is_events, line.strip_prefix(DATA)) {
            (true, None) => return into.extend_from_slice(line),
            (true, Some(said)) => {
                into.extend_from_slice(DATA);
                said
            }
            (false, _) => line,
        };
        into.extend_from_slice(&mask_line(said, self.fields, self.is_whole, self.kept));
        into.push(b'\n');
    }
}

fn mask_line(line: &[u8], fields: &[&str], is_whole: bool, kept: Option<&str>) -> Bytes {
    type Line<'a> = BTreeMap<&'a str, &'a RawValue>;
    let (Some(kept), Ok(line)) = (kept, serde_json::from_slice::<Line<'_>>(line)) else {
        return mask_text(line, fields, is_whole);
    };
    let show = |(name, text): (&str, &RawValue)| {
        let mut one = json!({ name: serde_json::from_str::<Value>(text.get()).unwrap_or_default() });
        mask_fields(&mut one, fields);
        let masked = one.get(name).map(|value| serde_json::value::to_raw_value(value).unwrap_or_default());
        (name.to_owned(), if name == kept { text.to_owned() } else { masked.unwrap_or_default() })
    };
    to_json(&line.into_iter().map(show).collect::<BTreeMap<String, Box<RawValue>>>()).into()
}

/// JSON as it may be shown; what is no JSON is not shown at all.
fn mask_text(text: &[u8], fields: &[&str], is_whole: bool) -> Bytes {
    let mut value: Value = serde_json::from_slice(text).unwrap_or_else(|_| Value::from(MASKED));
    if is_whole {
        mask(&mut value, false);
    } else {
        mask_fields(&mut value, fields);
    }
    to_json(&value).into()
}

/// Masks what is below fields of these names, wherever they are.
fn mask_fields(value: &mut Value, fields: &[&str]) {
    match value {
        Value::Object(map) => {
            let is_identifier = map.contains_key("type");
            for (name, value) in map.iter_mut() {
                if fields.contains(&name.as_str()) {
                    mask(value, is_theirs(name, is_identifier));
                } else {
                    mask_fields(value, fields);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask_fields(item, fields)),
        _ => {}
    }
}

/// Whether what is below a field is as a customer sent it: its values, and the id of an identifier, which stands beside its
/// type. There, what has the shape of an id of ours need not be one.
fn is_theirs(name: &str, is_identifier: bool) -> bool {
    THEIRS.contains(&name) || (name == "id" && is_identifier)
}

/// Masks every value; null says only that there is none, and ids of ours say nothing to anybody else, but where everything
/// is as somebody sent it.
fn mask(value: &mut Value, all: bool) {
    match value {
        Value::Null => {}
        Value::Object(map) => {
            let is_identifier = map.contains_key("type");
            for (name, value) in map.iter_mut() {
                mask(value, all || is_theirs(name, is_identifier));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, all)),
        Value::String(text) if !all && is_own_id(text) => {}
        _ => *value = Value::from(MASKED),
    }
}

/// Whether it has the shape of an id that we made, such as `prf_` and 32 hexadecimal digits.
fn is_own_id(text: &str) -> bool {
    let Some((prefix, digits)) = text.split_once('_') else { return false };
    OWN_IDS.contains(&prefix)
        && digits.len() == 32
        && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str, fields: &[&str], is_whole: bool) -> String {
        String::from_utf8(mask_text(text.as_bytes(), fields, is_whole).to_vec()).unwrap()
    }

    #[test]
    fn values_go_and_names_and_ids_stay() {
        let id = "prf_0190163d86947b0b9a3e5fd3c2f1a7e4";
        let text =
            format!(r#"{{"id":"{id}","traits":{{"age":41,"none":null,"of":["x",{{"y":true}}]}},"size":3}}"#);
        let expected = format!(
            r#"{{"id":"{id}","size":3,"traits":{{"age":"***","none":null,"of":["***",{{"y":"***"}}]}}}}"#
        );
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(read(&masked(&text, &["traits", "id"], false)), read(&expected));
        assert_eq!(masked(r#"{"a":1,"b":["x"]}"#, &[], true), r#"{"a":"***","b":["***"]}"#);
        assert_eq!(masked("no json", &[], false), r#""***""#);
    }

    #[test]
    fn what_somebody_sent_is_no_id_of_ours_whatever_it_looks_like() {
        let own = "prf_0190163d86947b0b9a3e5fd3c2f1a7e4";
        for theirs in [
            format!(r#"{{"traits":{{"of":["{own}"]}}}}"#),
            format!(r#"{{"data":[{{"type":"user_id","id":"{own}"}}]}}"#),
            format!(r#"{{"act":{{"identifiers":[{{"id":"{own}","type":"email"}}]}}}}"#),
            format!(r#"{{"id":"{}"}}"#, own.replace("prf", "cus")),
        ] {
            let shown = masked(&theirs, &["id", "traits", "act"], false);
            assert!(!shown.contains("0190163d"), "{theirs}: {shown}");
        }
        assert!(masked(&format!(r#"{{"act":{{"from":"{own}"}}}}"#), &["act"], false).contains(own));
    }

    #[test]
    fn what_nobody_has_described_is_taken_for_personal() {
        assert_eq!(content_of("/v1/spaces/{space}/something-new"), Content::Unknown);
        assert_eq!(content_of("/v1/spaces"), Plain);
        let traits = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/traits";
        assert_eq!(content_of(traits), People(&["traits"]));
    }
}
