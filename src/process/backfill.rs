//! The walk: brings new versions of definitions up to date with history, and swaps them in.
//!
//! Events after a version's log position fold live; history up to it is scanned beside the running processor, folded
//! into partial states, and merged into the profiles in slices, each slice one fenced transaction that also notes how
//! far the walk has come. So every event counts once, a restart goes on where the walk was, and ingest never waits.
//! When the last profile is done the versions are swapped in together with their net transitions.
//!
//! Definitions of accounts are walked twice: users bring what history makes of them to their accounts, and then, when
//! all have, accounts are evaluated. That second round writes nothing that a restart could not write again.

use std::time::Instant;

use hashbrown::{HashMap, HashSet};
use sqlx::Acquire;
use tokio::task::JoinHandle;

use super::accounts;
use super::catalog::{Catalog, WalkPlan};
use super::evaluate::{Numbers, Waiting, evaluate_all};
use super::space::SpaceProcessor;
use super::work::Work;
use super::write;
use crate::domain::{ComputationNo, LeafNo, Offset, ProfileNo, Timestamp};
use crate::engine::LeafSpec;
use crate::history::pace::{Pace, REST};
use crate::history::{PASS_PROFILES, Partials, Scan};
use crate::read_cache::Writes;
use crate::store::definitions::Kind;
use crate::store::destinations::syncs;
use crate::store::{Result, StoreError, computations, processor, profiles};
use crate::telemetry::metrics;

/// Profile numbers one transaction goes through.
const SLICE_PROFILES: u64 = 2_000;

/// A walk in progress.
pub(super) struct Walk {
    plan: WalkPlan,
    /// Partial states of the present pass, taken out as they are merged.
    partials: Partials,
    /// The present pass ends here.
    until: ProfileNo,
    /// The walk ends here: younger profiles have no history to fold, and are kept up to date from the first.
    end: ProfileNo,
    scan: Option<ScanTask>,
    /// The accounts that are still to be evaluated, once all users are done.
    accounts: Option<Numbers>,
    pace: Pace,
    /// While events wait to be processed, nothing is done before this.
    rests_until: Instant,
}

/// Every number.
const ALL: Numbers = Numbers { after: ProfileNo(0), until: ProfileNo(u64::MAX) };

/// A scan running beside the processor; it ends with the walk.
struct ScanTask {
    until: ProfileNo,
    handle: JoinHandle<Result<Partials>>,
}

impl Drop for ScanTask {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Walk {
    /// Begins, or begins again where it was: `newest` is the newest profile there is.
    pub(super) fn new(plan: WalkPlan, newest: ProfileNo) -> Self {
        metrics::AUDIENCE_BACKFILLS.set(&[], plan.computations.len() as f64);
        let partials = Partials::default();
        Self {
            until: plan.walked,
            plan,
            partials,
            end: newest,
            scan: None,
            accounts: None,
            pace: Pace::default(),
            rests_until: Instant::now(),
        }
    }

    /// Goes on with what is left of a walk after the configuration has changed. What was gathered stays good: leaves
    /// that are no longer needed are simply not merged.
    pub(super) fn replace(old: Option<Self>, plan: Option<WalkPlan>, newest: ProfileNo) -> Option<Self> {
        match (old, plan) {
            (Some(old), Some(plan))
                if plan.computations.iter().all(|no| old.plan.computations.contains(no))
                    && plan.leaves.iter().all(|leaf| old.plan.leaves.contains(leaf)) =>
            {
                Some(Self { plan: WalkPlan { walked: old.plan.walked, ..plan }, ..old })
            }
            (_, plan) => plan.map(|plan| Self::new(plan, newest)),
        }
    }

    /// Whether history is folded into leaves on the way.
    pub(super) const fn folds_history(&self) -> bool {
        !self.plan.leaves.is_empty()
    }

    /// Whether there is something to do now, while events wait to be processed or none do.
    fn may_go_on(&self, is_busy: bool) -> bool {
        self.pace.set_busy(is_busy);
        let is_rested = !is_busy || Instant::now() >= self.rests_until;
        is_rested && self.scan.as_ref().is_none_or(|scan| scan.handle.is_finished())
    }

    /// The profiles that are still to be walked.
    pub(super) fn waiting(&self) -> Waiting {
        self.waiting_after(self.plan.walked)
    }

    /// The same when it has come to this profile.
    fn waiting_after(&self, walked: ProfileNo) -> Waiting {
        let users = Numbers { after: walked, until: self.end };
        // What an account's users bring is whole when all of them have been walked.
        Waiting { users, accounts: self.accounts.unwrap_or(ALL) }
    }

    /// Whether nothing is left to be walked.
    fn is_done(&self) -> bool {
        let accounts_are = self.accounts.is_some_and(|left| left.after >= left.until);
        self.plan.walked >= self.end && (!self.plan.of_accounts || accounts_are)
    }
}

impl SpaceProcessor {
    /// Does the next piece of a walk; false when there is none to do now. While events wait to be processed it works a
    /// part of the time only.
    pub(super) async fn walk_on(&mut self, now: Timestamp, is_busy: bool) -> Result<bool> {
        // What is being computed beside what is being written goes on as long as there is nothing to do here.
        if !self.walk.as_ref().is_some_and(|walk| walk.may_go_on(is_busy)) {
            return Ok(false);
        }
        self.settle().await?;
        let Some(mut walk) = self.walk.take() else { return Ok(false) };
        let began = Instant::now();
        let did = match self.walk_piece(&mut walk, now).await {
            Ok(did) => did,
            Err(error) => {
                // Nothing of it was committed, and nothing gathered was given away.
                self.walk = Some(walk);
                return Err(error);
            }
        };
        walk.rests_until = Instant::now() + began.elapsed() * REST;
        let done = did && walk.is_done();
        if done {
            if let Err(error) = self.finish_walk(&walk, now).await {
                self.walk = Some(walk);
                return Err(error);
            }
            metrics::AUDIENCE_BACKFILLS.set(&[], 0.0);
        } else {
            self.walk = Some(walk);
        }
        Ok(did)
    }

    /// Begins the walk anew, because events belong to other profiles than those it has found for them.
    pub(super) async fn restart_walk(&mut self) -> Result<()> {
        let fence = self.fence();
        let progress = self.progress(self.ahead.processed);
        let mut tx = self.pool.begin().await?;
        processor::advance(&mut tx, self.space, fence.epoch, &progress, fence.lease).await?;
        computations::restart_walks(&mut tx, self.space).await?;
        processor::bump_config(&mut tx, self.space).await?;
        tx.commit().await?;
        self.walk = None;
        self.reload().await
    }

    async fn walk_piece(&mut self, walk: &mut Walk, now: Timestamp) -> Result<bool> {
        let pass_is_over = walk.plan.walked >= walk.until;
        if pass_is_over && walk.plan.walked < walk.end && !self.gather(walk, now).await? {
            return Ok(false);
        }
        if walk.plan.walked < walk.end {
            self.merge_slice(walk, now).await?;
        } else if !walk.is_done() {
            self.evaluate_accounts(walk, now).await?;
        }
        Ok(true)
    }

    /// Gathers the partial states of the next pass; false while the scan is still going on.
    async fn gather(&self, walk: &mut Walk, now: Timestamp) -> Result<bool> {
        if walk.plan.leaves.is_empty() {
            walk.until = walk.end;
            return Ok(true);
        }
        let Some(mut scan) = walk.scan.take() else {
            let until = ProfileNo((walk.plan.walked.0 + PASS_PROFILES).min(walk.end.0));
            let leaves = leaves_to_fill(&self.catalog, &walk.plan.leaves);
            let scan = Scan {
                space: self.space,
                leaves,
                after: walk.plan.walked,
                until,
                absorbed: HashMap::new(),
                at: now,
                tasks: 1,
                pace: walk.pace.clone(),
            };
            #[expect(clippy::disallowed_methods, reason = "ScanTask ends it with the walk")]
            let handle = tokio::spawn(scan.run(self.pool.clone()));
            walk.scan = Some(ScanTask { until, handle });
            return Ok(false);
        };
        if !scan.handle.is_finished() {
            walk.scan = Some(scan);
            return Ok(false);
        }
        let ended = (&mut scan.handle).await;
        walk.partials =
            ended.map_err(|e| StoreError::Damaged(format!("the scan of history failed: {e}")))??;
        walk.until = scan.until;
        Ok(true)
    }

    /// Merges the partial states of one slice into its profiles and evaluates the versions being walked.
    async fn merge_slice(&mut self, walk: &mut Walk, now: Timestamp) -> Result<()> {
        let until = ProfileNo((walk.plan.walked.0 + SLICE_PROFILES).min(walk.until.0));
        let mut connection = self.pool.acquire().await?;
        let numbers = profiles::list_numbers(&mut *connection, self.space, walk.plan.walked, until).await?;
        let mut work = Work { last_profile: self.ahead.last_profile, ..Work::default() };
        let live: HashSet<ProfileNo> = numbers.iter().map(|(_, live)| *live).collect();
        work.load_profiles(&mut connection, self.space, &mut self.caches, live.into_iter()).await?;
        if self.catalog.program.has_accounts() {
            work.load_accounts(&mut connection, self.space, &mut self.caches).await?;
        }
        for (no, live) in &numbers {
            accounts::bring_history(&mut work, *live, *no, &walk.partials, &self.catalog);
            let Some(entry) = work.entries.get_mut(live) else { continue };
            if no == live {
                for computation in &walk.plan.computations {
                    self.catalog.program.mark(*computation, &mut entry.dirty);
                }
            }
        }
        evaluate_all(&mut work, &self.catalog, now, walk.waiting_after(until));
        let (prepared, pending) = write::prepare(work, &self.catalog, self.progress(self.ahead.processed))?;
        let writing = self.hold.begin(prepared.writes());
        let mut tx = connection.begin().await?;
        write::write(&mut tx, self.fence(), &prepared).await?;
        computations::set_walked(&mut tx, self.space, &walk.plan.computations, until).await?;
        tx.commit().await?;
        writing.committed();
        drop(connection);
        walk.plan.walked = until;
        walk.partials.forget_until(until);
        self.committed_now(&prepared, pending);
        Ok(())
    }

    /// Evaluates the versions being walked on the next accounts, now that all users have brought theirs.
    async fn evaluate_accounts(&mut self, walk: &mut Walk, now: Timestamp) -> Result<()> {
        let Numbers { after, until } =
            walk.accounts.unwrap_or(Numbers { until: self.ahead.last_profile, ..ALL });
        let mut connection = self.pool.acquire().await?;
        let most = SLICE_PROFILES as i64;
        let numbers = profiles::list_accounts(&mut *connection, self.space, after, until, most).await?;
        let done = if numbers.len() as u64 == SLICE_PROFILES { numbers.last().copied() } else { None };
        let left = Numbers { after: done.unwrap_or(until), until };
        let mut work = Work { last_profile: self.ahead.last_profile, ..Work::default() };
        work.load_profiles(&mut connection, self.space, &mut self.caches, numbers.into_iter()).await?;
        for entry in work.entries.values_mut() {
            for computation in &walk.plan.computations {
                self.catalog.program.mark(*computation, &mut entry.dirty);
            }
        }
        let waiting = Waiting { accounts: left, ..walk.waiting() };
        evaluate_all(&mut work, &self.catalog, now, waiting);
        let (prepared, pending) = write::prepare(work, &self.catalog, self.progress(self.ahead.processed))?;
        let writing = self.hold.begin(prepared.writes());
        let mut tx = connection.begin().await?;
        write::write(&mut tx, self.fence(), &prepared).await?;
        tx.commit().await?;
        writing.committed();
        drop(connection);
        walk.accounts = Some(left);
        self.committed_now(&prepared, pending);
        Ok(())
    }

    /// Swaps the walked versions in, and walks again whatever refers to them.
    async fn finish_walk(&mut self, walk: &Walk, now: Timestamp) -> Result<()> {
        let mut progress = self.progress(self.ahead.processed);
        // It changes what the numbers in all profiles mean.
        let writing = self.hold.begin(Writes::Anything);
        let mut tx = self.pool.begin().await?;
        let fence = self.fence();
        let version = processor::advance(&mut tx, self.space, fence.epoch, &progress, fence.lease).await?;
        if version != fence.config_version {
            // One of them may have been replaced a moment ago: it must not be swapped in.
            return Err(StoreError::ConfigChanged);
        }
        let (serving, new): (Vec<ComputationNo>, Vec<ComputationNo>) = walk
            .plan
            .computations
            .iter()
            .filter(|no| self.catalog.meta.contains_key(*no))
            .partition(|no| self.catalog.meta.get(*no).is_some_and(|m| m.serving));
        let leaves: Vec<LeafNo> = walk.plan.leaves.iter().map(|(no, _)| *no).collect();
        computations::set_leaves_ready(&mut tx, self.space, &leaves).await?;
        for meta in new.iter().filter_map(|no| self.catalog.meta.get(no)) {
            if meta.kind == Kind::ComputedTrait {
                // Everybody's value is sent, and null to who had one of the version before and has none any more.
                let replaced = self.catalog.answers.get(&meta.key).filter(|no| !new.contains(no)).copied();
                syncs::begin_of(&mut tx, self.space, meta.definition, replaced, now).await?;
            }
        }
        for no in &new {
            let last = progress.last_transition;
            progress.last_transition += computations::swap(&mut tx, self.space, *no, last, now).await?;
        }
        computations::end_walk(&mut tx, self.space, &serving).await?;
        let keys: Vec<String> =
            new.iter().filter_map(|no| self.catalog.meta.get(no)).map(|m| m.key.clone()).collect();
        let again = self.catalog.referring_to(&keys);
        computations::walk_again(&mut tx, self.space, &again).await?;
        processor::advance(&mut tx, self.space, self.fence().epoch, &progress, self.config.lease).await?;
        processor::bump_config(&mut tx, self.space).await?;
        tx.commit().await?;
        writing.committed();
        self.moved_on(&progress);
        self.note_config_change();
        tracing::info!(space = %self.space, "definitions {keys:?} of space {} are complete", self.space);
        Ok(())
    }
}

fn leaves_to_fill(catalog: &Catalog, wanted: &[(LeafNo, Offset)]) -> Vec<(LeafNo, Offset, LeafSpec)> {
    let spec = |(no, until): &(LeafNo, Offset)| Some((*no, *until, catalog.program.leaf(*no)?.clone()));
    wanted.iter().filter_map(spec).collect()
}
