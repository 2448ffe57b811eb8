//! Why a definition has its value for one profile: every condition with what it looks at and whether it holds, what would
//! have to change for the opposite, and when it changes by itself.
//!
//! Guarantee: nothing in here decides whether a condition holds. Each one is evaluated by [`Plan::evaluate_condition`] over
//! the same states as the whole, so an explanation cannot say anything else than the evaluation.

use std::cell::Cell;

use crate::domain::{Timestamp, Value};

use super::condition::{Condition, Logic, Op, Operand, RelativeDate};
use super::evaluate::{Evaluation, Users, View};
use super::query::{Plan, PlanCondition, PlanOperand, Quantifier, Root, Shape, Span};
use super::state::Read;

/// How often one explanation looks into the future: bounds what it costs.
const LOOKS_MAX: u32 = 2_000;

/// Why a definition has its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What [`Plan::evaluate`] says.
    pub evaluation: Evaluation,
    /// When that changes by itself.
    pub forecast: Forecast,
    /// The conditions of an audience, or the value of a computed trait.
    pub reason: Reason,
}

/// When a value changes with no new event and no other trait. Definitions it refers to are taken as they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forecast {
    /// It stays.
    Never,
    /// At this instant it becomes this value.
    At(Timestamp, Value),
    /// Too much happens before it would be known, or users of an account decide, each in its own time; not before this
    /// instant.
    NotBefore(Timestamp),
}

/// What a part of a definition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasonKind {
    /// AND: all parts have to hold.
    All,
    /// OR: one part has to hold.
    Any,
    /// NOT: its part must not hold.
    Not,
    /// A comparison.
    Condition,
    /// Always the same: `everyone()`.
    Constant,
    /// The value of a computed trait.
    Value,
}

/// A part of a definition, for one profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Reason {
    /// What it is.
    pub kind: ReasonKind,
    /// As it stands in the query.
    pub text: String,
    /// Its value: true or false for conditions.
    pub evaluation: Evaluation,
    /// When it changes by itself.
    pub forecast: Forecast,
    /// What it looks at: of a comparison the left side, then those things it is compared with that are no literals.
    pub readings: Vec<Reading>,
    /// What it would have to become so that the audience has the opposite truth; `None` when it does not stand in the way.
    pub must_become: Option<bool>,
    /// Whether one of the parts that must become something is enough; else all of them have to.
    pub one_is_enough: bool,
    /// Of a condition that must become something: in words.
    pub hint: Option<String>,
    /// The operands of AND, OR and NOT, in order.
    pub parts: Vec<Self>,
}

impl Reason {
    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.evaluation.truth()
    }

    /// What would have to change, in words, in the order of the text: all of it, but where one is enough.
    pub fn hints(&self) -> Vec<&str> {
        let own = self.hint.as_deref().into_iter();
        own.chain(self.parts.iter().flat_map(Self::hints)).collect()
    }
}

/// Something a condition looks at, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// As it stands in the query.
    pub text: String,
    /// Its value now.
    pub value: Value,
    /// No more than so many are counted, because that is enough to decide: there may be more.
    pub is_at_least: bool,
    /// Of `held_for`: since when the trait has had the value.
    pub since: Option<Timestamp>,
}

impl Plan {
    /// Explains the value at `now`, which must not be earlier than the reception of any event folded.
    pub fn explain(&self, view: &impl View, now: Timestamp) -> Explanation {
        let look = Look { plan: self, view, now, left: Cell::new(LOOKS_MAX) };
        let evaluation = self.evaluate(view, now);
        let reason = match self.root() {
            Root::Condition(logic) => look.reason(logic, self.shape(), Some(!evaluation.truth())),
            Root::Value(operand) => {
                let text = self.shape().span.text(self.text()).to_owned();
                Reason {
                    readings: vec![look.reading(operand, text.clone())],
                    forecast: look.forecast(&evaluation, |at| self.evaluate(view, at)),
                    ..bare(ReasonKind::Value, text, evaluation.clone())
                }
            }
        };
        let forecast = reason.forecast.clone();
        Explanation { evaluation, forecast, reason }
    }
}

fn bare(kind: ReasonKind, text: String, evaluation: Evaluation) -> Reason {
    Reason {
        kind,
        text,
        evaluation,
        forecast: Forecast::Never,
        readings: Vec::new(),
        must_become: None,
        one_is_enough: false,
        hint: None,
        parts: Vec::new(),
    }
}

/// One look at one profile.
struct Look<'a, V> {
    plan: &'a Plan,
    view: &'a V,
    now: Timestamp,
    /// Looks into the future that are left.
    left: Cell<u32>,
}

impl<V: View> Look<'_, V> {
    /// Goes from one instant at which the value might change to the next, until it does.
    fn forecast(&self, present: &Evaluation, evaluate: impl Fn(Timestamp) -> Evaluation) -> Forecast {
        let (mut next, mut last) = (present.changes_at, self.now);
        while let Some(at) = next.filter(|at| *at > last) {
            let left = self.left.get();
            if left == 0 {
                return Forecast::NotBefore(at);
            }
            self.left.set(left - 1);
            let then = evaluate(at);
            if then.value != present.value {
                return Forecast::At(at, then.value);
            }
            (next, last) = (then.changes_at, at);
        }
        Forecast::Never
    }

    /// One part; `target` is the truth it would have to have for the opposite of the whole, where that depends on it.
    fn reason(&self, logic: &PlanCondition, shape: &Shape, target: Option<bool>) -> Reason {
        let Self { plan, view, now, .. } = *self;
        let evaluation = plan.evaluate_condition(logic, view, now);
        // What has it already is not in the way.
        let target = target.filter(|target| *target != evaluation.truth());
        let forecast = if asks_users(logic) {
            // When users change by themselves is known to them, not to their account.
            Forecast::NotBefore(now)
        } else {
            self.forecast(&evaluation, |at| plan.evaluate_condition(logic, view, at))
        };
        let text = shape.span.text(plan.text()).to_owned();
        let inside = |parts: &[PlanCondition], target| -> Vec<Reason> {
            parts.iter().zip(&shape.parts).map(|(part, shape)| self.reason(part, shape, target)).collect()
        };
        let (kind, parts) = match logic {
            Logic::Constant(_) => (ReasonKind::Constant, Vec::new()),
            Logic::And(parts) => (ReasonKind::All, inside(parts, target)),
            Logic::Or(parts) => (ReasonKind::Any, inside(parts, target)),
            Logic::Not(part) => {
                (ReasonKind::Not, inside(std::slice::from_ref(&**part), target.map(|target| !target)))
            }
            Logic::Is(_) => (ReasonKind::Condition, Vec::new()),
        };
        // One part that fails is enough for AND to fail, one that holds for OR to hold.
        let one_is_enough = match kind {
            ReasonKind::All => target == Some(false),
            ReasonKind::Any => target == Some(true),
            _ => false,
        };
        let mut reason = bare(kind, text, evaluation);
        if let Logic::Is(condition) = logic {
            reason.readings = self.readings(condition, shape);
            reason.hint = target.map(|target| self.hint(condition, shape, &reason.readings, target));
        } else if let (Logic::Constant(_), Some(target)) = (logic, target) {
            let never = if target { "never" } else { "always" };
            reason.hint =
                Some(format!("`{}` {never} holds, so the query would have to be another one", reason.text));
        }
        Reason { forecast, parts, one_is_enough, must_become: target, ..reason }
    }

    fn readings(&self, condition: &Condition<PlanOperand>, shape: &Shape) -> Vec<Reading> {
        let text = |place: usize| self.text(shape.sides.get(place).copied().unwrap_or(shape.span));
        let mut readings = vec![self.reading(&condition.left, text(0).to_owned())];
        for (place, argument) in condition.arguments.iter().enumerate() {
            if argument.literal().is_none() {
                readings.push(self.reading(argument, text(place + 1).to_owned()));
            }
        }
        readings
    }

    fn reading(&self, operand: &PlanOperand, text: String) -> Reading {
        let (value, ..) = self.plan.operand(operand, self.view, self.now);
        let value = value.into_owned();
        match operand {
            PlanOperand::HeldSince(path, _) => {
                let of_trait = PlanOperand::Trait(path.clone());
                let (held, ..) = self.plan.operand(&of_trait, self.view, self.now);
                let (held, since) = (held.into_owned(), value.as_timestamp());
                Reading { text, value: held, is_at_least: false, since }
            }
            PlanOperand::Leaf(index, Read::Count) => {
                let enough = self.plan.leaf(*index).and_then(|(_, spec)| spec.enough);
                let is_at_least = enough.is_some_and(|enough| {
                    value.compare(&Value::from(u64::from(enough))).is_some_and(std::cmp::Ordering::is_ge)
                });
                Reading { text, value, is_at_least, since: None }
            }
            _ => Reading { text, value, is_at_least: false, since: None },
        }
    }

    fn text(&self, span: Span) -> &str {
        span.text(self.plan.text())
    }

    /// What would have to be otherwise, as a sentence.
    fn hint(
        &self,
        condition: &Condition<PlanOperand>,
        shape: &Shape,
        readings: &[Reading],
        target: bool,
    ) -> String {
        if let PlanOperand::Users(index, quantifier) = condition.left {
            return self.hint_of_users(index, quantifier, self.text(shape.span), target);
        }
        let not = if target { "" } else { "not " };
        let (Some((_, arguments)), Some(left)) = (shape.sides.split_first(), readings.first()) else {
            return format!("`{}` would have to be {target}", self.text(shape.span));
        };
        let arguments: Vec<&str> = arguments.iter().map(|span| self.text(*span)).collect();
        let wish = wish(condition, &arguments);
        let Reading { text, value, is_at_least, since } = left;
        if let PlanOperand::HeldSince(..) = condition.left {
            let held = match since {
                Some(since) => format!("`{text}` is {} since {since}", shown(value)),
                None => format!("`{text}` is absent"),
            };
            return format!("{held}; it would have to {not}{wish}");
        }
        let at_least = if *is_at_least { "at least " } else { "" };
        format!("`{text}` is {at_least}{}; it would have to {not}{wish}", shown(value))
    }
}

fn asks_users(logic: &PlanCondition) -> bool {
    let mut asks = false;
    logic.for_each(&mut |condition| asks |= matches!(condition.left, PlanOperand::Users(..)));
    asks
}

impl<V: View> Look<'_, V> {
    /// The same for `ANY` and `ALL`: how many users satisfy it, and how many would have to.
    fn hint_of_users(&self, index: usize, quantifier: Quantifier, text: &str, target: bool) -> String {
        let Users { holding, all } = self.view.users(index);
        let wish = match (quantifier, target) {
            (Quantifier::Any, true) => "at least one would have to",
            (Quantifier::Any, false) => "none would have to",
            (Quantifier::All, true) if all == 0 => "there would have to be users, and all would have to",
            (Quantifier::All, true) => "all would have to",
            (Quantifier::All, false) => "at least one would have not to",
        };
        format!("what `{text}` asks is true of {holding} of the account's {all} users; {wish} satisfy it")
    }
}

/// Longest value a sentence has in it, in characters.
const SHOWN_MAX: usize = 100;

fn shown(value: &Value) -> String {
    if value.is_null() {
        return "absent".to_owned();
    }
    let json = value.to_json();
    match json.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", json.get(..end).unwrap_or_default()),
        None => json,
    }
}

/// What a comparison asks for, as words behind "would have to (not)"; `arguments` are texts of the query.
fn wish(condition: &Condition<PlanOperand>, arguments: &[&str]) -> String {
    let first = arguments.first().copied().unwrap_or_default();
    let (any, all) = (arguments.join(" or "), arguments.join(", "));
    if let (PlanOperand::HeldSince(..), Op::Relative(..)) = (&condition.left, &condition.op) {
        return format!("have had its value for {first}");
    }
    match &condition.op {
        Op::Equals => format!("be {first}"),
        Op::Differs => format!("exist and be another value than {first}"),
        Op::GreaterThan => format!("be greater than {first}"),
        Op::AtLeast => format!("be at least {first}"),
        Op::LessThan => format!("be less than {first}"),
        Op::AtMost => format!("be at most {first}"),
        Op::Exists => "exist".to_owned(),
        Op::Absent => "be absent".to_owned(),
        Op::Contains => format!("contain {any}"),
        Op::Omits => format!("contain none of {all}"),
        Op::StartsWith => format!("start with {first}"),
        Op::EndsWith => format!("end with {first}"),
        Op::OneOf => format!("be one of {all}"),
        Op::NoneOf => format!("be none of {all}"),
        Op::Matches(_) => format!("match {first}"),
        Op::BeforeDate => format!("be before {first}"),
        Op::AfterDate => format!("be after {first}"),
        Op::Relative(RelativeDate::WithinLast, _) => format!("be within the last {first}"),
        Op::Relative(RelativeDate::WithinNext, _) => format!("be within the next {first}"),
        Op::Relative(RelativeDate::BeforeLast, _) => format!("be at least {first} ago"),
        Op::Relative(RelativeDate::AfterNext, _) => format!("be at least {first} ahead"),
    }
}
