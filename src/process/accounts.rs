//! Accounts and their users: what an event of a user changes on its accounts, and what joining and merging change.
//!
//! Two things hold after every event, timer and slice of a walk (`engine::seats`): an account's pooled states are the
//! merge of what its users bring, and its tallies count what its users satisfy. Each change of a user is handed on as
//! a difference, so it costs the same however many users an account has. The accounts of every user in work are in work,
//! too, as long as there are definitions of accounts.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use sqlx::PgConnection;

use super::apply::Ground;
use super::catalog::Catalog;
use super::evaluate::{Waiting, evaluate};
use super::work::{Caches, Entry, Work};
use crate::domain::{Collection, ComputationNo, Facts, ProfileNo, SpaceNo, Timestamp};
use crate::engine::{Computation, LeafStates, ProfileView, SeatView, Target, seats::Recount};
use crate::history::Partials;
use crate::store::Result;

/// Of so many events one has the account it is pooled in tidied: states are compacted where they are long, and each
/// event costs little.
const TIDY_EVERY: u64 = 64;

impl Work {
    /// Brings the accounts of all users in work into work.
    pub(super) async fn load_accounts(
        &mut self,
        connection: &mut PgConnection,
        space: SpaceNo,
        caches: &mut Caches,
    ) -> Result<()> {
        let of = |entry: &Entry| entry.profile.kin.get().accounts.clone();
        let accounts: BTreeSet<ProfileNo> = self.entries.values().flat_map(of).collect();
        self.load_profiles(connection, space, caches, accounts.into_iter()).await
    }

    /// Watches for what is due by `until` on the profiles in work.
    pub(super) fn watch_all(&mut self, until: Timestamp) {
        self.watched_until = until;
        let numbers: Vec<ProfileNo> = self.entries.keys().copied().collect();
        for no in numbers {
            self.watch(no);
        }
    }

    /// Watches for what is due on a profile.
    pub(super) fn watch(&mut self, no: ProfileNo) {
        if self.watched_until == Timestamp::EPOCH {
            return;
        }
        let due = self.entries.get(&no).and_then(|entry| entry.profile.due_at());
        if let Some(at) = due.filter(|at| *at <= self.watched_until) {
            self.timers.push(Reverse((at, no)));
        }
    }

    /// The profiles that are due first, by `until`, and when.
    fn take_due(&mut self, until: Timestamp) -> Option<(Timestamp, BTreeSet<ProfileNo>)> {
        let Reverse((at, _)) = *self.timers.peek().filter(|Reverse((at, _))| *at <= until)?;
        let mut due = BTreeSet::new();
        while self.timers.peek().is_some_and(|Reverse((when, _))| *when == at) {
            due.extend(self.timers.pop().map(|Reverse((_, no))| no));
        }
        due.retain(|no| self.entries.get(no).is_some_and(|entry| entry.profile.due_at() == Some(at)));
        Some((at, due))
    }

    /// Lets a user bring its states to an account.
    fn bring(&mut self, user: ProfileNo, account: ProfileNo, catalog: &Catalog) {
        let Some(user) = self.entries.remove(&user) else { return };
        if let Some(entry) = self.entries.get_mut(&account) {
            let seat = user.profile.seats.get().seat(account).map(|seat| &seat.leaves);
            let brought = std::iter::once(&user.profile.leaves).chain(seat);
            catalog.program.pool(&mut entry.profile.leaves, brought, &mut entry.dirty);
            entry.touched = true;
            self.changed.insert(account);
        }
        self.entries.insert(user.profile.no, user);
    }
}

/// A user has joined an account: with all its events, and to be counted.
pub(super) fn join(work: &mut Work, user: ProfileNo, account: ProfileNo, catalog: &Catalog) {
    if !catalog.program.has_accounts() {
        return;
    }
    work.bring(user, account, catalog);
    if let Some(entry) = work.entries.get_mut(&user) {
        catalog.program.mark_quantified(&mut entry.dirty);
    }
}

/// Before a merge of two users: both leave what they are counted in, and each brings its states to the accounts that only
/// the other is in. The survivor is counted anew when it is evaluated.
pub(super) fn before_merge(work: &mut Work, survivor: ProfileNo, absorbed: ProfileNo, catalog: &Catalog) {
    let accounts = |work: &Work, no| {
        let entry = work.entries.get(&no);
        entry.map(|entry| entry.profile.kin.get().accounts.clone()).unwrap_or_default()
    };
    let (own, theirs) = (accounts(work, survivor), accounts(work, absorbed));
    for no in [survivor, absorbed] {
        if let Some(entry) = work.entries.get_mut(&no) {
            work.out.recounts.extend(entry.profile.uncount());
        }
    }
    if !catalog.program.has_accounts() {
        return;
    }
    for account in theirs.iter().filter(|account| !own.contains(account)) {
        work.bring(survivor, *account, catalog);
    }
    for account in own.iter().filter(|account| !theirs.contains(account)) {
        work.bring(absorbed, *account, catalog);
    }
}

/// Merges what history makes of a profile, under the number it had, into that profile, and of a user into its accounts.
pub(super) fn bring_history(
    work: &mut Work,
    live: ProfileNo,
    number: ProfileNo,
    partials: &Partials,
    catalog: &Catalog,
) {
    let Some(mut entry) = work.entries.remove(&live) else { return };
    let Entry { profile, dirty, touched, .. } = &mut entry;
    let own = partials.get(number);
    if let Some(partial) = own {
        for (leaf, _) in partial.iter() {
            catalog.program.mark_leaf(leaf, dirty);
        }
        profile.leaves.merge(partial);
        *touched = true;
    }
    for (account, partial) in partials.seats_of(number) {
        for (leaf, _) in partial.iter() {
            catalog.program.mark_leaf(leaf, dirty);
        }
        profile.seats.update(|seats| seats.update(work.live(account), |seat| seat.leaves.merge(partial)));
        *touched = true;
    }
    if catalog.program.has_shared() && profile.collection == Collection::Users {
        for account in &profile.kin.get().accounts {
            let seat = partials.seats.get(&(number, *account));
            let Some(of_account) = work.entries.get_mut(account) else { continue };
            let brought = own.into_iter().chain(seat);
            if catalog.program.pool(&mut of_account.profile.leaves, brought, &mut of_account.dirty) {
                of_account.touched = true;
                work.changed.insert(*account);
            }
        }
    }
    work.entries.insert(live, entry);
}

/// Folds an event into its user and the accounts it counts for: the one it names, else all of its user's (decision I14).
pub(super) fn fold(
    work: &mut Work,
    user: ProfileNo,
    named: Option<ProfileNo>,
    facts: &Facts<'_>,
    ground: &Ground<'_>,
) {
    let program = &ground.catalog.program;
    let Some(entry) = work.entries.get_mut(&user) else { return };
    let named = named.filter(|_| facts.event_type.is_event());
    if !fold_user(entry, named, facts, ground.catalog) {
        return;
    }
    let profile = &entry.profile;
    let linked = profile.kin.get().accounts.clone();
    for account in linked.into_iter().filter(|account| named.is_none_or(|named| named == *account)) {
        let Some(entry) = work.entries.get_mut(&account) else { continue };
        if program.fold_into(Target::Account, &mut entry.profile.leaves, facts, &mut entry.dirty) {
            entry.touched = true;
            if facts.offset.0.is_multiple_of(TIDY_EVERY) {
                entry.tidy_at = Some(facts.received_at.max(ground.fired));
            }
            work.changed.insert(account);
        }
    }
}

/// Folds an event into its user, and where it names an account into the user's seat there. Says whether it makes a
/// difference to accounts.
pub(super) fn fold_user(
    entry: &mut Entry,
    named: Option<ProfileNo>,
    facts: &Facts<'_>,
    catalog: &Catalog,
) -> bool {
    let program = &catalog.program;
    let Entry { profile, dirty, .. } = entry;
    let named = named.filter(|_| facts.event_type.is_event());
    let target = Target::User { named: named.is_some() };
    program.fold_into(target, &mut profile.leaves, facts, dirty);
    if !program.has_shared() || !program.shares(facts) {
        return false;
    }
    if let Some(account) = named {
        profile.seats.update(|seats| {
            seats.update(account, |seat| program.fold_into(Target::Seat, &mut seat.leaves, facts, dirty))
        });
    }
    true
}

/// Folds a group call into the account it is about.
pub(super) fn fold_group(work: &mut Work, account: ProfileNo, facts: &Facts<'_>, catalog: &Catalog) {
    if let Some(Entry { profile, dirty, .. }) = work.entries.get_mut(&account)
        && catalog.program.has_accounts()
    {
        catalog.program.fold_into(Target::Account, &mut profile.leaves, facts, dirty);
    }
}

/// Asks a user what a definition of accounts wants to know of its users, for each of its accounts; what is another answer
/// than before is to be counted. Returns when an answer can next change by the passage of time.
pub(super) fn ask(
    entry: &mut Entry,
    recounts: &mut Vec<Recount>,
    computation: &Computation,
    catalog: &Catalog,
    now: Timestamp,
) -> Option<Timestamp> {
    let no = computation.no;
    let (mut earliest, mut of_all) = (None, None);
    for account in entry.profile.kin.get().accounts.clone() {
        let seat = entry.profile.seats.get().seat(account).map(|seat| &seat.leaves);
        let named = seat.filter(|leaves| !leaves.is_empty());
        // Without events of its own an account asks what all the others ask.
        let known = of_all.filter(|_| named.is_none());
        let (bits, changes_at) = known.unwrap_or_else(|| answers(entry, named, computation, catalog, now));
        if named.is_none() {
            of_all = Some((bits, changes_at));
        }
        earliest = [earliest, changes_at].into_iter().flatten().min();
        let before = entry.profile.seats.get().counted(account, no);
        if before != Some(bits) {
            recounts.push(Recount { account, computation: no, before, now: Some(bits) });
            entry.profile.seats.update(|seats| seats.set_counted(account, no, Some(bits)));
        }
    }
    earliest
}

/// Which conditions hold for a user as a member of an account, and when that can next change.
fn answers(
    entry: &Entry,
    named: Option<&LeafStates>,
    computation: &Computation,
    catalog: &Catalog,
    now: Timestamp,
) -> (u64, Option<Timestamp>) {
    let user = ProfileView {
        profile: &entry.profile,
        leaves: &entry.profile.leaves,
        tally: None,
        answers: |key: &str| catalog.answers.get(key).copied(),
    };
    computation.plan.ask(&SeatView { user, named }, now)
}

/// Hands on what has changed on users to their accounts, and evaluates those as of `at`.
pub(super) fn settle(work: &mut Work, catalog: &Catalog, at: Timestamp, waiting: Waiting) {
    for recount in std::mem::take(&mut work.out.recounts) {
        let account = work.live(recount.account);
        let is_asked = catalog.meta.contains_key(&recount.computation);
        let Some(entry) = work.entries.get_mut(&account).filter(|_| is_asked) else { continue };
        entry.profile.seats.update(|seats| seats.recount(&recount));
        entry.touched = true;
        catalog.program.mark(recount.computation, &mut entry.dirty);
        work.changed.insert(account);
    }
    for account in std::mem::take(&mut work.changed) {
        if let Some(entry) = work.entries.get_mut(&account) {
            let at = at.max(entry.profile.last_event_at);
            evaluate(entry, &mut work.out, catalog, at, waiting);
            work.watch(account);
        }
    }
}

/// Lets happen, in the order of time, what was due on the profiles in work by `until`. Of one instant all users come first,
/// so that an account sees what it does to all of them at once.
pub(super) fn fire_watched(work: &mut Work, until: Timestamp, catalog: &Catalog, waiting: Waiting) {
    while let Some((at, due)) = work.take_due(until) {
        for no in due {
            let Some(entry) = work.entries.get_mut(&no) else { continue };
            entry.touched = true;
            let computations: Vec<ComputationNo> = entry.profile.take_due(at);
            for computation in computations {
                catalog.program.mark(computation, &mut entry.dirty);
            }
            if entry.profile.collection == Collection::Accounts {
                work.changed.insert(no);
                continue;
            }
            evaluate(entry, &mut work.out, catalog, at, waiting);
            work.watch(no);
        }
        settle(work, catalog, at, waiting);
    }
}
