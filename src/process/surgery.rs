//! Acts that need more than the profiles they name: taking a merge back, and taking a user out of an account. Each is
//! a micro-batch of its own, applied to what everything before it has made, and so the same whenever the log is gone
//! through again.

use std::collections::BTreeSet;

use hashbrown::HashSet;
use sqlx::PgConnection;

use super::acts::{Acting, Done, profile_effect};
use super::apply::{Ground, Incoming, look_again};
use super::erase::erase;
use super::past::Keep;
use super::unmerge::undo_merge;
use super::work::{Caches, Entry, Work};
use crate::domain::act::Effect;
use crate::domain::{Act, IdKey, ProfileNo};
use crate::engine::Program;
use crate::engine::identity::Graph;
use crate::engine::profile::Profile;
use crate::store::profiles::{self, Loaded};
use crate::store::{Result, StoreError, processor, verify};

/// Users of an account read at a time.
const USERS_AT_A_TIME: usize = 2_000;

/// What an operation works with besides the working set.
pub(super) struct Table<'a> {
    pub connection: &'a mut PgConnection,
    pub caches: &'a mut Caches,
    /// None for a dry run.
    pub keep: Option<Keep>,
    /// What is erased is erased here: not in a rebuild, which finds the log without it.
    pub erases: bool,
}

/// Applies an act that stands alone. Everything before it in the log is committed.
pub(super) async fn operate(
    work: &mut Work,
    mut table: Table<'_>,
    event: &Incoming<'_>,
    ground: &Ground<'_>,
) -> Result<()> {
    let candidates = event.ids.users.iter().chain(&event.ids.accounts);
    let keys: Vec<IdKey> = candidates.map(|candidate| candidate.key).collect();
    let Table { connection, caches, .. } = &mut table;
    work.load_owners(connection, ground.space, caches, keys.iter().copied()).await?;
    let owners: Vec<ProfileNo> = keys.iter().filter_map(|key| work.owner(*key)).collect();
    work.load_profiles(connection, ground.space, caches, owners.into_iter()).await?;
    work.load_accounts(connection, ground.space, caches).await?;
    let table = &mut table;
    let Some(acting) = Acting::begin(work, event, ground) else { return Ok(()) };
    let done = match &acting.signed.act {
        Act::UndoMerge { merge, offset, .. } => {
            let (merge, offset) = (*merge, *offset);
            undo_merge(work, table, &acting, merge, offset).await?
        }
        Act::Unlink { .. } => unlink(work, table, &acting).await?,
        Act::Erase { regulation, first, count } => {
            let of = (*regulation, *first, *count);
            erase(work, table, &acting, of).await?
        }
        _ => Err("the act does not stand alone".to_owned()),
    };
    acting.end(work, done);
    Ok(())
}

/// Takes a user out of an account: it is counted there no more, and neither are its events.
async fn unlink(work: &mut Work, table: &mut Table<'_>, acting: &Acting<'_>) -> Result<Done> {
    let ids = &acting.event.ids;
    let user = ids.users.first().and_then(|user| work.owner(user.key));
    let account = ids.accounts.first().and_then(|account| work.owner(account.key));
    let (Some(user), Some(account)) = (user, account) else {
        return Ok(Err("nobody has the identifier of the user, or there is no such account".to_owned()));
    };
    let linked = |work: &Work| {
        let kin = work.entries.get(&user).map(|entry| entry.profile.kin.get().accounts.clone());
        kin.unwrap_or_default().into_iter().filter(|no| work.live(*no) == account).collect::<Vec<_>>()
    };
    let gone = linked(work);
    if gone.is_empty() {
        return Ok(Err("the user is not in this account: its links say in which it is".to_owned()));
    }
    let at = acting.touch(work, user);
    let numbers_of = |no| work.entries.get(&no).map(|entry| entry.profile.numbers()).unwrap_or_default();
    let (users, accounts) = (numbers_of(user), numbers_of(account));
    let pairs = accounts.iter().flat_map(|account| users.iter().map(|user| (*account, *user)));
    work.out.corrections.unlinked.extend(pairs);
    if let Some(entry) = work.entries.get_mut(&user) {
        entry.profile.kin.update(|kin| kin.accounts.retain(|no| !gone.contains(no)));
        for no in &gone {
            let left = entry.profile.seats.update(|seats| seats.leave(*no));
            work.out.recounts.extend(left);
        }
    }
    make_accounts_anew(work, table, acting, &BTreeSet::from([account])).await?;
    look_again(work, user, at, acting.ground);
    let both = [user, account];
    let profiles = both.iter().filter_map(|no| profile_effect(work, *no, "changed")).collect();
    Ok(Ok(Effect { profiles, ..Effect::default() }))
}

/// Pools anew what the users of some accounts bring to them. Who is in work says by itself where it belongs.
pub(super) async fn make_accounts_anew(
    work: &mut Work,
    table: &mut Table<'_>,
    acting: &Acting<'_>,
    accounts: &BTreeSet<ProfileNo>,
) -> Result<()> {
    let (space, program) = (acting.ground.space, &acting.catalog().program);
    if !program.has_accounts() {
        return Ok(());
    }
    for account in accounts {
        let Some(mut entry) = work.entries.remove(account) else { continue };
        program.unpool(&mut entry.profile.leaves, &mut entry.dirty);
        let here = work.entries.values().filter(|user| user.profile.kin.get().accounts.contains(account));
        for user in here {
            bring(&user.profile, *account, &mut entry, program);
        }
        let numbers = entry.profile.numbers();
        let linked = verify::list_users(table.connection, space, &numbers).await?;
        let linked: HashSet<ProfileNo> = linked
            .into_iter()
            .map(|(_, user)| user)
            .filter(|user| !work.entries.contains_key(user))
            .collect();
        let linked: Vec<ProfileNo> = linked.into_iter().collect();
        for part in linked.chunks(USERS_AT_A_TIME) {
            if let Some(Keep { pool, epoch, lease }) = &table.keep {
                processor::extend_lease(pool, space, *epoch, *lease).await?;
            }
            for (no, row) in profiles::load_states(&mut *table.connection, space, part).await? {
                let Loaded::Live(state) = row else { continue };
                let damaged = |e| StoreError::Damaged(format!("profile {no} of space {space}: {e}"));
                bring(&Profile::decode(&state).map_err(damaged)?, *account, &mut entry, program);
            }
        }
        entry.touched = true;
        work.entries.insert(*account, entry);
        work.changed.insert(*account);
    }
    Ok(())
}

fn bring(user: &Profile, account: ProfileNo, entry: &mut Entry, program: &Program) {
    let seat = user.seats.get().seat(account).map(|seat| &seat.leaves);
    program.pool(&mut entry.profile.leaves, std::iter::once(&user.leaves).chain(seat), &mut entry.dirty);
}
