//! The JSON of a query's form: conditions of the common kinds, or one value of events.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::Value;
use crate::http::problem::{Code, Problem};
use crate::manage::queries::{Comparison, Form, FormCondition, Join, Test};

/// What a form shows of a query.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = QueryForm)]
#[serde(tag = "shape", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum FormJson {
    /// An audience.
    Conditions {
        /// What stands between them; `and` where there is only one.
        #[schema(inline)]
        join: JoinJson,
        conditions: Vec<ConditionJson>,
    },
    /// A computed trait.
    Value {
        /// Name of the events.
        event: String,
        /// `count`, or with a property `sum`, `avg`, `min`, `max`, `first`, `last`, `unique` or `mode`.
        reducer: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        property: Option<String>,
        /// Within how many days; else of all time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        days: Option<u32>,
    },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum JoinJson {
    And,
    Or,
}

/// A condition of a form.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = QueryFormCondition)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ConditionJson {
    /// How often there was an event.
    Event {
        /// Name of the events.
        event: String,
        /// `=`, `!=`, `>=`, `<=`, `>` or `<`.
        comparison: String,
        times: u32,
        /// Within how many days; else ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        days: Option<u32>,
    },
    /// What a trait is.
    Trait {
        /// Name of the trait.
        #[serde(rename = "trait")]
        name: String,
        /// `=`, `!=`, `>=`, `<=`, `>`, `<`, `contains`, `exists` or `absent`.
        comparison: String,
        /// A string, a number, true or false; a string for `contains`, and nothing for `exists` and `absent`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<serde_json::Value>)]
        value: Option<serde_json::Value>,
    },
    /// Whether one is in an audience.
    Audience {
        /// Its key.
        audience: String,
        is_in: bool,
    },
}

fn wrong(message: &str) -> Problem {
    Problem::new(Code::Invalid, message).at("form")
}

impl From<Form> for FormJson {
    fn from(form: Form) -> Self {
        match form {
            Form::Conditions(join, conditions) => Self::Conditions {
                join: if join == Join::And { JoinJson::And } else { JoinJson::Or },
                conditions: conditions.into_iter().map(ConditionJson::from).collect(),
            },
            Form::Value { event, reducer, property, days } => {
                Self::Value { event, reducer: reducer.to_owned(), property, days }
            }
        }
    }
}

impl TryFrom<FormJson> for Form {
    type Error = Problem;

    fn try_from(form: FormJson) -> Result<Self, Problem> {
        match form {
            FormJson::Conditions { join, conditions } => {
                let is_all = matches!(join, JoinJson::And) || conditions.len() == 1;
                let join = if is_all { Join::And } else { Join::Or };
                let conditions = conditions.into_iter().map(FormCondition::try_from);
                Ok(Self::Conditions(join, conditions.collect::<Result<_, _>>()?))
            }
            FormJson::Value { event, reducer, property, days } => {
                let reducer = Self::reducer(&reducer).ok_or_else(|| {
                    wrong("reducer must be count, sum, avg, min, max, first, last, unique or mode")
                })?;
                if (reducer == "count") == property.is_some() {
                    return Err(wrong("property must be there, but for count"));
                }
                Ok(Self::Value { event, reducer, property, days })
            }
        }
    }
}

impl From<FormCondition> for ConditionJson {
    fn from(condition: FormCondition) -> Self {
        match condition {
            FormCondition::Event { event, comparison, times, days } => {
                Self::Event { event, comparison: comparison.symbol().to_owned(), times, days }
            }
            FormCondition::Trait { name, test } => {
                let (comparison, value) = match test {
                    Test::Compare(comparison, value) => {
                        (comparison.symbol(), serde_json::from_str(&value.to_json()).ok())
                    }
                    Test::Contains(text) => ("contains", Some(text.into())),
                    Test::Exists => ("exists", None),
                    Test::Absent => ("absent", None),
                };
                Self::Trait { name, comparison: comparison.to_owned(), value }
            }
            FormCondition::Audience { key, is_in } => Self::Audience { audience: key, is_in },
        }
    }
}

impl TryFrom<ConditionJson> for FormCondition {
    type Error = Problem;

    fn try_from(condition: ConditionJson) -> Result<Self, Problem> {
        match condition {
            ConditionJson::Event { event, comparison, times, days } => {
                let comparison = Comparison::from_symbol(&comparison)
                    .ok_or_else(|| wrong("comparison must be =, !=, >=, <=, > or <"))?;
                Ok(Self::Event { event, comparison, times, days })
            }
            ConditionJson::Trait { name, comparison, value } => {
                Ok(Self::Trait { name, test: test(&comparison, value)? })
            }
            ConditionJson::Audience { audience, is_in } => Ok(Self::Audience { key: audience, is_in }),
        }
    }
}

fn test(comparison: &str, value: Option<serde_json::Value>) -> Result<Test, Problem> {
    use serde_json::Value as Json;
    match (comparison, value) {
        ("exists", None) => Ok(Test::Exists),
        ("absent", None) => Ok(Test::Absent),
        ("contains", Some(Json::String(text))) => Ok(Test::Contains(text)),
        (symbol, Some(value @ (Json::String(_) | Json::Number(_) | Json::Bool(_)))) => {
            let comparison = Comparison::from_symbol(symbol).ok_or_else(|| {
                wrong("comparison must be =, !=, >=, <=, >, <, contains, exists or absent, and the value as it needs it")
            })?;
            Ok(Test::Compare(comparison, Value::from_json(&value.to_string())))
        }
        _ => Err(wrong("the value of a trait is compared with a string, a number, true or false")),
    }
}
