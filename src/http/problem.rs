//! Errors, and the one place where they get their status and shape.
//!
//! A handler answers with a [`Problem`]; the layer around all routes writes it down in the dialect of the route's
//! group and adds the request id. The list of codes is closed: each has its anchor in `docs/errors.md`, and says by
//! its status whether to try again.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::ingest::AppendError;
use crate::manage::{ManageError, QueryError};
use crate::store::StoreError;

/// How errors look to the clients of a group of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `{"success":false,"code","message","field"?}`: what tracking SDKs can read.
    Tracking,
    /// `{"error":{"code","message"}}`: Segment's Profile API.
    Profile,
    /// RFC 9457 `application/problem+json`.
    Problem,
}

macro_rules! codes {
    ($($name:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// Every kind of problem there is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable word for it: `code` in the body, and its anchor in docs/errors.md.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The status it is answered with.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What it says, in short.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    BadRequest = "bad_request", BAD_REQUEST, "The request cannot be read";
    InvalidCursor = "invalid_cursor", BAD_REQUEST, "The cursor is not one of this list";
    Unauthorized = "unauthorized", UNAUTHORIZED, "No valid access token";
    UnknownSource = "unknown_source", UNAUTHORIZED, "No valid write key";
    SourceDisabled = "source_disabled", FORBIDDEN, "The source is switched off";
    OriginNotAllowed = "origin_not_allowed", FORBIDDEN, "The source takes no events from that page";
    LockedWorkspace = "locked_workspace", FORBIDDEN, "The space takes no events";
    QuotaReached = "quota_reached", FORBIDDEN, "The space has what its plan lets it have";
    SpaceSuspended = "space_suspended", FORBIDDEN, "The space is suspended";
    SpaceEnded = "space_ended", FORBIDDEN, "The plan of the space has ended";
    Forbidden = "forbidden", FORBIDDEN, "The token lacks the scope";
    UnsupportedIdentifier = "unsupported_eid_type", BAD_REQUEST, "Identifiers of this type cannot be deleted";
    NotDeletable = "not_deletable", BAD_REQUEST, "The identifier cannot be deleted";
    IdentifierNotFound = "eid_not_found", NOT_FOUND, "The profile has no such identifier";
    NotFound = "not_found", NOT_FOUND, "There is no such thing";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The path does not take this method";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request came too slowly";
    Conflict = "conflict", CONFLICT, "It exists already";
    Refused = "refused", CONFLICT, "It cannot be done as things are";
    StaleVersion = "stale_version", CONFLICT, "It was changed meanwhile";
    InUse = "in_use", CONFLICT, "Something else refers to it";
    LimitReached = "limit_reached", CONFLICT, "A limit of the space is reached";
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    Invalid = "invalid", UNPROCESSABLE_ENTITY, "A value is not allowed";
    InvalidQuery = "invalid_query", UNPROCESSABLE_ENTITY, "The query cannot be used";
    Cycle = "cycle", UNPROCESSABLE_ENTITY, "Definitions would refer to each other in a circle";
    TooManyRequests = "too_many_requests", TOO_MANY_REQUESTS, "The source or the space sends too fast";
    Internal = "internal", INTERNAL_SERVER_ERROR, "A fault of this service";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Too much at once";
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The database is not available";
    NotSettled = "not_settled", SERVICE_UNAVAILABLE, "The processor has not come that far";
}

impl Code {
    /// What Segment's Profile API calls it, where it has a word for it.
    const fn segment_word(self) -> &'static str {
        match self {
            Self::Unauthorized => "authentication_error",
            Self::BadRequest => "invalid_request_error",
            Self::InvalidCursor | Self::Invalid => "validation_error",
            Self::NotDeletable => "bad_request",
            _ => self.as_str(),
        }
    }
}

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Which of the closed list.
    pub code: Code,
    /// What is wrong and what would be right.
    pub detail: String,
    /// The field at fault, as a path from the top of the body, or a parameter.
    pub field: Option<String>,
    /// All that is wrong with a query.
    pub errors: Vec<QueryError>,
    /// When to come back, where the code says that it is worth it.
    pub retry_after_seconds: u64,
}

/// An error body, RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// Where the kind of problem is described: `/docs/errors#<code>`.
    #[serde(rename = "type")]
    kind: String,
    /// The kind in words, always the same.
    title: &'a str,
    /// The status of the answer.
    status: u16,
    /// The kind as a stable word.
    code: &'a str,
    /// What is wrong here, and what would be right.
    detail: &'a str,
    /// The field or parameter at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    /// All that is wrong with the query, each with its place.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<Object>, required = false)]
    errors: &'a [QueryError],
    /// The id of this request, as in the header `Request-Id`.
    request_id: &'a str,
}

impl Problem {
    /// A problem with words of its own.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            field: None,
            errors: Vec::new(),
            retry_after_seconds: RETRY_AFTER_SECONDS,
        }
    }

    /// The same, naming the field at fault.
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// What is not there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Code::NotFound, detail)
    }

    /// Writes the problem down for the clients of a group of routes.
    pub(super) fn render(&self, dialect: Dialect, request_id: &str) -> Response {
        let (code, message, field) = (self.code.as_str(), self.detail.as_str(), self.field.as_deref());
        let (body, kind) = match dialect {
            Dialect::Tracking => (to_json(&Refused::new(code, message, field)), "application/json"),
            Dialect::Profile => {
                let code = self.code.segment_word();
                (to_json(&ProfileError { error: ProfileErrorDetail { code, message } }), "application/json")
            }
            Dialect::Problem => {
                let problem = ProblemBody {
                    kind: format!("/docs/errors#{code}"),
                    title: self.code.title(),
                    status: self.code.status().as_u16(),
                    code,
                    detail: message,
                    field,
                    errors: &self.errors,
                    request_id,
                };
                (to_json(&problem), "application/problem+json")
            }
        };
        let mut response = (self.status(dialect), Body::from(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        self.add_headers(dialect, headers);
        response
    }

    /// T7: tracking clients know 400 for what is too large; 413 is not in every SDK's list.
    pub(super) fn status(&self, dialect: Dialect) -> StatusCode {
        match (dialect, self.code) {
            (Dialect::Tracking, Code::PayloadTooLarge) => StatusCode::BAD_REQUEST,
            _ => self.code.status(),
        }
    }

    fn add_headers(&self, dialect: Dialect, headers: &mut HeaderMap) {
        let mut add = |name: HeaderName, value: HeaderValue| headers.insert(name, value);
        match self.code.status() {
            StatusCode::SERVICE_UNAVAILABLE => {
                add(header::RETRY_AFTER, self.retry_after_seconds.into());
            }
            StatusCode::TOO_MANY_REQUESTS => {
                add(header::RETRY_AFTER, self.retry_after_seconds.into());
                add(RATE_LIMIT_RESET, self.retry_after_seconds.into());
            }
            // Browsers would ask people for a password on tracking paths.
            StatusCode::UNAUTHORIZED if dialect != Dialect::Tracking => {
                add(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"personas\""));
            }
            // What is left of the body is not waited for.
            StatusCode::REQUEST_TIMEOUT => {
                add(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
    }
}

/// When to come back after a 503: long enough for a queue to drain, short enough not to be missed.
const RETRY_AFTER_SECONDS: u64 = 1;
/// Segment's word for it; unlike its name elsewhere, in seconds from now.
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// An error body of the tracking API: a single call, or a whole body, was refused.
#[derive(Serialize)]
pub(super) struct Refused<'a> {
    success: bool,
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl<'a> Refused<'a> {
    pub(super) const fn new(code: &'a str, message: &'a str, field: Option<&'a str>) -> Self {
        Self { success: false, code, message, field }
    }
}

/// An error body of the Profile API, as Segment's.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProfileError)]
pub struct ProfileError<'a> {
    error: ProfileErrorDetail<'a>,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProfileErrorDetail)]
pub struct ProfileErrorDetail<'a> {
    /// The kind as a stable word.
    code: &'a str,
    /// What is wrong here, and what would be right.
    message: &'a str,
}

/// JSON of what always is JSON; an empty object should that ever fail.
pub(super) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be written as JSON: {error}");
        b"{}".to_vec()
    })
}

impl IntoResponse for Problem {
    /// The problem travels beside an empty body; the layer around the routes writes it down.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_temporary() {
            tracing::warn!(%error, "the database did not answer a request: {error}");
            return Self::new(Code::Unavailable, "the database is not available; try again in a moment");
        }
        tracing::error!(%error, "a request failed: {error}");
        Self::new(
            Code::Internal,
            "something went wrong in the service; the request id helps to find out what",
        )
    }
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Overloaded => {
                Self::new(Code::Overloaded, "the write queue is full; try again in a moment")
            }
            AppendError::Unavailable => {
                Self::new(Code::Unavailable, "the event log is not available; try again in a moment")
            }
        }
    }
}

impl From<ManageError> for Problem {
    fn from(error: ManageError) -> Self {
        let detail = error.to_string();
        match error {
            ManageError::NotFound { .. } => Self::new(Code::NotFound, detail),
            ManageError::Exists { .. } => Self::new(Code::Conflict, detail),
            ManageError::Invalid { field, .. } => Self::new(Code::Invalid, detail).at(field),
            ManageError::Query(errors) => {
                Self { errors, ..Self::new(Code::InvalidQuery, detail).at("definition.query") }
            }
            ManageError::Cycle(_) => Self::new(Code::Cycle, detail).at("definition.query"),
            ManageError::Referenced { .. } => Self::new(Code::InUse, detail),
            ManageError::Stale { .. } => Self::new(Code::StaleVersion, detail).at("version"),
            ManageError::TooMany { .. } => Self::new(Code::LimitReached, detail),
            ManageError::Refused(_) => Self::new(Code::Refused, detail),
            ManageError::Forbidden(_) => Self::new(Code::Forbidden, detail),
            ManageError::NotSettled(_) => Self::new(Code::NotSettled, detail),
            ManageError::Store(error) => error.into(),
        }
    }
}

/// Any path that is none of ours. Never a redirect: SDKs follow one and lose the data.
pub(super) async fn no_such_route(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::not_found(format!("there is nothing at {path}; GET /docs lists what there is"))
}

/// A path of ours with another method.
pub(super) async fn method_not_allowed() -> Problem {
    Problem::new(Code::MethodNotAllowed, "this path does not take that method; GET /docs lists what there is")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(response: Response) -> serde_json::Value {
        let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn one_problem_three_dialects() {
        let problem = Problem::new(Code::PayloadTooLarge, "too large").at("batch");
        let tracking = problem.render(Dialect::Tracking, "r");
        assert_eq!(tracking.status(), StatusCode::BAD_REQUEST);
        let expected =
            r#"{"success":false,"code":"payload_too_large","message":"too large","field":"batch"}"#;
        assert_eq!(
            body(tracking).await.to_string(),
            serde_json::from_str::<serde_json::Value>(expected).unwrap().to_string()
        );
        let profile = problem.render(Dialect::Profile, "r");
        assert_eq!(profile.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(body(profile).await["error"]["code"], "payload_too_large");
        let rfc = problem.render(Dialect::Problem, "r");
        assert_eq!(rfc.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(body(rfc).await["request_id"], "r");
    }

    #[test]
    fn temporary_problems_say_when_to_come_back() {
        for code in Code::ALL {
            let response = Problem::new(*code, "x").render(Dialect::Tracking, "r");
            let is_too_fast = code.status() == StatusCode::TOO_MANY_REQUESTS;
            let is_temporary = is_too_fast || code.status() == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), is_temporary, "{code:?}");
            assert_eq!(response.headers().contains_key(RATE_LIMIT_RESET), is_too_fast, "{code:?}");
        }
    }
}
