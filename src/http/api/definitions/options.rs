//! What can be chosen with a query: who is counted, from when on, and what is asked of members besides.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{is_false, not_null};
use crate::domain::Patch;
use crate::domain::gate::Gates;
use crate::domain::retention::Retention;
use crate::manage::definitions::Options;

/// Who is counted, and from when on.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = DefinitionOptions)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OptionsJson {
    /// Count profiles that have only anonymous identifiers.
    pub(super) include_anonymous: bool,
    /// Count events received before the version was made.
    pub(super) include_historical_data: bool,
    /// Of an audience of users: the category of consent it is about. Where the space says so
    /// (`PATCH …/consent/settings`), who does not consent to it is no member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) consent_category: Option<String>,
    /// Of an audience: membership is a suggestion, and a person decides what follows from it. Who objects to automated
    /// decisions is no member.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) requires_human_review: bool,
}

impl Default for OptionsJson {
    fn default() -> Self {
        Self {
            include_anonymous: false,
            include_historical_data: true,
            consent_category: None,
            requires_human_review: false,
        }
    }
}

impl From<Options> for OptionsJson {
    fn from(options: Options) -> Self {
        let Options { include_anonymous, include_history, gates, retention: _ } = options;
        let Gates { consent_category, requires_human_review, .. } = gates;
        Self {
            include_anonymous,
            include_historical_data: include_history,
            consent_category,
            requires_human_review,
        }
    }
}

impl From<OptionsJson> for Options {
    fn from(options: OptionsJson) -> Self {
        let OptionsJson {
            include_anonymous,
            include_historical_data: include_history,
            consent_category,
            requires_human_review,
        } = options;
        // Whether consent is enforced, and for how long events count, is not the definition's to say.
        let gates = Gates { consent_category, requires_human_review, ..Gates::default() };
        Self { include_anonymous, include_history, gates, retention: Retention::default() }
    }
}

/// Other options.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OptionsChange {
    #[serde(default, deserialize_with = "not_null")]
    pub(super) include_anonymous: Option<bool>,
    #[serde(default, deserialize_with = "not_null")]
    pub(super) include_historical_data: Option<bool>,
    /// Null: none.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(super) consent_category: Patch<String>,
    #[serde(default, deserialize_with = "not_null")]
    pub(super) requires_human_review: Option<bool>,
}
