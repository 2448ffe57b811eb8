//! `ETag` and `If-None-Match`, so that polling a list or a size costs a few bytes.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use super::problem::to_json;

/// What the client has already.
#[derive(Debug, Clone, Default)]
pub struct IfNoneMatch(Option<HeaderValue>);

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.headers.get(header::IF_NONE_MATCH).cloned()))
    }
}

/// The tag of an answer: a hash of it.
pub(super) fn tag_of(body: &[u8]) -> String {
    format!("\"{:032x}\"", xxh3_128(body))
}

impl IfNoneMatch {
    /// Answers with `value` as JSON and its tag, or 304 when the client has just that.
    pub fn answer<T: Serialize>(&self, value: &T) -> Response {
        let body = to_json(value);
        let tag = tag_of(&body);
        let is_known = self.has(&tag);
        let headers = [(header::ETAG, tag), (header::CACHE_CONTROL, "no-cache".to_owned())];
        if is_known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        (headers, kind, body).into_response()
    }

    /// Takes the header out of a request, for an answer that is tagged later.
    pub(super) fn take(headers: &mut HeaderMap) -> Self {
        Self(headers.remove(header::IF_NONE_MATCH))
    }

    pub(super) fn has(&self, tag: &str) -> bool {
        let Some(tags) = self.0.as_ref().and_then(|v| v.to_str().ok()) else { return false };
        tags.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_answer_is_not_sent_twice() {
        let first = IfNoneMatch::default().answer(&1);
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers().get(header::ETAG).cloned().unwrap();
        for known in
            [tag.to_str().unwrap().to_owned(), format!("\"x\", W/{}", tag.to_str().unwrap()), "*".to_owned()]
        {
            let known = IfNoneMatch(Some(HeaderValue::from_str(&known).unwrap()));
            assert_eq!(known.answer(&1).status(), StatusCode::NOT_MODIFIED);
        }
        assert_eq!(IfNoneMatch(Some(tag)).answer(&2).status(), StatusCode::OK);
    }
}
