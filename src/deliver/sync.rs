//! Full syncs: everybody's present value goes into the queue, a page at a time, each in a transaction that notes how far it
//! has come. A restart goes on; the next page waits until the one before is nearly sent, so nothing grows.

mod history;

use std::sync::Arc;

use sqlx::PgConnection;
use sqlx::postgres::PgPool;

use super::ledger::Lease;
use crate::domain::delivery::{Form, Subject};
use crate::domain::trait_names::is_hidden;
use crate::domain::{Collection, ComputationNo, ProfileNo, SpaceNo, Timestamp};
use crate::engine::profile::{OutcomeValue, Profile};
use crate::store::deliveries::sync::Serving;
use crate::store::deliveries::{self, NewDelivery, sync};
use crate::store::destinations::subscriptions;
use crate::store::destinations::syncs::{self, Running};
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
    let Some(running) = syncs::next(&mut tx, space, destination).await? else { return Ok(false) };
    let list = subscriptions::list(&mut *tx, space, Some(destination)).await?;
    let subscription = list.into_iter().find(|s| s.no == running.subscription);
    let Some(subscription) = subscription else { return Ok(false) };
    let serving = sync::serving(&mut tx, space, running.definition).await?;
    let is_account = serving.is_some_and(|of| of.collection == Collection::Accounts);
    let page = Page { space, subject: subscription.subject, serving, running: &running, now };
    let (present, reached) = page.read(&mut tx).await?;
    let mut rows = Vec::with_capacity(present.len());
    for Present { profile, value, at } in present {
        let value: Arc<str> = value.into();
        for form in Form::of_set(subscription.forms) {
            if form == Form::Track && is_account {
                continue;
            }
            rows.push(NewDelivery {
                destination,
                profile,
                origin: profile,
                cause: None,
                subscription: subscription.no,
                subject: subscription.subject,
                form: form as i16,
                definition: running.definition,
                value: Arc::clone(&value),
                at,
            });
        }
    }
    if !rows.is_empty() {
        deliveries::enqueue(&mut tx, space, &rows).await?;
    }
    syncs::advance(&mut tx, space, destination, &running, (reached, now)).await?;
    tx.commit().await?;
    Ok(true)
}

/// What a page is read by.
struct Page<'a> {
    space: SpaceNo,
    subject: Subject,
    serving: Option<Serving>,
    running: &'a Running,
    now: Timestamp,
}

impl Page<'_> {
    /// Present values of the next profiles, and how far that is; none at the end.
    async fn read(&self, tx: &mut PgConnection) -> Result<(Vec<Present>, Option<i64>)> {
        let Running { after, until, .. } = *self.running;
        let version = self.serving.and_then(|serving| serving.version);
        if self.subject == Subject::Audience {
            let Some(version) = version else { return Ok((Vec::new(), None)) };
            let members = sync::list_members(tx, self.space, version, (after, until, MEMBERS)).await?;
            let is_full = members.len() as i64 == MEMBERS;
            let reached = members.last().filter(|_| is_full).map(|(no, _)| no.0 as i64);
            let present =
                members.into_iter().map(|(profile, at)| Present { profile, value: "true".to_owned(), at });
            return Ok((present.collect(), reached));
        }
        if self.subject == Subject::ProfileUpdates {
            let (told, reached) = history::page(tx, self.space, (after, until)).await?;
            let present = told.into_iter().map(|(profile, value, at)| Present { profile, value, at });
            return Ok((present.collect(), reached));
        }
        let states = sync::list_states(tx, self.space, (after, until, PROFILES)).await?;
        let is_full = states.len() as i64 == PROFILES;
        let reached = states.last().filter(|_| is_full).map(|(no, _)| no.0 as i64);
        let mut present = Vec::new();
        for (no, state) in states {
            let profile = Profile::decode(&state.into())
                .map_err(|e| StoreError::Damaged(format!("profile {no} of space {}: {e}", self.space)))?;
            let found = match self.subject {
                Subject::CustomTraits => custom(&profile),
                _ => self.computed(&profile, version),
            };
            present.extend(found.map(|(value, at)| Present { profile: no, value, at }));
        }
        Ok((present, reached))
    }

    /// A computed trait of a profile; null where it has none any more, but had one of a version before.
    fn computed(&self, profile: &Profile, version: Option<ComputationNo>) -> Option<(String, Timestamp)> {
        let value = |no: ComputationNo| match profile.outcome(no)?.value {
            OutcomeValue::Value(Some(json)) => Some((json, profile.outcome(no)?.since)),
            _ => None,
        };
        version.and_then(value).or_else(|| {
            let had = self.running.replaced.iter().any(|no| value(*no).is_some());
            // What has the key now tells its own values.
            let has_other = self.serving.and_then(|of| of.namesake).and_then(value).is_some();
            (had && !has_other).then(|| ("null".to_owned(), self.now))
        })
    }
}

/// All custom traits of a profile, as of its newest event was received: no older than any change that was told of them, and no
/// newer than the next one.
fn custom(profile: &Profile) -> Option<(String, Timestamp)> {
    let traits = profile.traits.get();
    let own = traits.iter().filter(|(name, ..)| !is_hidden(name));
    let fields = own.map(|(name, json, _)| format!("{}:{json}", serde_json::Value::from(name)));
    let fields: Vec<String> = fields.collect();
    (!fields.is_empty()).then(|| (format!("{{{}}}", fields.join(",")), profile.last_event_at))
}
