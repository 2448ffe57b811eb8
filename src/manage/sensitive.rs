//! What a space does about sensitive data in events, as operators decide it, and what was found (privacy duty P11).

use std::collections::HashSet;

use super::identity_settings::shown;
use super::{Manage, ManageError, Result};
use crate::domain::SpaceNo;
use crate::domain::sensitive::{Action, Category, SensitivePattern, SensitiveSettings};
use crate::engine::guard::{Finding, Guard, PATTERNS_MAX, Screener};
use crate::store::sensitive;

pub use crate::store::sensitive::{Count, Place};

/// Longest name of a pattern, in characters.
const NAME_CHARS_MAX: usize = 64;
/// Bytes of the key that values are hashed with.
const HASH_KEY_BYTES: usize = 32;

/// What is to be changed; what is not named stays.
#[derive(Debug, Clone, Default)]
pub struct SensitiveChange {
    /// The version the change is made of: with another one present, nothing is changed.
    pub version: Option<i64>,
    /// Words of categories, and of what is to become of them.
    pub actions: Vec<(String, String)>,
    /// All patterns there are to be.
    pub patterns: Option<Vec<PatternChange>>,
}

/// A pattern as it was sent.
#[derive(Debug, Clone)]
pub struct PatternChange {
    /// What findings call it.
    pub name: String,
    /// Regular expression for keys.
    pub key: Option<String>,
    /// Regular expression for values.
    pub value: Option<String>,
    /// What is to become of it.
    pub action: String,
}

impl Manage {
    /// What a space does about sensitive data.
    pub async fn sensitive_settings(&self, space: SpaceNo) -> Result<SensitiveSettings> {
        Ok(sensitive::read_settings(&self.door(space), space).await?)
    }

    /// Changes what a space does about sensitive data. This process does so at once, others within a second.
    pub async fn change_sensitive_settings(
        &self,
        space: SpaceNo,
        change: SensitiveChange,
    ) -> Result<SensitiveSettings> {
        let key: Vec<u8> = rand::random::<[u8; HASH_KEY_BYTES]>().to_vec();
        let changed =
            sensitive::change_settings(&self.door(space), space, key, |present| apply(change, present))
                .await?;
        self.registry.reload().await?;
        Ok(changed)
    }

    /// What would be stored of a call, and what is found in it. Nothing is stored or counted.
    pub fn try_screening(&self, space: SpaceNo, call: &str) -> (String, Vec<Finding>) {
        let mut screener = Screener::new(self.registry.guards().of(space));
        let screened = screener.screen(call, "");
        (screened.text.into_owned(), screened.findings)
    }

    /// Everything that was found, what was found most often first.
    pub async fn list_sensitive_findings(&self, space: SpaceNo) -> Result<Vec<(Place, Count)>> {
        let mut found = sensitive::list_findings(&self.door(space), space).await?;
        found.sort_by_key(|(_, count)| std::cmp::Reverse(count.occurrences));
        Ok(found)
    }
}

fn apply(change: SensitiveChange, present: &SensitiveSettings) -> Result<SensitiveSettings> {
    if let Some(given) = change.version.filter(|given| *given != present.version) {
        return Err(ManageError::Stale { given, present: present.version });
    }
    if change.actions.is_empty() && change.patterns.is_none() {
        return Err(ManageError::invalid("actions", "name what is to be changed: actions or patterns"));
    }
    let mut settings = present.clone();
    for (category, action) in change.actions {
        let place = Category::parse(&category);
        let place = place.and_then(|known| Category::ALL.iter().position(|category| *category == known));
        let Some(kept) = place.and_then(|place| settings.actions.get_mut(place)) else {
            let all = Category::ALL.map(Category::as_str).join(", ");
            let message = format!("there is no category {}; there are {all}", shown(&category));
            return Err(ManageError::invalid("actions", message));
        };
        *kept = read_action(&format!("actions.{category}"), &action)?;
    }
    if let Some(patterns) = change.patterns {
        settings.patterns = read_patterns(patterns)?;
    }
    Ok(settings)
}

fn read_patterns(given: Vec<PatternChange>) -> Result<Vec<SensitivePattern>> {
    if given.len() > PATTERNS_MAX {
        let message = format!("there are {} of them; there can be {PATTERNS_MAX}", given.len());
        return Err(ManageError::invalid("patterns", message));
    }
    let (mut patterns, mut named) = (Vec::new(), HashSet::new());
    for (place, PatternChange { name, key, value, action }) in given.into_iter().enumerate() {
        let at = format!("patterns[{place}]");
        let is_name = !name.trim().is_empty()
            && name.chars().count() <= NAME_CHARS_MAX
            && !name.chars().any(char::is_control);
        if !is_name {
            let message = format!("a name has 1 to {NAME_CHARS_MAX} characters, no control characters");
            return Err(ManageError::invalid(format!("{at}.name"), message));
        }
        if Category::parse(&name).is_some() || !named.insert(name.clone()) {
            let message = format!("the name {} is taken", shown(&name));
            return Err(ManageError::invalid(format!("{at}.name"), message));
        }
        if [&key, &value].into_iter().flatten().any(|pattern| pattern.contains('\0')) {
            return Err(ManageError::invalid(at, "a pattern cannot contain U+0000; no event does"));
        }
        let action = read_action(&format!("{at}.action"), &action)?;
        let pattern = SensitivePattern { name, key, value, action };
        let alone = SensitiveSettings { patterns: vec![pattern.clone()], ..SensitiveSettings::default() };
        Guard::new(alone).map_err(|bad| ManageError::invalid(at, bad.to_string()))?;
        patterns.push(pattern);
    }
    Ok(patterns)
}

fn read_action(field: &str, word: &str) -> Result<Action> {
    Action::parse(word).ok_or_else(|| {
        let all = Action::ALL.map(Action::as_str).join(", ");
        ManageError::invalid(field.to_owned(), format!("there is no action {}; there are {all}", shown(word)))
    })
}
