//! The value of a definition for one profile, and when it may change by the passage of time alone.

use std::borrow::Cow;

use uuid::Uuid;

use crate::domain::{LeafNo, Path, Timestamp, Value};

use super::bucket::bucket;
use super::condition::{Condition, Logic, Operand};
use super::query::{Plan, PlanCondition, PlanOperand, Quantifier, Root};
use super::scan;
use super::state::{Flags, LeafSpec, LeafState, Read, Reading};

/// What one profile has.
pub trait View {
    /// Whether it matters when a value may change by itself. If not, nobody may look at [`Evaluation::changes_at`].
    const NEEDS_CHANGES: bool = true;

    /// The public id of the profile.
    fn profile_id(&self) -> Uuid;

    /// The state of a leaf; none is the same as an empty one.
    fn leaf(&self, leaf: LeafNo) -> Option<Cow<'_, LeafState>>;

    /// The value of a trait, custom or computed, or of an audience (`true` for members), by the canonical name of
    /// its top-level key ([`crate::domain::trait_names::canonical`]).
    fn trait_value(&self, name: &str) -> Option<Cow<'_, Value>>;

    /// Of an account: how many of its users satisfy a condition of [`Plan::quantifiers`], of how many.
    fn users(&self, _quantifier: usize) -> Users {
        Users::default()
    }

    /// Since when a computed trait or audience of that name has had its value: `None` when there is no such definition,
    /// `Some(None)` when it has no value.
    fn computed_since(&self, _name: &str) -> Option<Option<Timestamp>> {
        None
    }
}

/// Users of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Users {
    /// Those that satisfy a condition.
    pub holding: u64,
    /// All of them.
    pub all: u64,
}

impl Users {
    /// Whether they are as many as is asked for: over no users nothing holds (decision A12).
    pub const fn satisfy(self, quantifier: Quantifier) -> bool {
        match quantifier {
            Quantifier::Any => self.holding > 0,
            Quantifier::All => self.holding > 0 && self.holding == self.all,
        }
    }
}

/// The outcome of a definition for one profile at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// The value; a boolean for audiences.
    pub value: Value,
    /// Until before this instant the value stays the same if no event arrives and no trait changes. `None`: for
    /// ever. The value need not change then, but it cannot change earlier.
    pub changes_at: Option<Timestamp>,
    /// Whether what it was made from is exact.
    pub flags: Flags,
}

impl Evaluation {
    pub(super) fn truth(&self) -> bool {
        self.value == Value::Bool(true)
    }

    fn constant(value: Value) -> Self {
        Self { value, changes_at: None, flags: Flags::default() }
    }
}

impl Plan {
    /// The value at `now`, which must not be earlier than the reception of any event folded.
    pub fn evaluate(&self, view: &impl View, now: Timestamp) -> Evaluation {
        match self.root() {
            Root::Condition(condition) => self.evaluate_condition(condition, view, now),
            Root::Value(operand) => {
                let (value, changes_at, flags) = self.operand(operand, view, now);
                Evaluation { value: value.into_owned(), changes_at, flags }
            }
        }
    }

    /// One condition of this plan alone, as those of [`Plan::conditions`].
    pub fn evaluate_condition(&self, logic: &PlanCondition, view: &impl View, now: Timestamp) -> Evaluation {
        match logic {
            Logic::Constant(value) => Evaluation::constant(Value::Bool(*value)),
            Logic::And(parts) => self.junction(parts, false, view, now),
            Logic::Or(parts) => self.junction(parts, true, view, now),
            Logic::Not(part) => {
                let inner = self.evaluate_condition(part, view, now);
                Evaluation { value: Value::Bool(!inner.truth()), ..inner }
            }
            Logic::Is(condition) => self.comparison(condition, view, now),
        }
    }

    /// AND and OR. The part that is `decisive` (false for AND, true for OR) decides alone: while one such part
    /// holds the whole cannot change, so it may change only when the last of them may. With none, it may change as
    /// soon as any part may.
    fn junction(
        &self,
        parts: &[PlanCondition],
        decisive: bool,
        view: &impl View,
        now: Timestamp,
    ) -> Evaluation {
        let mut decided = None;
        let mut earliest = None;
        let mut flags = Flags::default();
        for part in parts {
            let part = self.evaluate_condition(part, view, now);
            flags = flags.or(part.flags);
            if part.truth() == decisive {
                let Some(until) = part.changes_at else {
                    return Evaluation { flags, ..Evaluation::constant(Value::Bool(decisive)) };
                };
                decided = decided.max(Some(until));
            } else {
                earliest = sooner(earliest, part.changes_at);
            }
        }
        let changes_at = if decided.is_some() { decided } else { earliest };
        Evaluation { value: Value::Bool(decided.is_some() == decisive), changes_at, flags }
    }

    /// A comparison of the elements of a trait's list: one is enough (decision A11). Rare, and kept out of the way of
    /// the others.
    #[inline(never)]
    fn comparison_of_items(
        &self,
        condition: &Condition<PlanOperand>,
        path: &Path,
        view: &impl View,
        now: Timestamp,
    ) -> Evaluation {
        let items = match view.trait_value(path.head()).as_deref() {
            Some(Value::Json(text)) => path.walk_each(text).into_iter().map(Value::from_json).collect(),
            _ => Vec::new(),
        };
        let items = if items.is_empty() { vec![Value::Null] } else { items };
        let arguments: Vec<_> = condition.arguments.iter().map(|a| self.operand(a, view, now)).collect();
        let of_items = items.iter().filter_map(|item| condition.changes_at(item, now)).min();
        let (changes_at, flags) = arguments
            .iter()
            .fold((of_items, Flags::default()), |(at, flags), a| (sooner(at, a.1), flags.or(a.2)));
        let resolve = |argument| self.operand(argument, view, now).0;
        let holds = items.iter().any(|item| condition.holds(item, resolve, now));
        Evaluation { value: Value::Bool(holds), changes_at, flags }
    }

    fn comparison(&self, condition: &Condition<PlanOperand>, view: &impl View, now: Timestamp) -> Evaluation {
        if let PlanOperand::Trait(path) = &condition.left
            && path.reads_list()
        {
            return self.comparison_of_items(condition, path, view, now);
        }
        if let Some((leaf, spec)) = self.counted_against_literals(condition) {
            // Exact, not just a lower bound: the instant at which the count crosses to the other side.
            let state = view.leaf(leaf).unwrap_or(Cow::Owned(LeafState::Empty));
            let accepts = |count| condition.holds(&Value::from(count), literal_value, now);
            let Reading { value, flags } = state.read(Read::Count, spec.window, now);
            let holds = condition.holds(&value, literal_value, now);
            let changes_at =
                needs_changes(view).then(|| state.count_changes_at(spec.window, now, accepts)).flatten();
            return Evaluation { value: Value::Bool(holds), changes_at, flags };
        }
        let (left, left_changes_at, mut flags) = self.operand(&condition.left, view, now);
        let mut changes_at = sooner(left_changes_at, condition.changes_at(&left, now));
        for argument in &condition.arguments {
            let (_, argument_changes_at, argument_flags) = self.operand(argument, view, now);
            changes_at = sooner(changes_at, argument_changes_at);
            flags = flags.or(argument_flags);
        }
        let resolve = |argument| self.operand(argument, view, now).0;
        Evaluation { value: Value::Bool(condition.holds(&left, resolve, now)), changes_at, flags }
    }

    /// The leaf of a condition that compares a count with values written in the query.
    fn counted_against_literals(&self, condition: &Condition<PlanOperand>) -> Option<(LeafNo, &LeafSpec)> {
        let literals = condition.arguments.iter().all(|argument| argument.literal().is_some());
        match condition.left {
            PlanOperand::Leaf(index, Read::Count) if literals => {
                self.leaf(index).filter(|(_, spec)| spec.session.is_none())
            }
            _ => None,
        }
    }

    /// The value of an operand, when it may change by itself, and whether it is exact.
    pub(super) fn operand<'v>(
        &'v self,
        operand: &'v PlanOperand,
        view: &'v impl View,
        now: Timestamp,
    ) -> (Cow<'v, Value>, Option<Timestamp>, Flags) {
        match operand {
            PlanOperand::Literal(value) => (Cow::Borrowed(value), None, Flags::default()),
            PlanOperand::Trait(path) => {
                let value = view.trait_value(path.head()).unwrap_or_default();
                (if path.is_key() { value } else { Cow::Owned(nested(&value, path)) }, None, Flags::default())
            }
            PlanOperand::Scan(index, read) => {
                let Some(scan) = self.scan(*index) else { return Default::default() };
                let (value, changes_at, flags) = scan::evaluate(self, scan, *read, view, now);
                (Cow::Owned(value), changes_at, flags)
            }
            PlanOperand::HeldSince(path, index) => self.held_since(path, *index, view),
            PlanOperand::Bucket(_) | PlanOperand::AnyItem(_) | PlanOperand::Users(..) => {
                rare_operand(operand, view, now)
            }
            PlanOperand::Leaf(index, read) => {
                let Some((leaf, spec)) = self.leaf(*index) else { return Default::default() };
                let state = view.leaf(leaf).unwrap_or(Cow::Owned(LeafState::Empty));
                if spec.session.is_some() && !state.is_running(now) {
                    return (Cow::Owned(Value::Null), state.changes_at(spec.window, now), Flags::default());
                }
                let Reading { value, flags } = state.read(*read, spec.window, now);
                let changes_at = needs_changes(view).then(|| state.changes_at(spec.window, now)).flatten();
                (Cow::Owned(value), changes_at, flags)
            }
        }
    }
}

impl Plan {
    /// When the latest run of writes with the present value began. It never changes by itself; what follows from it does.
    #[inline(never)]
    fn held_since<'v>(
        &self,
        path: &Path,
        leaf: usize,
        view: &impl View,
    ) -> (Cow<'v, Value>, Option<Timestamp>, Flags) {
        let since = |at: Option<Timestamp>| at.map_or(Value::Null, |at| at.to_string().as_str().into());
        if let Some(computed) = view.computed_since(path.head()) {
            return (Cow::Owned(since(computed)), None, Flags::default());
        }
        let state = self.leaf(leaf).and_then(|(no, _)| view.leaf(no));
        let Some(state) = state.as_deref().and_then(LeafState::rows) else { return Default::default() };
        let (at, is_cut) = state.value_since(path);
        (Cow::Owned(since(at)), None, Flags { cut: is_cut, ..Flags::default() })
    }
}

/// As [`Plan::operand`] for the kinds that few queries have: kept out of the way of the others.
#[inline(never)]
fn rare_operand<'v>(
    operand: &'v PlanOperand,
    view: &'v impl View,
    now: Timestamp,
) -> (Cow<'v, Value>, Option<Timestamp>, Flags) {
    match operand {
        PlanOperand::Bucket(salt) => (Cow::Owned(bucket(salt, view.profile_id())), None, Flags::default()),
        PlanOperand::AnyItem(item) => {
            let value = view.trait_value(item.path().head()).unwrap_or_default();
            let (holds, changes_at) = item.on_trait(&value, now);
            (Cow::Owned(holds.into()), changes_at, Flags::default())
        }
        PlanOperand::Users(index, quantifier) => {
            let holds = view.users(*index).satisfy(*quantifier);
            (Cow::Owned(holds.into()), None, Flags::default())
        }
        _ => Default::default(),
    }
}

/// The value of an operand that is known to be a literal.
fn literal_value(operand: &PlanOperand) -> Cow<'_, Value> {
    operand.literal().map_or(Cow::Owned(Value::Null), Cow::Borrowed)
}

/// The value inside of an object; of a path through a list all elements, as a list.
pub(super) fn nested(value: &Value, path: &Path) -> Value {
    match value {
        Value::Json(text) if path.reads_list() => {
            let items: Vec<Value> = path.walk_each(text).into_iter().map(Value::from_json).collect();
            if items.is_empty() { Value::Null } else { Value::list(&items) }
        }
        Value::Json(text) => path.walk_tail(text).map_or(Value::Null, Value::from_json),
        _ => Value::Null,
    }
}

const fn needs_changes<V: View>(_: &V) -> bool {
    V::NEEDS_CHANGES
}

/// The earlier of two instants; `None` is never.
pub(super) fn sooner(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}
