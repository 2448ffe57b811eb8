//! A bounded set of encoded profiles, found by any identifier that leads to them: second chance, by bytes.
//!
//! A profile and the identifiers it was asked for by come and go together, so taking a profile out leaves nothing that
//! leads to it. What was asked for since the hand passed stays once more.

use bytes::Bytes;
use hashbrown::HashMap;

use crate::domain::{IdKey, ProfileNo, SpaceNo};

/// What a profile costs beside its bytes: its place, its entry by number, two allocations.
const PROFILE_BYTES: usize = 192;
/// What an identifier costs: its entry, and its key at the profile.
const IDENTIFIER_BYTES: usize = 112;

/// One uninterrupted time in which what is known of a space stays good. What was kept in an earlier one is never found
/// again, and makes room as everything else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Term {
    pub space: SpaceNo,
    pub number: u64,
}

#[derive(Debug)]
struct Place {
    term: Term,
    no: ProfileNo,
    state: Bytes,
    /// The identifiers that lead here.
    keys: Vec<IdKey>,
    was_asked_for: bool,
}

impl Place {
    fn bytes(&self) -> usize {
        PROFILE_BYTES + self.state.len() + self.keys.len() * IDENTIFIER_BYTES
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    bytes_max: usize,
    bytes: usize,
    places: Vec<Option<Place>>,
    free: Vec<usize>,
    /// The next place that may have to go.
    hand: usize,
    by_number: HashMap<(Term, ProfileNo), usize>,
    by_key: HashMap<(Term, IdKey), usize>,
}

impl Profiles {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// The profile an identifier leads to.
    pub(super) fn get(&mut self, term: Term, key: IdKey) -> Option<(ProfileNo, Bytes)> {
        let place = self.by_key.get(&(term, key)).and_then(|at| self.places.get_mut(*at))?.as_mut()?;
        place.was_asked_for = true;
        Some((place.no, place.state.clone()))
    }

    /// Keeps a profile, found by `key` from now on; others make room.
    pub(super) fn insert(&mut self, term: Term, key: IdKey, no: ProfileNo, state: Bytes) {
        // It may have led to another one, and what is here may be older.
        self.remove_key(term, key);
        let at = match self.by_number.get(&(term, no)) {
            Some(at) => *at,
            None => self.take_place(Place {
                term,
                no,
                state: Bytes::new(),
                keys: Vec::with_capacity(1),
                was_asked_for: false,
            }),
        };
        let Some(Some(place)) = self.places.get_mut(at) else { return };
        self.bytes -= place.bytes();
        place.state = state;
        place.keys.push(key);
        self.bytes += place.bytes();
        self.by_key.insert((term, key), at);
        self.make_room();
    }

    fn take_place(&mut self, place: Place) -> usize {
        self.bytes += place.bytes();
        let (term, no) = (place.term, place.no);
        let at = self.free.pop().unwrap_or(self.places.len());
        match self.places.get_mut(at) {
            Some(free) => *free = Some(place),
            None => self.places.push(Some(place)),
        }
        self.by_number.insert((term, no), at);
        at
    }

    /// Forgets a profile and everything that leads to it.
    pub(super) fn remove(&mut self, term: Term, no: ProfileNo) {
        if let Some(at) = self.by_number.get(&(term, no)) {
            self.clear(*at);
        }
    }

    /// Forgets where an identifier leads to.
    pub(super) fn remove_key(&mut self, term: Term, key: IdKey) {
        let Some(at) = self.by_key.remove(&(term, key)) else { return };
        if let Some(Some(place)) = self.places.get_mut(at) {
            place.keys.retain(|known| *known != key);
            self.bytes -= IDENTIFIER_BYTES;
        }
    }

    fn clear(&mut self, at: usize) {
        let Some(place) = self.places.get_mut(at).and_then(Option::take) else { return };
        self.bytes -= place.bytes();
        self.by_number.remove(&(place.term, place.no));
        for key in &place.keys {
            self.by_key.remove(&(place.term, *key));
        }
        self.free.push(at);
    }

    /// Lets go what was not asked for since the hand passed last. Two rounds find something in any case.
    fn make_room(&mut self) {
        while self.bytes > self.bytes_max && !self.is_empty() {
            let at = self.hand;
            self.hand = if at + 1 < self.places.len() { at + 1 } else { 0 };
            match self.places.get_mut(at) {
                Some(Some(place)) if place.was_asked_for => place.was_asked_for = false,
                Some(Some(_)) => self.clear(at),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Term = Term { space: SpaceNo(1), number: 1 };

    fn counted(profiles: &Profiles) -> usize {
        profiles.places.iter().flatten().map(Place::bytes).sum()
    }

    #[test]
    fn it_stays_within_its_bytes_and_keeps_what_is_asked_for() {
        let mut profiles = Profiles::new(100_000);
        let state = |n: u64| Bytes::from(vec![n as u8; 500 + n as usize % 700]);
        profiles.insert(TERM, IdKey(0), ProfileNo(0), state(0));
        for n in 1..10_000 {
            assert!(profiles.get(TERM, IdKey(0)).is_some(), "{n}");
            profiles.insert(TERM, IdKey(u128::from(n)), ProfileNo(n), state(n));
            profiles.insert(TERM, IdKey(u128::from(n) << 64), ProfileNo(n), state(n));
            assert!(profiles.bytes() <= 100_000 && profiles.bytes() == counted(&profiles));
        }
        assert!(profiles.bytes() > 90_000, "{}", profiles.bytes());
        assert!(profiles.places.len() < 200, "places are used again: {}", profiles.places.len());
        assert_eq!(profiles.by_number.len(), profiles.places.iter().flatten().count());
        let keys = profiles.places.iter().flatten().map(|place| place.keys.len());
        assert_eq!(profiles.by_key.len(), keys.sum::<usize>());
        profiles.insert(TERM, IdKey(1), ProfileNo(1), Bytes::from(vec![0; 200_000]));
        assert!(profiles.bytes() <= 100_000, "what does not fit is not kept");
    }

    #[test]
    fn a_profile_goes_with_everything_that_leads_to_it() {
        let mut profiles = Profiles::new(100_000);
        for key in 1..=3 {
            profiles.insert(TERM, IdKey(key), ProfileNo(1), Bytes::from_static(b"one"));
        }
        profiles.insert(TERM, IdKey(4), ProfileNo(2), Bytes::from_static(b"two"));
        profiles.remove_key(TERM, IdKey(3));
        assert_eq!(profiles.get(TERM, IdKey(3)), None);
        assert_eq!(profiles.get(TERM, IdKey(1)).unwrap().1, "one");
        profiles.remove(TERM, ProfileNo(1));
        assert_eq!((profiles.get(TERM, IdKey(1)), profiles.get(TERM, IdKey(2))), (None, None));
        assert_eq!(profiles.get(TERM, IdKey(4)).unwrap().0, ProfileNo(2));
        let later = Term { number: 2, ..TERM };
        let elsewhere = Term { space: SpaceNo(2), ..TERM };
        assert_eq!((profiles.get(later, IdKey(4)), profiles.get(elsewhere, IdKey(4))), (None, None));
        profiles.remove(TERM, ProfileNo(2));
        assert!(profiles.is_empty() && profiles.bytes() == 0 && profiles.by_key.is_empty());
    }
}
