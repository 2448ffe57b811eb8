//! How long a space keeps its events, as operators decide it (privacy duty P12).
//!
//! An event that is over is as if it had never been sent: what counts it counts it no more, at the very instant, and it is
//! taken out of the log within two days. Traits, identifiers and consent stay.

use super::definitions::Options;
use super::gates::renew;
use super::{Manage, ManageError, Result};
use crate::domain::retention::Retention;
use crate::domain::{Patch, SpaceNo, Timestamp};
use crate::store::{StoreError, processor, retention};

/// Longest time that can be asked for, in days.
const DAYS_MAX: u32 = 36_500;
/// Names that can have a time of their own.
const NAMES_MAX: usize = 100;
/// Longest name of an event, in characters.
const NAME_CHARS_MAX: usize = 255;
/// The log keeps an event for so many days longer than it counts: clocks of clients may be ahead, and days are whole.
const SLACK_DAYS: u32 = 1;

/// What is to be changed.
#[derive(Debug, Clone, Default)]
pub struct RetentionChange {
    /// All events, in days.
    pub days: Patch<u32>,
    /// By name, in days; none takes a name's own time away.
    pub events: Vec<(String, Option<u32>)>,
}

impl Manage {
    /// How long a space keeps its events.
    pub async fn retention(&self, space: SpaceNo) -> Result<Retention> {
        Ok(retention::read(&self.door(space), space).await?)
    }

    /// Changes how long a space keeps its events. Definitions are computed anew from what is kept, and answer as before until
    /// that is done.
    pub async fn change_retention(&self, space: SpaceNo, change: RetentionChange) -> Result<Retention> {
        let _editing = self.editing.lock().await;
        let now = self.clock.now();
        let write = async {
            let mut tx = self.door(space).begin().await?;
            // Its row lock keeps out who edits in another process: what is read from here on is what they have left.
            processor::bump_config(&mut tx, space).await?;
            let wanted = apply(retention::read(&mut *tx, space).await?, change)?;
            retention::write(&mut tx, space, &wanted).await?;
            let options = |present: &Options| Options { retention: wanted.clone(), ..present.clone() };
            renew(&mut tx, space, None, now, options).await?;
            tx.commit().await.map_err(StoreError::from)?;
            Ok(wanted)
        };
        self.reconfigure(space, write).await
    }

    /// Takes out of all logs what is over; what goes wrong with one space keeps no other one waiting, and is tried again next
    /// time. Returns how many chunks were dropped or written anew.
    pub async fn enforce_retention(&self) -> u64 {
        let mut done = 0;
        for space in self.list_spaces(None) {
            match self.enforce_retention_of(space.no).await {
                Ok(count) => done += count,
                Err(error) => {
                    let space = space.no;
                    tracing::error!(%space, %error, "could not take out of the log of space {space} what is over: {error}");
                }
            }
        }
        done
    }

    async fn enforce_retention_of(&self, space: SpaceNo) -> Result<u64> {
        let now = self.clock.now();
        let mut done = 0;
        let kept = retention::read(&self.door(space), space).await?;
        if let Some(days) = kept.days {
            done += retention::drop_before(&self.pool, space, day_before(now, days)).await?;
        }
        for (name, days) in kept.shorter() {
            done += retention::blank_before(&self.pool, space, name, day_before(now, days)).await?;
        }
        Ok(done)
    }
}

/// The first day whose events are kept.
fn day_before(now: Timestamp, days: u32) -> chrono::NaiveDate {
    now.plus_millis(-i64::from(days + SLACK_DAYS) * 86_400_000).to_utc().date_naive()
}

fn apply(mut retention: Retention, change: RetentionChange) -> Result<Retention> {
    if change.days.is_keep() && change.events.is_empty() {
        return Err(ManageError::invalid("days", "name what is to be changed: days or events"));
    }
    retention.days = change.days.try_map(|days| check_days("days", days))?.over(retention.days);
    for (name, days) in change.events {
        let field = format!("events.{}", name.chars().take(NAME_CHARS_MAX).collect::<String>());
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.contains('\0') {
            let message =
                format!("the name of an event has 1 to {NAME_CHARS_MAX} characters, none of them U+0000");
            return Err(ManageError::invalid(field, message));
        }
        match days {
            Some(days) => _ = retention.events.insert(name, check_days(&field, days)?),
            None => _ = retention.events.remove(&name),
        }
    }
    if retention.events.len() > NAMES_MAX {
        let message =
            format!("there are {} names; {NAMES_MAX} can have a time of their own", retention.events.len());
        return Err(ManageError::invalid("events", message));
    }
    Ok(retention)
}

fn check_days(field: &str, days: u32) -> Result<u32> {
    if (1..=DAYS_MAX).contains(&days) {
        return Ok(days);
    }
    let message =
        format!("events are kept for 1 to {DAYS_MAX} days, or null for as long as the service keeps them");
    Err(ManageError::invalid(field.to_owned(), message))
}
