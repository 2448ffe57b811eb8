//! Reads option by option and remembers what was wrong instead of stopping at the first.

use std::{collections::BTreeSet, ops::RangeInclusive, path::PathBuf, time::Duration};

use figment::{Figment, value::Value};

use super::{Problem, Secret, sources::options};

/// Names this similar or more are suggested for unknown ones (1 is equal).
const SIMILAR: f64 = 0.75;

/// Collects the problems. The options that were asked for are those that exist: anything else is unknown.
pub(super) struct Reader<'a> {
    figment: &'a Figment,
    known: BTreeSet<&'static str>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(figment: &'a Figment) -> Self {
        Self { figment, known: BTreeSet::new(), problems: Vec::new() }
    }

    /// A whole number within the range. With a problem, any number: the configuration is refused anyway.
    pub(super) fn number<T: TryFrom<i128> + Default>(
        &mut self,
        path: &'static str,
        range: RangeInclusive<i64>,
    ) -> T {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let number = match self.value(path) {
            Some(Value::Num(_, number)) => number.to_i128().or_else(|| number.to_u128()?.try_into().ok()),
            Some(_) => None,
            None => return T::default(),
        };
        let within = |number: &i128| (i128::from(*range.start())..=i128::from(*range.end())).contains(number);
        let taken = number.filter(within).and_then(|number| T::try_from(number).ok());
        taken.unwrap_or_else(|| {
            self.refuse(path, &wanted);
            T::default()
        })
    }

    pub(super) fn millis(&mut self, path: &'static str, range: RangeInclusive<i64>) -> Duration {
        Duration::from_millis(self.number(path, range))
    }

    pub(super) fn seconds(&mut self, path: &'static str, range: RangeInclusive<i64>) -> Duration {
        Duration::from_secs(self.number(path, range))
    }

    /// Text that must not be empty.
    pub(super) fn text(&mut self, path: &'static str) -> String {
        self.optional(path).unwrap_or_else(|| {
            self.refuse(path, "a text that is not empty");
            String::new()
        })
    }

    /// Text that becomes something else; `wanted` says what it should look like.
    pub(super) fn parsed<T>(
        &mut self,
        path: &'static str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = self.optional(path).and_then(|text| parse(&text));
        if parsed.is_none() {
            self.refuse(path, wanted);
        }
        parsed
    }

    /// Text, or `None` when it is empty.
    pub(super) fn optional(&mut self, path: &'static str) -> Option<String> {
        if let Value::String(_, text) = self.value(path)? {
            return Some(text).filter(|text| !text.is_empty());
        }
        self.refuse(path, "a text in quotes");
        None
    }

    pub(super) fn path(&mut self, path: &'static str) -> Option<PathBuf> {
        self.optional(path).map(PathBuf::from)
    }

    pub(super) fn secret(&mut self, path: &'static str) -> Option<Secret> {
        self.optional(path).map(Secret::new)
    }

    /// Says that the value of an option will not do. The value is not shown: it may be secret, and it is where the
    /// source says.
    pub(super) fn refuse(&mut self, path: &'static str, wanted: &str) {
        let is_there = self.figment.find_value(path).is_ok();
        if is_there && self.problems.iter().all(|known| known.path != path) {
            let problem = Problem {
                path: path.to_owned(),
                source: self.source(path),
                message: format!("must be {wanted}"),
            };
            self.problems.push(problem);
        }
    }

    /// What was wrong, unknown names included.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        for path in options(self.figment).into_keys().filter(|path| !self.known.contains(&**path)) {
            let is_section = self.known.iter().any(|known| known.split('.').next() == Some(&*path));
            let message = if is_section {
                format!("must be a section: write [{path}] and its options below")
            } else {
                format!("there is no such option{}", nearest(&path, self.known.iter().copied()))
            };
            self.problems.push(Problem { source: self.source(&path), path, message });
        }
        self.problems
    }

    /// The value; every option has a default, so it is missing only when its section was overwritten by a value,
    /// which [`finish`](Self::finish) reports.
    fn value(&mut self, path: &'static str) -> Option<Value> {
        self.known.insert(path);
        self.figment.find_value(path).ok()
    }

    fn source(&self, path: &str) -> String {
        let Some(found) = self.figment.find_metadata(path) else { return "the defaults".to_owned() };
        let file = found.source.as_ref().and_then(|source| source.file_path());
        file.map_or_else(|| found.name.to_string(), |file| file.display().to_string())
    }
}

/// `: did you mean …?` when a known name is close.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| format!(": did you mean {known}?"))
        .unwrap_or_default()
}
