//! Which definitions have to be looked at again, and why no others. What is marked decides what an event costs; what is
//! not marked has to be what it was.

use std::borrow::Cow;
use std::cell::Cell;

use uuid::Uuid;

use super::{Computation, Program};
use crate::domain::trait_names::{OBJECTION_TRAIT, OBJECTIONS, canonical};
use crate::domain::{Collection, ComputationNo, LeafNo, Timestamp, Value};
use crate::engine::evaluate::View;
use crate::engine::profile::Profile;
use crate::engine::query::Kind;
use crate::engine::state::LeafState;

/// Which definitions to evaluate: a set of places in a program, taken in the order of evaluation.
#[derive(Debug, Clone, Default)]
pub struct Dirty {
    /// The next one stands last.
    places: Vec<u32>,
    /// Whether something was marked since they were put in order.
    disordered: bool,
}

impl Dirty {
    /// Takes the next definition in the order of evaluation.
    pub fn pop(&mut self) -> Option<usize> {
        if std::mem::take(&mut self.disordered) {
            self.places.sort_unstable_by(|a, b| b.cmp(a));
            self.places.dedup();
        }
        self.places.pop().map(|place| place as usize)
    }

    /// Adds what is marked elsewhere.
    pub fn join(&mut self, other: Self) {
        self.places.extend(other.places);
        self.disordered = true;
    }

    /// Whether there is nothing to evaluate.
    pub const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn mark(&mut self, places: impl IntoIterator<Item = usize>) {
        self.places.extend(places.into_iter().map(|place| place as u32));
        self.disordered = true;
    }
}

/// Somebody of whom nothing is known.
#[derive(Default)]
struct Nobody {
    /// Somebody asked who it is.
    is_asked: Cell<bool>,
}

impl View for Nobody {
    fn profile_id(&self) -> Uuid {
        self.is_asked.set(true);
        Uuid::nil()
    }

    fn leaf(&self, _: LeafNo) -> Option<Cow<'_, LeafState>> {
        None
    }

    fn trait_value(&self, _: &str) -> Option<Cow<'_, Value>> {
        None
    }
}

/// Places of the definitions that say something of users of whom nothing is known, now or later. The others say nothing of
/// a new user: its first event marks what it changes.
pub(super) fn find_of_nobody(computations: &[Computation]) -> Vec<usize> {
    let tells = |computation: &Computation| {
        let nobody = Nobody::default();
        // A value that does not change by itself is the same at any time.
        let said = computation.plan.evaluate(&nobody, Timestamp::EPOCH);
        let is_nothing = match computation.plan.kind() {
            Kind::Audience => said.value == Value::Bool(false),
            Kind::ComputedTrait => said.value == Value::Null,
        };
        !is_nothing
            || said.changes_at.is_some()
            || nobody.is_asked.get()
            || computation.plan.collection() != Collection::Users
    };
    computations
        .iter()
        .enumerate()
        .filter(|(_, computation)| tells(computation))
        .map(|(place, _)| place)
        .collect()
}

impl Program {
    /// Marks one definition, as when its due time has come.
    pub fn mark(&self, no: ComputationNo, dirty: &mut Dirty) {
        dirty.mark(self.place(no));
    }

    /// Marks all definitions, as where it is not known what has changed.
    pub fn mark_all(&self, dirty: &mut Dirty) {
        dirty.mark(0..self.computations.len());
    }

    /// Marks the definitions that ask the users of accounts, as for a user who joined one.
    pub fn mark_quantified(&self, dirty: &mut Dirty) {
        dirty.mark(self.quantified.iter().copied());
    }

    /// Marks the definitions of accounts, as for an account that somebody joined.
    pub fn mark_of_accounts(&self, dirty: &mut Dirty) {
        dirty.mark(self.of_accounts.iter().copied());
    }

    /// Marks the definitions that read a leaf, as after a merge of its states.
    pub fn mark_leaf(&self, no: LeafNo, dirty: &mut Dirty) {
        if let Some(leaf) = self.leaf_places.get(&no).and_then(|&place| self.leaves.get(place)) {
            dirty.mark(leaf.readers.iter().copied());
        }
    }

    /// Marks the definitions that read a trait, by its canonical name. Also to be called when an evaluation has
    /// changed the value of a serving computed trait or audience: what refers to it comes later in the order.
    pub fn mark_trait(&self, name: &str, dirty: &mut Dirty) {
        dirty.mark(self.readers_of_traits.get(name).into_iter().flatten().copied());
    }

    /// Marks what has to be looked at on a user of whom nothing is known, as on a new one.
    pub fn mark_nobody(&self, dirty: &mut Dirty) {
        dirty.mark(self.of_nobody.iter().copied());
    }

    /// Marks what a merge can change for the survivor: what reads anything that the absorbed profile brings. `changed` are
    /// the names of the traits that have other values now.
    pub fn mark_absorbed(&self, absorbed: &Profile, changed: &[String], dirty: &mut Dirty) {
        absorbed.leaves.keys().for_each(|leaf| self.mark_leaf(leaf, dirty));
        absorbed.outcomes().for_each(|outcome| self.mark_outcome(outcome.computation, dirty));
        for name in changed {
            self.mark_trait(&canonical(name), dirty);
            if name.starts_with(OBJECTIONS) {
                self.mark_trait(OBJECTION_TRAIT, dirty);
            }
        }
        self.mark_quantified(dirty);
    }

    /// Marks a definition of which a merge brings an outcome, in all its versions, and what refers to it: since when it
    /// holds may be another time even where its value is the same.
    pub fn mark_outcome(&self, no: ComputationNo, dirty: &mut Dirty) {
        let Some(computation) = self.place(no).and_then(|place| self.computations.get(place)) else { return };
        // Other versions take over since when the one that answers has had its value.
        dirty.mark(self.versions.get(&computation.key).into_iter().flatten().copied());
        if computation.serving {
            self.mark_trait(&computation.key, dirty);
        }
    }
}
