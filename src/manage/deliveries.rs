//! Deliveries as operators look at them: what waits, what arrived, what was given up and why; sent again or discarded.

use bytes::Bytes;
use uuid::Uuid;

use super::{Manage, ManageError, Result};
use crate::deliver::ids::{delivery_id, delivery_no};
use crate::domain::{DestinationNo, ProfileNo, SpaceNo, Timestamp};
use crate::engine::profile::Profile;
use crate::store::deliveries::history;
use crate::store::profiles::{self, Loaded};
use crate::store::{StoreError, definitions, destinations};
use crate::telemetry::metrics;

pub use crate::store::deliveries::book::State;
pub use crate::store::deliveries::history::{Delivery, Seen};

/// Ended deliveries that one call sends again or discards at most.
pub const AT_ONCE_MAX: i64 = 100_000;
/// Deliveries of one transaction.
const SLICE: i64 = 5_000;
/// Deliveries that can be named in one call.
pub const NAMED_MAX: usize = 1_000;

/// Which deliveries are meant; `None` is any.
#[derive(Debug, Clone, Default)]
pub struct Which {
    /// Of this destination.
    pub destination: Option<Uuid>,
    /// In this state; `Some(None)`: waiting.
    pub state: Option<Option<State>>,
    /// Of this profile.
    pub profile: Option<Uuid>,
    /// About the audience or computed trait with this key.
    pub key: Option<String>,
    /// By these ids.
    pub ids: Option<Vec<String>>,
    /// Of changes that happened no earlier.
    pub from: Option<Timestamp>,
    /// Of changes that happened before.
    pub to: Option<Timestamp>,
}

/// A delivery with its public id.
pub type Named = (String, Delivery);

fn named(delivery: Delivery) -> Named {
    (delivery_id(delivery.destination_id, delivery.delivery_no, delivery.at.into()), delivery)
}

impl Manage {
    /// Deliveries, newest first within each destination, behind a place.
    pub async fn list_deliveries(
        &self,
        space: SpaceNo,
        which: &Which,
        before: Option<(i32, i64)>,
        limit: usize,
    ) -> Result<Vec<Named>> {
        let filter = self.filter(space, which).await?;
        let before = before.unwrap_or((i32::MAX, i64::MAX));
        let rows = history::list(&self.door(space), space, &filter, before, limit as i64).await?;
        Ok(rows.into_iter().map(named).collect())
    }

    /// One delivery with its attempts.
    pub async fn find_delivery(&self, space: SpaceNo, id: &str) -> Result<(Named, Vec<Seen>)> {
        let missing = || {
            let shown: String = id.chars().take(60).collect();
            ManageError::not_found("delivery", shown)
        };
        let no = delivery_no(id).ok_or_else(missing)?;
        let filter = history::Filter { numbers: Some(vec![no]), ..history::Filter::default() };
        let rows =
            history::list(&self.door(space), space, &filter, (i32::MAX, i64::MAX), NAMED_MAX as i64).await?;
        let found = rows.into_iter().map(named).find(|(name, _)| name == id).ok_or_else(missing)?;
        let destination = DestinationNo(found.1.destination_no);
        let attempts = history::list_attempts(&self.door(space), space, destination, no).await?;
        Ok((found, attempts))
    }

    /// Puts ended deliveries of one destination into its queue once more, under their old ids. Returns how many; with
    /// `dry_run` only counts them.
    pub async fn replay_deliveries(&self, space: SpaceNo, which: &Which, dry_run: bool) -> Result<i64> {
        let (destination, filter) = self.ended(space, which).await?;
        if dry_run {
            return Ok(history::count(&self.door(space), space, destination, &filter, AT_ONCE_MAX).await?);
        }
        let (mut all, mut after) = (0, 0);
        while all < AT_ONCE_MAX {
            // Each once, although what was put back may have been sent meanwhile.
            let within = (after, SLICE);
            let (count, last) =
                history::replay(&self.door(space), space, destination, &filter, within).await?;
            (all, after) = (all + count, last);
            if count < SLICE {
                break;
            }
        }
        metrics::DEAD_LETTERS_REPLAYED.add(&[], all.unsigned_abs());
        Ok(all)
    }

    /// Gives dead letters up for good. Returns how many; with `dry_run` only counts them.
    pub async fn discard_deliveries(&self, space: SpaceNo, which: &Which, dry_run: bool) -> Result<i64> {
        let which = Which { state: Some(Some(State::Dead)), ..which.clone() };
        let (destination, filter) = self.ended(space, &which).await?;
        if dry_run {
            return Ok(history::count(&self.door(space), space, destination, &filter, AT_ONCE_MAX).await?);
        }
        let mut all = 0;
        while all < AT_ONCE_MAX {
            let count = history::discard(&self.door(space), space, destination, &filter, SLICE).await?;
            all += count;
            if count < SLICE {
                break;
            }
        }
        Ok(all)
    }

    /// The destination that is meant, which has to be named, and the filter.
    async fn ended(&self, space: SpaceNo, which: &Which) -> Result<(DestinationNo, history::Filter)> {
        if which.state == Some(None) {
            return Err(ManageError::invalid(
                "state",
                "what waits is sent anyway: delivered, filtered or dead",
            ));
        }
        let filter = self.filter(space, which).await?;
        let destination = filter.destination.ok_or_else(|| {
            ManageError::invalid("destination", "it is missing: the id of a destination, dst_…")
        })?;
        Ok((destination, filter))
    }

    async fn filter(&self, space: SpaceNo, which: &Which) -> Result<history::Filter> {
        let Which { destination, state, profile, key, ids, from, to } = which;
        let destination = match destination {
            Some(id) => Some(self.stored(space, *id).await?),
            None => None,
        };
        let numbers = match (ids, &destination) {
            (Some(ids), _) if ids.len() > NAMED_MAX => {
                return Err(ManageError::invalid("ids", format!("at most {NAMED_MAX} can be named")));
            }
            (Some(ids), Some(destination)) => Some(self.numbers(space, destination, ids).await?),
            (Some(_), None) => {
                return Err(ManageError::invalid(
                    "destination",
                    "it is missing: ids are those of one destination",
                ));
            }
            (None, _) => None,
        };
        let profiles = match profile {
            // Whom nobody knows has no deliveries.
            Some(id) => match profiles::find_number(&self.door(space), space, *id).await? {
                Some(no) => Some(self.numbers_of(space, no).await?),
                None => Some(Vec::new()),
            },
            None => None,
        };
        let definition = match key {
            Some(key) => Some(self.definition_no(space, key).await?),
            None => None,
        };
        Ok(history::Filter {
            destination: destination.map(|d| d.no),
            definition,
            state: *state,
            profiles,
            numbers,
            from: *from,
            to: *to,
        })
    }

    async fn definition_no(&self, space: SpaceNo, key: &str) -> Result<i32> {
        let found = definitions::list_definitions(&self.door(space), space, None, Some(&[key])).await?;
        let shown: String = key.chars().take(60).collect();
        let missing = || ManageError::not_found("audience or computed trait", shown);
        found.first().map(|definition| definition.no).ok_or_else(missing)
    }

    /// The numbers that a profile has and had: what became of changes stays under that of the time.
    async fn numbers_of(&self, space: SpaceNo, profile: ProfileNo) -> Result<Vec<i64>> {
        let found = profiles::load_states(&self.door(space), space, &[profile]).await?;
        let mut numbers = vec![profile];
        for (no, loaded) in found {
            let Loaded::Live(state) = loaded else { continue };
            let decoded = Profile::decode(&Bytes::copy_from_slice(&state));
            let damaged = |e| StoreError::Damaged(format!("profile {no} of space {space}: {e}"));
            numbers = decoded.map_err(damaged)?.numbers();
        }
        Ok(numbers.into_iter().map(|no| no.0 as i64).collect())
    }

    /// The numbers of deliveries by id; every one must be of this destination.
    async fn numbers(
        &self,
        space: SpaceNo,
        destination: &destinations::Destination,
        ids: &[String],
    ) -> Result<Vec<i64>> {
        let numbers: Vec<i64> = ids.iter().filter_map(|id| delivery_no(id)).collect();
        let filter = history::Filter {
            destination: Some(destination.no),
            numbers: Some(numbers),
            ..history::Filter::default()
        };
        let rows =
            history::list(&self.door(space), space, &filter, (i32::MAX, i64::MAX), NAMED_MAX as i64).await?;
        let known: Vec<Named> = rows.into_iter().map(named).collect();
        let number = |id: &String| {
            let found = known.iter().find(|(name, _)| name == id).map(|(_, delivery)| delivery.delivery_no);
            found.ok_or_else(|| {
                let shown: String = id.chars().take(60).collect();
                ManageError::not_found("delivery of this destination", shown)
            })
        };
        ids.iter().map(number).collect()
    }
}
