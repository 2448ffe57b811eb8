//! What a definition of accounts would be: all users bring what history makes of them to their accounts, and then
//! those are looked at. In memory there is of each account what its definition needs, and never more of its users than
//! a pass has.

use hashbrown::HashMap;

use super::preview::{Fold, Look, Preview, READ_AT_A_TIME};
use super::{QueryError, Reader};
use crate::domain::{Collection, ProfileNo, SpaceNo};
use crate::engine::profile::Profile;
use crate::engine::{LeafStates, ProfileView, SeatView, Tally};
use crate::history::{PASS_PROFILES, Partials};
use crate::store::profiles;

/// What an account would have.
#[derive(Default)]
struct Brought {
    leaves: LeafStates,
    tally: Tally,
}

/// By account.
type Accounts = HashMap<ProfileNo, Brought>;

impl Reader {
    /// Looks at all accounts.
    pub(super) async fn look_at_accounts(
        &self,
        space: SpaceNo,
        look: &Look<'_>,
        fold: &Fold,
        preview: &mut Preview,
    ) -> Result<(), QueryError> {
        let (mut accounts, mut after) = (Accounts::new(), ProfileNo(0));
        while after < fold.last {
            let until = ProfileNo((after.0 + PASS_PROFILES).min(fold.last.0));
            let absorbed = fold.absorbed.clone();
            let partials = self.fold(space, look, fold.end, absorbed, (after, until)).await?;
            self.ask_users(space, look, &partials, (after, until), &mut accounts).await?;
            after = until;
        }
        let mut after = ProfileNo(0);
        loop {
            let most = READ_AT_A_TIME;
            let numbers = profiles::list_accounts(&self.door(space), space, after, fold.last, most).await?;
            let Some(last) = numbers.last() else { return Ok(()) };
            after = *last;
            for profile in self.live_profiles(space, &numbers).await? {
                let brought = accounts.get(&profile.no);
                let (leaves, tally) = brought.map(|brought| (&brought.leaves, &brought.tally)).unzip();
                look.look_at_profile(&profile, leaves, tally, preview);
            }
        }
    }

    /// Lets the users numbered in (after, until] bring to their accounts what they have.
    async fn ask_users(
        &self,
        space: SpaceNo,
        look: &Look<'_>,
        partials: &Partials,
        range: (ProfileNo, ProfileNo),
        accounts: &mut Accounts,
    ) -> Result<(), QueryError> {
        self.each_profile(space, range, |profile| match profile.collection {
            Collection::Users => look.ask(profile, partials, accounts),
            Collection::Accounts => {
                if let Some(own) = partials.get(profile.no) {
                    accounts.entry(profile.no).or_default().leaves.merge(own);
                }
            }
        })
        .await
    }
}

impl Look<'_> {
    fn ask(&self, user: &Profile, partials: &Partials, accounts: &mut Accounts) {
        let (plan, nothing) = (self.draft.plan, LeafStates::default());
        let own = partials.get(user.no).unwrap_or(&nothing);
        for account in &user.kin.get().accounts {
            let named = partials.seats.get(&(user.no, *account));
            let brought = accounts.entry(*account).or_default();
            for states in std::iter::once(own).chain(named) {
                plan.pool(&mut brought.leaves, states);
            }
            let answers = |key: &str| self.answers.get(key).copied();
            let user = ProfileView { profile: user, leaves: own, tally: None, answers };
            let (bits, _) = plan.ask(&SeatView { user, named }, self.now);
            brought.tally.count(None, Some(bits));
        }
    }
}
