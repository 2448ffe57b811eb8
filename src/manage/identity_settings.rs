//! A space's identity settings, as operators change them (decisions I2-I5, I12b, I13).
//!
//! A change names what is to be different; the rest stays. It is checked whole against the settings there are, made in
//! one transaction, and counts from where the processor stands: what has been processed stays as it is.

use std::collections::{HashMap, HashSet};

use super::{Manage, ManageError, Result};
use crate::domain::id_type::{Frequency, IdType, TYPES_MAX, TypeNo};
use crate::domain::identifier::{is_type_name, normalise};
use crate::domain::{Patch, SpaceNo};
use crate::engine::identity::{Settings, check_pattern};
use crate::store::Walled;
use crate::store::identity_settings::{self as store, Changed};

pub use crate::store::identity::SettingsRow as IdentitySettings;

/// Highest limit of a type.
const LIMIT_MAX: i64 = 1_000_000;
/// Highest number for a priority; the lowest is 1, the most trusted.
const PRIORITY_MAX: i64 = 10_000;
/// Highest number for either of the caps.
const CAP_MAX: i64 = 10_000;
/// Highest quarantine threshold: so many profiles are remembered of a refused value.
const THRESHOLD_MAX: i64 = 1_000;
/// Keys one type is read from.
const KEYS_MAX: usize = 10;
/// Longest key or blocked value, in characters.
const TEXT_CHARS_MAX: usize = 255;
/// Blocked values of one type.
const BLOCKED_MAX: usize = 1_000;
/// Blocked patterns of one type.
const PATTERNS_MAX: usize = 10;
/// Blocked patterns of all types together.
const PATTERNS_OF_ALL_MAX: usize = 400;

/// What is to be changed of the settings; what is not named stays as it is.
#[derive(Debug, Clone, Default)]
pub struct SettingsChange {
    /// The version the change is made of: with another one present, nothing is changed.
    pub version: Option<i64>,
    /// Types to be changed, or made where they are new.
    pub identifiers: Vec<TypeChange>,
    /// Types to be removed, by name.
    pub remove: Vec<String>,
    /// Merges a profile takes at most.
    pub merges_max: Option<i64>,
    /// Identifiers a profile takes at most.
    pub identifiers_max: Option<i64>,
    /// Profiles a value is refused to before it is put into quarantine; 0: none is.
    pub quarantine_threshold: Option<i64>,
    /// Whether unknown types in `externalIds` are added.
    pub add_unknown_types: Option<bool>,
}

/// What is to be changed of a type; what is not named stays, or is the default for a new type.
#[derive(Debug, Clone, Default)]
pub struct TypeChange {
    /// Which type.
    pub name: String,
    /// Keys it is read from.
    pub keys: Option<Vec<String>>,
    /// Values a profile takes.
    pub limit: Option<i64>,
    /// A word of [`Frequency`].
    pub frequency: Option<String>,
    /// Explicit priority, or the default order.
    pub priority: Patch<i64>,
    /// Whether values are lower-cased.
    pub case_insensitive: Option<bool>,
    /// Blocked values.
    pub blocked_exact: Option<Vec<String>>,
    /// Blocked patterns.
    pub blocked_patterns: Option<Vec<String>>,
}

/// The types, most trusted first.
pub fn in_order_of_trust(types: Vec<IdType>) -> Vec<IdType> {
    match Settings::new(types, 0, 0) {
        Ok(settings) => settings.types().cloned().collect(),
        // Nobody could have stored it.
        Err(_) => Vec::new(),
    }
}

impl Manage {
    /// The identity settings of a space.
    pub async fn identity_settings(&self, space: SpaceNo) -> Result<IdentitySettings> {
        Ok(store::read_settings(&self.door(space), space).await?)
    }

    /// Changes the settings of a space. Events that come after this returns are resolved by the new ones.
    pub async fn change_identity_settings(
        &self,
        space: SpaceNo,
        change: &SettingsChange,
    ) -> Result<IdentitySettings> {
        let door = self.door(space);
        let make = store::change_settings(&door, space, |present| apply(change, present));
        match self.reconfigure::<_, ManageError>(space, make).await? {
            Changed::To(settings) => Ok(settings),
            Changed::Held(no) => Err(held(&self.identity_settings(space).await?, no)),
        }
    }

    /// The change that brings another space's types, caps and switch into a space. Types the other one does not have stay.
    pub async fn import_of_identity_settings(&self, from: SpaceNo) -> Result<SettingsChange> {
        let settings = self.identity_settings(from).await?;
        let identifiers = settings.types.into_iter().map(|t| TypeChange {
            name: t.name,
            keys: Some(t.keys),
            limit: Some(i64::from(t.limit)),
            frequency: Some(t.frequency.as_str().to_owned()),
            priority: t.priority.map_or(Patch::Clear, |priority| Patch::Set(i64::from(priority))),
            case_insensitive: Some(t.case_insensitive),
            blocked_exact: Some(t.blocked_exact),
            blocked_patterns: Some(t.blocked_patterns),
        });
        Ok(SettingsChange {
            version: None,
            identifiers: identifiers.collect(),
            remove: Vec::new(),
            merges_max: Some(i64::from(settings.merges_max)),
            identifiers_max: Some(i64::from(settings.identifiers_max)),
            quarantine_threshold: Some(i64::from(settings.quarantine_threshold)),
            add_unknown_types: Some(settings.add_unknown_types),
        })
    }
}

/// The settings a change would make of those there are, checked as if it were made.
pub async fn propose(door: &Walled, space: SpaceNo, change: &SettingsChange) -> Result<Proposal> {
    let present = store::read_settings(door, space).await?;
    let wanted = apply(change, &present)?;
    match store::find_held(door, space, &store::gone(&present, &wanted)).await? {
        Some(no) => Err(held(&present, no)),
        None => Ok(Proposal { present, wanted }),
    }
}

/// Settings as they are, and as they would be.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Those there are.
    pub present: IdentitySettings,
    /// Those a change would make of them.
    pub wanted: IdentitySettings,
}

/// A type that is to be removed is one that profiles have identifiers of.
fn held(present: &IdentitySettings, no: TypeNo) -> ManageError {
    let name = present.types.iter().find(|t| t.no == no).map_or("", |t| &t.name);
    let key = format!("the identifier type {name}");
    ManageError::Referenced { key, by: vec!["profiles that have such identifiers".to_owned()] }
}

/// The settings that a change makes of the present ones.
fn apply(change: &SettingsChange, present: &IdentitySettings) -> Result<IdentitySettings> {
    if let Some(given) = change.version.filter(|given| *given != present.version) {
        return Err(ManageError::Stale { given, present: present.version });
    }
    let names_nothing = change.identifiers.is_empty() && change.remove.is_empty();
    if names_nothing
        && change.merges_max.is_none()
        && change.identifiers_max.is_none()
        && change.quarantine_threshold.is_none()
        && change.add_unknown_types.is_none()
    {
        let message = "name what is to be changed: identifiers, remove, merges_max, identifiers_max, quarantine_threshold or add_unknown_types";
        return Err(ManageError::invalid("identifiers", message));
    }
    let mut settings = present.clone();
    if let Some(most) = change.merges_max {
        settings.merges_max = whole("merges_max", most, 0, CAP_MAX)?;
    }
    if let Some(most) = change.identifiers_max {
        settings.identifiers_max = whole("identifiers_max", most, 1, CAP_MAX)?;
    }
    if let Some(most) = change.quarantine_threshold {
        settings.quarantine_threshold = whole("quarantine_threshold", most, 0, THRESHOLD_MAX)?;
    }
    settings.add_unknown_types = change.add_unknown_types.unwrap_or(settings.add_unknown_types);
    remove_types(change, &mut settings.types)?;
    let mut named = HashSet::new();
    for (place, given) in change.identifiers.iter().enumerate() {
        let at = format!("identifiers[{place}]");
        if !named.insert(&given.name) {
            let message = format!("the type {} is named twice", shown(&given.name));
            return Err(ManageError::invalid(format!("{at}.type"), message));
        }
        change_type(&at, given, &mut settings.types)?;
    }
    check_together(change, &settings.types)?;
    Ok(settings)
}

fn remove_types(change: &SettingsChange, types: &mut Vec<IdType>) -> Result<()> {
    for (place, name) in change.remove.iter().enumerate() {
        let at = format!("remove[{place}]");
        if change.identifiers.iter().any(|given| given.name == *name) {
            let message = format!("the type {} is to be removed and changed at once", shown(name));
            return Err(ManageError::invalid(at, message));
        }
        let known = types.iter().position(|t| t.name == *name);
        let known = known.ok_or_else(|| {
            ManageError::invalid(at, format!("there is no type {}, or it is named twice", shown(name)))
        })?;
        types.remove(known);
    }
    Ok(())
}

fn change_type(at: &str, given: &TypeChange, types: &mut Vec<IdType>) -> Result<()> {
    let invalid = |field: &str, message: String| Err(ManageError::invalid(format!("{at}.{field}"), message));
    if !is_type_name(&given.name) {
        let message =
            "a type is named by 1 to 64 small letters, digits, `_` or `.`, and begins with a letter";
        return invalid("type", format!("{} cannot be a type: {message}", shown(&given.name)));
    }
    let known = types.iter().position(|t| t.name == given.name);
    let next = types.iter().map(|t| t.no).max().unwrap_or(0).saturating_add(1);
    let new = || IdType::with_defaults(next, &given.name);
    let mut id_type = known.map_or_else(new, |place| types.remove(place));
    if let Some(keys) = &given.keys {
        if given.name == "group_id" && !keys.is_empty() {
            let message = "group_id belongs to accounts alone: it is read from groupId and from externalIds of the collection accounts";
            return invalid("keys", message.to_owned());
        }
        id_type.keys = texts(&format!("{at}.keys"), keys, KEYS_MAX)?;
    }
    if let Some(limit) = given.limit {
        id_type.limit = whole::<u32>(&format!("{at}.limit"), limit, 1, LIMIT_MAX)?;
    }
    if let Some(word) = &given.frequency {
        let Some(frequency) = Frequency::parse(word) else {
            let message = "there are daily, weekly, monthly, annually and ever";
            return invalid("frequency", format!("there is no frequency {}; {message}", shown(word)));
        };
        id_type.frequency = frequency;
    }
    let priority =
        given.priority.try_map(|priority| whole(&format!("{at}.priority"), priority, 1, PRIORITY_MAX))?;
    id_type.priority = priority.over(id_type.priority);
    id_type.case_insensitive = given.case_insensitive.unwrap_or(id_type.case_insensitive);
    if let Some(values) = &given.blocked_exact {
        let values: Vec<String> = values.iter().map(|value| normalise(value, false)).collect();
        id_type.blocked_exact = texts(&format!("{at}.blocked.exact"), &values, BLOCKED_MAX)?;
    }
    if let Some(patterns) = &given.blocked_patterns {
        check_patterns(&format!("{at}.blocked.patterns"), patterns)?;
        id_type.blocked_patterns.clone_from(patterns);
    }
    types.push(id_type);
    types.sort_unstable_by_key(|t| t.no);
    Ok(())
}

/// What no type can be wrong in alone.
fn check_together(change: &SettingsChange, types: &[IdType]) -> Result<()> {
    if types.len() > TYPES_MAX {
        return Err(ManageError::TooMany { what: "identifier types", most: TYPES_MAX });
    }
    let patterns: usize = types.iter().map(|t| t.blocked_patterns.len()).sum();
    if patterns > PATTERNS_OF_ALL_MAX {
        return Err(ManageError::TooMany { what: "blocked patterns", most: PATTERNS_OF_ALL_MAX });
    }
    let mut taken: HashMap<i32, &str> = HashMap::new();
    for id_type in types {
        let Some(priority) = id_type.priority else { continue };
        let Some(other) = taken.insert(priority, &id_type.name) else { continue };
        let names = [other, &id_type.name];
        let place = change.identifiers.iter().rposition(|given| names.contains(&given.name.as_str()));
        let field =
            place.map_or_else(|| "identifiers".to_owned(), |place| format!("identifiers[{place}].priority"));
        let message = format!(
            "{other} and {} have the same priority, {priority}; each needs its own, or null for the default order",
            id_type.name
        );
        return Err(ManageError::invalid(field, message));
    }
    Ok(())
}

fn whole<T: TryFrom<i64>>(field: &str, given: i64, least: i64, most: i64) -> Result<T> {
    let read =
        Some(given).filter(|given| (least..=most).contains(given)).and_then(|given| given.try_into().ok());
    read.ok_or_else(|| {
        let message = format!("{field} is {given}; it can be a whole number from {least} to {most}");
        ManageError::invalid(field.to_owned(), message)
    })
}

fn texts(field: &str, given: &[String], most: usize) -> Result<Vec<String>> {
    if given.len() > most {
        let message = format!("there are {} of them; there can be {most}", given.len());
        return Err(ManageError::invalid(field.to_owned(), message));
    }
    for (place, text) in given.iter().enumerate() {
        let is_right = !text.trim().is_empty()
            && text.chars().count() <= TEXT_CHARS_MAX
            && !text.chars().any(char::is_control);
        if !is_right {
            let message = format!(
                "{} cannot be used: 1 to {TEXT_CHARS_MAX} characters, no control characters",
                shown(text)
            );
            return Err(ManageError::invalid(format!("{field}[{place}]"), message));
        }
    }
    Ok(given.to_vec())
}

fn check_patterns(field: &str, patterns: &[String]) -> Result<()> {
    if patterns.len() > PATTERNS_MAX {
        let message = format!("there are {} of them; there can be {PATTERNS_MAX}", patterns.len());
        return Err(ManageError::invalid(field.to_owned(), message));
    }
    for (place, pattern) in patterns.iter().enumerate() {
        let at = || format!("{field}[{place}]");
        if pattern.contains('\0') {
            return Err(ManageError::invalid(at(), "a pattern cannot contain U+0000; no value does"));
        }
        check_pattern(pattern).map_err(|bad| ManageError::invalid(at(), bad.to_string()))?;
    }
    Ok(())
}

/// What somebody sent, short enough for a message.
pub(super) fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(60).collect::<String>())
}
