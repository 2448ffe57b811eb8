//! The part of a queue that is in memory: one lane for each profile, so that a profile's changes go one after the other and
//! nobody waits for another profile.
//!
//! A lane whose first change failed leaves the window: its rows stay in the table and are held there. When it is due it
//! comes back (*draining*) and takes rows from the table until none is left; only then it is let go.

use std::collections::{HashMap, VecDeque};

use crate::domain::{ProfileNo, Timestamp};
use crate::store::deliveries::queue::{Hold, Queued};

/// A change that is being sent.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    /// It.
    pub row: Queued,
    /// Failed attempts before, and the first of them.
    pub tries: i32,
    pub first_at: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Lane {
    rows: VecDeque<Queued>,
    in_flight: usize,
    /// It came back from being held: rows up to `last_seq` were loaded.
    draining: bool,
    last_seq: i64,
    /// Place of the change under way.
    taken: i64,
    /// What waits of it was forgotten while a change of it was under way: it is in the table, and held.
    forgotten: bool,
    tries: i32,
    first_at: Option<Timestamp>,
}

impl Lane {
    /// See [`Window::profiles`].
    fn place(&self) -> i64 {
        match self.rows.front() {
            // It is known to be held.
            None if self.forgotten => 1,
            _ if !self.draining => 0,
            _ if self.in_flight > 0 => self.taken,
            Some(first) => first.seq,
            None => self.last_seq + 1,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Window {
    lanes: HashMap<ProfileNo, Lane>,
    ready: VecDeque<ProfileNo>,
    rows: usize,
    in_flight: usize,
    /// Profiles that were absorbed while a change of theirs was under way, and whose it is by now: until it has landed.
    moved: HashMap<ProfileNo, ProfileNo>,
    /// Lanes that want more rows from the table.
    empty: Vec<ProfileNo>,
}

impl Window {
    /// Changes in memory, those under way among them.
    pub(super) const fn len(&self) -> usize {
        self.rows + self.in_flight
    }

    /// Changes under way.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Profiles whose next change can be taken.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// When the changes that can be taken next happened.
    pub(super) fn ready_since(&self) -> impl Iterator<Item = Timestamp> + '_ {
        self.ready.iter().filter_map(|no| Some(self.lanes.get(no)?.rows.front()?.at))
    }

    /// Profiles that are not to be taken from the held ones now.
    pub(super) fn busy(&self) -> Vec<i64> {
        let is_busy = |lane: &Lane| lane.draining || lane.in_flight > 0;
        self.lanes.iter().filter(|(_, lane)| is_busy(lane)).map(|(no, _)| no.0 as i64).collect()
    }

    /// All profiles in memory, each with a place: what waits in the table before it, where everything that has ended was
    /// written down, was given to the profile by a merge. 0 for those that are not to be held at all.
    pub(super) fn profiles(&self) -> (Vec<i64>, Vec<i64>) {
        self.lanes.iter().map(|(no, lane)| (no.0 as i64, lane.place())).unzip()
    }

    /// Adds a row, which is behind all others of its profile.
    fn push(&mut self, row: Queued) {
        let profile = row.profile;
        let lane = self.lanes.entry(profile).or_default();
        lane.last_seq = row.seq;
        lane.rows.push_back(row);
        self.rows += 1;
        if lane.rows.len() == 1 && lane.in_flight == 0 {
            self.ready.push_back(profile);
        }
    }

    /// Adds rows, in order.
    pub(super) fn extend(&mut self, rows: impl IntoIterator<Item = Queued>) {
        for row in rows {
            self.push(row);
        }
    }

    /// Takes a held profile back in; its rows are added afterwards. Those that are in memory, because it was not held when
    /// they were read, are forgotten: others may be before them now.
    pub(super) fn resume(&mut self, hold: Hold) {
        let lane = self.lanes.entry(hold.profile).or_default();
        self.rows -= lane.rows.len();
        *lane = Lane {
            in_flight: lane.in_flight,
            draining: true,
            tries: hold.tries,
            first_at: (hold.tries > 0).then_some(hold.first_at),
            ..Lane::default()
        };
        self.empty.push(hold.profile);
    }

    /// Draining profiles without rows, and behind which place they go on.
    pub(super) fn take_empty(&mut self) -> Vec<(ProfileNo, i64)> {
        let empty = std::mem::take(&mut self.empty).into_iter();
        let is_empty = |lane: &&Lane| lane.draining && lane.rows.is_empty() && lane.in_flight == 0;
        empty.filter_map(|no| Some((no, self.lanes.get(&no).filter(is_empty)?.last_seq))).collect()
    }

    /// Whether draining profiles want rows from the table.
    pub(super) fn wants_rows(&self) -> bool {
        !self.empty.is_empty()
    }

    /// Whether something of a profile is in memory and not under way.
    pub(super) fn has_rows(&self, profile: ProfileNo) -> bool {
        self.lanes.get(&profile).is_some_and(|lane| !lane.rows.is_empty())
    }

    /// Puts changes that were taken and not sent back to where they were.
    pub(super) fn put_back(&mut self, taken: Vec<Taken>) {
        for Taken { row, tries, first_at } in taken.into_iter().rev() {
            self.in_flight = self.in_flight.saturating_sub(1);
            let Some(lane) = self.lanes.get_mut(&row.profile) else { continue };
            lane.in_flight = lane.in_flight.saturating_sub(1);
            (lane.tries, lane.first_at) = (tries, first_at);
            self.ready.push_front(row.profile);
            lane.rows.push_front(row);
            self.rows += 1;
        }
        if self.in_flight == 0 {
            self.moved.clear();
        }
    }

    /// Nothing of a draining profile waits any more.
    pub(super) fn let_go(&mut self, profile: ProfileNo) {
        self.lanes.remove(&profile);
    }

    /// Takes the next change of the next profile.
    pub(super) fn take(&mut self) -> Option<Taken> {
        while let Some(profile) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&profile).filter(|lane| lane.in_flight == 0) else {
                continue;
            };
            let Some(row) = lane.rows.pop_front() else { continue };
            lane.in_flight = 1;
            lane.taken = row.seq;
            self.rows -= 1;
            self.in_flight += 1;
            return Some(Taken { row, tries: lane.tries, first_at: lane.first_at });
        }
        None
    }

    /// A change that was taken has left the queue: the next one of its profile can be taken. Whether it has to be looked
    /// for among the held ones, because the profile was forgotten meanwhile.
    pub(super) fn ended(&mut self, profile: ProfileNo) -> bool {
        let owner = self.landed(profile);
        let Some(lane) = self.lanes.get_mut(&owner) else { return false };
        (lane.tries, lane.first_at) = (0, None);
        if lane.in_flight > 0 {
            return false;
        }
        let was_forgotten = std::mem::take(&mut lane.forgotten);
        if !lane.rows.is_empty() {
            self.ready.push_back(owner);
        } else if lane.draining {
            self.empty.push(owner);
        } else {
            self.lanes.remove(&owner);
        }
        was_forgotten
    }

    /// A change that was taken is to be tried again: what is in memory of its profile is forgotten, it waits in the table.
    /// Returns whom to hold.
    pub(super) fn failed(&mut self, profile: ProfileNo) -> ProfileNo {
        let owner = self.landed(profile);
        self.forget(owner);
        owner
    }

    /// A change is not under way any more. Returns whose it is by now.
    fn landed(&mut self, profile: ProfileNo) -> ProfileNo {
        let owner = self.moved.remove(&profile).unwrap_or(profile);
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(lane) = self.lanes.get_mut(&owner) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
        }
        if self.in_flight == 0 {
            self.moved.clear();
        }
        owner
    }

    /// Forgets the rows of a profile that are not under way.
    pub(super) fn forget(&mut self, profile: ProfileNo) {
        let Some(lane) = self.lanes.get_mut(&profile) else { return };
        self.rows -= lane.rows.len();
        lane.rows.clear();
        lane.draining = false;
        lane.forgotten = true;
        if lane.in_flight == 0 {
            self.lanes.remove(&profile);
        }
    }

    /// A profile was absorbed by another: both wait in the table, in their common order, until nothing of them is under
    /// way.
    pub(super) fn merge(&mut self, absorbed: ProfileNo, survivor: ProfileNo) {
        self.forget(absorbed);
        self.forget(survivor);
        let Some(lane) = self.lanes.remove(&absorbed) else { return };
        // What it had itself absorbed goes on with it: one step leads to whose a change is, so no chain can be a circle.
        let mut of_others = 0;
        for owner in self.moved.values_mut().filter(|owner| **owner == absorbed) {
            *owner = survivor;
            of_others += 1;
        }
        if lane.in_flight > of_others {
            self.moved.insert(absorbed, survivor);
        }
        let of_both = self.lanes.entry(survivor).or_default();
        of_both.in_flight += lane.in_flight;
        of_both.forgotten = true;
    }

    /// Forgets everything that is not under way.
    pub(super) fn clear(&mut self) {
        self.lanes.retain(|_, lane| {
            lane.rows.clear();
            lane.draining = false;
            lane.in_flight > 0
        });
        self.ready.clear();
        self.empty.clear();
        self.moved.clear();
        self.rows = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::{Form, Subject};

    fn row(seq: i64, profile: u64) -> Queued {
        Queued {
            seq,
            no: seq,
            profile: ProfileNo(profile),
            subscription: 1,
            subject: Subject::Audience,
            form: Form::Identify,
            definition: 1,
            value: "true".to_owned(),
            at: Timestamp::from_millis(seq),
            attempts: 0,
        }
    }

    fn take_all(window: &mut Window) -> Vec<i64> {
        std::iter::from_fn(|| window.take()).map(|taken| taken.row.seq).collect()
    }

    #[test]
    fn a_profile_goes_one_by_one_and_nobody_waits_for_another() {
        let mut window = Window::default();
        window.extend([(1, 1), (2, 1), (3, 2), (4, 1)].map(|(seq, profile)| row(seq, profile)));
        assert_eq!(take_all(&mut window), [1, 3]);
        assert_eq!((window.len(), window.in_flight(), window.ready()), (4, 2, 0));
        window.ended(ProfileNo(1));
        assert_eq!(take_all(&mut window), [2]);
        window.ended(ProfileNo(2));
        assert_eq!(window.len(), 2);
        window.push(row(5, 2));
        assert_eq!(take_all(&mut window), [5]);
    }

    #[test]
    fn a_profile_that_failed_holds_back_its_own_only_and_drains_in_order() {
        let mut window = Window::default();
        window.extend([(1, 1), (2, 1), (3, 2)].map(|(seq, profile)| row(seq, profile)));
        take_all(&mut window);
        assert_eq!(window.failed(ProfileNo(1)), ProfileNo(1));
        assert_eq!(window.len(), 1, "its rows are in the table");
        let at = Timestamp::from_millis(0);
        window.resume(Hold { profile: ProfileNo(1), next_at: at, tries: 2, first_at: at });
        assert_eq!(window.take_empty(), [(ProfileNo(1), 0)]);
        window.extend([(1, 1), (2, 1)].map(|(seq, profile)| row(seq, profile)));
        let taken = window.take().unwrap();
        assert_eq!((taken.row.seq, taken.tries), (1, 2));
        assert_eq!(window.busy().len(), 2);
        window.ended(ProfileNo(1));
        let taken = window.take().unwrap();
        assert_eq!((taken.row.seq, taken.tries), (2, 0));
        window.ended(ProfileNo(1));
        assert_eq!(window.take_empty(), [(ProfileNo(1), 2)]);
        window.let_go(ProfileNo(1));
        window.ended(ProfileNo(2));
        assert_eq!((window.len(), window.lanes.len()), (0, 0));
    }

    #[test]
    fn two_that_become_one_wait_until_nothing_of_them_is_under_way() {
        let mut window = Window::default();
        window.extend([(1, 1), (2, 2), (3, 2), (4, 1)].map(|(seq, profile)| row(seq, profile)));
        take_all(&mut window);
        window.merge(ProfileNo(2), ProfileNo(1));
        assert_eq!(window.busy(), [1]);
        assert!(!window.ended(ProfileNo(2)), "one is under way still");
        assert_eq!(window.busy(), [1]);
        assert_eq!(window.failed(ProfileNo(1)), ProfileNo(1));
        assert_eq!((window.len(), window.busy().len()), (0, 0));
    }

    fn hold(profile: u64) -> Hold {
        let at = Timestamp::from_millis(0);
        Hold { profile: ProfileNo(profile), next_at: at, tries: 0, first_at: at }
    }

    #[test]
    fn what_was_forgotten_while_it_was_under_way_is_looked_for_when_that_lands() {
        let mut window = Window::default();
        window.extend([(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)].map(|(seq, profile)| row(seq, profile)));
        assert_eq!(take_all(&mut window), [1, 2, 4]);
        window.merge(ProfileNo(2), ProfileNo(1));
        assert_eq!(window.profiles().1.iter().sum::<i64>(), 1, "it is not forgotten once more");
        assert!(!window.ended(ProfileNo(1)));
        assert!(window.ended(ProfileNo(2)));
        window.forget(ProfileNo(3));
        assert!(window.ended(ProfileNo(3)));
        assert_eq!((window.len(), window.lanes.len()), (0, 0));
    }

    #[test]
    fn merges_there_and_back_lead_to_one_and_are_not_remembered() {
        let mut window = Window::default();
        window.extend([(1, 1), (2, 2), (3, 3), (4, 9)].map(|(seq, profile)| row(seq, profile)));
        assert_eq!(take_all(&mut window), [1, 2, 3, 4]);
        window.merge(ProfileNo(3), ProfileNo(2));
        window.merge(ProfileNo(2), ProfileNo(1));
        // Taken back, and the other way round.
        window.merge(ProfileNo(1), ProfileNo(2));
        assert_eq!(window.busy().len(), 2);
        assert_eq!(window.failed(ProfileNo(3)), ProfileNo(2));
        assert_eq!(window.failed(ProfileNo(1)), ProfileNo(2));
        assert_eq!(window.failed(ProfileNo(2)), ProfileNo(2));
        assert_eq!((window.busy(), window.moved.len(), window.in_flight()), (vec![9], 0, 1));
        window.extend([row(5, 2), row(6, 1)]);
        window.take();
        let ahead = window.take().unwrap();
        window.merge(ProfileNo(2), ProfileNo(1));
        window.put_back(vec![ahead]);
        window.clear();
        assert_eq!(window.moved.len(), 0);
    }

    #[test]
    fn a_profile_that_comes_back_forgets_what_was_read_before_it_was_held() {
        let mut window = Window::default();
        window.extend([row(60, 1), row(61, 1)]);
        window.resume(hold(1));
        assert_eq!((window.len(), window.take_empty()), (0, vec![(ProfileNo(1), 0)]));
        window.extend([10, 60, 61].map(|seq| row(seq, 1)));
        assert_eq!(window.profiles(), (vec![1], vec![10]));
        assert_eq!(window.take().unwrap().row.seq, 10);
        assert_eq!((window.take().is_none(), window.profiles().1), (true, vec![10]));
        window.ended(ProfileNo(1));
        assert_eq!(window.profiles().1, [60]);
        for _ in 0..2 {
            window.take();
            window.ended(ProfileNo(1));
        }
        assert_eq!((window.profiles().1, window.len()), (vec![62], 0));
    }
}
