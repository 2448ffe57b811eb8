//! Filters of events at work: whether they hold, when they hold, and their one spelling. A path through a list means
//! any of its elements (decision A11).

use std::borrow::Cow;

use crate::domain::{Facts, Timestamp, Value};
use crate::engine::condition::Condition;

use super::field::{Field, FieldValue};
use super::instants::Instants;
use super::leaf::{Filter, FilterOperand};

const NOTHING: &Value = &Value::Null;

/// Whether a filter holds at `at`; field `i` of the leaf is `values[slots[i]]`.
pub(super) fn holds(filter: &Filter, values: &[FieldValue<'_>], slots: &[usize], at: Timestamp) -> bool {
    let resolve = |operand| resolve(operand, values, slots);
    filter.holds(&|condition| match items(condition, values, slots) {
        None => condition.holds(&resolve(&condition.left), resolve, at),
        Some([]) => condition.holds(NOTHING, resolve, at),
        Some(items) => items.iter().any(|item| condition.holds(&item.value, resolve, at)),
    })
}

/// When a filter holds for an event.
pub(super) fn instants(
    filter: &Filter,
    fields: &[Field],
    facts: &Facts<'_>,
    values: &[FieldValue<'_>],
    slots: &[usize],
) -> Instants {
    let of = |condition, left: &Value| interval(condition, left, facts.timestamp, values, slots);
    Instants::of(filter, &|condition| match items(condition, values, slots) {
        None => {
            if let FilterOperand::Field(index) = &condition.left
                && let Some(Field::AnyItem(item)) = fields.get(*index)
                && item.moves()
            {
                let raw = field(*index, values, slots).map_or("", |value| value.raw);
                return item.instants(raw, facts);
            }
            of(condition, &resolve(&condition.left, values, slots))
        }
        Some([]) => of(condition, NOTHING),
        Some(items) => Instants::any(items.iter().map(|item| of(condition, &item.value))),
    })
}

/// When a condition holds for one value of its left side.
fn interval(
    condition: &Condition<FilterOperand>,
    left: &Value,
    at: Timestamp,
    values: &[FieldValue<'_>],
    slots: &[usize],
) -> Instants {
    match condition.interval(left) {
        Some((from, until)) => Instants::between(from.millis(), until.millis()),
        None => Instants::constant(condition.holds(left, |operand| resolve(operand, values, slots), at)),
    }
}

/// Whether any condition of a filter depends on the time of the evaluation.
pub(in crate::engine) fn moves(filter: &Filter, fields: &[Field]) -> bool {
    let mut moves = false;
    filter.for_each(&mut |condition| {
        moves |= condition.is_relative();
        if let FilterOperand::Field(index) = &condition.left
            && let Some(Field::AnyItem(item)) = fields.get(*index)
        {
            moves |= item.moves();
        }
    });
    moves
}

/// A filter in one fixed spelling.
pub(super) fn canonical(filter: &Filter, fields: &[Field]) -> String {
    let operand = |operand: &FilterOperand| match operand {
        FilterOperand::Field(index) => fields.get(*index).map_or_else(String::new, Field::canonical),
        FilterOperand::Literal(value) => value.to_json(),
        // Filters of leaves have no others.
        FilterOperand::Parent(_) | FilterOperand::Trait(_) | FilterOperand::Scan(..) => String::new(),
    };
    filter.canonical(&|condition| condition.canonical(operand))
}

fn field<'v, 'a>(index: usize, values: &'v [FieldValue<'a>], slots: &[usize]) -> Option<&'v FieldValue<'a>> {
    slots.get(index).and_then(|&slot| values.get(slot))
}

/// The elements that the left side of a condition means, where it means those of a list.
fn items<'v, 'a>(
    condition: &Condition<FilterOperand>,
    values: &'v [FieldValue<'a>],
    slots: &[usize],
) -> Option<&'v [FieldValue<'a>]> {
    match &condition.left {
        FilterOperand::Field(index) => field(*index, values, slots)?.items.as_deref(),
        _ => None,
    }
}

/// The value of one side of a condition of `where`.
fn resolve<'v>(operand: &'v FilterOperand, values: &'v [FieldValue<'_>], slots: &[usize]) -> Cow<'v, Value> {
    Cow::Borrowed(match operand {
        FilterOperand::Field(index) => field(*index, values, slots).map_or(NOTHING, |field| &field.value),
        FilterOperand::Literal(value) => value,
        FilterOperand::Parent(_) | FilterOperand::Trait(_) | FilterOperand::Scan(..) => NOTHING,
    })
}
