//! `/v1/spaces/{space}/events/tail`: events as they come in, for people who watch.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::domain::{EventType, Offset, SpaceNo};
use crate::http::AppState;
use crate::http::auth::{Authed, Read};
use crate::http::extract::Query;
use crate::http::problem::{Code, Problem};
use crate::http::profile_api::{EventBody, show_event};
use crate::manage::registry::Token;
use crate::query::{TailFilter, TailMark, TimelineEvent};

/// How often it is looked whether something has come in.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Without an event, something is sent so often: proxies close what is silent.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// The longest answer; a client goes on with `Last-Event-ID`, and its token is looked at once more.
const LONGEST: Duration = Duration::from_mins(10);
/// Events of one look that are sent; those before are passed over.
const SENT_MAX: usize = 200;
/// Events from before, at most.
const LAST_MAX: u64 = 200;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(tail_events))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TailParams {
    /// Only events of this source, by its id.
    source: Option<String>,
    /// Only `identify`, `track`, `page`, `screen`, `group` or `alias` calls.
    #[serde(rename = "type")]
    call: Option<String>,
    /// Only events of this name.
    name: Option<String>,
    /// Only events with this identifier, whatever its type.
    id: Option<String>,
    /// Begin with so many of the newest events of the log, filtered as the rest; 0 when not given, at most 200.
    last: Option<u64>,
}

/// Watch events as they come in
///
/// Server-sent events: `event` with an event as a profile's timeline has it, its offset as the id; `passed_over` with
/// `{"events":n}` where more came in than are sent. It ends after ten minutes at the latest; with `Last-Event-ID` it goes on from
/// there.
#[utoipa::path(get, path = "/v1/spaces/{space}/events/tail", tag = "Operations",
    params(("space" = String, Path, description = "Id of the space"), TailParams),
    responses((status = 200, body = EventBody, content_type = "text/event-stream")))]
async fn tail_events(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Query(params): Query<TailParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let too_many = |_| {
        let message = "too many people watch at the same time; try again in a moment";
        Problem::new(Code::Overloaded, message)
    };
    let place = Arc::clone(&app.watchers).try_acquire_owned().map_err(too_many)?;
    let space = caller.space_no();
    let end = app.reader.log_end(space).await?;
    let known = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let last = params.last.unwrap_or_default().min(LAST_MAX);
    let after = known.filter(|known| *known <= end.0).unwrap_or_else(|| end.0.saturating_sub(last));
    let filter = params.filter()?;
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let token = Arc::clone(&caller.token);
    let watcher = Watcher {
        app,
        space,
        token,
        filter,
        mark: TailMark::behind(Offset(after)),
        ready: VecDeque::new(),
        ticks,
        began: Instant::now(),
        told: Instant::now(),
        _place: place,
    };
    let stream = futures_util::stream::unfold(watcher, async |mut watcher| {
        let next = watcher.next().await?;
        Some((Ok::<Bytes, Infallible>(next), watcher))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // A proxy in between is not to gather it.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

impl TailParams {
    fn filter(self) -> Result<TailFilter, Problem> {
        let set = |text: Option<String>| text.filter(|text| !text.is_empty());
        let parse = |word: String| {
            EventType::parse(&word).ok_or_else(|| {
                let message = "`type` is identify, track, page, screen, group or alias";
                Problem::new(Code::BadRequest, message).at("type")
            })
        };
        Ok(TailFilter {
            source: set(self.source),
            event_type: set(self.call).map(parse).transpose()?,
            name: set(self.name),
            id: set(self.id),
        })
    }
}

/// Somebody who watches.
struct Watcher {
    app: AppState,
    space: SpaceNo,
    token: Arc<Token>,
    filter: TailFilter,
    mark: TailMark,
    /// What is to be sent next.
    ready: VecDeque<Bytes>,
    ticks: Interval,
    began: Instant,
    /// When something was sent last.
    told: Instant,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next piece of the answer; none when it is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                self.told = Instant::now();
                return Some(piece);
            }
            self.ticks.tick().await;
            if self.is_over() {
                return None;
            }
            self.look().await?;
            if self.ready.is_empty() && self.told.elapsed() >= ALIVE_EVERY {
                self.ready.push_back(Bytes::from_static(b":\n\n"));
            }
        }
    }

    /// Whether it has to end: it took long enough, the process stops, or the token is not good any more.
    fn is_over(&self) -> bool {
        let snapshot = self.app.manage.registry().snapshot();
        let now = self.app.clock.now();
        let is_good =
            |token: &Arc<Token>| token.id == self.token.id && token.expires_at.is_none_or(|end| now < end);
        self.began.elapsed() >= LONGEST
            || self.app.health.is_draining()
            || !snapshot.tokens.values().any(is_good)
    }

    async fn look(&mut self) -> Option<()> {
        let tailed = match self.app.reader.tail(self.space, self.mark, &self.filter, SENT_MAX).await {
            Ok(tailed) => tailed,
            Err(error) => {
                tracing::warn!(%error, "the log cannot be watched: {error}");
                return None;
            }
        };
        self.mark = tailed.mark;
        if tailed.passed_over > 0 {
            let told = json!({"events": tailed.passed_over});
            self.ready.push_back(format!("event: passed_over\ndata: {told}\n\n").into());
        }
        self.ready.extend(tailed.events.into_iter().map(piece));
        Some(())
    }
}

fn piece(event: TimelineEvent) -> Bytes {
    let id = event.offset;
    let json = serde_json::to_string(&show_event(event, None)).unwrap_or_default();
    format!("id: {id}\nevent: event\ndata: {json}\n\n").into()
}
