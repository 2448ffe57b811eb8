//! Lists of profiles: the most recently seen, and those an identifier of which begins with a text.
//!
//! Every page costs what it shows, however many profiles there are: it begins at a key of an index and follows it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Person, QueryError, Reader};
use crate::domain::identifier::normalise;
use crate::domain::{Collection, ProfileNo, SpaceNo, Timestamp};
use crate::engine::profile::Profile;
use crate::store::StoreError;
use crate::store::people::{self, Found, Range, START_CHARS, slot_of};

/// Profiles last seen in the same ten minutes that are put in order by when exactly. Of more, as an import leaves them
/// behind, the youngest come first.
const CROWD: i64 = 5_000;
/// The identifier type of accounts, and of accounts alone (I12b).
const ACCOUNT_TYPE: &str = "group_id";

/// Where a list of the most recently seen goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecentAfter {
    /// Behind the profile with this number, seen at this instant (milliseconds).
    Seen(i64, u64),
    /// In this slot of time, where there is a crowd, behind the profile with this number.
    Crowd(i32, u64),
}

/// A profile of a list of the most recently seen.
#[derive(Debug)]
pub struct Recent {
    /// The profile.
    pub person: Person,
    /// It is one of a crowd.
    in_crowd: bool,
}

impl Recent {
    /// Where the list goes on behind it.
    pub fn after(&self) -> RecentAfter {
        let (seen, no) = (self.person.profile.last_seen_at, self.person.profile.no.0);
        if self.in_crowd {
            RecentAfter::Crowd(slot_of(seen), no)
        } else {
            RecentAfter::Seen(seen.millis(), no)
        }
    }
}

/// Where a list by the start of identifiers goes on: behind the first such identifier of this type that this profile
/// brought. Cursors are seen by whoever may not see identifiers, so the value is not in it; it is looked up again.
pub type StartAfter = (i16, u64);
/// The same as the index has it: type, start of the value, and who brought it.
type Position = (i16, String, u64);

/// A profile that was found by the start of an identifier.
#[derive(Debug)]
pub struct Started {
    /// The profile.
    pub person: Person,
    /// Where the list goes on behind it.
    pub after: StartAfter,
}

impl Reader {
    /// A page of live profiles, most recently seen first.
    pub async fn list_recent(
        &self,
        space: SpaceNo,
        collection: Collection,
        after: Option<RecentAfter>,
        limit: i64,
    ) -> Result<Vec<Recent>, QueryError> {
        let mut tx = people::begin(&self.door(space)).await?;
        let connection = &mut *tx;
        let (mut exact, mut crowd, below) = match after {
            None => (Vec::new(), Vec::new(), i32::MAX),
            Some(RecentAfter::Seen(at, no)) => {
                let at = Timestamp::from_millis(at);
                let (slot, before) = (slot_of(at), Some((at, ProfileNo(no))));
                let rest =
                    people::list_seen(connection, space, collection, (slot, slot), before, limit).await?;
                (rest, Vec::new(), slot)
            }
            Some(RecentAfter::Crowd(slot, no)) => {
                let rest =
                    people::list_of_slot(connection, space, collection, slot, ProfileNo(no), limit).await?;
                (Vec::new(), rest, slot)
            }
        };
        // What comes behind a crowd is put in order by itself.
        let left = limit - (exact.len() + crowd.len()) as i64;
        let first_crowd = std::mem::take(&mut crowd);
        if left > 0
            && let Some(lowest) = people::find_slot(connection, space, collection, below, left).await?
        {
            // Slots above the lowest one have no more than a page together.
            let is_crowded = people::is_crowded(connection, space, collection, lowest, CROWD).await?;
            let from = if is_crowded { lowest + 1 } else { lowest };
            let slots = (from, below.saturating_sub(1));
            let next = people::list_seen(connection, space, collection, slots, None, left).await?;
            let left = left - next.len() as i64;
            exact.extend(next);
            if is_crowded && left > 0 {
                let newest = ProfileNo(i64::MAX as u64);
                crowd = people::list_of_slot(connection, space, collection, lowest, newest, left).await?;
            }
        }
        tx.commit().await.map_err(StoreError::from)?;
        let mut all = Vec::new();
        for (states, in_crowd) in [(first_crowd, true), (exact, false), (crowd, true)] {
            let people = self.people(space, states).await?;
            all.extend(people.into_iter().map(|person| Recent { person, in_crowd }));
        }
        Ok(all)
    }

    /// A page of live profiles that have an identifier whose value begins with `prefix`, each once, by the type and the
    /// value of the first such identifier. Values of types that fold case are found in any case. `None` when the profile
    /// that `after` names has no such identifier any more: then nobody can tell where the list was.
    pub async fn list_by_start(
        &self,
        space: SpaceNo,
        collection: Collection,
        prefix: &str,
        after: Option<StartAfter>,
        limit: usize,
    ) -> Result<Option<Vec<Started>>, QueryError> {
        let directory = self.directory(space, None).await?;
        let mut prefixes = vec![normalise(prefix, false), normalise(prefix, true)];
        prefixes.sort_unstable();
        prefixes.dedup();
        let mut types: Vec<i16> =
            directory.settings.types().filter(|t| is_of(collection, &t.name)).map(|t| t.no).collect();
        types.sort_unstable();
        let mut after: Option<Position> = match after {
            None => None,
            Some((type_no, no)) => {
                let person = self.find_by_number(space, ProfileNo(no)).await?;
                let held = person.iter().flat_map(|person| &person.profile.owned.get().identifiers);
                let brought = held.filter(|held| held.type_no == type_no && held.brought_by.0 == no);
                let starts =
                    brought.filter(|held| begins(&held.value, &prefixes)).map(|held| start_of(&held.value));
                let Some(start) = starts.min() else { return Ok(None) };
                Some((type_no, start.to_owned(), no))
            }
        };
        let mut tx = people::begin(&self.door(space)).await?;
        let mut page = Vec::new();
        loop {
            let ranges = ranges(&types, &prefixes, after.as_ref());
            if ranges.is_empty() {
                return Ok(Some(page));
            }
            let found = people::list_by_start(&mut tx, space, &ranges, limit as i64).await?;
            let is_last = found.len() < limit;
            after = found.last().map(position);
            for found in found {
                let profile = Profile::decode(&found.state)?;
                if profile.collection != collection || !is_first(&profile, &found, &types, &prefixes) {
                    continue;
                }
                let person = Person { profile, directory: Arc::clone(&directory) };
                page.push(Started { person, after: (found.type_no, found.brought_by.0) });
            }
            if is_last || page.len() >= limit {
                page.truncate(limit);
                tx.commit().await.map_err(StoreError::from)?;
                return Ok(Some(page));
            }
        }
    }
}

fn begins(value: &str, prefixes: &[String]) -> bool {
    prefixes.iter().any(|prefix| value.starts_with(prefix))
}

fn is_of(collection: Collection, type_name: &str) -> bool {
    (type_name == ACCOUNT_TYPE) == (collection == Collection::Accounts)
}

fn position(found: &Found) -> Position {
    (found.type_no, found.start.clone(), found.brought_by.0)
}

fn start_of(text: &str) -> &str {
    text.char_indices().nth(START_CHARS).map_or(text, |(end, _)| text.get(..end).unwrap_or(text))
}

/// What is left to be looked through.
fn ranges(types: &[i16], prefixes: &[String], after: Option<&Position>) -> Vec<Range> {
    let mut ranges = Vec::new();
    for type_no in types {
        for prefix in prefixes {
            let (start, before) = (start_of(prefix), end_of(start_of(prefix)));
            // All begin with the start itself, and nobody has the number before the first.
            let mut from = (start.to_owned(), -1);
            if let Some((done, value, no)) = after {
                if type_no < done || (type_no == done && *value >= before) {
                    continue;
                }
                if type_no == done && value.as_str() >= start {
                    from = (value.clone(), *no as i64);
                }
            }
            ranges.push(Range { type_no: *type_no, prefix: prefix.clone(), after: from, before });
        }
    }
    ranges
}

/// The first text that is behind all that begin with this one, code point by code point.
fn end_of(start: &str) -> String {
    let mut chars: Vec<char> = start.chars().collect();
    while let Some(last) = chars.pop() {
        // Surrogates are no characters: the next one is behind them.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            chars.push(next);
            return chars.into_iter().collect();
        }
    }
    char::MAX.to_string().repeat(START_CHARS + 1)
}

/// Whether this is the identifier its profile is listed by: the first of those that begin as asked.
fn is_first(profile: &Profile, found: &Found, types: &[i16], prefixes: &[String]) -> bool {
    let held = profile.owned.get().identifiers.iter();
    let matching = held.filter(|held| types.contains(&held.type_no) && begins(&held.value, prefixes));
    let first = matching.map(|held| (held.type_no, start_of(&held.value), held.brought_by)).min();
    first == Some((found.type_no, found.start.as_str(), found.brought_by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_behind_everything_that_begins_so() {
        assert_eq!(end_of("an"), "ao");
        assert_eq!(end_of("a\u{10ffff}"), "b");
        assert_eq!(end_of("\u{d7ff}"), "\u{e000}");
        assert!(*end_of("\u{10ffff}") > *"\u{10ffff}\u{10ffff}zzz");
    }

    #[test]
    fn a_page_goes_on_in_the_range_it_was_in() {
        let prefixes = ["A".to_owned(), "a".to_owned()];
        let left = ranges(&[1, 2], &prefixes, Some(&(1, "ab".into(), 7)));
        let shown: Vec<_> = left.iter().map(|r| (r.type_no, r.after.0.as_str(), r.after.1)).collect();
        assert_eq!(shown, [(1, "ab", 7), (2, "A", -1), (2, "a", -1)]);
    }
}
