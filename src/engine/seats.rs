//! The places users have in accounts, and what accounts know of the users in them.
//!
//! A user keeps a [`Seat`] for an account when there is something to keep: the states of events that named the account,
//! and which conditions of `ANY` and `ALL` the user was counted for there. An account keeps a [`Tally`] for each
//! definition that asks its users: so what one user does changes a number, however many users there are.
//!
//! For every account and every leaf of [`Scope::Pool`] the account's state is the merge, over its
//! users, of the user's own state and that of its seat; for every definition its tally is the sum of what its users were
//! counted for. Whatever changes users, links or conditions keeps that so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::evaluate::View;
use super::query::Plan;
use super::state::{LeafStates, Scope};
use crate::domain::{ComputationNo, ProfileNo, Timestamp, Value};

/// A user's place in an account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seat {
    /// The account. The user need not be linked to it (yet): an event may have named it.
    account: ProfileNo,
    /// What the account has counted the user for: a bit for each condition of the definition that holds.
    counted: BTreeMap<u32, u64>,
    /// States of the events that named the account.
    pub leaves: LeafStates,
}

/// What a definition knows of the users of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Users that were counted.
    all: u64,
    /// For how many of them each condition holds; those at the end for which it never did are left out.
    holding: Vec<u64>,
}

/// A user is counted anew in an account: for these conditions instead of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recount {
    /// The account.
    pub account: ProfileNo,
    /// The definition.
    pub computation: ComputationNo,
    /// The conditions that held before; `None` when it was not counted.
    pub before: Option<u64>,
    /// Those that hold now; `None` when it is counted no more.
    pub now: Option<u64>,
}

/// Of a user its seats, of an account its tallies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seats {
    /// By account.
    seats: Vec<Seat>,
    /// By definition.
    tallies: BTreeMap<u32, Tally>,
}

impl Tally {
    /// Users of the account.
    pub const fn all(&self) -> u64 {
        self.all
    }

    /// Users that satisfy one of the definition's conditions.
    pub fn holding(&self, quantifier: usize) -> u64 {
        self.holding.get(quantifier).copied().unwrap_or_default()
    }

    /// Counts a user (anew).
    pub fn count(&mut self, before: Option<u64>, now: Option<u64>) {
        self.all = (self.all + u64::from(now.is_some())).saturating_sub(u64::from(before.is_some()));
        let (before, now) = (before.unwrap_or_default(), now.unwrap_or_default());
        let used = u64::BITS - (before | now).leading_zeros();
        if self.holding.len() < used as usize {
            self.holding.resize(used as usize, 0);
        }
        for (place, holding) in self.holding.iter_mut().enumerate().take(used as usize) {
            let has = |bits: u64| bits >> place & 1;
            *holding = (*holding + has(now)).saturating_sub(has(before));
        }
        while self.holding.last() == Some(&0) {
            self.holding.pop();
        }
    }
}

impl Seats {
    /// The seat of an account, if anything is kept of it.
    pub fn seat(&self, account: ProfileNo) -> Option<&Seat> {
        self.seats.get(self.find(account).ok()?)
    }

    /// All seats.
    pub fn iter(&self) -> impl Iterator<Item = (ProfileNo, &Seat)> {
        self.seats.iter().map(|seat| (seat.account, seat))
    }

    /// Lets `change` work on the seat of an account; an empty one is not kept.
    pub fn update<R>(&mut self, account: ProfileNo, change: impl FnOnce(&mut Seat) -> R) -> R {
        let place = self.find(account);
        let place = place.unwrap_or_else(|place| {
            self.seats.insert(place, Seat { account, ..Seat::default() });
            place
        });
        let mut fallback = Seat::default();
        let seat = self.seats.get_mut(place).unwrap_or(&mut fallback);
        let result = change(seat);
        if seat.is_empty() {
            self.seats.remove(place);
        }
        result
    }

    fn find(&self, account: ProfileNo) -> Result<usize, usize> {
        self.seats.binary_search_by_key(&account, |seat| seat.account)
    }

    /// For what the account has counted the user.
    pub fn counted(&self, account: ProfileNo, computation: ComputationNo) -> Option<u64> {
        self.seat(account)?.counted.get(&computation.0).copied()
    }

    /// Notes for what the account has counted the user.
    pub fn set_counted(&mut self, account: ProfileNo, computation: ComputationNo, now: Option<u64>) {
        self.update(account, |seat| match now {
            Some(bits) => _ = seat.counted.insert(computation.0, bits),
            None => _ = seat.counted.remove(&computation.0),
        });
    }

    /// Leaves every tally, as before a merge: whoever is left is counted anew.
    pub fn uncount(&mut self) -> Vec<Recount> {
        let mut left = Vec::new();
        for seat in &mut self.seats {
            for (no, bits) in std::mem::take(&mut seat.counted) {
                let (account, computation) = (seat.account, ComputationNo(no));
                left.push(Recount { account, computation, before: Some(bits), now: None });
            }
        }
        self.seats.retain(|seat| !seat.is_empty());
        left
    }

    /// Leaves the tallies of one account.
    pub fn leave(&mut self, account: ProfileNo) -> Vec<Recount> {
        let counted = self.update(account, |seat| std::mem::take(&mut seat.counted));
        let left = |(no, bits)| Recount { account, computation: ComputationNo(no), before: Some(bits), now: None };
        counted.into_iter().map(left).collect()
    }

    /// Takes over the seats of an absorbed user, which has left all tallies before.
    pub fn absorb(&mut self, other: &Self) {
        for theirs in &other.seats {
            self.update(theirs.account, |ours| ours.leaves.merge(&theirs.leaves));
        }
    }

    /// What a definition knows of the users of the account.
    pub fn tally(&self, computation: ComputationNo) -> Option<&Tally> {
        self.tallies.get(&computation.0)
    }

    /// Counts a user of the account (anew).
    pub fn recount(&mut self, recount: &Recount) {
        let tally = self.tallies.entry(recount.computation.0).or_default();
        tally.count(recount.before, recount.now);
        if tally.all == 0 {
            self.tallies.remove(&recount.computation.0);
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty() && self.tallies.is_empty()
    }

    /// Forgets versions of definitions that nobody asks for any more.
    pub fn retain_versions(&mut self, mut keep: impl FnMut(ComputationNo) -> bool) {
        self.tallies.retain(|no, _| keep(ComputationNo(*no)));
        for seat in &mut self.seats {
            seat.counted.retain(|no, _| keep(ComputationNo(*no)));
        }
        self.seats.retain(|seat| !seat.is_empty());
    }

    /// Lets `change` work on the states of every seat.
    pub fn for_each_states(&mut self, mut change: impl FnMut(&mut LeafStates)) {
        for seat in &mut self.seats {
            change(&mut seat.leaves);
        }
        self.seats.retain(|seat| !seat.is_empty());
    }
}

impl Seat {
    fn is_empty(&self) -> bool {
        self.counted.is_empty() && self.leaves.is_empty()
    }
}

impl Plan {
    /// What it asks of a user of an account: a bit for each of [`Plan::quantifiers`] that holds, and when that can next
    /// change by the passage of time.
    pub fn ask(&self, user: &impl View, now: Timestamp) -> (u64, Option<Timestamp>) {
        let (mut bits, mut earliest) = (0, None);
        for (place, condition) in self.quantifiers().iter().enumerate() {
            let evaluation = self.evaluate_condition(condition, user, now);
            bits |= u64::from(evaluation.value == Value::Bool(true)) << place;
            earliest = [earliest, evaluation.changes_at].into_iter().flatten().min();
        }
        (bits, earliest)
    }

    /// Adds to the states of an account what a user brings to it, as far as this definition looks at it.
    pub fn pool(&self, account: &mut LeafStates, brought: &LeafStates) {
        for (no, _) in self.leaves().filter(|(_, spec)| spec.scope == Scope::Pool) {
            if let Some(state) = brought.get(no) {
                account.update(no, |pooled| {
                    pooled.merge(state.into_owned());
                    true
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_are_the_sums_of_what_users_are_counted_for() {
        let mut tally = Tally::default();
        tally.count(None, Some(0b101));
        tally.count(None, Some(0b001));
        tally.count(None, Some(0));
        assert_eq!((tally.all(), [0, 1, 2, 63].map(|q| tally.holding(q))), (3, [2, 0, 1, 0]));
        tally.count(Some(0b101), Some(0b010));
        tally.count(Some(0b001), None);
        assert_eq!((tally.all(), [0, 1, 2].map(|q| tally.holding(q))), (2, [0, 1, 0]));
        tally.count(Some(0b010), Some(1 << 63));
        assert_eq!((tally.holding(1), tally.holding(63)), (0, 1));
        tally.count(Some(1 << 63), None);
        tally.count(Some(0), None);
        assert_eq!(tally, Tally::default(), "nothing stays behind");
    }

    #[test]
    fn a_seat_with_nothing_in_it_is_not_kept() {
        let (account, no) = (ProfileNo(7), ComputationNo(3));
        let mut seats = Seats::default();
        seats.set_counted(account, no, Some(1));
        assert_eq!(seats.counted(account, no), Some(1));
        let left = seats.uncount();
        assert_eq!(left, [Recount { account, computation: no, before: Some(1), now: None }]);
        assert!(seats.is_empty());
        let mut of_account = Seats::default();
        of_account.recount(&Recount { account, computation: no, before: None, now: Some(1) });
        of_account.recount(&left[0]);
        assert!(of_account.is_empty());
    }
}
