//! The guard: sensitive data is taken out of events, or the event refused, before anything is stored (terms, section 4;
//! privacy duty P11).
//!
//! It looks at every key and every value of the text of a call, wherever they stand, and gives back the text as it may be
//! stored, with what was found: where and what, never the value. It works on any text; what is no valid JSON is taken
//! apart as far as it goes. Settings of a space are compiled once.

mod keys;
mod screen;
mod values;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use hashbrown::HashMap;
use regex::{Regex, RegexBuilder};

use crate::domain::SpaceNo;
use crate::domain::sensitive::{Action, Category, SensitivePattern, SensitiveSettings};

pub use screen::{Screened, Screener};

/// Patterns of a space.
pub const PATTERNS_MAX: usize = 100;
/// Longest pattern accepted, in characters.
pub const PATTERN_CHARS_MAX: usize = 256;
/// Largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Bytes of a hash that are kept.
const HASH_BYTES: usize = 16;

/// What was found, at one place of an event. Where it was found is told, what it was is not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Finding {
    /// The word of a category, or the name of a pattern.
    pub what: Arc<str>,
    /// Keys from the outermost on, with dots between them.
    pub path: String,
    /// What became of it.
    pub action: Action,
}

/// A pattern that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pattern {pattern:?} cannot be used: {why}")]
pub struct BadPattern {
    /// Its name.
    pub pattern: String,
    /// What is wrong with it.
    pub why: String,
}

struct Pattern {
    name: Arc<str>,
    key: Option<Regex>,
    value: Option<Regex>,
    action: Action,
}

/// Settings of a space made ready.
pub struct Guard {
    settings: SensitiveSettings,
    patterns: Vec<Pattern>,
    names: [Arc<str>; Category::ALL.len()],
    hash_key: hmac::Key,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guard({:?}, {} patterns)", self.settings.actions, self.patterns.len())
    }
}

impl Guard {
    /// Compiles settings; an error names the pattern that cannot be used.
    pub fn new(settings: SensitiveSettings) -> Result<Self, BadPattern> {
        let patterns = settings.patterns.iter().take(PATTERNS_MAX).map(compile).collect::<Result<_, _>>()?;
        let names = Category::ALL.map(|category| Arc::from(category.as_str()));
        let hash_key = hmac::Key::new(hmac::HMAC_SHA256, &settings.hash_key);
        Ok(Self { settings, patterns, names, hash_key })
    }

    /// The settings it was made of.
    pub const fn settings(&self) -> &SensitiveSettings {
        &self.settings
    }

    fn name(&self, category: Category) -> Arc<str> {
        let place = Category::ALL.iter().position(|known| *known == category);
        place.and_then(|place| self.names.get(place)).cloned().unwrap_or_default()
    }

    fn hash(&self, text: &str) -> String {
        let tag = hmac::sign(&self.hash_key, text.as_bytes());
        format!("hmac:{}", hex::encode(tag.as_ref().get(..HASH_BYTES).unwrap_or_default()))
    }
}

fn compile(pattern: &SensitivePattern) -> Result<Pattern, BadPattern> {
    let bad = |why: String| BadPattern { pattern: pattern.name.clone(), why };
    let one = |text: &Option<String>| -> Result<Option<Regex>, BadPattern> {
        let Some(text) = text else { return Ok(None) };
        if text.chars().count() > PATTERN_CHARS_MAX {
            return Err(bad(format!("it has more than {PATTERN_CHARS_MAX} characters")));
        }
        let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
        let regex = built.map_err(|error| bad(error.to_string()))?;
        // It would be found between any two characters.
        if regex.is_match("") {
            return Err(bad("it matches the empty text, and so everything".to_owned()));
        }
        Ok(Some(regex))
    };
    let (key, value) = (one(&pattern.key)?, one(&pattern.value)?);
    if key.is_none() && value.is_none() {
        return Err(bad("it needs a pattern for keys, for values, or both".to_owned()));
    }
    Ok(Pattern { name: Arc::from(pattern.name.as_str()), key, value, action: pattern.action })
}

/// The guards of all spaces that have settings of their own, for whoever stores events; clones share them.
#[derive(Debug, Clone)]
pub struct Guards(Arc<ArcSwap<Known>>);

#[derive(Debug)]
struct Known {
    by_space: HashMap<SpaceNo, Arc<Guard>>,
    of_others: Arc<Guard>,
}

impl Default for Guards {
    fn default() -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Known { by_space: HashMap::new(), of_others: Arc::default() })))
    }
}

impl Default for Guard {
    fn default() -> Self {
        let names = Category::ALL.map(|category| Arc::from(category.as_str()));
        let hash_key = hmac::Key::new(hmac::HMAC_SHA256, &[]);
        Self { settings: SensitiveSettings::default(), patterns: Vec::new(), names, hash_key }
    }
}

impl Guards {
    /// The guard of a space.
    pub fn of(&self, space: SpaceNo) -> Arc<Guard> {
        let known = self.0.load();
        Arc::clone(known.by_space.get(&space).unwrap_or(&known.of_others))
    }

    /// Takes the settings of all spaces that have some; those that are as they were are not compiled again. What does not
    /// compile is told, and that space keeps what it had.
    pub fn replace(&self, all: Vec<(SpaceNo, SensitiveSettings)>) -> Vec<(SpaceNo, BadPattern)> {
        let before = self.0.load_full();
        let (mut by_space, mut bad) = (HashMap::new(), Vec::new());
        for (space, settings) in all {
            let known = before.by_space.get(&space).filter(|guard| *guard.settings() == settings);
            match known.cloned().map_or_else(|| Guard::new(settings).map(Arc::new), Ok) {
                Ok(guard) => _ = by_space.insert(space, guard),
                Err(error) => {
                    bad.push((space, error));
                    by_space.extend(before.by_space.get(&space).map(|guard| (space, Arc::clone(guard))));
                }
            }
        }
        self.0.store(Arc::new(Known { by_space, of_others: Arc::clone(&before.of_others) }));
        bad
    }
}
