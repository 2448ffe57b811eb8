//! The management API: everything under `/v1/spaces`, and the test clock.

mod acts;
mod audit;
mod consents;
mod definitions;
mod deliveries;
mod destinations;
mod events;
mod exports;
mod identity;
mod identity_problems;
mod operations;
mod plan;
mod queries;
mod query_form;
mod regulations;
mod retention;
mod schema;
mod search;
mod sensitive;
mod sources;
mod spaces;
mod test_clock;
mod tokens;

use serde::{Deserialize, Deserializer};
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use super::AppState;
use super::problem::Problem;
use crate::domain::ids::parse_public_id;

pub(crate) use identity::settings_change;
pub(super) use test_clock::routes as test_clock_routes;

/// All routes but the test clock's.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(spaces::routes())
        .merge(sources::routes())
        .merge(tokens::routes())
        .merge(definitions::routes())
        .merge(destinations::routes())
        .merge(deliveries::routes())
        .merge(identity::routes())
        .merge(acts::routes())
        .merge(audit::routes())
        .merge(identity_problems::routes())
        .merge(operations::routes())
        .merge(queries::routes())
        .merge(regulations::routes())
        .merge(schema::routes())
        .merge(search::routes())
        .merge(sensitive::routes())
        .merge(consents::routes())
        .merge(retention::routes())
        .merge(exports::routes())
        .merge(events::routes())
}

/// An id of ours in a path.
fn path_id(prefix: &str, what: &str, text: &str) -> Result<Uuid, Problem> {
    parse_public_id(prefix, text).ok_or_else(|| {
        let shown: String = text.chars().take(60).collect();
        Problem::not_found(format!("there is no {what} {shown}"))
    })
}

/// For fields of a PATCH that may be left out but not be null: null is refused, not taken for "leave as is".
fn not_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
