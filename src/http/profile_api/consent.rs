//! What a person has consented to, and the events that say so.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::super::extract::Json;
use super::super::page::{List, Page, PageParams};
use super::super::problem::{Code, Problem};
use super::{Found, ProfilePath, State};
use crate::domain::ids::public_id;
use crate::domain::{Collection, Offset, Timestamp};
use crate::query::consent::{is_given, missing, preferences, stated};
use crate::query::{Direction, EventFilter, TimelineCursor, TimelineEvent, Write};

/// What a person has said.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Consent)]
pub(super) struct ConsentBody {
    profile_id: String,
    /// All categories of the space, and what was said of others; by id.
    categories: Vec<PreferenceBody>,
    /// Destinations that ask for consent, and whether they may be told of the person. All others may.
    destinations: Vec<AllowedBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConsentPreference)]
struct PreferenceBody {
    id: String,
    /// None: the space has no such category.
    name: Option<String>,
    /// What nobody has said is no consent.
    consented: bool,
    /// The newest event that says so; none where nothing was said.
    evidence: Option<EvidenceBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConsentEvidence)]
struct EvidenceBody {
    message_id: String,
    source_id: Option<String>,
    /// When the event happened.
    timestamp: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConsentDestination)]
struct AllowedBody {
    id: String,
    allowed: bool,
    /// A category it asks for and that has no consent.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

/// What a person has consented to: by category the newest word, with the event that said it.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/consent",
    tag = "Profile API", params(ProfilePath),
    responses((status = 200, body = ConsentBody), (status = 404, description = "No such profile")))]
pub(super) async fn get_consent(
    axum::extract::State(state): State,
    found: Found,
) -> Result<Json<ConsentBody>, Problem> {
    refuse_accounts(&found)?;
    let person = &found.person;
    let traits = person.profile.traits.get();
    let known = state.manage.list_consent_categories(found.space).await?;
    let said: BTreeMap<&str, &Write> = preferences(traits).map(|(id, _, write)| (id, write)).collect();
    let mut names: BTreeMap<&str, Option<&str>> = said.keys().map(|id| (*id, None)).collect();
    names.extend(known.iter().map(|category| (category.id.as_str(), Some(category.name.as_str()))));
    let evidence = |write: &&Write| EvidenceBody {
        message_id: write.message_id.clone(),
        source_id: person.directory.source_id(write.source),
        timestamp: write.at.to_string(),
    };
    let preference = |(id, name): (&str, Option<&str>)| PreferenceBody {
        id: id.to_owned(),
        name: name.map(str::to_owned),
        consented: is_given(traits, id),
        evidence: said.get(id).map(evidence),
    };
    let mut asked: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for category in &known {
        for (_, destination) in &category.destinations {
            asked.entry(public_id("dst", *destination)).or_default().push(category.id.clone());
        }
    }
    let destination = |(id, categories): (String, Vec<String>)| {
        let missing = missing(traits, &categories).map(str::to_owned);
        AllowedBody { id, allowed: missing.is_none(), missing }
    };
    Ok(Json(ConsentBody {
        profile_id: person.id(),
        categories: names.into_iter().map(preference).collect(),
        destinations: asked.into_iter().map(destination).collect(),
    }))
}

/// An event that says something of consent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConsentExpression)]
pub(super) struct ExpressionBody {
    message_id: String,
    source_id: Option<String>,
    timestamp: String,
    received_at: String,
    offset: u64,
    #[serde(rename = "type")]
    call: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    /// By category.
    preferences: BTreeMap<String, bool>,
}

/// The events that say what a person consents to, newest first, as far back as events are kept.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/consent/history",
    tag = "Profile API", params(ProfilePath, PageParams),
    responses((status = 200, body = List<ExpressionBody>), (status = 404, description = "No such profile")))]
pub(super) async fn list_consent_history(
    axum::extract::State(state): State,
    found: Found,
    page: Page<10, 200>,
) -> Result<Json<List<ExpressionBody>>, Problem> {
    refuse_accounts(&found)?;
    let after = page.after::<(i64, u64)>("consent_history")?;
    let filter = EventFilter {
        with_consent: true,
        after: after
            .map(|(at, offset)| TimelineCursor { at: Timestamp::from_millis(at), offset: Offset(offset) }),
        ..EventFilter::all(Direction::Descending)
    };
    let events = state.reader.list_events(found.space, &found.person, &filter, page.limit + 1).await?;
    let key = |e: &TimelineEvent| (e.timestamp.millis(), e.offset.0);
    Ok(Json(page.list("consent_history", events, key, show)))
}

fn show(event: TimelineEvent) -> ExpressionBody {
    let said = stated(&event.context).unwrap_or_default().preferences;
    ExpressionBody {
        message_id: event.message_id,
        source_id: event.source_id,
        timestamp: event.timestamp.to_string(),
        received_at: event.received_at.to_string(),
        offset: event.offset.0,
        call: event.event_type.as_str(),
        event: Some(event.name).filter(|name| !name.is_empty()),
        preferences: said.into_iter().collect(),
    }
}

fn refuse_accounts(found: &Found) -> Result<(), Problem> {
    if found.person.profile.collection == Collection::Users {
        return Ok(());
    }
    Err(Problem::new(Code::BadRequest, "consent is a person's: ask for a profile of users").at("collection"))
}
