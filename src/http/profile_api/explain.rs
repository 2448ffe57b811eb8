//! Why a profile is in an audience or has its value of a computed trait, and why not.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::super::auth::{Authed, Read};
use super::super::extract::{Json, Path};
use super::super::problem::{Code, Problem};
use super::{ProfilePath, State, collection, raw};
use crate::domain::gate::Gates;
use crate::domain::{Collection, Timestamp};
use crate::query::{
    Explained, Explanation, Forecast, Kind, OutcomeValue, Reading, Reason, ReasonKind, Selector, Why,
};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct KeyPath {
    /// Key of an audience or computed trait.
    key: String,
}

/// Why a profile is in an audience or has its value of a computed trait, and why not.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Explanation)]
pub(super) struct ExplainBody {
    profile_id: String,
    key: String,
    /// `audience` or `computed_trait`.
    kind: &'static str,
    /// The version that answers; none until the first is complete.
    version: Option<i32>,
    /// The instant it is explained for.
    at: String,
    /// Of an audience: whether the profile is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<bool>,
    /// Of a computed trait: its value, null when it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    value: Option<Box<RawValue>>,
    /// Since when it is in, or out after it was in, or has the value; none when it never was or had.
    since: Option<String>,
    /// `counted`: the conditions decide. `anonymous`: the profile has only anonymous identifiers, and the definition does
    /// not count those. `account`: the definition counts users. `user`: it counts accounts. `frozen`: the definition is
    /// switched off, and everything stays as it was. `unfinished`: its first version is not complete.
    status: &'static str,
    /// When that changes by itself, with no event and no other trait; none when it stays. Definitions it refers to are
    /// taken as they are now.
    changes: ChangeBody,
    /// What would have to change for the opposite, in words: all of it, but where the tree says that one is enough.
    would_have_to_change: Vec<String>,
    /// The value is less than exact, and why: `rounded`, `cut`, `coarse` (docs/query-language.md, Limits).
    inexact: Vec<&'static str>,
    /// What the definition is used for.
    purpose: Option<String>,
    /// Membership is a suggestion: what follows from it is decided by a person. Who objects is no member.
    requires_human_review: bool,
    /// The person objects to automated decisions.
    objects: bool,
    /// Of an audience that is about a category of consent.
    #[serde(skip_serializing_if = "Option::is_none")]
    consent: Option<ConsentBody>,
    /// The conditions, as the query has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<ReasonBody>,
}

/// Consent to what an audience is about.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExplanationConsent)]
struct ConsentBody {
    category: String,
    /// Who does not consent is no member.
    enforced: bool,
    given: bool,
}

/// When something changes by itself.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = ExplanationChange)]
struct ChangeBody {
    /// The instant; none when it stays, or when it is not known.
    at: Option<String>,
    /// What it is then: true or false for a condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    to: Option<Box<RawValue>>,
    /// So much happens that the instant is not known, or it hangs on users of an account (`ANY`, `ALL`), each in its own
    /// time; it is not before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<String>,
}

/// A part of the query.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExplanationReason)]
struct ReasonBody {
    /// `all` (AND), `any` (OR), `not`, `condition`, `constant` or `value`.
    #[serde(rename = "is")]
    kind: &'static str,
    /// As it stands in the query.
    text: String,
    /// Whether it holds; a computed trait's value does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    holds: Option<bool>,
    /// What it looks at: first the left side of a comparison, then what it is compared with, unless that is written in
    /// the query.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    looks_at: Vec<ReadingBody>,
    changes: ChangeBody,
    /// What it would have to become for the opposite of the whole; none when it does not stand in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    must_become: Option<bool>,
    /// Of those parts that must become something, one is enough; else all have to.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    one_is_enough: bool,
    /// Of a condition that must become something: in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    parts: Vec<Self>,
}

/// Something a condition looks at.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExplanationReading)]
struct ReadingBody {
    /// As it stands in the query.
    text: String,
    #[schema(value_type = Option<serde_json::Value>)]
    value: Option<Box<RawValue>>,
    /// There may be more: no more are counted, because that is enough to decide.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    at_least: bool,
    /// Of `held_for`: since when it has the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

impl From<Forecast> for ChangeBody {
    fn from(forecast: Forecast) -> Self {
        let text = |at: Timestamp| Some(at.to_string());
        match forecast {
            Forecast::Never => Self::default(),
            Forecast::At(at, value) => Self { at: text(at), to: raw(&value.to_json()), not_before: None },
            Forecast::NotBefore(at) => Self { not_before: text(at), ..Self::default() },
        }
    }
}

impl From<Reading> for ReadingBody {
    fn from(reading: Reading) -> Self {
        Self {
            text: reading.text,
            value: raw(&reading.value.to_json()),
            at_least: reading.is_at_least,
            since: reading.since.map(|at| at.to_string()),
        }
    }
}

impl From<Reason> for ReasonBody {
    fn from(reason: Reason) -> Self {
        let holds = (reason.kind != ReasonKind::Value).then(|| reason.holds());
        let kind = match reason.kind {
            ReasonKind::All => "all",
            ReasonKind::Any => "any",
            ReasonKind::Not => "not",
            ReasonKind::Condition => "condition",
            ReasonKind::Constant => "constant",
            ReasonKind::Value => "value",
        };
        Self {
            kind,
            text: reason.text,
            holds,
            looks_at: reason.readings.into_iter().map(ReadingBody::from).collect(),
            changes: reason.forecast.into(),
            must_become: reason.must_become,
            one_is_enough: reason.one_is_enough,
            hint: reason.hint,
            parts: reason.parts.into_iter().map(Self::from).collect(),
        }
    }
}

/// Why a profile is in an audience or has its value of a computed trait, and why not.
///
/// The conditions with what they look at and whether they hold, what would have to change for the opposite, and when it
/// changes by itself: evaluated for now over the same states as the membership itself.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/explain/{key}",
    tag = "Profile API", params(ProfilePath, KeyPath),
    responses((status = 200, body = ExplainBody), (status = 404, description = "No such profile, or no such definition")))]
pub(super) async fn explain(
    axum::extract::State(state): State,
    authed: Authed<Read>,
    Path(path): Path<ProfilePath>,
    Path(KeyPath { key }): Path<KeyPath>,
) -> Result<Json<ExplainBody>, Problem> {
    let collection = collection(&path.collection)?;
    let selector = Selector::parse(&path.profile).ok_or_else(|| {
        let message = "name the profile as type:value, such as user_id:u1, or profile_id:prf_…";
        Problem::new(Code::BadRequest, message).at("profile")
    })?;
    let found = state.reader.explain(authed.space_no(), collection, &selector, &key).await?;
    let found = found.ok_or_else(|| Problem::not_found("Profile was not found."))?;
    let missing = || {
        let shown: String = key.chars().take(255).collect();
        Problem::not_found(format!("there is no audience or computed trait {shown}")).at("key")
    };
    let explained = found.ok_or_else(missing)?;
    authed.note_profile(&explained.profile_id);
    Ok(Json(show(explained)))
}

const ANONYMOUS: &str = "the profile has only anonymous identifiers; it would have to get one such as user_id or email, or \
    the definition to include anonymous profiles";
const ACCOUNT: &str = "the profile is an account; the definition counts users";
const USER: &str = "the profile is a user; the definition counts accounts";
const FROZEN: &str = "the definition is switched off; it would have to be switched on";
const UNFINISHED: &str = "the definition's first version is not complete yet";

fn consent_of(gates: &Gates, consents: Option<bool>) -> Option<ConsentBody> {
    let category = gates.consent_category.clone()?;
    Some(ConsentBody { category, enforced: gates.enforces_consent, given: consents == Some(true) })
}

fn show(explained: Explained) -> ExplainBody {
    let Explained { profile_id, definition, at, outcome, objects, consents, why } = explained;
    let is_audience = definition.kind == Kind::Audience;
    let (status, gate, explanation) = match why {
        Why::Counted(explanation) => ("counted", None, Some(explanation)),
        Why::Anonymous(explanation) => ("anonymous", Some(ANONYMOUS), Some(explanation)),
        Why::OtherCollection if definition.collection == Collection::Users => {
            ("account", Some(ACCOUNT), None)
        }
        Why::OtherCollection => ("user", Some(USER), None),
        Why::Frozen => ("frozen", Some(FROZEN), None),
        Why::Unfinished => ("unfinished", Some(UNFINISHED), None),
    };
    let decides = gate.is_none();
    let (stored, since) = outcome.unzip();
    let json = match (&explanation, &stored) {
        (Some(explanation), _) if decides => explanation.evaluation.value.to_json(),
        (_, Some(OutcomeValue::Value(Some(json)))) if status == "frozen" => json.clone(),
        (_, Some(OutcomeValue::Member(true))) if status == "frozen" => "true".to_owned(),
        _ => "null".to_owned(),
    };
    let mut hints: Vec<String> = gate.map(str::to_owned).into_iter().collect();
    let answers = definition.serving.as_ref().unwrap_or(&definition.latest);
    let requires_human_review = answers.options.gates.requires_human_review;
    let consent = consent_of(&answers.options.gates, consents);
    if let Some(ConsentBody { category, enforced: true, given: false }) = &consent {
        hints.push(format!("the person would have to give consent to the category {category}"));
    }
    if objects && requires_human_review {
        hints.push("the person has objected to automated decisions; that would have to be lifted".to_owned());
    }
    let (mut changes, mut inexact, mut reason) = (ChangeBody::default(), Vec::new(), None);
    if let Some(Explanation { evaluation, forecast, reason: why }) = explanation {
        // Who is not counted enters when both change, so what keeps its conditions from holding matters, too.
        if decides || !why.holds() {
            hints.extend(why.hints().into_iter().map(str::to_owned));
        }
        if decides {
            changes = forecast.into();
        }
        let flags = evaluation.flags;
        let all = [(flags.rounded, "rounded"), (flags.cut, "cut"), (flags.coarse, "coarse")];
        inexact.extend(all.into_iter().filter(|(is, _)| *is).map(|(_, word)| word));
        reason = Some(ReasonBody::from(why));
    }
    ExplainBody {
        profile_id,
        key: definition.key,
        kind: if is_audience { "audience" } else { "computed_trait" },
        version: definition.serving.map(|version| version.version),
        at: at.to_string(),
        member: is_audience.then(|| json == "true"),
        value: if is_audience { None } else { raw(&json) },
        since: since.map(|at| at.to_string()),
        status,
        changes,
        would_have_to_change: hints,
        purpose: definition.purpose,
        requires_human_review,
        objects,
        consent,
        inexact,
        reason,
    }
}
