//! The derived state of a simulated space: who is who, what they have, who is in which audience, who entered and left.

use std::collections::BTreeMap;

use personas::domain::{IdKey, ProfileNo, Timestamp, Value};
use personas::engine::LeafStates;
use personas::engine::identity::{Graph, Owned, Settings, resolve};

use crate::simulated::{AUDIENCES, Entry, Said, World, fold, held, stored};

/// Who entered (or left) what, and when.
pub(crate) type Transition = (ProfileNo, usize, bool, i64);

/// Those of each profile in their order; different profiles may stand in another one.
pub(crate) fn by_profile(transitions: &[Transition]) -> Vec<Transition> {
    let mut all = transitions.to_vec();
    all.sort_by_key(|(no, place, ..)| (*no, *place));
    all
}

/// One profile.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Person {
    pub(crate) owned: Owned,
    pub(crate) states: LeafStates,
    members: [bool; AUDIENCES.len()],
    /// When each outcome could change by itself.
    due: [Option<i64>; AUDIENCES.len()],
}

/// See the module. All of it is written by one commit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Space {
    /// Entries of the log that are done.
    pub(crate) processed: usize,
    /// Messages that were applied, a bit each.
    pub(crate) seen: u64,
    pub(crate) people: BTreeMap<ProfileNo, Person>,
    owners: BTreeMap<IdKey, ProfileNo>,
    redirects: BTreeMap<ProfileNo, ProfileNo>,
    last: u64,
    pub(crate) sizes: [i64; AUDIENCES.len()],
    pub(crate) transitions: Vec<Transition>,
}

/// The graph alone: a profile's identifiers are read while it stands in the map.
struct People<'a>(&'a Space);

impl Graph for People<'_> {
    fn owner(&self, key: IdKey) -> Option<ProfileNo> {
        self.0.owners.get(&key).copied()
    }

    fn profile(&self, no: ProfileNo) -> Option<&Owned> {
        self.0.people.get(&no).map(|person| &person.owned)
    }

    fn has_number(&self, no: ProfileNo, number: ProfileNo) -> bool {
        no == number || self.0.redirects.get(&number) == Some(&no)
    }
}

impl Space {
    /// Applies one entry of the log, unless its message was applied before.
    pub(crate) fn apply(&mut self, offset: usize, entry: Entry, said: &Said, settings: &Settings) {
        self.processed = offset + 1;
        let bit = 1 << entry.message;
        if self.seen & bit != 0 {
            return;
        }
        self.seen |= bit;
        let world = World::get();
        let (candidates, at) = (world.candidates(said.ids), Timestamp::from_millis(said.at));
        let Some(found) = resolve(candidates, at, &People(self), settings) else { return };
        let no = found.profile.unwrap_or_else(|| {
            self.last += 1;
            ProfileNo(self.last)
        });
        let mut person = self.people.remove(&no).unwrap_or_default();
        // What was due before the event happens before it.
        self.fire(no, &mut person, entry.received_at);
        for absorbed in found.absorbed {
            let mut other = self.people.remove(&absorbed).expect("it lives");
            self.fire(absorbed, &mut other, entry.received_at);
            for (size, is_in) in self.sizes.iter_mut().zip(other.members) {
                *size -= i64::from(is_in);
            }
            person.owned.merges += other.owned.merges + 1;
            person.owned.identifiers.extend(other.owned.identifiers);
            person.states.merge(&other.states);
            self.redirects.values_mut().filter(|to| **to == absorbed).for_each(|to| *to = no);
            self.redirects.insert(absorbed, no);
            self.owners.values_mut().filter(|owner| **owner == absorbed).for_each(|owner| *owner = no);
            self.evaluate(no, &mut person, 0..AUDIENCES.len(), entry.received_at);
        }
        for candidate in found.added.into_iter().map(|index| &candidates[index]) {
            person.owned.identifiers.push(held(candidate, said.at, world.text(entry.message), no));
            self.owners.insert(candidate.key, no);
        }
        let is_new = person.due == [None; AUDIENCES.len()] && person.states.is_empty();
        let fed = fold(&mut person, &world.facts(said, entry, offset));
        let fed = if is_new { (0..AUDIENCES.len()).collect() } else { fed };
        self.evaluate(no, &mut person, fed, entry.received_at);
        self.people.insert(no, person);
    }

    fn evaluate(
        &mut self,
        no: ProfileNo,
        person: &mut Person,
        places: impl IntoIterator<Item = usize>,
        at: i64,
    ) {
        for place in places {
            let plan = &World::get().program.computations()[place].plan;
            let evaluation = plan.evaluate(person, Timestamp::from_millis(at));
            person.due[place] = evaluation.changes_at.map(Timestamp::millis);
            let is_in = evaluation.value == Value::Bool(true);
            if person.members[place] != is_in {
                person.members[place] = is_in;
                self.sizes[place] += if is_in { 1 } else { -1 };
                self.transitions.push((no, place, is_in, at));
            }
        }
    }

    /// Everything of a profile that is due by then, each at its own instant.
    fn fire(&mut self, no: ProfileNo, person: &mut Person, until: i64) {
        while let Some(at) = person.due.into_iter().flatten().min().filter(|at| *at <= until) {
            let due = person.due;
            self.evaluate(no, person, (0..AUDIENCES.len()).filter(|place| due[*place] == Some(at)), at);
        }
    }

    /// The timers.
    pub(crate) fn fire_all(&mut self, until: i64) {
        for no in self.people.keys().copied().collect::<Vec<_>>() {
            let mut person = self.people.remove(&no).expect("it lives");
            self.fire(no, &mut person, until);
            self.people.insert(no, person);
        }
    }

    /// Writes the states and reads them back.
    pub(crate) fn store(&mut self) {
        for person in self.people.values_mut() {
            person.states = stored(&person.states);
        }
    }

    /// What must be true after every commit: identifiers are a partition (I2, I3), those absorbed lead to who lives in one hop
    /// (I5), sizes are the number of members (I17).
    pub(crate) fn check(&self) -> Result<(), String> {
        let held: usize = self.people.values().map(|person| person.owned.identifiers.len()).sum();
        if held != self.owners.len() || self.owners.values().any(|no| !self.people.contains_key(no)) {
            return Err(format!("no partition: {:?}", self.owners));
        }
        let leads = |(from, to): (&ProfileNo, &ProfileNo)| {
            !self.people.contains_key(from) && self.people.contains_key(to)
        };
        if !self.redirects.iter().all(leads) {
            return Err(format!("redirects lead nowhere: {:?}", self.redirects));
        }
        let members =
            |place: usize| self.people.values().filter(|person| person.members[place]).count() as i64;
        if (0..AUDIENCES.len()).any(|place| members(place) != self.sizes[place]) {
            return Err(format!("sizes are not the members: {:?}", self.sizes));
        }
        Ok(())
    }

    /// Transitions of one profile alternate, begin with entering, and never go back in time (I16).
    pub(crate) fn check_transitions(&self) -> Result<(), String> {
        let mut now = BTreeMap::new();
        for (no, place, is_in, at) in &self.transitions {
            let (before, since) = now.insert((no, place), (*is_in, *at)).unwrap_or((false, i64::MIN));
            if before == *is_in || since > *at {
                return Err(format!("{no:?} {place}: {is_in} at {at}, after {before} at {since}"));
            }
        }
        Ok(())
    }

    /// Whether it is what the other one is; transitions of different profiles may stand in another order.
    pub(crate) fn same_as(&self, expected: &Self) -> Result<(), String> {
        let bytes = |space: &Self| -> Vec<Vec<u8>> {
            space.people.values().map(|person| crate::harness::stored(&person.states)).collect()
        };
        let of = |space: &Self| {
            let people = space
                .people
                .iter()
                .map(|(no, person)| (*no, person.owned.clone(), person.members, person.due));
            (
                people.collect::<Vec<_>>(),
                space.owners.clone(),
                space.redirects.clone(),
                space.last,
                space.sizes,
            )
        };
        if of(self) != of(expected) {
            return Err(format!("not what the log says: {:?}, and not {:?}", of(self), of(expected)));
        }
        if bytes(self) != bytes(expected) {
            return Err("states are not byte for byte what the log says".to_owned());
        }
        let (ours, theirs) = (by_profile(&self.transitions), by_profile(&expected.transitions));
        if ours != theirs {
            return Err(format!("transitions {ours:?}, and not {theirs:?}"));
        }
        Ok(())
    }
}
