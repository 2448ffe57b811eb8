//! Full syncs: everybody's present value goes into the queue, a page at a time, each in a transaction that notes how far it
//! has come. A restart goes on; the next page waits until the one before is nearly sent, so nothing grows.

use sqlx::PgConnection;
use sqlx::postgres::PgPool;

use super::ledger::Lease;
use crate::domain::delivery::{Form, Subject};
use crate::domain::{Collection, ProfileNo, Timestamp};
use crate::engine::profile::{OutcomeValue, Profile};
use crate::store::deliveries::{self, NewDelivery, sync};
use crate::store::destinations::subscriptions::{self, Subscription};
use crate::store::destinations::worker::{self, Progress};
use crate::store::{Result, StoreError};

/// Members of a page.
const MEMBERS: i64 = 1_000;
/// Profiles of a page, where each has to be looked at.
const PROFILES: i64 = 500;

/// Somebody's present value.
struct Present {
    profile: ProfileNo,
    value: String,
    at: Timestamp,
}

/// Puts the next page of the first unfinished full sync into the queue; false when there is none.
pub(super) async fn step(pool: &PgPool, lease: Lease, now: Timestamp) -> Result<bool> {
    let Lease { space, destination, epoch, length } = lease;
    let mut tx = pool.begin().await?;
    worker::advance(&mut tx, space, destination, epoch, length, &Progress::default()).await?;
    // Before anything is read: what changes after this is told after it.
    sync::lock_head(&mut tx, space, destination).await?;
    let list = subscriptions::list(&mut *tx, space, Some(destination)).await?;
    let running = list.into_iter().find(|s| s.enabled && s.sync.after.is_some());
    let Some(subscription) = running else { return Ok(false) };
    let (present, reached, is_account) = page(&mut tx, lease, &subscription).await?;
    let mut rows = Vec::with_capacity(present.len());
    for Present { profile, value, at } in present {
        for form in Form::of_set(subscription.forms) {
            if form == Form::Track && is_account {
                continue;
            }
            rows.push(NewDelivery {
                destination,
                profile,
                subscription: subscription.no,
                subject: subscription.subject,
                form: form as i16,
                definition: subscription.definition,
                value: value.clone(),
                at,
            });
        }
    }
    if !rows.is_empty() {
        deliveries::enqueue(&mut tx, space, &rows).await?;
    }
    let ended = reached.is_none().then_some(now);
    subscriptions::set_synced(&mut tx, space, destination, subscription.no, (reached, ended)).await?;
    tx.commit().await?;
    Ok(true)
}

/// Present values of the next profiles; how far that is, none at the end; and whether they are accounts.
async fn page(
    tx: &mut PgConnection,
    lease: Lease,
    subscription: &Subscription,
) -> Result<(Vec<Present>, Option<i64>, bool)> {
    let (after, until) = (subscription.sync.after.unwrap_or(0), subscription.sync.until.unwrap_or(0));
    let (space, definition) = (lease.space, subscription.definition);
    let serving = sync::serving(tx, space, definition).await?;
    let is_account = serving.is_some_and(|(_, collection)| collection == Collection::Accounts);
    if subscription.subject == Subject::Audience {
        let Some((serving, _)) = serving else { return Ok((Vec::new(), None, false)) };
        let members = sync::list_members(tx, space, serving, (after, until, MEMBERS)).await?;
        let is_full = members.len() as i64 == MEMBERS;
        let reached = members.last().filter(|_| is_full).map(|(no, _)| no.0 as i64);
        let present =
            members.into_iter().map(|(profile, at)| Present { profile, value: "true".to_owned(), at });
        return Ok((present.collect(), reached, is_account));
    }
    let states = sync::list_states(tx, space, (after, until, PROFILES)).await?;
    let is_full = states.len() as i64 == PROFILES;
    let reached = states.last().filter(|_| is_full).map(|(no, _)| no.0 as i64);
    let mut present = Vec::new();
    for (no, state) in states {
        let profile = Profile::decode(&state.into())
            .map_err(|e| StoreError::Damaged(format!("profile {no} of space {space}: {e}")))?;
        let found = match (subscription.subject, serving) {
            (Subject::ComputedTrait, Some((serving, _))) => {
                profile.outcome(serving).and_then(|o| match o.value {
                    OutcomeValue::Value(Some(json)) => Some((json, o.since)),
                    _ => None,
                })
            }
            (Subject::CustomTraits, _) => custom(&profile),
            _ => None,
        };
        present.extend(found.map(|(value, at)| Present { profile: no, value, at }));
    }
    Ok((present, reached, is_account))
}

/// All custom traits of a profile, as of its newest event.
fn custom(profile: &Profile) -> Option<(String, Timestamp)> {
    let traits = profile.traits.get();
    let fields = traits.iter().map(|(name, json, _)| format!("{}:{json}", serde_json::Value::from(name)));
    let fields: Vec<String> = fields.collect();
    (!fields.is_empty()).then(|| (format!("{{{}}}", fields.join(",")), profile.last_event_at))
}
