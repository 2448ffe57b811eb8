//! What happens by the passage of time alone: profiles that are due, in the order of time.

use std::time::{Duration, Instant};

use sqlx::Acquire;

use super::accounts;
use super::evaluate::fire;
use super::space::SpaceProcessor;
use super::work::Work;
use super::write;
use crate::domain::{ProfileNo, Timestamp};
use crate::store::{Result, processor};

/// Profiles that are due are taken in slices of this many.
const DUE_SLICE: i64 = 5_000;
/// The clock has gone back when it does so by more than this; less is what machines correct all the time, and what those of
/// processes differ by without being wrong.
const CLOCK_STEP_MS: i64 = 10_000;
/// How often the database is asked at most whether the clock was ahead, or is behind.
const CLOCK_ASKED_EVERY: Duration = Duration::from_secs(1);

impl SpaceProcessor {
    /// What time it is: never earlier than before, but where the clock has gone back and the database's agrees that it was ahead.
    /// What is evaluated from then on is by the time there is.
    pub(super) async fn tell_time(&mut self) -> Result<Timestamp> {
        let read = self.clock.now();
        let latest = self.now.max(self.fired);
        let is_back = |now: Timestamp| latest.millis() - now.millis() > CLOCK_STEP_MS;
        if is_back(read) && self.clock_asked.is_none_or(|at| at.elapsed() > CLOCK_ASKED_EVERY) {
            self.clock_asked = Some(Instant::now());
            let now = processor::database_time(&self.pool).await?.max(read);
            if is_back(now) {
                let (space, ahead) = (self.space, self.now.millis() - now.millis());
                if ahead > CLOCK_STEP_MS {
                    tracing::warn!(%space, ahead, "the clock was ahead by {ahead} ms: some windows have ended too early by that");
                }
                (self.now, self.fired) = (self.now.min(now), self.fired.min(now));
            }
        }
        self.now = self.now.max(read);
        Ok(self.now)
    }

    /// Lets everything happen that was due by `now`, in the order of time. Returns how many profiles were looked at.
    pub(super) async fn fire_due(&mut self, now: Timestamp) -> Result<usize> {
        if self.next_due.is_none_or(|at| at > now) {
            return Ok(0);
        }
        self.settle().await?;
        let mut connection = self.pool.acquire().await?;
        let due = processor::find_due(&mut connection, self.space, now.millis(), DUE_SLICE).await?;
        let until = match due.last() {
            Some((_, at)) if due.len() as i64 == DUE_SLICE => Timestamp::from_millis(*at),
            _ => now,
        };
        let mut work = Work { last_profile: self.ahead.last_profile, ..Work::default() };
        let numbers = due.iter().map(|(no, _)| *no);
        work.load_profiles(&mut connection, self.space, &mut self.caches, numbers).await?;
        for (no, at) in &due {
            match work.entries.get_mut(no) {
                // What the index says is what has to be corrected, should the profile know better.
                Some(entry) => entry.indexed_due = Some(Timestamp::from_millis(*at)),
                None => work.out.forgotten_dues.push(*no),
            }
        }
        if self.catalog.program.has_accounts() {
            work.load_accounts(&mut connection, self.space, &mut self.caches).await?;
        }
        self.fire(&mut work, &due, until);
        let (prepared, pending) = write::prepare(work, &self.catalog, self.progress(self.ahead.processed))?;
        let writing = self.hold.begin(prepared.writes());
        let mut tx = connection.begin().await?;
        write::write(&mut tx, self.fence(), &prepared).await?;
        let next_due = processor::next_due(&mut tx, self.space).await?.map(Timestamp::from_millis);
        tx.commit().await?;
        writing.committed();
        self.committed_now(&prepared, pending);
        self.next_due = next_due;
        self.fired = self.fired.max(until);
        Ok(due.len())
    }

    fn fire(&self, work: &mut Work, due: &[(ProfileNo, i64)], until: Timestamp) {
        let (catalog, waiting) = (&self.catalog, self.waiting());
        for (no, _) in due {
            if let Some(entry) = work.entries.get_mut(no) {
                entry.touched = true;
            }
        }
        if catalog.program.has_accounts() {
            work.watch_all(until);
            accounts::fire_watched(work, until, catalog, waiting);
            return;
        }
        let mut out = std::mem::take(&mut work.out);
        for entry in work.in_order() {
            fire(entry, &mut out, catalog, until, waiting);
        }
        work.out = out;
    }

    /// Where accounts are asked, what is due between events happens between them, also on users of whom there is none:
    /// fires what is due before the first event, received at `first`, and returns the profiles that are due by `last`.
    pub(super) async fn fire_before(&mut self, first: Timestamp, last: Timestamp) -> Result<Vec<ProfileNo>> {
        while self.next_due.is_some_and(|at| at <= first) {
            self.fire_due(first).await?;
        }
        if self.next_due.is_none_or(|at| at > last) {
            return Ok(Vec::new());
        }
        self.settle().await?;
        let mut connection = self.pool.acquire().await?;
        let due = processor::find_due(&mut connection, self.space, last.millis(), DUE_SLICE).await?;
        Ok(due.into_iter().map(|(no, _)| no).collect())
    }
}
