//! The HTTP room: turns requests into calls of `ingest`, `manage` and `query`, and their results into answers.
//!
//! Every route belongs to one of three groups, and the group decides how an error looks ([`Dialect`]): tracking calls
//! (`{"success":false,"code","message"}`), the Profile API (`{"error":{"code","message"}}`, as Segment's), and
//! everything else (RFC 9457 problems). Every answer carries `Request-Id`, every panic becomes a 500, every request
//! ends in time. Handlers are short: extract, call one function, map.

mod acts;
pub mod api;
pub mod auth;
mod connection;
pub mod etag;
pub mod extract;
pub mod health;
mod masking;
mod observe;
pub mod openapi;
pub mod page;
pub mod peer;
pub mod problem;
mod profile_api;
mod record;
pub mod server;
pub mod tls;
mod trace;
pub mod tracking;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use ipnet::IpNet;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::OpenApiRouter;

use crate::clock::{Clock, IdMaker};
use crate::ingest::Ingest;
use crate::manage::Manage;
use crate::progress::Board;
use crate::query::Reader;

pub(crate) use api::settings_change;
pub use problem::{Dialect, Problem};

/// What handlers reach everything through.
pub type AppState = Arc<Services>;

/// The services behind the routes, and what the routes themselves need.
#[derive(Debug, Clone)]
pub struct Services {
    /// Takes tracking calls.
    pub ingest: Ingest,
    /// Operators' decisions; also who may do what.
    pub manage: Manage,
    /// Answers questions.
    pub reader: Reader,
    /// How far the processors of this process are.
    pub board: Board,
    /// The time.
    pub clock: Clock,
    /// Request ids.
    pub ids: IdMaker,
    /// Whether this process may be sent requests.
    pub health: health::Health,
    /// Whether what is nobody's business outside is shown: metrics, and why the process is not ready.
    pub shows_internals: bool,
    /// What the tracking routes need.
    pub tracking: tracking::Settings,
    /// Time for a whole request except streamed answers.
    pub request_timeout: Duration,
    /// What may change something and is under way: it is finished although whoever asked for it has hung up.
    pub changes: TaskTracker,
    /// Places for those who watch events as they come in.
    pub watchers: Arc<Semaphore>,
    /// Proxies whose words about their clients are believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// Routes that have their shape of errors and their time limit in common.
struct Group {
    dialect: Dialect,
    /// Whether a request must end within `request_timeout`.
    is_limited: bool,
    routes: OpenApiRouter<AppState>,
}

/// All routes with the state still to come, and their description: the one list the router and `openapi.json` are
/// both made from.
fn groups(with_test_clock: bool) -> Vec<Group> {
    let api = OpenApiRouter::new()
        .merge(api::routes())
        .merge(profile_api::audience_routes())
        .merge(health::routes())
        .merge(openapi::routes());
    let mut groups = vec![
        Group { dialect: Dialect::Tracking, is_limited: true, routes: tracking::routes() },
        Group { dialect: Dialect::Profile, is_limited: true, routes: profile_api::routes() },
        Group { dialect: Dialect::Problem, is_limited: true, routes: api },
    ];
    if with_test_clock {
        groups.push(Group { dialect: Dialect::Problem, is_limited: false, routes: api::test_clock_routes() });
    }
    groups
}

/// The router of the whole service.
pub fn router(services: AppState) -> Router {
    let mut all = Router::new();
    for Group { dialect, is_limited, routes } in groups(services.clock.is_test()) {
        let (routes, _) = routes.split_for_parts();
        let routes = routes.method_not_allowed_fallback(problem::method_not_allowed);
        let limit = is_limited.then_some(services.request_timeout);
        all = all.merge(layered(routes, dialect, limit, &services));
    }
    let unknown = Router::new().fallback(problem::no_such_route);
    all.merge(layered(unknown, Dialect::Problem, None, &services)).with_state(services)
}

/// The router of the address for what is nobody's business outside.
pub fn internal_router(services: AppState) -> Router {
    let (routes, _) = health::routes().split_for_parts();
    let routes =
        routes.fallback(problem::no_such_route).method_not_allowed_fallback(problem::method_not_allowed);
    layered(routes, Dialect::Problem, Some(services.request_timeout), &services).with_state(services)
}

/// The service with pages beside it, which are observed like any other route.
pub fn with_pages(api: Router, pages: Router, services: &AppState) -> Router {
    api.merge(layered(pages, Dialect::Problem, Some(services.request_timeout), services))
}

fn layered<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    dialect: Dialect,
    limit: Option<Duration>,
    services: &AppState,
) -> Router<S> {
    let around = observe::Around { services: Arc::clone(services), dialect, limit };
    routes.layer(from_fn_with_state(around, observe::observe))
}
