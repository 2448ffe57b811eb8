//! Sizes over time.

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::etag::IfNoneMatch;
use super::super::extract::Query;
use super::super::problem::{Code, Problem};
use super::State;
use super::audiences::{Audience, KeyPath, Named};
use crate::domain::Timestamp;

/// Points of one answer.
const POINTS_MAX: usize = 10_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Looked back to when nothing is said.
const SPAN: i64 = 7 * DAY;

/// Which part of the history, and how fine.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryParams {
    /// First instant; a week before `to` when not given.
    from: Option<String>,
    /// Last instant; now when not given.
    to: Option<String>,
    /// `minute`, `hour` or `day`: the size at the end of each (in UTC), and at `to`. Without it, each change.
    step: Option<String>,
}

/// The size of an audience over time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryBody {
    key: String,
    /// Oldest first.
    data: Vec<HistoryPoint>,
}

#[derive(Debug, Serialize, ToSchema)]
struct HistoryPoint {
    at: String,
    /// Members.
    size: i64,
}

/// How many members an audience had: changes to the minute, to the hour after 30 days.
#[utoipa::path(get, path = "/v1/spaces/{space}/audiences/{key}/size/history", tag = "Audiences",
    params(KeyPath, HistoryParams),
    responses((status = 200, body = HistoryBody), (status = 304, description = "Nothing has changed"), (status = 400, description = "Not a span of time, or too many points"),
        (status = 404, description = "No such audience")))]
pub(super) async fn get_size_history(
    axum::extract::State(state): State,
    named: Named<Audience>,
    Query(params): Query<HistoryParams>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let to = instant("to", params.to.as_deref())?.unwrap_or_else(|| state.reader.now());
    let from = instant("from", params.from.as_deref())?.unwrap_or_else(|| to.plus_millis(-SPAN));
    if from > to {
        return Err(Problem::new(Code::BadRequest, "`from` is later than `to`").at("from"));
    }
    let step = params.step.as_deref().map(step).transpose()?;
    let steps = step.map_or(0, |step| (to.millis() - from.millis()) / step);
    if steps >= POINTS_MAX as i64 {
        return Err(too_many());
    }
    let span = (from, to);
    // Changes between two steps do not matter one by one, but have to be read.
    let most = if step.is_some() { (SPAN / MINUTE) as usize * 100 } else { POINTS_MAX };
    let points = state.reader.size_points(named.space, named.definition.no, span, most + 1).await?;
    if points.len() > most {
        return Err(too_many());
    }
    let data = match step {
        None => points,
        Some(step) => sample(&points, span, step),
    };
    let show = |(at, size): (Timestamp, i64)| HistoryPoint { at: at.to_string(), size };
    Ok(known.answer(&HistoryBody { key: named.definition.key, data: data.into_iter().map(show).collect() }))
}

fn instant(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let parse = |text: &str| {
        Timestamp::parse(text).ok_or_else(|| {
            let message = format!("`{name}` is not an instant; write 2024-01-31 or 2024-01-31T12:00:00Z");
            Problem::new(Code::BadRequest, message).at(name)
        })
    };
    text.map(parse).transpose()
}

fn step(word: &str) -> Result<i64, Problem> {
    match word {
        "minute" => Ok(MINUTE),
        "hour" => Ok(HOUR),
        "day" => Ok(DAY),
        _ => Err(Problem::new(Code::BadRequest, "`step` is minute, hour or day").at("step")),
    }
}

fn too_many() -> Problem {
    let message = format!("there are more than {POINTS_MAX} points; take a shorter span or a longer step");
    Problem::new(Code::BadRequest, message).at("step")
}

/// The size at the end of every step inside of the span, and at its end. `points` are sizes at the ends of their minutes.
fn sample(
    points: &[(Timestamp, i64)],
    (from, to): (Timestamp, Timestamp),
    step: i64,
) -> Vec<(Timestamp, i64)> {
    let first =
        from.millis().div_euclid(step) * step + if from.millis().rem_euclid(step) == 0 { 0 } else { step };
    let ends = (0..).map(|n| first + n * step).take_while(|at| *at < to.millis());
    let mut rest = points.iter().peekable();
    let mut size = 0;
    let mut sampled = Vec::new();
    for at in ends {
        while let Some((_, known)) = rest.next_if(|(minute, _)| minute.millis() + MINUTE <= at) {
            size = *known;
        }
        sampled.push((Timestamp::from_millis(at), size));
    }
    // The last minute has not ended, and its size is the present one.
    sampled.push((to, rest.last().map_or(size, |(_, known)| *known)));
    sampled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_the_size_at_its_end() {
        let at = |minutes: i64| Timestamp::from_millis(minutes * MINUTE);
        let points = [(at(5), 1), (at(59), 2), (at(60), 3), (at(185), 0)];
        let sampled = sample(&points, (at(0), at(190)), HOUR);
        assert_eq!(sampled, [(at(0), 0), (at(60), 2), (at(120), 3), (at(180), 3), (at(190), 0)]);
        assert_eq!(sample(&[], (at(0), at(60)), HOUR), [(at(0), 0), (at(60), 0)]);
        assert_eq!(sample(&points, (at(61), at(62)), HOUR), [(at(62), 0)], "read only as far as the span");
    }
}
