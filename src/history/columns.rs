//! Folding leaves from segments: of each section only the properties they read.
//!
//! A section says of every event what the chunk says, as far as these leaves look, so the states are the same. Where
//! there is no segment, or one that does not keep what is read, the stretch is left to the chunks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use sqlx::PgExecutor;
use tokio::task::JoinSet;

use super::gathered::{Gathered, OfLeaf};
use super::{Leaf, Scan, Source, event_names};
use crate::domain::{Facts, LeafNo, Offset, Timestamp};
use crate::engine::{ByProperty, FieldValue};
use crate::store::log::codec::Damaged;
use crate::store::log::columns::Texts;
use crate::store::segments::{self, Covered, Stored, Wanted};
use crate::store::{Result, StoreError};

/// Segments read at a time where all names are wanted, and where a few are.
const READ_AT_A_TIME: usize = 4;
const READ_OF_A_FEW: usize = 16;

/// Events folded together.
const TOGETHER: usize = 64;

/// A stretch of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Behind this offset,
    pub(super) after: Offset,
    /// up to and including this one.
    pub(super) end: Offset,
}

/// A leaf that reads properties one by one and nothing else of its events.
#[derive(Debug)]
pub(super) struct Columnar {
    leaf: LeafNo,
    until: Offset,
    by: ByProperty,
    /// Earlier events make no difference.
    from: Timestamp,
}

impl Columnar {
    /// The leaf, if it is one, for readings at `at` or later.
    pub(super) fn of((leaf, until, spec): &Leaf, at: Timestamp) -> Option<Self> {
        let from = spec.counts_from(at).unwrap_or(Timestamp::from_millis(i64::MIN));
        Some(Self { leaf: *leaf, until: *until, by: ByProperty::of(spec)?, from })
    }

    fn names(&self, event: &str) -> bool {
        self.by.spec().event.matches(event)
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.by.keys().flatten()
    }
}

/// Leaves to be folded from segments.
pub(super) struct Columns(Arc<Shared>);

/// What the tasks of a scan have in common.
struct Shared {
    scan: Arc<Scan>,
    leaves: Vec<Columnar>,
    /// Names of the events they count; `None` for all.
    names: Option<Vec<String>>,
    /// What nobody has begun with yet.
    next: AtomicUsize,
}

/// What one task has made of its segments.
struct Folded {
    gathered: Gathered,
    read: Vec<Covered>,
}

impl Columns {
    pub(super) fn new(scan: Arc<Scan>, leaves: Vec<Columnar>) -> Self {
        let names = event_names(leaves.iter().map(|leaf| leaf.by.spec()));
        Self(Arc::new(Shared { scan, leaves, names, next: AtomicUsize::new(0) }))
    }

    /// The leaves.
    pub(super) fn leaves(&self) -> impl Iterator<Item = Leaf> {
        self.0.leaves.iter().map(|leaf| (leaf.leaf, leaf.until, leaf.by.spec().clone()))
    }

    /// Folds them from the segments; returns the stretches that have to be read from the chunks, too.
    pub(super) async fn fold<D: Source>(
        &self,
        db: &D,
        everything: Stretch,
    ) -> Result<(Gathered, Vec<Stretch>)>
    where
        for<'d> &'d D: PgExecutor<'d>,
    {
        let shared = &self.0;
        if shared.leaves.is_empty() {
            return Ok((Gathered::new(shared.scan.after), Vec::new()));
        }
        let covered: Arc<[Covered]> = segments::list(db, shared.scan.space, everything.end).await?.into();
        let mut tasks = JoinSet::new();
        for _ in 0..shared.scan.tasks.clamp(1, covered.len().max(1)) {
            let (shared, db, covered) = (Arc::clone(shared), db.clone(), Arc::clone(&covered));
            tasks.spawn(async move { shared.fold_some(&db, &covered).await });
        }
        if shared.scan.tasks > 1 {
            // What no segment covers is known before: the newest events, most of the time.
            let (shared, db, leaves) = (Arc::clone(shared), db.clone(), self.leaves().collect::<Vec<_>>());
            let uncovered = gaps(everything, covered.to_vec());
            tasks.spawn(async move { shared.fold_uncovered(&db, &leaves, uncovered).await });
        }
        let (mut gathered, mut read) = (Gathered::new(shared.scan.after), Vec::new());
        while let Some(ended) = tasks.join_next().await {
            let folded =
                ended.map_err(|e| StoreError::Damaged(format!("a scan of segments failed: {e}")))??;
            gathered.merge(folded.gathered);
            read.extend(folded.read);
        }
        Ok((gathered, gaps(everything, read)))
    }
}

/// Events that count and are not folded yet: some at a time, so that their states are fetched together.
#[derive(Default)]
struct Picked<'a> {
    /// The first so many are in use.
    events: Vec<(Facts<'a>, Vec<FieldValue<'a>>)>,
    places: Vec<usize>,
}

impl<'a> Picked<'a> {
    /// Adds an event, if it counts.
    fn add(
        &mut self,
        leaf: &Columnar,
        place: usize,
        facts: Facts<'a>,
        properties: impl Iterator<Item = Option<&'a str>>,
        states: &mut OfLeaf,
    ) {
        let next = self.places.len();
        if self.events.len() == next {
            self.events.push((facts, Vec::new()));
        }
        let Some((slot, values)) = self.events.get_mut(next) else { return };
        *slot = facts;
        if leaf.by.read(&facts, properties, values) {
            self.places.push(place);
        }
        if self.places.len() == TOGETHER {
            self.fold(leaf, states);
        }
    }

    /// Folds what was added.
    fn fold(&mut self, leaf: &Columnar, states: &mut OfLeaf) {
        states.bring_near(&self.places);
        for ((facts, values), place) in self.events.iter().zip(self.places.drain(..)) {
            if let Some(state) = states.at(place) {
                leaf.by.fold(state, facts, values);
            }
        }
    }
}

impl Shared {
    /// Folds chunks that are in no segment.
    async fn fold_uncovered<D: Source>(
        &self,
        db: &D,
        leaves: &[Leaf],
        uncovered: Vec<Stretch>,
    ) -> Result<Folded>
    where
        for<'d> &'d D: PgExecutor<'d>,
    {
        let mut folded = Folded { gathered: Gathered::new(self.scan.after), read: Vec::new() };
        for stretch in uncovered {
            self.scan.fold_chunks(db, leaves, stretch, &mut folded.gathered).await?;
            folded.read.push(Covered { after: stretch.after, end: stretch.end, is_whole: true });
        }
        Ok(folded)
    }

    /// Folds segments that no other task folds, until there are none.
    async fn fold_some<D: Source>(&self, db: &D, covered: &[Covered]) -> Result<Folded>
    where
        for<'d> &'d D: PgExecutor<'d>,
    {
        let keys: BTreeSet<&str> = self.leaves.iter().flat_map(Columnar::keys).collect();
        let keys: Vec<&str> = keys.into_iter().collect();
        let wanted = Wanted {
            space: self.scan.space,
            names: self.names.as_deref(),
            keys: &keys,
            messages: self.leaves.iter().any(|leaf| leaf.by.reads_message_ids()),
            from: self.leaves.iter().map(|leaf| leaf.from).min().unwrap_or(self.scan.at),
        };
        let mut folded = Folded { gathered: Gathered::new(self.scan.after), read: Vec::new() };
        let at_a_time = if self.names.is_some() { READ_OF_A_FEW } else { READ_AT_A_TIME };
        loop {
            let first = self.next.fetch_add(at_a_time, Ordering::Relaxed);
            let some = covered.iter().skip(first).take(at_a_time);
            let ends: Vec<Offset> = some.clone().map(|segment| segment.end).collect();
            if ends.is_empty() {
                return Ok(folded);
            }
            let began = Instant::now();
            let (sections, there) = segments::read(db, &wanted, &ends).await?;
            for segment in some {
                let of_it: Vec<&Stored> = sections.iter().filter(|s| s.end == segment.end).collect();
                // One that was forgotten meanwhile says nothing: its events are read from the chunks.
                if there.binary_search(&segment.end).is_err() || !self.is_all_said(segment, &of_it) {
                    continue;
                }
                folded.read.push(*segment);
                for section in of_it.into_iter().filter(|section| !section.is_left_out()) {
                    self.fold_section(section, &mut folded.gathered).map_err(|damaged| {
                        let Stored { end, name, .. } = section;
                        StoreError::Damaged(format!("segment that ends at {end}, {name}: {damaged}"))
                    })?;
                    tokio::task::yield_now().await;
                }
            }
            self.scan.pace.rest(began.elapsed()).await;
        }
    }

    fn fold_section(&self, section: &Stored, gathered: &mut Gathered) -> std::result::Result<(), Damaged> {
        let rows = section.rows()?;
        let messages = section.messages()?;
        let ids = messages.as_ref().map(Texts::message_ids).transpose()?.unwrap_or_default();
        let texts: Vec<(&str, Texts)> = section.columns().collect::<std::result::Result<_, _>>()?;
        let mut columns: Vec<(&str, Vec<&str>)> = Vec::with_capacity(texts.len());
        for (key, text) in &texts {
            columns.push((key, text.values(rows.count())?));
        }
        let find = |key: Option<&str>| {
            let (_, values) = columns.iter().find(|(name, _)| Some(*name) == key)?;
            Some(values.as_slice())
        };
        let mut picked = Picked::default();
        for leaf in self.leaves.iter().filter(|leaf| leaf.names(&section.name)) {
            let columns: Vec<Option<&[&str]>> = leaf.by.keys().map(find).collect();
            let states = gathered.of(leaf.leaf);
            for (n, (user, facts)) in rows.events(&section.name, &ids).enumerate() {
                if facts.timestamp < leaf.from || facts.offset > leaf.until {
                    continue;
                }
                let Some(user) = self.scan.profile_of(user) else { continue };
                let properties = columns.iter().map(|column| {
                    let value = column.and_then(|values| values.get(n).copied());
                    value.filter(|raw| !raw.is_empty())
                });
                let place = Gathered::place(self.scan.after, user);
                picked.add(leaf, place, facts, properties, states);
            }
            picked.fold(leaf, states);
        }
        Ok(())
    }

    /// Whether the sections that were read of a segment hold all that these leaves look at.
    fn is_all_said(&self, segment: &Covered, sections: &[&Stored]) -> bool {
        let has_section = |name: &String| sections.iter().any(|section| section.name == *name);
        let all_names =
            segment.is_whole || self.names.as_ref().is_some_and(|names| names.iter().all(has_section));
        let has_columns = |section: &&Stored| {
            let concerned = self.leaves.iter().filter(|leaf| leaf.names(&section.name));
            section.is_whole
                || section.is_left_out()
                || concerned.flat_map(Columnar::keys).all(|key| section.has(key))
        };
        all_names && sections.iter().all(has_columns)
    }
}

/// What these segments leave out.
fn gaps(everything: Stretch, mut read: Vec<Covered>) -> Vec<Stretch> {
    read.sort_unstable();
    let (mut reached, mut gaps) = (everything.after, Vec::new());
    let end = Covered { after: everything.end, end: everything.end, is_whole: true };
    for segment in read.into_iter().chain([end]) {
        if reached < segment.after {
            gaps.push(Stretch { after: reached, end: segment.after });
        }
        reached = reached.max(segment.end);
    }
    gaps
}
