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

/// What stands between the conditions of a form.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[schema(as = QueryFormJoin)]
#[serde(rename_all = "snake_case")]
pub(super) enum JoinJson {
    /// All of them.
    And,
    /// Any of them.
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

fn wrong(place: &str, message: &str) -> Problem {
    Problem::new(Code::Invalid, message).at(place)
}

/// What a text is made of must be there, and a window at least a day: the query's own errors tell places in a text that nobody sent.
fn check(place: &str, named: &[(&str, &str)], days: Option<u32>) -> Result<(), Problem> {
    if let Some((field, _)) = named.iter().find(|(_, name)| name.is_empty()) {
        return Err(wrong(&format!("{place}.{field}"), &format!("{field} must not be empty")));
    }
    if days == Some(0) {
        return Err(wrong(
            &format!("{place}.days"),
            "days must be at least 1; without it all of time is meant",
        ));
    }
    Ok(())
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
                if conditions.is_empty() {
                    return Err(wrong("form.conditions", "a form has at least one condition"));
                }
                let conditions = conditions.into_iter().enumerate();
                let conditions =
                    conditions.map(|(at, one)| condition(&format!("form.conditions[{at}]"), one));
                Ok(Self::Conditions(join, conditions.collect::<Result<_, _>>()?))
            }
            FormJson::Value { event, reducer, property, days } => {
                let reducer = Self::reducer(&reducer).ok_or_else(|| {
                    wrong(
                        "form.reducer",
                        "reducer must be count, sum, avg, min, max, first, last, unique or mode",
                    )
                })?;
                if (reducer == "count") == property.is_some() {
                    return Err(wrong("form.property", "property must be there, but for count"));
                }
                let property_name = property.as_deref().unwrap_or("none");
                check("form", &[("event", &event), ("property", property_name)], days)?;
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

fn condition(place: &str, condition: ConditionJson) -> Result<FormCondition, Problem> {
    match condition {
        ConditionJson::Event { event, comparison, times, days } => {
            check(place, &[("event", &event)], days)?;
            let comparison = Comparison::from_symbol(&comparison).ok_or_else(|| {
                wrong(&format!("{place}.comparison"), "comparison must be =, !=, >=, <=, > or <")
            })?;
            Ok(FormCondition::Event { event, comparison, times, days })
        }
        ConditionJson::Trait { name, comparison, value } => {
            check(place, &[("trait", &name)], None)?;
            Ok(FormCondition::Trait { name, test: test(place, &comparison, value)? })
        }
        ConditionJson::Audience { audience, is_in } => {
            check(place, &[("audience", &audience)], None)?;
            Ok(FormCondition::Audience { key: audience, is_in })
        }
    }
}

fn test(place: &str, comparison: &str, value: Option<serde_json::Value>) -> Result<Test, Problem> {
    use serde_json::Value as Json;
    let of_value = |message| wrong(&format!("{place}.value"), message);
    match (comparison, value) {
        ("exists", None) => Ok(Test::Exists),
        ("absent", None) => Ok(Test::Absent),
        ("exists" | "absent", Some(_)) => Err(of_value("exists and absent are asked without a value")),
        ("contains", Some(Json::String(text))) => Ok(Test::Contains(text)),
        ("contains", _) => Err(of_value("contains asks for a string")),
        (symbol, value) => {
            let comparison = Comparison::from_symbol(symbol).ok_or_else(|| {
                let message = "comparison must be =, !=, >=, <=, >, <, contains, exists or absent";
                wrong(&format!("{place}.comparison"), message)
            })?;
            let Some(value @ (Json::String(_) | Json::Number(_) | Json::Bool(_))) = value else {
                let message =
                    "a trait is compared with a string, a number of at most 15 digits, true or false";
                return Err(of_value(message));
            };
            Ok(Test::Compare(comparison, Value::from_json(&value.to_string())))
        }
    }
}
