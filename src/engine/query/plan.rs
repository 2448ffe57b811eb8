//! A compiled definition.

use std::collections::BTreeMap;

use crate::domain::retention::Retention;
use crate::domain::{Collection, LeafNo, Offset, Path, Value};
use crate::engine::condition::{Condition, Logic, Operand};
use crate::engine::state::{AnyItem, EventName, Filter, LeafSpec, Read, Reducer, Scope, Window};

use super::mentions::Mention;
use super::{Kind, Shape, Span};

/// The conditions of a plan, over what a profile has.
pub type PlanCondition = Logic<Condition<PlanOperand>>;

/// What a definition results in.
#[derive(Debug, Clone, PartialEq)]
pub enum Root {
    /// An audience.
    Condition(PlanCondition),
    /// A computed trait.
    Value(PlanOperand),
}

/// One side of a comparison on a profile.
#[derive(Debug, Clone, PartialEq)]
pub enum PlanOperand {
    /// What is read of the leaf at this position of [`Plan::leaves`].
    Leaf(usize, Read),
    /// What is read of the scan at this position of [`Plan::scans`].
    Scan(usize, Read),
    /// A trait: custom, computed, or an audience. The first name is canonical (decision R4).
    Trait(Path),
    /// Since when a trait has had its present value: the leaf at this position keeps who wrote it and when.
    HeldSince(Path, usize),
    /// Whether an item of a trait's list satisfies a condition.
    AnyItem(Box<AnyItem>),
    /// `random_bucket('salt')`.
    Bucket(String),
    /// Whether the users of the account satisfy the condition at this position of [`Plan::quantifiers`].
    Users(usize, Quantifier),
    /// A value written in the query.
    Literal(Value),
}

/// How many of the users of an account have to satisfy a condition (decision A12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantifier {
    /// `ANY`: at least one.
    Any,
    /// `ALL`: every one, and there is one.
    All,
}

impl Operand for PlanOperand {
    fn literal(&self) -> Option<&Value> {
        match self {
            Self::Literal(value) => Some(value),
            _ => None,
        }
    }
}

/// A compiled definition: a tree of conditions over leaves and traits.
///
/// Leaves are numbered 0, 1, … until [`Plan::intern`] gives them the numbers under which a space keeps them.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub(super) text: String,
    pub(super) kind: Kind,
    pub(super) collection: Collection,
    pub(super) root: Root,
    /// What is asked of each user of an account.
    pub(super) quantifiers: Vec<PlanCondition>,
    /// Where the operands of the outermost AND or OR stand, in order.
    pub(super) operands: Vec<Span>,
    /// Where all conditions stand.
    pub(super) shape: Shape,
    pub(super) leaves: Vec<LeafSpec>,
    pub(super) numbers: Vec<LeafNo>,
    pub(super) traits: Vec<String>,
    /// Those of them that are read of the users of an account, and those that are not.
    pub(super) traits_of_users: Vec<String>,
    pub(super) traits_of_profile: Vec<String>,
    /// Events that are looked at one by one.
    pub(super) scans: Vec<Scan>,
    /// The sources it names, and where.
    pub(super) sources: Vec<(String, Span)>,
    /// The events, properties and traits it names, and where.
    pub(super) mentions: Vec<Mention>,
}

impl Plan {
    /// The text it was compiled from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it makes.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whose profiles it is about.
    pub const fn collection(&self) -> Collection {
        self.collection
    }

    /// What `ANY` and `ALL` ask of each user of an account, in order of the text. There are at most as many as
    /// [`QUANTIFIERS`].
    pub fn quantifiers(&self) -> &[PlanCondition] {
        &self.quantifiers
    }

    /// What it results in.
    pub const fn root(&self) -> &Root {
        &self.root
    }

    /// The leaves it reads, without repetition.
    pub fn leaves(&self) -> impl ExactSizeIterator<Item = (LeafNo, &LeafSpec)> {
        self.numbers.iter().copied().zip(&self.leaves)
    }

    /// The canonical names of the traits it reads, sorted: top-level keys, so custom traits, computed traits and
    /// audiences alike.
    pub fn traits(&self) -> &[String] {
        &self.traits
    }

    /// Of [`Plan::traits`] those of the profiles it is about.
    pub fn traits_of_profile(&self) -> &[String] {
        &self.traits_of_profile
    }

    /// Of [`Plan::traits`] those of the users of an account, inside of `ANY` and `ALL`.
    pub fn traits_of_users(&self) -> &[String] {
        &self.traits_of_users
    }

    /// The names of the events it counts, sorted; without those that only a pattern with `*` names.
    pub fn events(&self) -> Vec<&str> {
        let mut events: Vec<&str> = self.leaves.iter().filter_map(|leaf| leaf.event.exact()).collect();
        events.sort_unstable();
        events.dedup();
        events
    }

    /// The operands of the outermost AND or OR, in order, with their texts; a plan with neither has one.
    pub fn conditions(&self) -> Vec<(&str, &PlanCondition)> {
        let conditions = match &self.root {
            Root::Value(_) => &[],
            Root::Condition(Logic::And(parts) | Logic::Or(parts)) => parts.as_slice(),
            Root::Condition(whole) => std::slice::from_ref(whole),
        };
        self.operands.iter().map(|span| span.text(&self.text)).zip(conditions).collect()
    }

    /// Counts only events after this offset: a definition without historical data (decision A14).
    pub fn with_events_since(mut self, offset: Offset) -> Self {
        // A trait's value is always the present one, so how old that is counts from whenever it was written.
        for leaf in self.leaves.iter_mut().filter(|leaf| leaf.event != EventName::TraitWrites) {
            leaf.since = Some(offset);
        }
        self
    }

    /// Lets no event count for longer than a space keeps it. A run of events (`expires_after`) ends by itself, and a trait has
    /// its value for as long as it has it.
    pub fn with_retention(mut self, retention: &Retention) -> Self {
        if retention.is_unlimited() {
            return self;
        }
        let kept = |event: &EventName| retention.counts_for_ms(|name| event.matches(name));
        let kept_of: Vec<Option<i64>> = self
            .leaves
            .iter()
            .map(|leaf| {
                kept(&leaf.event).filter(|_| leaf.event != EventName::TraitWrites && leaf.session.is_none())
            })
            .collect();
        for (leaf, kept) in self.leaves.iter_mut().zip(&kept_of) {
            let Some(kept) = *kept else { continue };
            if leaf.window.is_some_and(|window| window.newest > kept) {
                // It is over before it would begin to count.
                leaf.filter = Logic::Constant(false);
            } else {
                leaf.window = Some(within(leaf.window, kept));
            }
        }
        for scan in &mut self.scans {
            scan.keep_within(&kept_of);
        }
        self
    }

    /// Gives the leaves the numbers under which the space keeps them; `intern` finds or makes the number of a leaf
    /// by [`LeafSpec::canonical`].
    pub fn intern(&mut self, intern: &mut dyn FnMut(&LeafSpec) -> LeafNo) {
        self.numbers = self.leaves.iter().map(intern).collect();
    }

    /// Where its conditions stand.
    pub(in crate::engine) const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The scan at a position of the plan.
    pub(in crate::engine) fn scan(&self, index: usize) -> Option<&Scan> {
        self.scans.get(index)
    }

    /// The leaf at a position of the plan.
    pub(in crate::engine) fn leaf(&self, index: usize) -> Option<(LeafNo, &LeafSpec)> {
        self.numbers.get(index).copied().zip(self.leaves.get(index))
    }
}

/// Events that are looked at one by one at an evaluation, because more than the event decides whether it counts.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::engine) struct Scan {
    /// The leaf that keeps the events, by position.
    pub(in crate::engine) leaf: usize,
    /// How long after its parent an event counts, in milliseconds; nothing for without end.
    pub(in crate::engine) after_parent: Option<i64>,
    /// The rolling window.
    pub(in crate::engine) window: Option<Window>,
    /// What has to hold besides what the leaf has asked already. Fields are those that the rows keep.
    pub(in crate::engine) filter: Option<Filter>,
    /// What is made of the events that count.
    pub(in crate::engine) reducer: Reducer,
    /// Events that come after one of these, as the filter reads them.
    pub(in crate::engine) scans: Vec<Self>,
}

/// `ANY` and `ALL` in one definition: whom they hold for is kept as bits of a number.
pub const QUANTIFIERS: usize = 64;

/// The leaves of a plan while it is made: equal ones become one.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    /// Whose events are meant where the next ones are named.
    pub(super) scope: Scope,
    specs: Vec<LeafSpec>,
    places: BTreeMap<String, usize>,
}

impl Leaves {
    /// The position of a leaf, new or known.
    pub(super) fn add(&mut self, mut spec: LeafSpec) -> usize {
        spec.scope = match (self.scope, &spec.event) {
            // Traits are nobody's as a member of an account.
            (Scope::Member, EventName::TraitWrites) => Scope::Own,
            (Scope::Pool, EventName::TraitWrites) => Scope::Account,
            (scope, _) => scope,
        };
        *self.places.entry(spec.canonical()).or_insert_with(|| {
            self.specs.push(spec);
            self.specs.len() - 1
        })
    }

    /// All of them, and the numbers they have until they are interned.
    pub(super) fn finish(self) -> (Vec<LeafSpec>, Vec<LeafNo>) {
        let numbers = (0..self.specs.len() as u32).map(LeafNo).collect();
        (self.specs, numbers)
    }
}

impl Scan {
    /// Its events, and those inside of it, count for no longer than the leaves they are kept in.
    fn keep_within(&mut self, kept_of: &[Option<i64>]) {
        if let Some(kept) = kept_of.get(self.leaf).copied().flatten() {
            self.window = Some(within(self.window, kept));
        }
        for scan in &mut self.scans {
            scan.keep_within(kept_of);
        }
    }
}

/// A window that reaches back for so many milliseconds at most.
fn within(window: Option<Window>, kept: i64) -> Window {
    let Window { newest, oldest } = window.unwrap_or(Window { newest: 0, oldest: kept });
    Window { newest, oldest: oldest.min(kept) }
}
