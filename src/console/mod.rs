//! The room of the operators' pages, at `/console`.
//!
//! The console is a client of the REST interface that happens to live in the same process. Whatever a page shows or does it
//! asks the service's own router for, with the token its operator signed in with ([`client::Api`]). So it may no more than
//! that token; what is masked for the token is masked on the page; what is done stands in the audit log under the token's name.
//! Nothing in here reaches a service behind the router.
//!
//! Pages are rendered on the server by templates that escape whatever they are given, and are kept by no cache. Scripts
//! come from files of ours only, and there is none a page needs but the builder's help and the live tail.

mod act;
mod assets;
mod chart;
mod client;
mod context;
mod form;
mod pages;
mod parts;
mod proxy;
mod pulse;
mod session;
mod show;
mod sign_in;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get, post};
use ipnet::IpNet;

use crate::clock::{Clock, IdMaker};
use pulse::Pulses;
use session::Sessions;

/// What the console needs besides the router it asks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Says when sessions are over.
    pub clock: Clock,
    /// Draws their secrets.
    pub ids: IdMaker,
    /// Proxies whose words about their clients are believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// What all pages have in common. Clones share it.
#[derive(Debug, Clone)]
struct Console(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The service, as any client sees it.
    api: Router,
    settings: Settings,
    sessions: Sessions,
    pulses: Pulses,
}

/// The routes of the console, in front of `api`: the router of the whole service.
pub fn router(api: Router, settings: Settings) -> Router {
    let sessions = Sessions::new(settings.clock.clone(), settings.ids.clone());
    let console = Console(Arc::new(Inner { api, settings, sessions, pulses: Pulses::default() }));
    Router::new()
        .route("/console", get(sign_in::home))
        .route("/console/", get(sign_in::home))
        .route("/console/sign-in", get(sign_in::ask).post(sign_in::sign_in))
        .route("/console/sign-out", post(sign_in::sign_out))
        .route("/console/assets/{file}", get(assets::serve))
        .route("/console/api/{*path}", any(proxy::pass))
        .route("/console/act", post(act::act))
        .merge(pages::routes())
        .with_state(console)
}
