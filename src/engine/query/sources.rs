//! Which source a definition means by an id or a name.
//!
//! Ids and names of sources never change and sources are never taken away, so what a definition means stays the same;
//! of several sources with one name the first made is meant, and new definitions have to name such ones by id.

use crate::domain::SourceNo;

use super::error::{ErrorKind, Errors, QueryError};
use super::plan::Plan;

/// The sources of a space.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    known: Vec<KnownSource>,
}

/// A source, as definitions name it.
#[derive(Debug, Clone)]
pub struct KnownSource {
    /// Number in the space.
    pub no: SourceNo,
    /// Public id.
    pub id: String,
    /// For people.
    pub name: String,
}

impl Sources {
    /// The sources of a space, in any order.
    pub fn new(mut known: Vec<KnownSource>) -> Self {
        known.sort_unstable_by_key(|source| source.no);
        Self { known }
    }

    /// The source of that id, or else the first made of that name.
    pub fn find(&self, name: &str) -> Option<SourceNo> {
        let by = |is: fn(&KnownSource) -> &str| self.known.iter().find(|source| is(source) == name);
        by(|source| &source.id).or_else(|| by(|source| &source.name)).map(|source| source.no)
    }

    fn named(&self, name: &str) -> usize {
        self.known.iter().filter(|source| source.name == name).count()
    }
}

impl Plan {
    /// Whether it names any source, so that [`Plan::bind_sources`] is needed.
    pub const fn names_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Finds out which sources are meant. Until then, and for those not known, no event comes from them.
    pub fn bind_sources(&mut self, sources: &Sources) {
        for field in self.leaves.iter_mut().flat_map(|leaf| &mut leaf.fields) {
            field.bind_source(&|name| sources.find(name));
        }
    }

    /// Whether every source it names is one of these, and only one.
    pub fn check_sources(&self, sources: &Sources) -> Result<(), Vec<QueryError>> {
        let mut errors = Errors::default();
        for (name, span) in &self.sources {
            match sources.named(name) {
                0 if sources.find(name).is_none() => {
                    let known: Vec<&str> = sources.known.iter().map(|s| s.name.as_str()).collect();
                    errors.add_unknown(*span, "source", name, &known);
                }
                0 | 1 => {}
                several => {
                    let message = format!("{several} sources are called `{name}`; name the one by its id");
                    let ids = sources.known.iter().filter(|s| s.name == *name).map(|s| s.id.as_str());
                    let ids: Vec<&str> = ids.collect();
                    errors.add_expecting(ErrorKind::Type, *span, message, &ids);
                }
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors.finish(&self.text)) }
    }
}
