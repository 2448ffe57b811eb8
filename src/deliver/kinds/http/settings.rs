//! The settings of a mapping: what is written, over what its preset says.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::presets::{self, Preset};
use crate::deliver::kind::{Answer, Invalid, Reason, Verdict};

/// Changes of one request, at most.
const BATCH_MAX: usize = 1_000;
/// Types of calls that a mapping can have words for.
pub(super) const CALLS: [&str; 4] = ["identify", "track", "group", "delete"];
/// Headers of a call.
const HEADERS_MAX: usize = 50;
/// Rules.
const RULES_MAX: usize = 50;

/// How a call is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    /// An expression; changes it does not hold for are rejected.
    pub(super) when: Option<String>,
    #[serde(default = "post")]
    pub(super) method: String,
    pub(super) url: String,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Option<String>,
}

fn post() -> String {
    "POST".to_owned()
}

impl Call {
    /// Whether its body is JSON: its content type says so.
    pub(super) fn is_json(&self) -> bool {
        let named = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        named.is_some_and(|(_, value)| value.contains("json"))
    }
}

/// What an answer means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// An expression over `status`, `body` and `json`.
    pub(super) when: String,
    verdict: RuleVerdict,
    /// The word that reasons are counted by; the status where there is none.
    code: Option<String>,
    /// An expression for the places, from 0, of those changes of a batch that it is about; the others have arrived.
    pub(super) items: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RuleVerdict {
    Success,
    Retry,
    Reject,
    Gone,
}

impl Rule {
    /// What it says of an answer.
    pub(super) fn verdict(&self, answer: &Answer) -> Verdict {
        let code = self.code.clone().unwrap_or_else(|| answer.status.to_string());
        let reason = Reason { code, message: format!("the answer is one for which {}", self.when) };
        match self.verdict {
            RuleVerdict::Success => Verdict::Delivered,
            RuleVerdict::Retry => Verdict::Retry { reason, after: answer.retry_after },
            RuleVerdict::Reject => Verdict::Rejected(reason),
            RuleVerdict::Gone => Verdict::Gone(reason),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    preset: Option<String>,
    #[serde(default)]
    options: BTreeMap<String, String>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    batch_max: Option<usize>,
    #[serde(default)]
    calls: BTreeMap<String, Call>,
    #[serde(default)]
    rules: Vec<Rule>,
}

/// Settings with those of the preset, judged but for the templates.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) batch_max: usize,
    pub(super) calls: BTreeMap<String, Call>,
    /// The first that holds says it: those of the settings stand before those of the preset.
    pub(super) rules: Vec<Rule>,
    pub(super) options: BTreeMap<String, String>,
    pub(super) secrets: BTreeMap<String, String>,
}

fn invalid(field: impl Into<String>, message: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), message: message.into() }
}

impl Settings {
    /// Reads settings, and tells all that is wrong with them.
    pub(super) fn read(settings: &Map<String, Value>) -> Result<Self, Vec<Invalid>> {
        let written: Written = serde_json::from_value(Value::Object(settings.clone()))
            .map_err(|error| vec![invalid("settings", error.to_string())])?;
        let mut wrong = Vec::new();
        let preset = written.preset.as_deref().and_then(|name| {
            let found = presets::find(name);
            if found.is_none() {
                let names: Vec<&str> = presets::presets().iter().map(|preset| preset.key).collect();
                wrong.push(invalid(
                    "preset",
                    format!("there is no such preset; there are {}", names.join(", ")),
                ));
            }
            found
        });
        let mut read = Self {
            batch_max: written.batch_max.or(preset.map(|preset| preset.batch_max)).unwrap_or(1),
            calls: written.calls,
            rules: written.rules,
            options: written.options,
            secrets: written.secrets,
        };
        if let Some(preset) = preset {
            read.complete(preset, &mut wrong);
        }
        read.judge(&mut wrong);
        if wrong.is_empty() { Ok(read) } else { Err(wrong) }
    }

    fn complete(&mut self, preset: &Preset, wrong: &mut Vec<Invalid>) {
        for (name, call) in &preset.calls {
            self.calls.entry(name.clone()).or_insert_with(|| call.clone());
        }
        self.rules.extend(preset.rules.iter().cloned());
        for (name, option) in &preset.options {
            match &option.default {
                Some(default) => {
                    self.options.entry(name.clone()).or_insert_with(|| default.clone());
                }
                None if self.options.get(name).is_none_or(String::is_empty) => {
                    wrong
                        .push(invalid(format!("options.{name}"), format!("it is missing: {}", option.about)));
                }
                None => {}
            }
        }
        for (name, secret) in &preset.secrets {
            if self.secrets.get(name).is_none_or(String::is_empty) {
                wrong.push(invalid(format!("secrets.{name}"), format!("it is missing: {}", secret.about)));
            }
        }
    }

    fn judge(&self, wrong: &mut Vec<Invalid>) {
        if !(1..=BATCH_MAX).contains(&self.batch_max) {
            wrong.push(invalid("batch_max", format!("it must be a whole number from 1 to {BATCH_MAX}")));
        }
        if self.calls.is_empty() {
            wrong.push(invalid("calls", format!("there is none; there can be {}", CALLS.join(", "))));
        }
        if self.rules.len() > RULES_MAX {
            wrong.push(invalid("rules", format!("there can be at most {RULES_MAX}")));
        }
        for (name, call) in &self.calls {
            if !CALLS.contains(&name.as_str()) {
                let message = format!("there is no such call; there are {}", CALLS.join(", "));
                wrong.push(invalid(format!("calls.{name}"), message));
            }
            if call.headers.len() > HEADERS_MAX {
                let message = format!("there can be at most {HEADERS_MAX}");
                wrong.push(invalid(format!("calls.{name}.headers"), message));
            }
            for header in call.headers.keys() {
                if reqwest::header::HeaderName::from_bytes(header.as_bytes()).is_err() {
                    wrong
                        .push(invalid(format!("calls.{name}.headers.{header}"), "it is no name of a header"));
                }
            }
        }
    }
}
