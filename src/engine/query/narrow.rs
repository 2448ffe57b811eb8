//! Counts that are only compared with numbers of the query: how many events they need to know.

use crate::domain::{Number, Value};
use crate::engine::condition::{Condition, Op, Operand};
use crate::engine::state::{EXACT_ITEMS, LeafSpec, Read, Reducer};

use super::plan::{PlanCondition, PlanOperand, Root};

/// What the readers of a leaf need of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Need {
    /// Nobody has read it yet.
    Nothing,
    /// From this count on it makes no difference how many there are.
    UpTo(u32),
    /// All of it.
    All,
}

/// Lets the leaves of a plan keep no more than the plan can notice. Only windowed counts keep more than a number.
pub(super) fn narrow(root: &Root, quantifiers: &[PlanCondition], leaves: &mut [LeafSpec]) {
    let mut needs = vec![Need::Nothing; leaves.len()];
    let mut note = |operand: &PlanOperand, need: Need| {
        if let PlanOperand::Leaf(index, _) = operand
            && let Some(known) = needs.get_mut(*index)
        {
            *known = match (*known, need) {
                (Need::Nothing, other) | (other, Need::Nothing) => other,
                (Need::UpTo(a), Need::UpTo(b)) => Need::UpTo(a.max(b)),
                _ => Need::All,
            };
        }
    };
    let conditions = match root {
        Root::Value(operand) => {
            note(operand, Need::All);
            None
        }
        Root::Condition(logic) => Some(logic),
    };
    for logic in conditions.into_iter().chain(quantifiers) {
        logic.for_each(&mut |condition| {
            note(&condition.left, enough(condition).map_or(Need::All, Need::UpTo));
            condition.arguments.iter().for_each(|argument| note(argument, Need::All));
        });
    }
    for (leaf, need) in leaves.iter_mut().zip(needs) {
        let is_windowed_count =
            leaf.reducer == Reducer::Count && leaf.window.is_some() && leaf.moving_filter.is_none();
        if let Need::UpTo(count) = need
            && is_windowed_count
        {
            leaf.enough = Some(count);
        }
    }
}

/// The count from which on the condition says the same of every count; nothing when there is none, or when it is too
/// large to be worth knowing.
fn enough(condition: &Condition<PlanOperand>) -> Option<u32> {
    if !matches!(condition.left, PlanOperand::Leaf(_, Read::Count)) {
        return None;
    }
    let bounds = condition.arguments.iter().map(|argument| match argument.literal() {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    });
    let largest = bounds.collect::<Option<Vec<Number>>>()?.into_iter().max()?;
    let most = EXACT_ITEMS as u32;
    let is_decided = |count: u32| match condition.op {
        Op::AtLeast | Op::LessThan => Number::from(u64::from(count)) >= largest,
        Op::GreaterThan | Op::AtMost | Op::Equals | Op::Differs | Op::OneOf | Op::NoneOf => {
            Number::from(u64::from(count)) > largest
        }
        _ => false,
    };
    is_decided(most).then(|| first(1, most, is_decided))
}

/// The first number of a range at which something holds that holds from there on, and at its end.
fn first(mut from: u32, mut to: u32, holds: impl Fn(u32) -> bool) -> u32 {
    while from < to {
        let middle = from + (to - from) / 2;
        if holds(middle) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    from
}
