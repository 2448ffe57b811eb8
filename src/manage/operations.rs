//! What operators look at: how far the pipeline is, what was refused, whether the database is as it should be.

use uuid::Uuid;

use super::definitions::{Kind, Version};
use super::{Manage, ManageError, Result};
use crate::domain::{Offset, SpaceNo, Timestamp};
use crate::store::{audiences, definitions, log, migrate, processor, quarantine, rejected, segments};
use crate::telemetry::metrics;

pub use crate::store::processor::Status;
pub use crate::store::rejected::RejectedEvent;

/// How long sizes of audiences are kept by the minute (A19).
const SIZE_MINUTES_DAYS: u32 = 30;

/// How far a space is.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Positions and counters.
    pub status: Status,
    /// Age of the oldest event that waits, in milliseconds.
    pub lag_ms: i64,
    /// Where the newest segment of the log ends.
    pub segments_end: Offset,
    /// Events refused, or taken only in part, within the last hour, counted up to [`REJECTED_COUNTED_MAX`].
    pub rejected: i64,
    /// Versions that are not complete yet.
    pub backfills: Vec<Backfill>,
}

/// Refused events are counted up to there.
const REJECTED_COUNTED_MAX: i64 = 1_000;

/// A version on its way to serving.
#[derive(Debug, Clone)]
pub struct Backfill {
    /// Audience or computed trait.
    pub kind: Kind,
    /// Its key.
    pub key: String,
    /// The version.
    pub version: Version,
}

impl Manage {
    /// How far a space is.
    pub async fn pipeline(&self, space: SpaceNo) -> Result<Pipeline> {
        let status = processor::status(&self.door(space), space).await?;
        let status = status.ok_or_else(|| ManageError::not_found("space", space.to_string()))?;
        let oldest = if status.log_end > status.processed {
            log::oldest_after(&self.door(space), space, status.processed).await?
        } else {
            None
        };
        let age = |at| self.age_ms(at);
        let hour_ago = self.clock.now().plus_millis(-3_600_000);
        let all = definitions::list_definitions(&self.door(space), space, None, None).await?;
        let is_new = |version: &Version| matches!(version.status.as_str(), "pending" | "backfilling");
        // One that answers is walked again when something it refers to was replaced: until then it is not up to date.
        let unfinished = |d: definitions::Definition| {
            let again = d.serving.filter(|version| version.walking);
            let version = Some(d.latest).filter(is_new).or(again)?;
            d.enabled.then_some(Backfill { kind: d.kind, key: d.key, version })
        };
        Ok(Pipeline {
            status,
            lag_ms: oldest.map_or(0, age),
            segments_end: segments::end(&self.door(space), space).await?,
            rejected: rejected::count_rejected_since(
                &self.door(space),
                space,
                hour_ago,
                REJECTED_COUNTED_MAX,
            )
            .await?,
            backfills: all.into_iter().filter_map(unfinished).collect(),
        })
    }

    /// Measures how far all spaces are, for the metrics.
    pub async fn measure_pipeline(&self) -> Result<()> {
        let backlog = processor::backlog(&self.pool).await?;
        metrics::PIPELINE_LAG_EVENTS.set(&[], backlog.events as f64);
        metrics::PIPELINE_LAG.set(&[], backlog.oldest.map_or(0.0, |at| self.age_ms(at) as f64 / 1e3));
        metrics::PROFILES.set(&[], backlog.profiles as f64);
        let quarantined = quarantine::count_quarantined(&self.pool).await?;
        metrics::IDENTITY_QUARANTINED.set(&[], quarantined as f64);
        Ok(())
    }

    fn age_ms(&self, at: Timestamp) -> i64 {
        (self.clock.now().millis() - at.millis()).max(0)
    }

    /// Refused events, newest first, older than `before`.
    pub async fn list_rejected(
        &self,
        space: SpaceNo,
        code: Option<&str>,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<RejectedEvent>> {
        // U+0000 is in no code and not in Postgres' texts either.
        let code = code.map(|code| code.replace('\0', ""));
        Ok(rejected::list_rejected(&self.door(space), space, code.as_deref(), before, limit as i64).await?)
    }

    /// Makes room in the log for this week and the next, before an event needs it. The partitions are all spaces'.
    pub async fn prepare_log(&self) -> Result<()> {
        let Some(space) = self.list_spaces(None).into_iter().next() else { return Ok(()) };
        Ok(log::ensure_partitions(&self.pool, space.no, self.clock.now()).await?)
    }

    /// Forgets what has been kept long enough: whole weeks of the log, rejected events, and of the sizes of audiences all
    /// but the last of each hour.
    pub async fn forget_old(&self, log_days: u32, rejected_days: u32) -> Result<()> {
        let ago = |days: u32| self.clock.now().plus_millis(-i64::from(days) * 86_400_000);
        log::drop_before(&self.pool, ago(log_days).to_utc().date_naive()).await?;
        rejected::delete_rejected_before(&self.pool, ago(rejected_days)).await?;
        audiences::thin_size_changes(&self.pool, ago(SIZE_MINUTES_DAYS)).await?;
        self.enforce_retention().await;
        Ok(())
    }

    /// Whether the schema is the one of this build: newest migration of ours, and of the database.
    pub async fn schema_versions(&self) -> Result<(i64, Option<i64>)> {
        Ok(migrate::versions(&self.pool).await?)
    }
}
