//! Consent in the working set: what events say of it, and who has to be told the present state because of it.
//!
//! Destinations that ask for consent are not told of people without it. Where somebody gives it, what holds of them now is
//! told then, also that they are in an audience no more: the destination may have been told that they are.

use hashbrown::HashMap;

use super::apply::Ground;
use super::catalog::Catalog;
use super::work::{Entry, Work};
use crate::domain::trait_names::CONSENT_TRAIT;
use crate::domain::{DestinationNo, ProfileNo};
use crate::engine::consent::{is_given, missing, note, stated};
use crate::engine::traits::{Traits, Write};
use crate::store::log::codec::Record;

/// Which destinations ask for consent, and to what.
#[derive(Debug, Default)]
pub(super) struct Asked(HashMap<DestinationNo, Vec<String>>);

impl Asked {
    /// Takes down categories of destinations.
    pub(super) fn of(mappings: Vec<(DestinationNo, String)>) -> Self {
        let mut asked: HashMap<DestinationNo, Vec<String>> = HashMap::new();
        for (destination, category) in mappings {
            asked.entry(destination).or_default().push(category);
        }
        Self(asked)
    }

    /// Whether nobody asks for any.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a destination may be told of a person because of what they have consented to just now.
    pub(super) fn begins(&self, destination: DestinationNo, traits: &Traits, given: &[String]) -> bool {
        self.0.get(&destination).is_some_and(|categories| {
            categories.iter().any(|category| given.contains(category))
                && missing(traits, categories).is_none()
        })
    }

    /// Of all categories somebody asks for, those with consent; none twice.
    fn given(&self, traits: &Traits) -> Vec<String> {
        let mut given: Vec<String> =
            self.0.values().flatten().filter(|category| is_given(traits, category)).cloned().collect();
        given.sort_unstable();
        given.dedup();
        given
    }
}

/// Notes what an event says of its user's consent; returns the entries that could not be used. Used for events as they come
/// and for those of the past alike.
pub(super) fn set(entry: &mut Entry, record: &Record<'_>, catalog: &Catalog) -> (Vec<String>, usize) {
    let Some(stated) = stated(record.context) else { return (Vec::new(), 0) };
    let write = Write {
        at: record.timestamp,
        message_id: record.message_id.to_owned(),
        source: record.source,
        public: false,
    };
    let (changed, no_room) = entry.profile.traits.update(|traits| note(traits, &write, &stated));
    for name in &changed {
        catalog.program.mark_trait(name, &mut entry.dirty);
    }
    (changed, stated.left_out + no_room)
}

/// Notes what an event says of its user's consent, and whom that concerns. Returns how many entries could not be used.
pub(super) fn apply(work: &mut Work, user: ProfileNo, record: &Record<'_>, ground: &Ground<'_>) -> usize {
    let Some(entry) = work.entries.get_mut(&user) else { return 0 };
    let (changed, left_out) = set(entry, record, ground.catalog);
    if changed.is_empty() || ground.catalog.wanted.asked.is_empty() {
        return left_out;
    }
    let traits = entry.profile.traits.get();
    let categories = changed.iter().filter_map(|name| name.strip_prefix(CONSENT_TRAIT));
    let given: Vec<String> = categories.filter(|c| is_given(traits, c)).map(str::to_owned).collect();
    if !given.is_empty() {
        work.out.consented.entry(user).or_default().extend(given);
    }
    left_out
}

/// What a profile has consent to again that was part of one with these traits, which had none; as far as anybody asks.
pub(super) fn given_back(before: &Traits, entry: &Entry, catalog: &Catalog) -> Vec<String> {
    let given = given(entry, catalog).into_iter();
    given.filter(|category| !is_given(before, category)).collect()
}

/// What a profile has consented to, as far as anybody asks; nothing where nobody does.
pub(super) fn given(entry: &Entry, catalog: &Catalog) -> Vec<String> {
    let asked = &catalog.wanted.asked;
    if asked.is_empty() { Vec::new() } else { asked.given(entry.profile.traits.get()) }
}
