//! All definitions of a space, compiled together: which leaves an event touches, which definitions those feed,
//! and in which order definitions that refer to each other are evaluated.

mod marks;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashMap;

pub use self::marks::Dirty;
use crate::domain::{Collection, ComputationNo, EventType, Facts, LeafNo, Timestamp, json};

use super::query::Plan;
use super::state::{EventName, Field, FieldValue, LeafSpec, LeafStates, Scope, Target, writes_traits};

/// A definition to put into a program.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The version of the audience or computed trait.
    pub no: ComputationNo,
    /// Its key.
    pub key: String,
    /// Whether this version is the one that answers for its key. A version that is still being backfilled is
    /// folded and may be evaluated, but references do not mean it.
    pub serving: bool,
    /// The compiled query.
    pub plan: Plan,
}

/// A definition in a program; its leaves have their interned numbers.
pub type Computation = Definition;

/// Why definitions do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Definitions refer to each other in a circle.
    #[error("these definitions refer to each other in a circle: {}", .0.join(" → "))]
    Cycle(Vec<String>),
}

/// All live definitions of a space.
#[derive(Debug, Default)]
pub struct Program {
    /// In the order of evaluation: what is referred to comes first.
    computations: Vec<Computation>,
    places: HashMap<ComputationNo, usize>,
    /// Places of all versions of a key.
    versions: HashMap<String, Vec<usize>>,
    leaves: Vec<Leaf>,
    leaf_places: HashMap<LeafNo, usize>,
    /// By the exact names that leaves count.
    events: HashMap<String, EventLeaves>,
    /// Leaves of the calls that write traits: of users, and of accounts.
    writes: EventLeaves,
    writes_of_accounts: EventLeaves,
    /// Definitions of accounts; those of them that ask users have conditions for them.
    of_accounts: Vec<usize>,
    quantified: Vec<usize>,
    /// Some leaf makes a difference between the accounts that events name.
    has_shared: bool,
    /// Leaves whose events a pattern names.
    globs: Vec<usize>,
    /// Other names that have been met while there are patterns, and what those say of them. A cache: it never changes
    /// an answer.
    met: RwLock<HashMap<String, Arc<EventLeaves>>>,
    readers_of_traits: HashMap<String, Vec<usize>>,
    /// Definitions that have to be looked at on somebody of whom nothing is known.
    of_nobody: Vec<usize>,
}

#[derive(Debug)]
struct Leaf {
    no: LeafNo,
    spec: LeafSpec,
    /// Places of the computations that read it.
    readers: Vec<usize>,
}

/// Event names that are remembered beside those that definitions name; more are looked up each time.
const NAMES_MET: usize = 10_000;

/// The leaves of one event name, and the fields they read together.
#[derive(Debug, Default)]
struct EventLeaves {
    /// Places of the leaves, and where the fields of each are among those of the event.
    leaves: Vec<(usize, Vec<usize>)>,
    fields: Vec<Field>,
}

impl Program {
    /// Puts definitions together. `intern` finds or makes the number of a leaf by [`LeafSpec::canonical`].
    pub fn build(
        definitions: Vec<Definition>,
        intern: &mut dyn FnMut(&LeafSpec) -> LeafNo,
    ) -> Result<Self, ProgramError> {
        let mut program = Self { computations: in_order(definitions)?, ..Self::default() };
        let mut computations = std::mem::take(&mut program.computations);
        for (place, computation) in computations.iter_mut().enumerate() {
            computation.plan.intern(intern);
            program.places.insert(computation.no, place);
            program.versions.entry(computation.key.clone()).or_default().push(place);
            if computation.plan.collection() == Collection::Accounts {
                program.of_accounts.push(place);
            }
            if !computation.plan.quantifiers().is_empty() {
                program.quantified.push(place);
            }
            for (no, spec) in computation.plan.leaves() {
                program.add_leaf(no, spec, place);
            }
            for name in computation.plan.traits() {
                program.readers_of_traits.entry(name.clone()).or_default().push(place);
            }
        }
        program.of_nobody = marks::find_of_nobody(&computations);
        program.computations = computations;
        program.add_globs();
        Ok(program)
    }

    fn add_leaf(&mut self, no: LeafNo, spec: &LeafSpec, reader: usize) {
        if let Some(leaf) = self.leaf_places.get(&no).and_then(|&place| self.leaves.get_mut(place)) {
            leaf.readers.push(reader);
            return;
        }
        let place = self.leaves.len();
        match &spec.event {
            EventName::Exact(name) => self.events.entry(name.clone()).or_default().add(place, spec),
            EventName::Glob(_) => self.globs.push(place),
            EventName::TraitWrites if spec.scope == Scope::Account => {
                self.writes_of_accounts.add(place, spec);
            }
            EventName::TraitWrites => self.writes.add(place, spec),
        }
        self.has_shared |= spec.scope.is_shared();
        self.leaf_places.insert(no, place);
        self.leaves.push(Leaf { no, spec: spec.clone(), readers: vec![reader] });
    }

    /// Adds the leaves that a pattern names to the names it fits.
    fn add_globs(&mut self) {
        for (name, event) in &mut self.events {
            event.add_globs(name, &self.globs, &self.leaves);
        }
    }

    /// The leaves that patterns find for a name that no leaf counts by itself: once for each name.
    fn find_globs(&self, name: &str) -> Arc<EventLeaves> {
        let known = self.met.read().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone);
        known.unwrap_or_else(|| {
            let mut event = EventLeaves::default();
            event.add_globs(name, &self.globs, &self.leaves);
            let event = Arc::new(event);
            let mut met = self.met.write().unwrap_or_else(PoisonError::into_inner);
            if met.len() < NAMES_MET {
                met.insert(name.to_owned(), Arc::clone(&event));
            }
            event
        })
    }

    /// All definitions, in the order of evaluation: what is referred to comes first.
    pub fn computations(&self) -> &[Computation] {
        &self.computations
    }

    /// The place of a definition in the order of evaluation.
    pub fn place(&self, no: ComputationNo) -> Option<usize> {
        self.places.get(&no).copied()
    }

    /// A leaf by its number.
    pub fn leaf(&self, no: LeafNo) -> Option<&LeafSpec> {
        self.leaf_places.get(&no).and_then(|&place| self.leaves.get(place)).map(|leaf| &leaf.spec)
    }

    /// All leaves.
    pub fn leaves(&self) -> impl ExactSizeIterator<Item = (LeafNo, &LeafSpec)> {
        self.leaves.iter().map(|leaf| (leaf.no, &leaf.spec))
    }

    /// Whether there are definitions of accounts.
    pub const fn has_accounts(&self) -> bool {
        !self.of_accounts.is_empty()
    }

    /// Whether any definition asks the users of accounts.
    pub const fn has_quantifiers(&self) -> bool {
        !self.quantified.is_empty()
    }

    /// Whether it makes a difference which account an event names.
    pub const fn has_shared(&self) -> bool {
        self.has_shared
    }

    /// Whether an event makes a difference to accounts: some leaf that looks at it is one of their users' as such.
    pub fn shares(&self, facts: &Facts<'_>) -> bool {
        let is_shared = |event: &EventLeaves| {
            let of = |(place, _): &(usize, Vec<usize>)| self.leaves.get(*place);
            event.leaves.iter().filter_map(of).any(|leaf| leaf.spec.scope.is_shared())
        };
        match self.events.get(facts.name) {
            Some(event) => is_shared(event),
            None => !self.globs.is_empty() && is_shared(&self.find_globs(facts.name)),
        }
    }

    /// Folds one event that names no account into the states of its user; see [`Program::fold_into`].
    pub fn fold(&self, states: &mut LeafStates, facts: &Facts<'_>, dirty: &mut Dirty) -> bool {
        self.fold_into(Target::User { named: false }, states, facts, dirty)
    }

    /// Folds one event into states, marks the definitions to evaluate, and says whether any state is another one now.
    /// An event whose name no leaf counts costs one look-up, or two where there are patterns.
    pub fn fold_into(
        &self,
        target: Target,
        states: &mut LeafStates,
        facts: &Facts<'_>,
        dirty: &mut Dirty,
    ) -> bool {
        match self.events.get(facts.name) {
            _ if writes_traits(facts.event_type) => {
                self.fold_event(&self.writes, target, states, facts, dirty)
            }
            _ if facts.event_type == EventType::Group => {
                self.fold_event(&self.writes_of_accounts, target, states, facts, dirty)
            }
            Some(event) => self.fold_event(event, target, states, facts, dirty),
            None if self.globs.is_empty() => false,
            None => self.fold_event(&self.find_globs(facts.name), target, states, facts, dirty),
        }
    }

    fn fold_event(
        &self,
        event: &EventLeaves,
        target: Target,
        states: &mut LeafStates,
        facts: &Facts<'_>,
        dirty: &mut Dirty,
    ) -> bool {
        let is_kept = |leaf: &Leaf| target.keeps(leaf.spec.scope);
        if !event.leaves.iter().any(|(place, _)| self.leaves.get(*place).is_some_and(is_kept)) {
            return false;
        }
        let values = event.read(facts);
        let mut changed = false;
        for (place, slots) in &event.leaves {
            let Some(leaf) = self.leaves.get(*place).filter(|leaf| is_kept(leaf)) else { continue };
            if states.update(leaf.no, |state| leaf.spec.fold_fields(state, facts, &values, slots)) {
                dirty.mark(leaf.readers.iter().copied());
                changed = true;
            }
        }
        changed
    }

    /// Drops from the states what can never matter again, those of leaves that no definition reads included.
    pub fn compact(&self, states: &mut LeafStates, now: Timestamp) {
        states.retain(|no| self.leaf_places.contains_key(&no));
        states.for_each_mut(|no, state| state.compact(self.leaf(no).and_then(|spec| spec.window), now));
    }

    /// Adds to the states of an account what a user brings to it (or of that what a backfill found): its own states and
    /// those of its seat, as far as they are pooled. Says whether there was anything.
    pub fn pool<'s>(
        &self,
        account: &mut LeafStates,
        brought: impl IntoIterator<Item = &'s LeafStates>,
        dirty: &mut Dirty,
    ) -> bool {
        let mut brings = false;
        for states in brought {
            for (no, state) in states.iter() {
                let leaf = self.leaf_places.get(&no).and_then(|&place| self.leaves.get(place));
                let Some(leaf) = leaf.filter(|leaf| leaf.spec.scope == Scope::Pool) else { continue };
                account.update(no, |pooled| {
                    pooled.merge(state.into_owned());
                    true
                });
                dirty.mark(leaf.readers.iter().copied());
                brings = true;
            }
        }
        brings
    }

    /// Takes out of the states of an account what its users have brought: they bring it again.
    pub fn unpool(&self, account: &mut LeafStates, dirty: &mut Dirty) {
        account.retain(|no| self.leaf(no).is_none_or(|spec| spec.scope != Scope::Pool));
        self.mark_of_accounts(dirty);
    }
}

impl EventLeaves {
    fn add(&mut self, place: usize, spec: &LeafSpec) {
        let slots = spec.fields.iter().map(|field| self.slot(field)).collect();
        self.leaves.push((place, slots));
    }

    fn add_globs(&mut self, name: &str, globs: &[usize], leaves: &[Leaf]) {
        for &place in globs {
            if let Some(leaf) = leaves.get(place).filter(|leaf| leaf.spec.event.matches(name)) {
                self.add(place, &leaf.spec);
            }
        }
    }

    fn slot(&mut self, field: &Field) -> usize {
        self.fields.iter().position(|known| known == field).unwrap_or_else(|| {
            self.fields.push(field.clone());
            self.fields.len() - 1
        })
    }

    /// Reads all fields in one pass over the event's properties and one over its context.
    fn read<'a>(&self, facts: &Facts<'a>) -> Vec<FieldValue<'a>> {
        let mut heads: Vec<Option<&'a str>> = vec![None; self.fields.len()];
        let mut scan = |object: &'a str, in_object: fn(&Field) -> Option<&crate::domain::Path>| {
            if !self.fields.iter().any(|field| in_object(field).is_some()) {
                return;
            }
            for (key, value) in json::entries(object) {
                for (field, head) in self.fields.iter().zip(&mut heads) {
                    if in_object(field).is_some_and(|path| field.is_at(path, &key)) {
                        // A later duplicate of a key replaces an earlier one, also with nothing.
                        *head = Some(value);
                    }
                }
            }
        };
        scan(facts.properties, Field::in_properties);
        scan(facts.context, Field::in_context);
        self.fields.iter().zip(heads).map(|(field, head)| field.read_head(head, facts)).collect()
    }
}

/// Sorts definitions so that each comes after those it refers to; among equals, by number.
fn in_order(mut definitions: Vec<Definition>) -> Result<Vec<Definition>, ProgramError> {
    definitions.sort_by_key(|definition| definition.no);
    let mut servers: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, definition) in definitions.iter().enumerate().filter(|(_, d)| d.serving) {
        servers.insert(&definition.key, index);
    }
    let references: Vec<Vec<usize>> = definitions
        .iter()
        .map(|definition| {
            definition.plan.traits().iter().filter_map(|name| servers.get(name.as_str()).copied()).collect()
        })
        .collect();
    let mut search =
        Search { references: &references, marks: vec![Mark::New; definitions.len()], order: Vec::new() };
    for index in 0..definitions.len() {
        if let Err(cycle) = search.visit(index) {
            let keys = cycle.iter().rev().filter_map(|&i| definitions.get(i)).map(|d| d.key.clone());
            return Err(ProgramError::Cycle(keys.collect()));
        }
    }
    let order = search.order;
    let mut slots: Vec<Option<Definition>> = definitions.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|index| slots.get_mut(index).and_then(Option::take)).collect())
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

/// Depth-first search; its own stack, because a chain of references may be as long as there are definitions.
struct Search<'r> {
    references: &'r [Vec<usize>],
    marks: Vec<Mark>,
    order: Vec<usize>,
}

impl Search<'_> {
    /// Puts `start` and what it refers to into the order; fails with a circle, last reference first.
    fn visit(&mut self, start: usize) -> Result<(), Vec<usize>> {
        let mut path: Vec<(usize, usize)> = Vec::new();
        self.open(start, &mut path);
        while let Some((index, next)) = path.pop() {
            let Some(&reference) = self.references.get(index).and_then(|all| all.get(next)) else {
                self.set(index, Mark::Done);
                self.order.push(index);
                continue;
            };
            path.push((index, next + 1));
            match self.marks.get(reference) {
                Some(Mark::New) => self.open(reference, &mut path),
                Some(Mark::Open) => {
                    let from = path.iter().position(|(i, _)| *i == reference).unwrap_or(0);
                    let circle = path.iter().skip(from).map(|(i, _)| *i).chain([reference]);
                    return Err(circle.collect::<Vec<_>>().into_iter().rev().collect());
                }
                Some(Mark::Done) | None => {}
            }
        }
        Ok(())
    }

    fn open(&mut self, index: usize, path: &mut Vec<(usize, usize)>) {
        if self.marks.get(index) == Some(&Mark::New) {
            self.set(index, Mark::Open);
            path.push((index, 0));
        }
    }

    fn set(&mut self, index: usize, mark: Mark) {
        if let Some(slot) = self.marks.get_mut(index) {
            *slot = mark;
        }
    }
}
