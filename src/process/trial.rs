//! What an operator's act would do: it is done, and rolled back.

use super::acts;
use super::apply::{Ground, identify_again};
use super::catalog::Catalog;
use super::evaluate::Waiting;
use super::surgery::{self, Table};
use super::work::{Caches, Work};
use crate::domain::act::{Actor, Effect, Signed};
use crate::domain::{Act, IdKey, Offset, ProfileNo, SpaceNo, Timestamp};
use crate::engine::Limits;
use crate::store::log::codec::Record;
use crate::store::{Result, StoreError, Walled, processor};

/// The owners a trial remembers: it looks each one up once.
const CACHE_MAX: usize = 1;

/// Does an act to the space as it stands, as of `now`, and forgets it again.
pub async fn try_act(
    door: &Walled,
    space: SpaceNo,
    act: &Act,
    now: Timestamp,
    limits: Limits,
) -> Result<Effect> {
    let mut tx = door.begin().await?;
    processor::freeze(&mut tx).await?;
    let version = processor::config_version(&mut *tx, space).await?;
    let standing = processor::status(&mut *tx, space).await?;
    let position = standing.map_or(Offset(0), |standing| standing.processed);
    let catalog = Catalog::read(&mut tx, space, version, limits).await?;
    let signed = Signed { act: act.clone(), by: Actor::default() };
    let body = serde_json::to_string(&signed).unwrap_or_default();
    let record = Record::of_act(&body, "", now);
    let event = identify_again(&record, Offset(position.0 + 1), &catalog);
    let ground = Ground { space, catalog: &catalog, waiting: Waiting::default(), fired: Timestamp::EPOCH };
    let mut caches = Caches::new(CACHE_MAX, CACHE_MAX);
    let mut work = Work::default();
    if act.stands_alone() {
        let table = Table { connection: &mut tx, caches: &mut caches, keep: None, erases: false };
        surgery::operate(&mut work, table, &event, &ground).await?;
    } else {
        let keys = || event.ids.users.iter().chain(&event.ids.accounts).map(|candidate| candidate.key);
        work.load_owners(&mut tx, space, &mut caches, keys()).await?;
        let owners: Vec<ProfileNo> = work.owners.values().copied().flatten().collect();
        work.load_profiles(&mut tx, space, &mut caches, owners.into_iter()).await?;
        work.load_accounts(&mut tx, space, &mut caches).await?;
        let keys: Vec<IdKey> = keys().collect();
        work.suspects.load(&mut tx, space, &keys).await?;
        acts::apply(&mut work, &event, &ground);
    }
    tx.rollback().await?;
    let unread = || StoreError::Damaged("an act could not be read back".to_owned());
    work.out.audit.pop().map(|entry| entry.effect).ok_or_else(unread)
}
