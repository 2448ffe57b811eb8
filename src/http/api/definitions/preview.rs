//! Looking before leaping: what a definition would be, and what a change would do.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{OptionsJson, QueryJson, WarningJson};
use crate::domain::SpaceNo;
use crate::domain::ids::public_id;
use crate::http::AppState;
use crate::http::problem::Problem;
use crate::manage::definitions::{Change, Create, Kind, Options};
use crate::query::{Draft, Preview};

/// What is to be looked at.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = DefinitionPreviewRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct PreviewRequest {
    definition: QueryJson,
    #[serde(default)]
    options: OptionsJson,
}

/// What a definition would be now. Nothing was made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DefinitionPreview)]
pub(super) struct PreviewJson {
    /// Members, or profiles that have a value.
    size: u64,
    /// Up to ten of them, those first that were made first.
    sample: Vec<SampleJson>,
    /// The operands of the outermost AND or OR, each alone, in order; for a computed trait none.
    conditions: Vec<ConditionJson>,
    /// Names of the query that have not been seen.
    warnings: Vec<WarningJson>,
    /// How long it took, in milliseconds.
    took_ms: u64,
}

/// One profile.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PreviewSample)]
struct SampleJson {
    profile_id: String,
    /// Of a computed trait: what it would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    value: Option<Box<RawValue>>,
}

/// One operand.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PreviewCondition)]
struct ConditionJson {
    /// As it stands in the query.
    text: String,
    /// Profiles that satisfy it, whatever the others say.
    size: u64,
}

/// What a change or a new definition would do now. Nothing was changed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DefinitionDryRun)]
pub(super) struct DryRunJson {
    /// Always true.
    dry_run: bool,
    /// Members, or profiles that have a value, after it.
    size: u64,
    /// Profiles that would enter.
    enters: u64,
    /// Profiles that would leave.
    leaves: u64,
    /// How long it took, in milliseconds.
    took_ms: u64,
}

pub(super) async fn preview(
    app: &AppState,
    space: SpaceNo,
    kind: Kind,
    request: &PreviewRequest,
) -> Result<PreviewJson, Problem> {
    let (QueryJson { collection, .. }, query) = (&request.definition, request.definition.text()?);
    let options = Options::from(request.options.clone());
    let plan = app.manage.compile_draft(space, kind, (collection, query), &options).await?;
    let draft = Draft {
        plan: &plan,
        include_anonymous: request.options.include_anonymous,
        include_history: request.options.include_historical_data,
        replaces: None,
    };
    let Preview { size, sample, conditions, took, .. } = app.reader.preview(space, &draft).await?;
    let remarks = app.reader.remarks(space, &plan).await?;
    let value = |json: String| RawValue::from_string(json).ok().filter(|_| kind == Kind::ComputedTrait);
    Ok(PreviewJson {
        size,
        sample: sample
            .into_iter()
            .map(|(id, of)| SampleJson { profile_id: public_id("prf", id), value: value(of.to_json()) })
            .collect(),
        conditions: conditions.into_iter().map(|(text, size)| ConditionJson { text, size }).collect(),
        warnings: remarks.into_iter().map(WarningJson::from).collect(),
        took_ms: took.as_millis() as u64,
    })
}

pub(super) async fn dry_run_of_new(
    app: &AppState,
    space: SpaceNo,
    kind: Kind,
    new: &Create,
) -> Result<DryRunJson, Problem> {
    let (_, plan) = app.manage.check_new(space, kind, new).await?;
    let Options { include_anonymous, include_history, .. } = new.options;
    compare(app, space, &Draft { plan: &plan, include_anonymous, include_history, replaces: None }).await
}

pub(super) async fn dry_run(
    app: &AppState,
    space: SpaceNo,
    kind: Kind,
    key: &str,
    change: &Change,
) -> Result<DryRunJson, Problem> {
    let (plan, options, replaces) = app.manage.compile_change(space, kind, key, change).await?;
    let Options { include_anonymous, include_history, .. } = options;
    compare(app, space, &Draft { plan: &plan, include_anonymous, include_history, replaces }).await
}

async fn compare(app: &AppState, space: SpaceNo, draft: &Draft<'_>) -> Result<DryRunJson, Problem> {
    let Preview { size, enters, leaves, took, .. } = app.reader.preview(space, draft).await?;
    Ok(DryRunJson { dry_run: true, size, enters, leaves, took_ms: took.as_millis() as u64 })
}
