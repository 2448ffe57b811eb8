//! The naive evaluator for conditions that more than the event decides: traits, and what came after it.

use crate::naive::*;

/// What a condition on an event may look at besides.
#[derive(Clone, Copy)]
pub(crate) struct Around<'w> {
    pub(crate) world: &'w World,
    pub(crate) now: i64,
    pub(crate) parent: Option<&'w RawEvent>,
}

#[derive(Debug, Clone)]
pub(crate) enum More {
    /// `property('x')`, comparator, `trait('plan')`.
    Plan(&'static str),
    /// `trait('seen')`, comparator, seconds.
    Seen(&'static str, i64),
    /// `property('y')`, comparator, `property(parent: 'x')`; only of a child.
    Parent(&'static str),
    /// An event after this one.
    Child(Box<Child>),
}

/// A child, reduced, comparator, literal.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    pub(crate) name: &'static str,
    pub(crate) filter: Option<Where>,
    /// `within(parent: …)`, in seconds.
    pub(crate) after: Option<i64>,
    /// `within`, in seconds.
    pub(crate) window: Option<i64>,
    pub(crate) reducer: Reducer,
    pub(crate) op: &'static str,
    pub(crate) literal: Naive,
}

impl More {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Plan(op) => format!("property('x') {op} trait('plan')"),
            Self::Seen(op, seconds) => format!("trait('seen').{op}({seconds} seconds)"),
            Self::Parent(op) => format!("property('y') {op} property(parent: 'x')"),
            Self::Child(child) => child.text(),
        }
    }

    pub(crate) fn holds(&self, event: &RawEvent, around: Around<'_>) -> bool {
        match self {
            Self::Plan(op) => compare_values(&event.x, op, &around.world.plan),
            Self::Seen(op, seconds) => dated(around.world.seen, op, *seconds, around.now),
            Self::Parent(op) => compare_values(&event.y, op, &around.parent.expect("a child").x),
            Self::Child(child) => child.holds(event, around),
        }
    }
}

impl Child {
    fn text(&self) -> String {
        let Self { name, filter, after, window, reducer, op, literal } = self;
        let filter = filter.as_ref().map_or_else(String::new, |filter| format!(".where({})", filter.text()));
        let after = after.map_or_else(String::new, |after| format!(".within(parent: {after} seconds)"));
        let window = window.map_or_else(String::new, |window| format!(".within({window} seconds)"));
        let reducer = match reducer {
            Reducer::Count => "count()",
            Reducer::Sum => "sum(property('x'))",
            _ => "last(property('x'))",
        };
        format!("event('{name}'){filter}{after}{window}.{reducer} {op} {}", literal.literal())
    }

    /// A10: strictly later than its parent, ties by message id, and within the bound.
    fn holds(&self, parent: &RawEvent, around: Around<'_>) -> bool {
        let Around { world, now, .. } = around;
        let inside: Vec<&RawEvent> = world
            .events
            .iter()
            .filter(|e| is_named(e, self.name) && e.at <= now)
            .filter(|e| (e.at, &e.id) > (parent.at, &parent.id))
            .filter(|e| self.after.is_none_or(|after| e.at <= parent.at + after * 1000))
            .filter(|e| self.window.is_none_or(|window| now - window * 1000 <= e.at))
            .filter(|e| {
                let around = Around { parent: Some(parent), ..around };
                self.filter.as_ref().is_none_or(|filter| filter.holds(e, around))
            })
            .collect();
        compare(&reduce(&inside, self.reducer, "x"), self.op, &self.literal)
    }
}
