//! What people say may be done with what is known of them, by category (personas.md 11.2).
//!
//! A category's preference is a hidden trait of the profile, so the newest event that says something of it wins (ties: the
//! larger message id), in whatever order events come, at merges, when a merge is taken back and in a rebuild; with the
//! trait stands the evidence: which event said so, when, and from which source. What nobody has said is no consent.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::traits::{NAME_CHARS_MAX, TRAITS_MAX, Traits, Write};
use crate::domain::json;
use crate::domain::trait_names::CONSENT_TRAIT;

/// Categories of one event that are looked at. Nobody has so many, and write keys are public.
pub const STATED_MAX: usize = 100;

static WORD: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"consent\""));

/// What one event says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stated {
    /// Categories, and whether there is consent.
    pub preferences: Vec<(String, bool)>,
    /// Entries that say nothing: no boolean, no usable name, or beyond [`STATED_MAX`].
    pub left_out: usize,
}

/// Reads `consent.categoryPreferences` of an event's context; none where it is not there. Costs one search of the text
/// where there is no consent in it.
pub fn stated(context: &str) -> Option<Stated> {
    WORD.find(context.as_bytes())?;
    let preferences = json::get(json::get(context, "consent")?, "categoryPreferences")?;
    let mut stated = Stated::default();
    for (category, value) in json::last_of_each(json::entries(preferences)) {
        let is_name = !category.is_empty()
            && category.chars().count() + CONSENT_TRAIT.len() <= NAME_CHARS_MAX
            && !category.contains('\0');
        match value {
            "true" | "false" if is_name && stated.preferences.len() < STATED_MAX => {
                stated.preferences.push((category.into_owned(), value == "true"));
            }
            _ => stated.left_out += 1,
        }
    }
    Some(stated)
}

/// The hidden trait that keeps a category's preference.
pub fn trait_of(category: &str) -> String {
    format!("{CONSENT_TRAIT}{category}")
}

/// Notes what an event says. Returns the hidden traits whose value changed, and how many found no room.
pub fn note(traits: &mut Traits, write: &Write, stated: &Stated) -> (Vec<String>, usize) {
    let mut room = TRAITS_MAX.saturating_sub(traits.len());
    let (mut values, mut left_out) = (Vec::with_capacity(stated.preferences.len()), 0);
    for (category, is_given) in &stated.preferences {
        let name = trait_of(category);
        if !traits.knows(&name) {
            if room == 0 {
                left_out += 1;
                continue;
            }
            room -= 1;
        }
        values.push((name, if *is_given { "true" } else { "false" }));
    }
    (traits.apply(write, values), left_out)
}

/// Whether there is consent to a category.
pub fn is_given(traits: &Traits, category: &str) -> bool {
    traits.get(&trait_of(category)) == Some("true")
}

/// The first of the categories without consent; none where there is consent to all, or nothing to consent to.
pub fn missing<'c>(traits: &Traits, categories: &'c [String]) -> Option<&'c str> {
    categories.iter().find(|category| !is_given(traits, category)).map(String::as_str)
}

/// Everything a person has said: category, whether there is consent, and the evidence.
pub fn preferences(traits: &Traits) -> impl Iterator<Item = (&str, bool, &Write)> {
    traits
        .iter()
        .filter_map(|(name, json, write)| Some((name.strip_prefix(CONSENT_TRAIT)?, json == "true", write)))
}

#[cfg(test)]
mod tests;
