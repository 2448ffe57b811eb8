//! Custom traits of a profile: what identify and group calls set (decisions R1-R4).
//!
//! Per trait the newest event time wins and ties go to the larger message id, so the same writes in any order leave
//! the same traits. What came with a key that anybody may know stands behind everything else, whenever it was. A removed trait remembers when, so that an older write does not bring it back.

use serde::{Deserialize, Serialize};

use crate::domain::trait_names::{OBJECTION_TRAIT, OBJECTIONS, canonical};
use crate::domain::{SourceNo, Timestamp};

/// Custom traits of a profile, removed ones included: they remember when they were removed.
pub const TRAITS_MAX: usize = 5_000;
/// Longest trait name, in characters (decision R4).
pub const NAME_CHARS_MAX: usize = 255;

/// Who wrote a trait, and when (event time).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Write {
    /// Event time.
    pub at: Timestamp,
    /// Breaks ties: the larger one wins.
    #[serde(with = "crate::domain::message_id")]
    pub message_id: String,
    /// The source that sent it.
    pub source: SourceNo,
    /// Sent with a key that anybody may know: whatever else was written stands before it.
    pub public: bool,
}

impl Write {
    /// The larger one wins.
    fn weight(&self) -> (bool, Timestamp, &str) {
        (!self.public, self.at, &self.message_id)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    name: String,
    /// JSON text; `None` once removed.
    value: Option<String>,
    /// Index into the writes: traits set by one call share it.
    write: u32,
}

/// The traits of one profile, in order of their canonical names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traits {
    entries: Vec<Entry>,
    writes: Vec<Write>,
}

impl Traits {
    /// The present value of a trait as JSON text, by either spelling of a reserved name.
    pub fn get(&self, name: &str) -> Option<&str> {
        match self.find(name) {
            Ok(place) => self.entries.get(place)?.value.as_deref(),
            // Those of single objections stand right behind where it would be.
            Err(place) if name == OBJECTION_TRAIT => {
                let objections = self.entries.iter().skip(place);
                let mut objections = objections.take_while(|entry| entry.name.starts_with(OBJECTIONS));
                objections.any(|entry| entry.value.is_some()).then_some("true")
            }
            Err(_) => None,
        }
    }

    /// Traits there are or were.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there never was one.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is or was a trait of that name.
    pub fn knows(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// All present traits: name as sent, JSON text, and who wrote it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Write)> {
        self.entries.iter().filter_map(|entry| {
            Some((entry.name.as_str(), entry.value.as_deref()?, self.writes.get(entry.write as usize)?))
        })
    }

    /// Applies one call's traits. `value` is JSON text; `null` removes. Returns the names whose value changed.
    pub fn apply<'a>(
        &mut self,
        write: &Write,
        values: impl IntoIterator<Item = (String, &'a str)>,
    ) -> Vec<String> {
        let mut changed = Vec::new();
        let mut index = None;
        for (name, raw) in values {
            let place = self.find(&name);
            if let Ok(found) = place
                && self.write_of(found).is_some_and(|old| old.weight() >= write.weight())
            {
                continue;
            }
            let index = *index.get_or_insert_with(|| {
                self.writes.push(write.clone());
                self.writes.len() as u32 - 1
            });
            let value = (raw != "null").then(|| raw.to_owned());
            let entry = Entry { name, value, write: index };
            match place {
                Ok(found) => {
                    let Some(slot) = self.entries.get_mut(found) else { continue };
                    if slot.value != entry.value {
                        changed.push(entry.name.clone());
                    }
                    *slot = entry;
                }
                Err(free) => {
                    if entry.value.is_some() {
                        changed.push(entry.name.clone());
                    }
                    self.entries.insert(free, entry);
                }
            }
        }
        // Writes that no trait refers to any more would only take room.
        if self.writes.len() > self.entries.len() {
            self.tidy();
        }
        changed
    }

    /// Takes over another profile's traits at a merge: per trait the newer write wins (I9).
    pub fn merge(&mut self, other: &Self) -> Vec<String> {
        let mut changed = Vec::new();
        for entry in &other.entries {
            let Some(write) = other.writes.get(entry.write as usize) else { continue };
            let value = entry.value.as_deref().unwrap_or("null");
            changed.extend(self.apply(write, [(entry.name.clone(), value)]));
        }
        self.tidy();
        changed
    }

    /// Puts the writes into the one order that depends on nothing but the traits, and drops unused ones.
    pub fn tidy(&mut self) {
        let mut writes: Vec<Write> =
            self.entries.iter().filter_map(|e| self.writes.get(e.write as usize).cloned()).collect();
        writes.sort_unstable();
        writes.dedup();
        for entry in &mut self.entries {
            let Some(write) = self.writes.get(entry.write as usize) else { continue };
            entry.write = writes.binary_search(write).unwrap_or_default() as u32;
        }
        self.writes = writes;
    }

    fn write_of(&self, place: usize) -> Option<&Write> {
        self.writes.get(self.entries.get(place)?.write as usize)
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        let wanted = canonical(name);
        self.entries.binary_search_by(|entry| canonical(&entry.name).cmp(&wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(at: i64, id: &str) -> Write {
        Write { at: Timestamp::from_millis(at), message_id: id.into(), source: SourceNo(1), public: false }
    }

    #[test]
    fn a_late_write_never_overwrites_and_a_removal_is_remembered() {
        let mut traits = Traits::default();
        traits.apply(&write(10, "m"), [("plan".into(), "\"pro\"")]);
        traits.apply(&write(5, "z"), [("plan".into(), "\"free\"")]);
        assert_eq!(traits.get("plan"), Some("\"pro\""));
        traits.apply(&write(20, "m"), [("plan".into(), "null")]);
        traits.apply(&write(15, "m"), [("plan".into(), "\"late\"")]);
        assert_eq!(traits.get("plan"), None);
        traits.apply(&write(21, "m"), [("plan".into(), "\"\"")]);
        assert_eq!(traits.get("plan"), Some("\"\""));
    }

    #[test]
    fn what_came_with_a_public_key_stands_behind_everything_else() {
        let forged = |at, id| Write { public: true, ..write(at, id) };
        let mut traits = Traits::default();
        traits.apply(&forged(1, "a"), [("plan".into(), "1"), ("city".into(), "1")]);
        traits.apply(&forged(2, "b"), [("plan".into(), "2")]);
        assert_eq!(traits.get("plan"), Some("2"));
        traits.apply(&write(0, "c"), [("plan".into(), "3"), ("city".into(), "null")]);
        traits.apply(&forged(9, "d"), [("plan".into(), "4"), ("city".into(), "4")]);
        assert_eq!((traits.get("plan"), traits.get("city")), (Some("3"), None));
    }

    #[test]
    fn a_person_objects_while_one_objection_stands() {
        let mut traits = Traits::default();
        traits.apply(&write(1, "a"), [("$objector".into(), "1"), ("$list:x".into(), "true")]);
        assert_eq!(traits.get("$objection"), None);
        traits.apply(&write(2, "b"), [("$objection:m1".into(), "true"), ("$objection:m2".into(), "true")]);
        assert_eq!(traits.get("$objection"), Some("true"));
        traits.apply(&write(3, "c"), [("$objection:m1".into(), "null")]);
        assert_eq!(traits.get("$objection"), Some("true"));
        traits.apply(&write(4, "d"), [("$objection:m2".into(), "null")]);
        assert_eq!(traits.get("$objection"), None);
    }

    #[test]
    fn reserved_names_are_one_trait_in_either_spelling() {
        let mut traits = Traits::default();
        traits.apply(&write(1, "a"), [("firstName".into(), "\"Bob\"")]);
        traits.apply(&write(2, "a"), [("first_name".into(), "\"Rob\"")]);
        assert_eq!((traits.get("firstName"), traits.get("first_name")), (Some("\"Rob\""), Some("\"Rob\"")));
        assert_eq!(traits.iter().count(), 1);
    }

    proptest! {
        #[test]
        fn any_order_and_any_split_leave_the_same_traits(
            (writes, shuffled) in proptest::collection::vec((0_i64..4, 0_u8..4, 0_u8..3, 0_u8..3), 0..24)
                .prop_flat_map(|w| (Just(w.clone()), Just(w).prop_shuffle())), split in 0_usize..24,
        ) {
            let apply = |writes: &[(i64, u8, u8, u8)]| {
                let mut traits = Traits::default();
                for (at, id, name, value) in writes {
                    // One message id means one message, so its content follows from it.
                    let id = format!("{id}{name}{value}");
                    let raw = if *value == 0 { "null".to_owned() } else { value.to_string() };
                    let write = Write { public: id.starts_with('0'), ..write(*at, &id) };
                    traits.apply(&write, [(format!("t{name}"), raw.as_str())]);
                }
                traits.tidy();
                traits
            };
            let whole = apply(&writes);
            prop_assert_eq!(&apply(&shuffled), &whole);
            let split = split.min(writes.len());
            let (mut left, right) = (apply(&writes[..split]), apply(&writes[split..]));
            left.merge(&right);
            prop_assert_eq!(&left, &whole);
        }
    }
}
