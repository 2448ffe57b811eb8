//! Folding leaves from segments: of each section only the properties they read.
//!
//! A section says of every event what the chunk says, as far as these leaves look, so the states are the same. Where
//! there is no segment, or one that does not keep what is read, the stretch is left to the chunks.

use std::collections::BTreeSet;

use sqlx::postgres::PgPool;

use super::{Gathered, Leaf, Scan, event_names};
use crate::domain::{LeafNo, Offset};
use crate::engine::LeafSpec;
use crate::store::log::codec::Damaged;
use crate::store::log::columns::Texts;
use crate::store::segments::{self, Covered, Stored, Wanted};
use crate::store::{Result, StoreError};

/// Segments read at a time.
const READ_AT_A_TIME: usize = 8;

/// A stretch of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Behind this offset,
    pub(super) after: Offset,
    /// up to and including this one.
    pub(super) end: Offset,
}

/// A leaf that reads properties one by one and nothing else of its events.
pub(super) struct Columnar {
    leaf: LeafNo,
    until: Offset,
    spec: LeafSpec,
    /// Of each field the property it reads, if it reads any.
    keys: Vec<Option<String>>,
}

impl Columnar {
    /// The leaf, if it is one; otherwise it comes back as it was.
    #[expect(clippy::result_large_err, reason = "what is given back is no error")]
    pub(super) fn of((leaf, until, spec): Leaf) -> std::result::Result<Self, Leaf> {
        let keys = spec
            .property_keys()
            .map(|keys| keys.into_iter().map(|key| key.map(str::to_owned)).collect::<Vec<_>>());
        match keys {
            Some(keys) => Ok(Self { leaf, until, spec, keys }),
            None => Err((leaf, until, spec)),
        }
    }

    pub(super) fn into_leaf(self) -> Leaf {
        (self.leaf, self.until, self.spec)
    }
}

impl Scan {
    /// Folds these leaves from the segments; returns the stretches that have to be read from the chunks.
    pub(super) async fn fold_segments(
        &self,
        pool: &PgPool,
        leaves: &[Columnar],
        everything: Stretch,
        gathered: &mut Gathered,
    ) -> Result<Vec<Stretch>> {
        if leaves.is_empty() {
            return Ok(Vec::new());
        }
        let names = event_names(leaves.iter().map(|leaf| &leaf.spec));
        let keys: BTreeSet<&str> =
            leaves.iter().flat_map(|leaf| leaf.keys.iter().flatten()).map(|k| &**k).collect();
        let keys: Vec<&str> = keys.into_iter().collect();
        let messages = leaves.iter().any(|leaf| leaf.spec.reads_message_ids());
        let wanted = Wanted { space: self.space, names: names.as_deref(), keys: &keys, messages };
        let mut gaps = Gaps { reached: everything.after, gaps: Vec::new() };
        let covered = segments::list(pool, self.space, everything.end).await?;
        for some in covered.chunks(READ_AT_A_TIME) {
            let ends: Vec<Offset> = some.iter().map(|segment| segment.end).collect();
            let sections = segments::read(pool, &wanted, &ends).await?;
            for segment in some {
                let of_it: Vec<&Stored> = sections.iter().filter(|s| s.end == segment.end).collect();
                if !says_all(segment, &of_it, leaves, names.as_deref()) {
                    continue;
                }
                gaps.skip_to(segment);
                for section in of_it {
                    self.fold_section(section, leaves, gathered).map_err(|damaged| {
                        let Stored { end, name, .. } = section;
                        StoreError::Damaged(format!("segment that ends at {end}, {name}: {damaged}"))
                    })?;
                    tokio::task::yield_now().await;
                }
            }
        }
        Ok(gaps.until(everything.end))
    }

    fn fold_section(
        &self,
        section: &Stored,
        leaves: &[Columnar],
        gathered: &mut Gathered,
    ) -> std::result::Result<(), Damaged> {
        let rows = section.rows()?;
        let messages = section.messages()?;
        let ids = messages.as_ref().map(Texts::message_ids).transpose()?.unwrap_or_default();
        let texts: Vec<(&str, Texts)> = section.columns().collect::<std::result::Result<_, _>>()?;
        let mut columns: Vec<(&str, Vec<&str>)> = Vec::with_capacity(texts.len());
        for (key, text) in &texts {
            columns.push((key, text.values(rows.count())?));
        }
        let find = |key: &Option<String>| {
            let key = key.as_deref()?;
            columns.iter().find(|(name, _)| *name == key).map(|(_, values)| values.as_slice())
        };
        let concerned = leaves.iter().filter(|leaf| leaf.spec.event.matches(&section.name));
        let concerned: Vec<(&Columnar, Vec<Option<&[&str]>>)> =
            concerned.map(|leaf| (leaf, leaf.keys.iter().map(find).collect())).collect();
        for (n, (user, facts)) in rows.events(&section.name, &ids).enumerate() {
            let Some(user) = self.profile_of(user) else { continue };
            let states = gathered.of(user);
            for (Columnar { leaf, until, spec, .. }, columns) in &concerned {
                if facts.offset > *until {
                    continue;
                }
                let properties = columns.iter().map(|column| {
                    let value = column.and_then(|values| values.get(n).copied());
                    value.filter(|raw| !raw.is_empty())
                });
                states.update(*leaf, |state| spec.fold_properties(state, &facts, properties));
            }
        }
        Ok(())
    }
}

/// Whether the sections that were read of a segment hold all that these leaves look at.
fn says_all(segment: &Covered, sections: &[&Stored], leaves: &[Columnar], names: Option<&[String]>) -> bool {
    let all_names = segment.is_whole
        || names.is_some_and(|names| names.iter().all(|name| sections.iter().any(|s| s.name == *name)));
    let has_columns = |section: &&Stored| {
        let concerned = leaves.iter().filter(|leaf| leaf.spec.event.matches(&section.name));
        section.is_whole || concerned.flat_map(|leaf| leaf.keys.iter().flatten()).all(|key| section.has(key))
    };
    all_names && sections.iter().all(has_columns)
}

/// What the segments leave out, gathered in log order.
struct Gaps {
    reached: Offset,
    gaps: Vec<Stretch>,
}

impl Gaps {
    fn skip_to(&mut self, segment: &Covered) {
        if self.reached < segment.after {
            self.gaps.push(Stretch { after: self.reached, end: segment.after });
        }
        self.reached = self.reached.max(segment.end);
    }

    fn until(mut self, end: Offset) -> Vec<Stretch> {
        if self.reached < end {
            self.gaps.push(Stretch { after: self.reached, end });
        }
        self.gaps
    }
}
