//! Extractors that answer with problems. Axum's own are refused by a lint: they answer in plain text.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderValue, header, request::Parts};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem, to_json};

/// U+0000 in an address. Postgres keeps no text with it, so nothing can be found by it.
const NUL: &str = "%00";

/// Largest body of a management call, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A JSON body, in whatever content type it comes; or a JSON answer.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

/// A body that is no JSON: rows, at most 5 MiB of them.
#[derive(Debug, Clone)]
pub struct Body(pub Bytes);

/// Largest body of rows, in bytes.
const ROWS_BYTES_MAX: usize = 5 << 20;

impl<S: Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        Ok(Self(read_body(request, ROWS_BYTES_MAX).await?))
    }
}

/// The parameters behind `?`.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

/// The parameters in the path, by name.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        Ok(Self(read_json(&read_body(request, BODY_BYTES_MAX).await?)?))
    }
}

async fn read_body(request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let body = Limited::new(request.into_body(), bytes_max).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            let message = format!("the body has more than {bytes_max} bytes");
            Problem::new(Code::PayloadTooLarge, message)
        } else {
            Problem::new(Code::BadRequest, "the body did not arrive whole")
        }
    })
}

/// Reads a body: what is no JSON is a bad request, what has the wrong fields or types is invalid.
fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let text = if body.is_empty() { b"{}" } else { body };
    // Serde would read a list as the fields in their order.
    if text.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::new(Code::Invalid, "the body must be a JSON object, not a list"));
    }
    serde_json::from_slice(text).map_err(|error| {
        let code = if error.is_data() { Code::Invalid } else { Code::BadRequest };
        let problem = Problem::new(code, format!("the body cannot be used: {error}"));
        match field_of(&error.to_string()) {
            Some(field) => problem.at(field),
            None => problem,
        }
    })
}

/// The field serde complains about, where it names one.
fn field_of(message: &str) -> Option<&str> {
    let is_about_field = ["unknown field `", "missing field `", "duplicate field `"];
    let rest = is_about_field.iter().find_map(|start| message.strip_prefix(start))?;
    rest.split('`').next()
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let kind = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, kind)], to_json(&self.0)).into_response()
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    #[expect(clippy::disallowed_types, reason = "this is the wrapper that answers with problems")]
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if parts.uri.query().is_some_and(|query| query.contains(NUL)) {
            return Err(Problem::new(Code::BadRequest, "a parameter contains U+0000, which no value can"));
        }
        let read = axum::extract::Query::try_from_uri(&parts.uri);
        let refuse = |error: axum::extract::rejection::QueryRejection| {
            Problem::new(Code::BadRequest, format!("the parameters cannot be used: {}", error.body_text()))
        };
        read.map(|axum::extract::Query(value)| Self(value)).map_err(refuse)
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    #[expect(clippy::disallowed_types, reason = "this is the wrapper that answers with problems")]
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if parts.uri.path().contains(NUL) {
            return Err(Problem::not_found("the path contains U+0000, which no name can"));
        }
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        let refuse = |error: axum::extract::rejection::PathRejection| {
            Problem::not_found(format!("the path cannot be used: {}", error.body_text()))
        };
        read.map(|axum::extract::Path(value)| Self(value)).map_err(refuse)
    }
}
