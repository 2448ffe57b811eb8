//! Traits of a profile: custom, computed and audiences, a page of them by name.

use std::collections::HashSet;

use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::super::extract::{Json, Query};
use super::super::page::{Cursor, Page, PageParams};
use super::super::problem::{Code, Problem};
use super::{Found, ProfilePath, words};
use crate::domain::trait_names::canonical;
use crate::query::{Directory, Trait, TraitClass};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TraitParams {
    /// Only these traits, comma-separated.
    include: Option<String>,
    /// None of these traits, comma-separated.
    exclude: Option<String>,
    /// `custom`, `computed_trait` or `audience`.
    class: Option<String>,
    /// With `true` each value is `{"value","source_id","updated_at"}`.
    verbose: Option<String>,
}

/// A page of traits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TraitsBody)]
pub(super) struct TraitsBody<'a> {
    /// Values by name.
    #[schema(value_type = Object)]
    #[serde(serialize_with = "by_name")]
    traits: Vec<(&'a str, Shown<'a>)>,
    cursor: Cursor,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Plain(Option<&'a RawValue>),
    Verbose { value: Option<&'a RawValue>, source_id: Option<String>, updated_at: String },
}

fn by_name<S: Serializer>(traits: &[(&str, Shown<'_>)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(traits.iter().map(|(name, shown)| (name, shown)))
}

/// Traits of a profile: 10 a page unless `limit` (at most 200) says otherwise.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/traits",
    tag = "Profile API", params(ProfilePath, TraitParams, PageParams),
    responses((status = 200, body = TraitsBody<'_>), (status = 404, description = "No such profile")))]
pub(super) async fn get_traits(
    found: Found,
    Query(params): Query<TraitParams>,
    page: Page<10, 200>,
) -> Result<Response, Problem> {
    let class = class(params.class.as_deref())?;
    let names =
        |list: Option<&str>| -> HashSet<String> { words(list).map(|w| canonical(w).into_owned()).collect() };
    let (include, exclude) = (names(params.include.as_deref()), names(params.exclude.as_deref()));
    let after: Option<String> = page.after("traits")?;
    let wanted = |t: &Trait<'_>| {
        (include.is_empty() || include.contains(&*canonical(t.name)))
            && (exclude.is_empty() || !exclude.contains(&*canonical(t.name)))
            && class.is_none_or(|class| class == t.class)
            && after.as_deref().is_none_or(|after| t.name > after)
    };
    let person = &found.person;
    let rows: Vec<Trait<'_>> = person.traits().into_iter().filter(wanted).take(page.limit + 1).collect();
    let verbose = params.verbose.as_deref() == Some("true");
    let list =
        page.list("traits", rows.iter().collect(), |t| t.name, |t| show(t, verbose, &person.directory));
    Ok(Json(TraitsBody { traits: list.data, cursor: list.cursor }).into_response())
}

fn show<'a>(t: &'a Trait<'_>, verbose: bool, directory: &Directory) -> (&'a str, Shown<'a>) {
    // Stored JSON, written as it is.
    let value = serde_json::from_str(&t.json).ok();
    let shown = if verbose {
        let source_id = t.source.and_then(|no| directory.source_id(no));
        Shown::Verbose { value, source_id, updated_at: t.updated_at.to_string() }
    } else {
        Shown::Plain(value)
    };
    (t.name, shown)
}

fn class(word: Option<&str>) -> Result<Option<TraitClass>, Problem> {
    match word {
        None | Some("") => Ok(None),
        Some("custom") => Ok(Some(TraitClass::Custom)),
        Some("computed_trait") => Ok(Some(TraitClass::ComputedTrait)),
        Some("audience") => Ok(Some(TraitClass::Audience)),
        Some(_) => {
            let message = "class must be custom, computed_trait or audience";
            Err(Problem::new(Code::BadRequest, message).at("class"))
        }
    }
}
