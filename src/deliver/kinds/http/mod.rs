//! Kind `http`: any HTTP API, by a declarative mapping.
//!
//! For each type of call (`identify`, `track`, `group`, `delete`) settings say with which method, URL, headers and body it
//! is told, as templates over the change; rules say what answers mean. Presets (`config/destinations/*.toml`) are such
//! mappings for well-known tools. A change that a mapping has no words for is rejected, never half sent.

mod context;
mod presets;
mod settings;
mod templates;

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde_json::{Map, Value};

pub use self::presets::{Preset, presets};
use self::settings::{Rule, Settings};
use self::templates::{Escape, Templates};
use crate::deliver::kind::{Answer, HttpKind, Invalid, Item, Reason, Request, Verdict};
use crate::domain::Timestamp;
use crate::domain::sensitive::MASKED;

/// Shorter secrets are not looked for in what is shown: they would be found everywhere.
const MASKED_MIN: usize = 4;

/// A mapping with its settings.
pub struct HttpMapping {
    batch_max: usize,
    calls: BTreeMap<String, Call>,
    rules: Vec<Rule>,
    templates: Templates,
    options: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
}

impl fmt::Debug for HttpMapping {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls: Vec<&String> = self.calls.keys().collect();
        f.debug_struct("HttpMapping").field("calls", &calls).finish_non_exhaustive()
    }
}

/// How one type of call is told; the templates are in [`Templates`] under the name of the call and of the part.
#[derive(Debug)]
struct Call {
    has_condition: bool,
    body: Option<Escape>,
    /// Names of headers, and whether their values are secret.
    headers: Vec<(String, bool)>,
}

/// The part of a call that a template is for.
fn part(call: &str, name: &str) -> String {
    format!("calls.{call}.{name}")
}

impl HttpMapping {
    /// Reads and judges settings: `preset`, `options`, `secrets`, `batch_max`, `calls` and `rules`. All that is wrong is
    /// told.
    pub fn open(settings: &Map<String, Value>) -> Result<Self, Vec<Invalid>> {
        let Settings { batch_max, calls, rules, options, secrets } = Settings::read(settings)?;
        let mut templates = Templates::default();
        let mut wrong = Vec::new();
        let mut add = |name: String, escape: Escape, text: &str| {
            if let Err(invalid) = templates.add(&name, escape, text, &options, &secrets) {
                wrong.push(invalid);
            }
        };
        let mut opened = BTreeMap::new();
        for (name, call) in &calls {
            add(part(name, "method"), Escape::Text, &call.method);
            add(part(name, "url"), Escape::Url, &call.url);
            if let Some(condition) = &call.when {
                add(part(name, "when"), Escape::Condition, condition);
            }
            for (header, value) in &call.headers {
                add(part(name, &format!("headers.{header}")), Escape::Text, value);
            }
            let body = call.body.as_ref().map(|body| {
                let escape = if call.is_json() { Escape::Json } else { Escape::Text };
                add(part(name, "body"), escape, body);
                escape
            });
            let is_secret = |(header, value): (&String, &String)| (header.clone(), value.contains("secrets"));
            let headers = call.headers.iter().map(is_secret).collect();
            opened.insert(name.clone(), Call { has_condition: call.when.is_some(), body, headers });
        }
        for (place, rule) in rules.iter().enumerate() {
            add(format!("rules[{place}].when"), Escape::Condition, &rule.when);
            if let Some(items) = &rule.items {
                add(format!("rules[{place}].items"), Escape::Value, items);
            }
        }
        if wrong.is_empty() {
            wrong.extend(templates.unknown(&context::of(&[context::sample()], &options, &secrets)));
        }
        if wrong.is_empty() {
            Ok(Self { batch_max, calls: opened, rules, templates, options, secrets })
        } else {
            Err(wrong)
        }
    }

    fn call_of<'a>(&'a self, item: &'a Item) -> Option<(&'a str, &'a Call)> {
        let name = item.event.get("type")?.as_str()?;
        Some((name, self.calls.get(name)?))
    }

    /// How many of the first changes can share a request: neighbours of one type, so that all stay in order, and no two
    /// of one profile, which tools take in any order or refuse.
    fn batch_length(&self, items: &[Item]) -> usize {
        let kind = |item: &Item| item.event.get("type").cloned();
        let first = items.first().and_then(kind);
        let mut profiles = HashSet::new();
        let alike = items.iter().take(self.batch_max.max(1));
        alike.take_while(|item| kind(item) == first && profiles.insert(item.profile)).count().max(1)
    }

    /// The request for some changes of one type of call, or why there is none.
    fn request(&self, items: &[Item], start: usize) -> Result<Request, Reason> {
        let rejected = |code: &str, message: String| Reason { code: code.to_owned(), message };
        let Some((name, call)) = items.first().and_then(|item| self.call_of(item)) else {
            let message = "the mapping has no words for this type of call".to_owned();
            return Err(rejected("UNSUPPORTED_EVENT_TYPE", message));
        };
        let context = context::of(items, &self.options, &self.secrets);
        let render = |what: &str| {
            let name = part(name, what);
            self.templates
                .render(&name, &context)
                .map_err(|error| rejected("MESSAGE_REJECTED", self.shown(&format!("{name}: {error}"))))
        };
        if call.has_condition && render("when")?.is_empty() {
            let message = format!("the condition of `{name}` does not hold for it");
            return Err(rejected("NO_MATCHING_MAPPING", message));
        }
        let mut headers = Vec::with_capacity(call.headers.len());
        for (header, _) in &call.headers {
            headers.push((header.clone(), render(&format!("headers.{header}"))?));
        }
        let secret = call.headers.iter().filter(|(_, is_secret)| *is_secret);
        Ok(Request {
            items: start..start + items.len(),
            method: render("method")?.trim().to_owned(),
            url: render("url")?.trim().to_owned(),
            headers,
            secret_headers: secret.map(|(header, _)| header.to_ascii_lowercase()).collect(),
            body: if call.body.is_some() { render("body")?.into_bytes() } else { Vec::new() },
        })
    }

    /// The first rule that holds, its place and what templates see of the answer.
    fn rule_for(&self, answer: &Answer) -> Option<(usize, &Rule, minijinja::Value)> {
        if self.rules.is_empty() {
            return None;
        }
        let context = context::of_answer(answer);
        let holds = |place: &usize| {
            // A rule that makes no sense for an answer does not hold.
            let rendered = self.templates.render(&format!("rules[{place}].when"), &context);
            rendered.is_ok_and(|text| !text.is_empty())
        };
        let place = (0..self.rules.len()).find(holds)?;
        Some((place, self.rules.get(place)?, context))
    }
}

impl HttpKind for HttpMapping {
    fn batch_max(&self) -> usize {
        self.batch_max
    }

    fn requests(&self, items: &[Item], _: Timestamp) -> Vec<Request> {
        let mut requests = Vec::new();
        let mut start = 0;
        while let Some(rest) = items.get(start..).filter(|rest| !rest.is_empty()) {
            let length = self.batch_length(rest);
            match rest.get(..length).map(|batch| self.request(batch, start)) {
                Some(Ok(request)) => requests.push(request),
                // What is too much together may do alone; what does not was refused before.
                _ => requests.extend(
                    rest.iter()
                        .take(length)
                        .enumerate()
                        .filter_map(|(at, item)| self.request(std::slice::from_ref(item), start + at).ok()),
                ),
            }
            start += length;
        }
        requests
    }

    fn refuses(&self, item: &Item) -> Option<Reason> {
        self.request(std::slice::from_ref(item), 0).err()
    }

    fn shown(&self, text: &str) -> String {
        let long = self.secrets.values().filter(|secret| secret.len() >= MASKED_MIN);
        long.fold(text.to_owned(), |text, secret| {
            let escaped = templates::percent_encoded(secret);
            text.replace(secret.as_str(), MASKED).replace(&escaped, MASKED)
        })
    }

    fn judge(&self, answer: &Answer) -> Verdict {
        match self.rule_for(answer) {
            Some((_, rule, _)) => rule.verdict(answer),
            None => Usual.judge(answer),
        }
    }

    fn verdicts(&self, answer: &Answer, count: usize) -> Vec<Verdict> {
        let Some((place, rule, context)) = self.rule_for(answer) else {
            return vec![Usual.judge(answer); count];
        };
        let verdict = rule.verdict(answer);
        if rule.items.is_none() {
            return vec![verdict; count];
        }
        let rendered = self.templates.render(&format!("rules[{place}].items"), &context).ok();
        let places = rendered.and_then(|text| serde_json::from_str::<Vec<usize>>(&text).ok());
        match places {
            // None of them is named: whatever it was, it concerns all.
            None => vec![verdict; count],
            Some(places) if places.is_empty() => vec![verdict; count],
            Some(places) => {
                let of = |place| if places.contains(&place) { verdict.clone() } else { Verdict::Delivered };
                (0..count).map(of).collect()
            }
        }
    }
}

/// What answers mean where no rule says otherwise.
#[derive(Debug)]
struct Usual;

impl HttpKind for Usual {
    fn batch_max(&self) -> usize {
        1
    }

    fn requests(&self, _: &[Item], _: Timestamp) -> Vec<Request> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
