//! What SDKs are answered: always JSON, with `code` and `message` whenever something was refused.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::OFFSET;
use crate::http::problem::{Code, Problem, Refused, to_json};
use crate::ingest::{CallKind, IngestError, Receipt, Rejection};

const SUCCESS: &[u8] = b"{\"success\":true}";

/// Some or all events of a batch were refused.
#[derive(Serialize)]
struct Partly<'a> {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    accepted: usize,
    rejected: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Item<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl<'a> Item<'a> {
    fn new(index: usize, why: &'a Rejection) -> Self {
        let Rejection { code, message, field, message_id } = why;
        Self { index, message_id: message_id.as_deref(), code, message, field: *field }
    }
}

/// The answer for what `Ingest` made of a body.
pub(super) fn answer(kind: CallKind, result: Result<Receipt, IngestError>) -> Response {
    let receipt = match result {
        Ok(receipt) => receipt,
        Err(IngestError::Refused(rejection)) => return refused(&rejection),
        Err(IngestError::Append(error)) => return Problem::from(error).into_response(),
        Err(error @ IngestError::QuotaNear { .. }) => {
            return Problem::new(Code::Overloaded, error.to_string()).into_response();
        }
        Err(error @ IngestError::QuotaReached { .. }) => {
            return Problem::new(Code::QuotaReached, error.to_string()).into_response();
        }
        Err(
            error @ (IngestError::TooFast { retry_after_seconds, .. }
            | IngestError::SpaceTooFast { retry_after_seconds, .. }),
        ) => {
            let problem = Problem::new(Code::TooManyRequests, error.to_string());
            return Problem { retry_after_seconds, ..problem }.into_response();
        }
    };
    let mut response = match (kind, receipt.rejected.as_slice()) {
        (_, []) => success(),
        (CallKind::Single(_), [(_, rejection), ..]) => refused(rejection),
        (CallKind::Batch, rejected) => partly(receipt.accepted, rejected),
    };
    if let Some(offset) = receipt.offset {
        response.headers_mut().insert(OFFSET, HeaderValue::from(offset.0));
    }
    response
}

/// `{"success":true}`, exactly 200.
pub(super) fn success() -> Response {
    json(StatusCode::OK, Body::from(SUCCESS))
}

fn refused(why: &Rejection) -> Response {
    let body = Refused::new(why.code, &why.message, why.field);
    json(StatusCode::BAD_REQUEST, Body::from(to_json(&body)))
}

fn partly(accepted: usize, rejected: &[(usize, Rejection)]) -> Response {
    let success = accepted > 0;
    let body = Partly {
        success,
        code: (!success).then_some("multi_user_error"),
        message: (!success).then_some("every event of the batch was refused; `rejected` says why"),
        accepted,
        rejected: rejected.iter().map(|(index, why)| Item::new(*index, why)).collect(),
    };
    json(if success { StatusCode::OK } else { StatusCode::BAD_REQUEST }, Body::from(to_json(&body)))
}

fn json(status: StatusCode, body: Body) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
