//! Going through the log for what is left of people who are erased: events that were nobody's, duplicates, and acts that name
//! them. Then it waits for what destinations say, and the regulation is done.
//!
//! One process at a time works on a space. What it does can be done again.

use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::{Act, IdKey, Offset, SpaceNo, Timestamp};
use crate::engine::identity::{Settings, extract};
use crate::store::log::codec::Record;
use crate::store::log::erase::{Cut, Erased, replace, rewrite};
use crate::store::log::numbers::Fate;
use crate::store::regulations::people;
use crate::store::regulations::{self, forward};
use crate::store::{Result, StoreError, identity, log, processor, segments};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Pause when somebody else has the log in hand.
const HELD_PAUSE: Duration = Duration::from_millis(20);
/// Chunks read at a time.
const READ_CHUNKS: i64 = 32;
/// A regulation that is so old, in milliseconds, has its acts in the log, or they are lost.
const LOST_AFTER_MS: i64 = 10_000;
/// People the log is gone through for at a time.
const PEOPLE_AT_A_TIME: i64 = 5_000;

/// Goes through the logs of all spaces.
#[derive(Debug, Clone)]
pub struct Sweeper {
    /// Where they are.
    pub pool: PgPool,
    /// The time.
    pub clock: Clock,
    /// Takes acts that have to be written into the log (again).
    pub acts: mpsc::Sender<(SpaceNo, Act)>,
}

impl Sweeper {
    /// Runs until it is stopped. What fails is told, and tried again.
    pub async fn run(self, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            match stop.run_until_cancelled(self.look()).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "regulations could not be gone on with: {error}");
                    stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY * 10)).await;
                }
            }
        }
    }

    async fn look(&self) -> Result<()> {
        for space in regulations::list_open_spaces(&self.pool).await? {
            self.sweep(space).await?;
            let now = self.clock.now();
            self.act_again(space, now).await?;
            forward::settle(&self.pool, space, now).await?;
            for id in regulations::finish(&self.pool, space, now).await? {
                tracing::info!(%space, regulation = %id, "a regulation of space {space} is done");
            }
        }
        Ok(())
    }

    /// Whoever asked may have ended before all acts were in the log. Those of a regulation that was made some time ago, and of
    /// which nothing is in the log that is not processed, are lost.
    async fn act_again(&self, space: SpaceNo, now: Timestamp) -> Result<()> {
        let Some(status) = processor::status(&self.pool, space).await? else { return Ok(()) };
        if status.processed < status.log_end {
            return Ok(());
        }
        let lost = people::list_stuck(&self.pool, space, now.plus_millis(-LOST_AFTER_MS)).await?;
        for (regulation, first, count) in lost {
            // When nobody takes them any more, the process is on its way out.
            let _gone = self.acts.send((space, Act::Erase { regulation, first, count })).await;
        }
        Ok(())
    }

    /// Goes through the log once, for everybody who waits for it.
    async fn sweep(&self, space: SpaceNo) -> Result<()> {
        let people = people::list_unswept(&self.pool, space, PEOPLE_AT_A_TIME).await?;
        if people.is_empty() || people::wait_again(&self.pool, space, &people).await? > 0 {
            return Ok(());
        }
        let row = identity::get_settings(&mut *self.pool.acquire().await?, space).await?;
        let settings = Settings::new(row.types, 0, 0).map_err(|e| StoreError::Damaged(e.to_string()))?;
        let mut keys = Erased::new();
        for person in &people {
            for key in &person.keys {
                let until = keys.entry(*key).or_insert(person.until);
                *until = person.until.max(*until);
            }
        }
        let last = keys.values().copied().max().unwrap_or_default();
        let mut after = Offset(0);
        while after < last {
            // A piece at a time: whoever has to correct the log waits for no more. Neither are chunks joined meanwhile, nor
            // segments made of what they were.
            let Some(hold) = segments::Hold::try_take(&self.pool, space).await? else {
                tokio::time::sleep(HELD_PAUSE).await;
                continue;
            };
            let piece = self.sweep_piece(space, (after, last), &settings, &keys).await;
            hold.release().await?;
            match piece? {
                Some(end) => after = end,
                None => break,
            }
        }
        let mut tx = self.pool.begin().await?;
        people::set_swept(&mut tx, space, &people).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Goes through some chunks. Returns where the last of them ends; none where there are no more.
    async fn sweep_piece(
        &self,
        space: SpaceNo,
        (after, last): (Offset, Offset),
        settings: &Settings,
        keys: &Erased,
    ) -> Result<Option<Offset>> {
        let mut tx = self.pool.begin().await?;
        let chunks = log::read_history(&mut *tx, space, after, last, None, READ_CHUNKS).await?;
        let Some(end) = chunks.last().map(|history| history.chunk.end_offset) else { return Ok(None) };
        let mut rewritten = Vec::new();
        for history in &chunks {
            let is_whole = |fate: &Fate| matches!(fate, Fate::Attributed { .. });
            if Fate::decode_all(&history.numbers)?.iter().all(is_whole) {
                continue;
            }
            let cut = |record: &Record<'_>, offset, fate| cut(record, offset, fate, (settings, keys));
            rewritten.extend(rewrite(history, keys, cut)?);
            tokio::task::yield_now().await;
        }
        if !rewritten.is_empty() {
            replace(&mut tx, space, &rewritten).await?;
        }
        tx.commit().await?;
        Ok(Some(end))
    }
}

/// Whether an event that is nobody's, or a duplicate, is one of theirs.
fn cut(record: &Record<'_>, offset: Offset, fate: Fate, (settings, keys): (&Settings, &Erased)) -> Cut {
    if matches!(fate, Fate::Attributed { .. }) || record.erased {
        return Cut::Keep;
    }
    let ids = extract(&record.parts(), settings);
    let is_theirs = |key: &IdKey| keys.get(key).is_some_and(|until| offset <= *until);
    if ids.users.iter().any(|candidate| is_theirs(&candidate.key)) { Cut::Erase } else { Cut::Keep }
}
