//! `/v1/import/report`: what became of the events of an import, asked with the write key that sent them.

use axum::extract::{FromRequest, Request, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::key;
use crate::domain::Offset;
use crate::http::AppState;
use crate::http::extract::Json;
use crate::http::problem::{Code, Problem};
use crate::query::NotYours;

/// Most events one question may be about: their records are read one by one.
const EVENTS_MAX: u64 = 250_000;
/// Most ranges of one question.
const RANGES_MAX: usize = 10_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(report_import))
}

/// Places in the log: those the answers to an import named.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ImportQuestion {
    /// First and last offset of each range, both included: 250,000 events in all.
    #[schema(value_type = Vec<Vec<u64>>)]
    ranges: Vec<(u64, u64)>,
}

/// What became of the events of an import.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImportReport)]
struct ImportAnswer {
    /// Whether all of them are processed. Ask again until they are: before, duplicates are not counted.
    processed: bool,
    /// Events that did not count, because their message ids were known.
    duplicates: u64,
}

/// What became of imported events
///
/// The header `Personas-Offset` of an answer is the offset of the request's last event, and the events taken from one
/// request follow each other. A write key may ask about events of its own source only.
#[utoipa::path(post, path = "/v1/import/report", tag = "Tracking", request_body = ImportQuestion,
    responses((status = 200, body = ImportAnswer)))]
async fn report_import(
    State(app): State<AppState>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<ImportAnswer>, Problem> {
    let missing = || Problem::new(Code::UnknownSource, "send the write key as the user name of Basic");
    let key = key::in_head(&headers, request.uri()).ok_or_else(missing)?;
    // What is stored stays readable, also when the space takes no more events.
    let owner = key::source(&app, &key).await?;
    let Json(ImportQuestion { ranges }) = Json::from_request(request, &app).await?;
    check(&ranges)?;
    let ranges: Vec<_> = ranges.into_iter().map(|(first, last)| (Offset(first), Offset(last))).collect();
    let report = app.reader.import_report(owner.space, owner.source, &ranges).await.map_err(refused)?;
    Ok(Json(ImportAnswer { processed: report.processed, duplicates: report.duplicates }))
}

fn check(ranges: &[(u64, u64)]) -> Result<(), Problem> {
    let refuse = |message: String| Err(Problem::new(Code::Invalid, message).at("ranges"));
    if ranges.len() > RANGES_MAX {
        return refuse(format!("there are more than {RANGES_MAX} ranges"));
    }
    let mut events = 0_u64;
    for (first, last) in ranges {
        if *first == 0 || first > last {
            return refuse(format!(
                "{first}-{last} is no range: offsets begin at 1, and the first is not above the last"
            ));
        }
        events = events.saturating_add(last - first + 1);
    }
    if events > EVENTS_MAX {
        return refuse(format!("the ranges hold {events} events; ask about {EVENTS_MAX} at a time"));
    }
    Ok(())
}

fn refused(error: NotYours) -> Problem {
    match error {
        NotYours::Range(..) => Problem::new(Code::Forbidden, error.to_string()),
        NotYours::Query(error) => error.into(),
    }
}
