//! Traits of a profile: custom, computed and audiences, a page of them by name.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::super::extract::{Json, Query};
use super::super::page::{Cursor, Page, PageParams};
use super::super::problem::{Code, Problem};
use super::{Found, ProfilePath, WaitParams, raw, words};
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
pub(super) struct TraitsBody {
    /// Values by name.
    #[schema(value_type = Object)]
    traits: BTreeMap<String, Shown>,
    cursor: Cursor,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Shown {
    Plain(Option<Box<RawValue>>),
    Verbose { value: Option<Box<RawValue>>, source_id: Option<String>, updated_at: String },
}

/// Traits of a profile: 10 a page unless `limit` (at most 200) says otherwise.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/traits",
    tag = "Profile API", params(ProfilePath, TraitParams, PageParams, WaitParams),
    responses((status = 200, body = TraitsBody), (status = 404, description = "No such profile")))]
pub(super) async fn get_traits(
    found: Found,
    Query(params): Query<TraitParams>,
    page: Page<10, 200>,
) -> Result<Json<TraitsBody>, Problem> {
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
    let shown = |t: Trait<'_>| (t.name.to_owned(), show(&t, verbose, &person.directory));
    let list = page.list("traits", rows, |t| t.name.to_owned(), shown);
    Ok(Json(TraitsBody { traits: list.data.into_iter().collect(), cursor: list.cursor }))
}

fn show(t: &Trait<'_>, verbose: bool, directory: &Directory) -> Shown {
    let value = raw(&t.json);
    if verbose {
        let source_id = t.source.and_then(|no| directory.source_id(no));
        Shown::Verbose { value, source_id, updated_at: t.updated_at.to_string() }
    } else {
        Shown::Plain(value)
    }
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
