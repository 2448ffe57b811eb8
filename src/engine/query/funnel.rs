//! Streams whose filters read more than the event: traits of the profile, or other events that come after it.
//!
//! They become a [`Scan`]: a leaf keeps the events that pass what the event alone decides, and the rest is asked of each
//! of them when the definition is evaluated.

use std::collections::BTreeSet;

use crate::engine::condition::{Condition, Logic};
use crate::engine::state::{self, Field, Filter, FilterOperand, LeafSpec, Reducer, Window};

use super::error::{ErrorKind, Span};
use super::lower::{Lowering, Scope};
use super::plan::{Leaves, Scan};
use super::stream::{Draft, all_of};

/// Whether a condition reads more than the event.
pub(super) fn is_dynamic(filter: &Filter) -> bool {
    let mut dynamic = false;
    filter.for_each(&mut |condition| dynamic |= operands(condition).any(|operand| !operand.is_static()));
    dynamic
}

fn operands(condition: &Condition<FilterOperand>) -> impl Iterator<Item = &FilterOperand> {
    std::iter::once(&condition.left).chain(&condition.arguments)
}

/// Refuses an item that comes and goes by the time beside what reads more than the event, in one operand of AND.
pub(super) fn check_items<S: Scope>(draft: &Draft, lowering: &mut Lowering<'_, S>, span: Span) -> Option<()> {
    let mixes = |filter: &&Filter| {
        let mut moves = false;
        filter.for_each(&mut |condition| {
            if let FilterOperand::Field(index) = &condition.left
                && let Some(Field::AnyItem(item)) = draft.fields.get(*index)
            {
                moves |= item.moves();
            }
        });
        moves && is_dynamic(filter)
    };
    if draft.filters.iter().any(|filter| mixes(&filter)) {
        let message = "`any_item` with a date relative to now cannot stand in an OR or NOT together with traits or other events; \
            join them with AND";
        return lowering.error(ErrorKind::Unsupported, span, message);
    }
    Some(())
}

impl Draft {
    /// Whether its events have to be looked at one by one.
    pub(super) fn is_dynamic(&self) -> bool {
        self.filters.iter().any(is_dynamic)
    }

    /// The scan of these events. Those of a parent that left its window `horizon` milliseconds ago matter no more.
    pub(super) fn into_scan(self, reducer: Reducer, leaves: &mut Leaves, horizon: Option<i64>) -> Scan {
        let (dynamic, own): (Vec<_>, Vec<_>) = self.filters.into_iter().partition(is_dynamic);
        let order = order(self.fields.len(), &dynamic, reducer, &self.scans);
        let mut fields: Vec<(usize, Field)> =
            self.fields.into_iter().enumerate().map(|(index, field)| (order.place(index), field)).collect();
        fields.sort_by_key(|(index, _)| *index);
        let fields: Vec<Field> = fields.into_iter().map(|(_, field)| field).collect();
        let renumber = |filter: Filter| {
            map(filter, &|operand| match operand {
                FilterOperand::Field(index) => FilterOperand::Field(order.place(index)),
                other => other,
            })
        };
        let own = own.into_iter().map(renumber);
        let (moving, still): (Vec<_>, Vec<_>) = own.partition(|filter| state::filter::moves(filter, &fields));
        let oldest = self.window.map(|window| window.oldest);
        let oldest = oldest.into_iter().chain(horizon).min();
        let leaf = leaves.add(LeafSpec {
            scope: state::Scope::Own,
            event: self.event,
            fields,
            filter: all_of(still).unwrap_or(Logic::Constant(true)),
            moving_filter: all_of(moving),
            reducer: Reducer::Rows(order.kept),
            window: oldest.map(|oldest| Window { newest: 0, oldest }),
            between: self.between,
            session: None,
            enough: None,
            since: None,
        });
        let scans = self.scans.into_iter().map(|(mut child, reducer)| {
            let to_parent = |operand| match operand {
                FilterOperand::Parent(index) => FilterOperand::Parent(order.place(index)),
                other => other,
            };
            child.filters = child.filters.into_iter().map(|filter| map(filter, &to_parent)).collect();
            child.into_scan(reducer, leaves, oldest)
        });
        let scans = scans.collect();
        Scan {
            leaf,
            after_parent: self.after_parent,
            window: self.window,
            filter: all_of(dynamic.into_iter().map(renumber).collect()),
            reducer: reducer.with_field(|index| order.place(index)),
            scans,
        }
    }
}

/// Where the fields of a draft go: those that rows keep come first.
struct Order {
    places: Vec<usize>,
    kept: usize,
}

impl Order {
    fn place(&self, index: usize) -> usize {
        self.places.get(index).copied().unwrap_or(index)
    }
}

/// Rows keep what the filter, the reducer and the children read of them.
fn order(fields: usize, dynamic: &[Filter], reducer: Reducer, children: &[(Draft, Reducer)]) -> Order {
    let mut kept: BTreeSet<usize> = reducer.field().into_iter().collect();
    let mut note = |filter: &Filter, of_parent: bool| {
        filter.for_each(&mut |condition| {
            for operand in operands(condition) {
                match operand {
                    FilterOperand::Field(index) if !of_parent => _ = kept.insert(*index),
                    FilterOperand::Parent(index) if of_parent => _ = kept.insert(*index),
                    _ => {}
                }
            }
        });
    };
    for filter in dynamic {
        note(filter, false);
    }
    for filter in children.iter().flat_map(|(child, _)| &child.filters) {
        note(filter, true);
    }
    let rest = (0..fields).filter(|index| !kept.contains(index));
    let mut places = vec![0; fields];
    for (new, old) in kept.iter().copied().chain(rest).enumerate() {
        if let Some(place) = places.get_mut(old) {
            *place = new;
        }
    }
    Order { places, kept: kept.len() }
}

/// The same filter over other operands.
fn map(filter: Filter, change: &impl Fn(FilterOperand) -> FilterOperand) -> Filter {
    let all = |parts: Vec<Filter>| parts.into_iter().map(|part| map(part, change)).collect();
    match filter {
        Logic::Constant(value) => Logic::Constant(value),
        Logic::And(parts) => Logic::And(all(parts)),
        Logic::Or(parts) => Logic::Or(all(parts)),
        Logic::Not(part) => Logic::Not(Box::new(map(*part, change))),
        Logic::Is(Condition { left, op, arguments }) => {
            let arguments = arguments.into_iter().map(change).collect();
            Logic::Is(Condition { left: change(left), op, arguments })
        }
    }
}
