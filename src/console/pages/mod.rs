//! The pages: what each shows, and which calls of the API it is made of.

mod audit;
mod builder;
mod definition;
mod definitions;
mod deliveries;
mod destinations;
mod graph;
mod identity;
mod live;
mod overview;
mod privacy;
mod profile;
mod profiles;
mod settings;
mod usage;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use serde_json::Value;

use super::Console;
use super::client::Refusal;
use super::context::{Context, to_sign_in};
use super::show;
use super::view::{Content, Notice, Page, Section};

/// What a page is made for; pages keep it while they wait for several answers.
type Cx = Arc<Context>;

/// All pages of a space.
pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/s/{space}", page(overview::page))
        .route("/console/s/{space}/audiences", page(definitions::audiences))
        .route("/console/s/{space}/audiences/new-one", page(builder::new_audience))
        .route("/console/s/{space}/audiences/{key}", page(definition::audience))
        .route("/console/s/{space}/audiences/{key}/edit", page(builder::edit_audience))
        .route("/console/s/{space}/traits", page(definitions::traits))
        .route("/console/s/{space}/traits/new-one", page(builder::new_trait))
        .route("/console/s/{space}/traits/{key}", page(definition::computed))
        .route("/console/s/{space}/traits/{key}/edit", page(builder::edit_trait))
        .route("/console/s/{space}/live", page(live::page))
        .route("/console/s/{space}/profiles", page(profiles::page))
        .route("/console/s/{space}/profiles/{collection}/{profile}", page(profile::page))
        .route("/console/s/{space}/profiles/{collection}/{profile}/explain/{key}", page(profile::explain))
        .route("/console/s/{space}/destinations", page(destinations::list))
        .route("/console/s/{space}/destinations/{id}", page(destinations::page))
        .route("/console/s/{space}/deliveries/{id}", page(deliveries::page))
        .route("/console/s/{space}/identity", page(identity::page))
        .route("/console/s/{space}/privacy", page(privacy::page))
        .route("/console/s/{space}/audit", page(audit::page))
        .route("/console/s/{space}/settings", page(settings::page))
        .route("/console/s/{space}/usage", page(usage::page))
        .route("/console/{*rest}", page(missing))
}

/// A route that answers with the page `make` makes.
fn page<F, Fut>(make: F) -> MethodRouter<Console>
where
    F: Fn(Cx) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Page, Refusal>> + Send,
{
    get(move |context: Context, headers: HeaderMap| async move {
        let context = Arc::new(context);
        let made = Box::pin(make(Arc::clone(&context))).await;
        finish(&context, made, &headers)
    })
}

async fn missing(_: Cx) -> Result<Page, Refusal> {
    Err(Refusal::new(axum::http::StatusCode::NOT_FOUND, "The console has no such page."))
}

/// Puts a page into its frame; says instead why there is none. Where the token is not taken any more, the session is over.
pub(super) fn finish(context: &Context, made: Result<Page, Refusal>, headers: &HeaderMap) -> Response {
    if context.api.is_refused() {
        context.console.0.sessions.close(&context.key);
        return to_sign_in(&context.address);
    }
    let mut page = made.unwrap_or_else(|refusal| {
        let section = Section::new("trouble", "").with(show::refusal(&refusal));
        Page { status: refusal.status, ..Page::new("That cannot be shown").with(section) }
    });
    if page.frame.form_key.is_empty() {
        page.frame = context.frame();
    }
    if context.asked("done").is_some() {
        page.sections.insert(0, Section::new("done", "").with(Notice::good("Done.")).stays());
    }
    page.answer(headers)
}

/// A section made of an answer, or the reason why there is none: a token that lacks a scope sees the rest of the page.
fn part(
    id: &str,
    title: &str,
    answer: &Result<Value, Refusal>,
    make: impl FnOnce(Section, &Value) -> Section,
) -> Section {
    let section = Section::new(id, title);
    match answer {
        Ok(answer) => make(section, answer),
        Err(refusal) => section.with(Content::from(show::refusal(refusal))),
    }
}

/// The same of a list of people. It is read when somebody asks for the page, and not while the page fetches itself again: every
/// read of personal data stands in the audit log.
async fn people(
    context: &Cx,
    (id, title): (&str, &str),
    path: &[&str],
    query: &[(&str, &str)],
    make: impl FnOnce(Section, &Value) -> Section,
) -> Section {
    if context.is_poll {
        return Section::kept(id);
    }
    part(id, title, &context.read(path, query).await, |section, list| {
        make(section.note("As it was when the page was opened."), list)
    })
}
