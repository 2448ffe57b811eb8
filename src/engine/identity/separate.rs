//! Taking a merge back (decision I11): which identifiers, events and former profiles belong to which side.
//!
//! What came before the merge went to profiles of one side or the other. From then on it is gone through again in the
//! order of the log: an event belongs to the side that has its most trusted identifier, what it brought goes there,
//! and a profile that was merged later goes to the side that its merge was made by. So nothing hangs on what the merged
//! profile had become, and without later events everything is as if there had been no merge.

use std::ops::Range;

use hashbrown::HashMap;

use super::resolve::Held;
use crate::domain::{IdKey, Offset, ProfileNo};

/// A merge among the numbers of one profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// What made it.
    pub offset: Offset,
    /// Who stayed.
    pub survivor: ProfileNo,
    /// Who was absorbed.
    pub absorbed: ProfileNo,
}

/// An event of the profile, or an act that named it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its place in the log.
    pub offset: Offset,
    /// The profile it went to; none for an act.
    pub profile: Option<ProfileNo>,
    /// Its identifiers, most trusted first; of an act, those that say whom it is about.
    pub keys: &'a [IdKey],
    /// Its message id.
    pub message_id: &'a str,
}

/// The two sides of the merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// That of who stayed.
    Survivor,
    /// That of who was absorbed.
    Absorbed,
}

/// Where something belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// To a side, whose profile had this number then.
    Known(Side, ProfileNo),
    /// To whatever side this number belongs to in the end.
    Of(ProfileNo),
}

/// A separation in progress.
#[derive(Debug)]
pub struct Separation<'a> {
    undone: Joined,
    /// Later merges, in the order of the log.
    later: Vec<(Joined, Joined)>,
    next: usize,
    /// The group of each number: one of its numbers. Groups are what had become one when the undone merge was made, or
    /// when it joined one of the sides.
    groups: HashMap<ProfileNo, ProfileNo>,
    /// The sides of groups, as far as they have one.
    sides: HashMap<ProfileNo, Side>,
    /// The numbers of the sides' profiles.
    numbers: [ProfileNo; 2],
    held: HashMap<IdKey, Bringing<'a>>,
    /// What was seen, with its identifiers as far as the profile holds them.
    past: Vec<(Offset, Option<ProfileNo>, Range<usize>)>,
    keys: Vec<IdKey>,
    seen: Vec<(Offset, Place)>,
}

/// An identifier, and what brought it.
#[derive(Debug)]
struct Bringing<'a> {
    held: &'a Held,
    /// None where the log keeps it no longer.
    by: Option<Offset>,
    /// Where it belongs, once that was come to.
    place: Option<Place>,
}

/// How it ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Parted {
    /// All numbers, by side.
    pub numbers: HashMap<ProfileNo, Side>,
    /// All identifiers: by side, and by the number its profile had when it got them.
    pub held: HashMap<IdKey, (Side, ProfileNo)>,
    /// All events and acts that were seen, in the order they came: by side, and by the number its profile had then.
    pub seen: Vec<(Offset, Side, ProfileNo)>,
    /// Later merges that are between other profiles now: as they were, and as they are.
    pub rejoined: Vec<(Joined, Joined)>,
    /// Merges on each side, the undone one left out.
    pub merges: [u32; 2],
}

impl Parted {
    /// The number of a side's profile: the oldest one.
    pub fn number(&self, side: Side) -> Option<ProfileNo> {
        self.numbers.iter().filter(|(_, of)| **of == side).map(|(no, _)| *no).min()
    }
}

impl<'a> Separation<'a> {
    /// Begins with all merges there are among the profile's numbers, in the order of the log, and all it holds. `undone`
    /// is one of the merges.
    pub fn new(
        numbers: &[ProfileNo],
        merges: &[Joined],
        undone: Joined,
        held: impl Iterator<Item = (IdKey, &'a Held)>,
    ) -> Self {
        let mut separation = Self {
            undone,
            later: Vec::new(),
            next: 0,
            groups: numbers.iter().map(|no| (*no, *no)).collect(),
            sides: HashMap::new(),
            numbers: [ProfileNo(0); 2],
            held: held.map(|(key, held)| (key, Bringing { held, by: None, place: None })).collect(),
            past: Vec::new(),
            keys: Vec::new(),
            seen: Vec::new(),
        };
        for merge in merges.iter().filter(|merge| **merge != undone) {
            // One event may have merged several profiles: the others stay with the survivor.
            if merge.offset <= undone.offset {
                separation.unite(merge.survivor, merge.absorbed);
            } else {
                separation.later.push((*merge, *merge));
            }
        }
        for (number, side) in [(undone.survivor, Side::Survivor), (undone.absorbed, Side::Absorbed)] {
            let group = separation.group(number);
            separation.sides.insert(group, side);
            separation.numbers[side as usize] = separation.oldest_of(group);
        }
        separation
    }

    fn group(&self, mut number: ProfileNo) -> ProfileNo {
        while let Some(of) = self.groups.get(&number).filter(|of| **of != number) {
            number = *of;
        }
        number
    }

    fn unite(&mut self, one: ProfileNo, other: ProfileNo) {
        let (one, other) = (self.group(one), self.group(other));
        if one != other {
            let side = self.sides.remove(&other);
            self.groups.insert(other, one);
            if let Some(side) = side {
                self.sides.entry(one).or_insert(side);
            }
        }
    }

    fn side_of(&self, number: ProfileNo) -> Option<Side> {
        self.sides.get(&self.group(number)).copied()
    }

    fn resolve(&self, place: Place) -> Option<Side> {
        match place {
            Place::Known(side, _) => Some(side),
            Place::Of(number) => self.side_of(number),
        }
    }

    /// The number of a side's profile as far as it has got: the oldest one.
    const fn number(&self, side: Side) -> ProfileNo {
        self.numbers[side as usize]
    }

    fn oldest_of(&self, group: ProfileNo) -> ProfileNo {
        self.groups.keys().copied().filter(|no| self.group(*no) == group).min().unwrap_or(group)
    }

    /// Takes note of the next event or act, in the order of the log.
    pub fn see(&mut self, seen: &Seen<'_>) {
        let first = self.keys.len();
        for key in seen.keys {
            let Some(bringing) = self.held.get_mut(key) else { continue };
            self.keys.push(*key);
            if bringing.held.message_id == seen.message_id {
                bringing.by.get_or_insert(seen.offset);
            }
        }
        self.past.push((seen.offset, seen.profile, first..self.keys.len()));
    }

    /// Goes through the past once it is complete.
    fn go_through(&mut self) {
        for bringing in self.held.values_mut().filter(|bringing| bringing.by.is_none()) {
            // All that is left of what brought it is who it was then.
            bringing.place = Some(Place::Of(bringing.held.brought_by));
        }
        let keys = std::mem::take(&mut self.keys);
        for (offset, profile, range) in std::mem::take(&mut self.past) {
            self.go_on(offset, profile, keys.get(range).unwrap_or_default());
        }
        while self.next < self.later.len() {
            self.join(None);
        }
    }

    fn go_on(&mut self, offset: Offset, profile: Option<ProfileNo>, keys: &[IdKey]) {
        // Merges whose event is kept no longer: nobody can say any more by what they were made.
        while self.later.get(self.next).is_some_and(|(merge, _)| merge.offset < offset) {
            self.join(None);
        }
        let place = self.place_of(offset, profile, keys);
        while self.later.get(self.next).is_some_and(|(merge, _)| merge.offset == offset) {
            self.join(self.resolve(place));
        }
        let place = match place {
            // What has just joined it may be older.
            Place::Known(side, _) => Place::Known(side, self.number(side)),
            of_number @ Place::Of(_) => of_number,
        };
        for key in keys {
            if let Some(bringing) = self.held.get_mut(key).filter(|bringing| bringing.by == Some(offset)) {
                bringing.place = Some(place);
            }
        }
        self.seen.push((offset, place));
    }

    /// Before the merge a profile was of one side; since then its identifiers say where an event belongs.
    fn place_of(&self, offset: Offset, profile: Option<ProfileNo>, keys: &[IdKey]) -> Place {
        let of_profile = Place::Of(profile.unwrap_or(self.undone.survivor));
        let place = |key: &IdKey| self.held.get(key)?.place;
        if offset >= self.undone.offset {
            let side = keys.iter().find_map(|key| self.resolve(place(key)?));
            side.map_or(of_profile, |side| Place::Known(side, self.number(side)))
        } else if profile.is_none() {
            keys.iter().find_map(place).unwrap_or(of_profile)
        } else {
            of_profile
        }
    }

    /// The next later merge: what joined the profile goes to a side.
    fn join(&mut self, side: Option<Side>) {
        let Some((merge, now)) = self.later.get(self.next).copied() else { return };
        let place = self.next;
        self.next += 1;
        let of = [merge.survivor, merge.absorbed].map(|number| self.side_of(number));
        let (other, known) = match of {
            [Some(known), None] => (merge.absorbed, known),
            [None, Some(known)] => (merge.survivor, known),
            // Neither is of the two sides yet; what they are together gets one later on.
            [None, None] => return self.unite(merge.survivor, merge.absorbed),
            [Some(_), Some(_)] => return,
        };
        let side = side.unwrap_or(known);
        let (own, group) = (self.number(side), self.group(other));
        let theirs = self.oldest_of(group);
        self.sides.insert(group, side);
        let rejoined = Joined { survivor: own.min(theirs), absorbed: own.max(theirs), ..now };
        self.numbers[side as usize] = rejoined.survivor;
        if let Some((_, now)) = self.later.get_mut(place) {
            *now = rejoined;
        }
    }

    /// Ends it. What nobody knows a side of stays with the survivor.
    pub fn end(mut self) -> Parted {
        self.go_through();
        let of_number = |no: ProfileNo| self.side_of(no).unwrap_or(Side::Survivor);
        let settled = |place: Place| match place {
            Place::Known(side, number) => (side, number),
            Place::Of(number) => (of_number(number), number),
        };
        let numbers: HashMap<ProfileNo, Side> = self.groups.keys().map(|no| (*no, of_number(*no))).collect();
        let count = |side: Side| {
            let numbers = numbers.values().filter(|of| **of == side).count();
            u32::try_from(numbers.saturating_sub(1)).unwrap_or(u32::MAX)
        };
        let held = self.held.iter().map(|(key, Bringing { held, place, .. })| {
            (*key, settled(place.unwrap_or(Place::Of(held.brought_by))))
        });
        let seen = self.seen.iter().map(|(offset, place)| {
            let (side, number) = settled(*place);
            (*offset, side, number)
        });
        Parted {
            held: held.collect(),
            seen: seen.collect(),
            rejoined: self.later.iter().copied().filter(|(before, now)| before != now).collect(),
            merges: [count(Side::Survivor), count(Side::Absorbed)],
            numbers,
        }
    }
}
