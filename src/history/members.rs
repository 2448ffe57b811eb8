//! Of the accounts that are verified: their users, and what the log makes of those as members.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use sqlx::PgConnection;

use crate::domain::{Collection, ComputationNo, Offset, ProfileNo, SpaceNo, Timestamp};
use crate::engine::profile::Profile;
use crate::engine::{Dirty, LeafStates, ProfileView, Program, SeatView, Tally, Target};
use crate::store::log::codec::Record;
use crate::store::profiles::{self, Loaded};
use crate::store::{Result, StoreError, verify};

/// Users of accounts that one pass looks at: bounds the memory it takes. Accounts that do not find room, with all their
/// users, are left out.
const USERS: usize = 100_000;
/// The same where a few profiles are looked at now and then.
const USERS_OF_SAMPLE: usize = 2_000;

/// A user of an account.
struct Member {
    profile: Profile,
    /// States of events that name no account.
    own: LeafStates,
    /// States of those that name one.
    seats: BTreeMap<ProfileNo, LeafStates>,
}

/// The users of accounts.
#[derive(Default)]
pub(super) struct Members {
    of_accounts: BTreeMap<ProfileNo, Vec<ProfileNo>>,
    users: HashMap<ProfileNo, Member>,
}

/// What an account's users bring to it.
#[derive(Default)]
pub(super) struct Brought {
    pub(super) tallies: BTreeMap<ComputationNo, Tally>,
}

impl Members {
    /// Reads the users of those of the profiles that are accounts.
    pub(super) async fn load(
        tx: &mut PgConnection,
        space: SpaceNo,
        profiles: &BTreeMap<ProfileNo, Profile>,
        is_sample: bool,
    ) -> Result<Self> {
        let accounts: Vec<ProfileNo> =
            profiles.values().filter(|p| p.collection == Collection::Accounts).map(|p| p.no).collect();
        let mut members = Self::default();
        if accounts.is_empty() {
            return Ok(members);
        }
        let mut links: BTreeMap<ProfileNo, Vec<ProfileNo>> = BTreeMap::new();
        for (account, user) in verify::list_users(tx, space, &accounts).await? {
            links.entry(account).or_default().push(user);
        }
        let mut room = if is_sample { USERS_OF_SAMPLE } else { USERS };
        for account in accounts {
            let users = links.remove(&account).unwrap_or_default();
            if users.len() <= room {
                room -= users.len();
                members.of_accounts.insert(account, users);
            }
        }
        let mut wanted: Vec<ProfileNo> = members.of_accounts.values().flatten().copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        for (no, row) in profiles::load_states(tx, space, &wanted).await? {
            let Loaded::Live(state) = row else { continue };
            let damaged = |e| StoreError::Damaged(format!("profile {no} of space {space}: {e}"));
            let profile = Profile::decode(&state).map_err(damaged)?;
            members.users.insert(no, Member { profile, own: LeafStates::default(), seats: BTreeMap::new() });
        }
        Ok(members)
    }

    /// Folds an event of a user, as the processor does.
    pub(super) fn fold(
        &mut self,
        user: ProfileNo,
        account: Option<ProfileNo>,
        record: &Record<'_>,
        offset: Offset,
        program: &Program,
    ) {
        let Some(member) = self.users.get_mut(&user) else { return };
        let (facts, mut unused) = (record.facts(offset), Dirty::default());
        let named = account.filter(|_| record.event_type.is_event());
        program.fold_into(Target::User { named: named.is_some() }, &mut member.own, &facts, &mut unused);
        if let Some(account) = named.filter(|_| program.shares(&facts)) {
            let seat = member.seats.entry(account).or_default();
            program.fold_into(Target::Seat, seat, &facts, &mut unused);
        }
    }

    /// The users of an account; `None` when it was left out, or events of a user before `start` are kept no longer.
    fn of(&self, account: ProfileNo, start: Offset) -> Option<Vec<&Member>> {
        let users = self.of_accounts.get(&account)?.iter().map(|user| self.users.get(user));
        let users: Option<Vec<&Member>> = users.collect();
        users.filter(|users| users.iter().all(|user| user.profile.first_offset >= start))
    }

    /// When any user of an account is due first, and when one had its last event; `None` when the account cannot be judged.
    pub(super) fn times(&self, account: ProfileNo, start: Offset) -> Option<(Option<Timestamp>, Timestamp)> {
        let users = self.of(account, start)?;
        let due = users.iter().filter_map(|user| user.profile.due_at()).min();
        let last = users.iter().map(|user| user.profile.last_event_at).max();
        Some((due, last.unwrap_or_default()))
    }

    /// Pools what an account's users have into its states, and asks them, as of `at`.
    pub(super) fn bring(
        &self,
        account: ProfileNo,
        program: &Program,
        answers: &HashMap<String, ComputationNo>,
        (leaves, at): (&mut LeafStates, Timestamp),
    ) -> Brought {
        let mut brought = Brought::default();
        for user in self.of(account, Offset(0)).unwrap_or_default() {
            let named = user.seats.get(&account);
            program.pool(leaves, std::iter::once(&user.own).chain(named), &mut Dirty::default());
            let answers = |key: &str| answers.get(key).copied();
            let view = ProfileView { profile: &user.profile, leaves: &user.own, tally: None, answers };
            let view = SeatView { user: view, named };
            for definition in program.computations().iter().filter(|d| !d.plan.quantifiers().is_empty()) {
                let (bits, _) = definition.plan.ask(&view, at);
                brought.tallies.entry(definition.no).or_default().count(None, Some(bits));
            }
        }
        brought
    }
}
