//! `any_item('products', …)`: whether one element of a list satisfies a whole condition (decision A2).
//!
//! Inside of it `property('…')` reads the element; everything else reads the event, as outside.

use crate::domain::{EventType, Facts, Offset, Path, SourceNo, Timestamp, Value, json};

use super::field::{Field, FieldValue};
use super::filter;
use super::instants::Instants;
use super::leaf::Filter;

/// A condition on the elements of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct AnyItem {
    /// Through the list.
    path: Path,
    /// What is read of an element.
    fields: Vec<Field>,
    filter: Filter,
    moves: bool,
}

impl AnyItem {
    /// A condition on the elements of the list at `path`.
    pub fn new(path: Path, fields: Vec<Field>, filter: Filter) -> Self {
        let moves = filter::moves(&filter, &fields);
        Self { path: path.each(), fields, filter, moves }
    }

    /// Replaces the outermost key, as for a reserved name in another spelling.
    pub fn with_head(self, head: String) -> Self {
        Self { path: self.path.with_head(head), ..self }
    }

    /// The path to the elements.
    pub const fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it depends on the time of the evaluation.
    pub const fn moves(&self) -> bool {
        self.moves
    }

    /// The condition in one fixed spelling.
    pub(in crate::engine) fn canonical(&self) -> String {
        let filter = filter::canonical(&self.filter, &self.fields);
        format!("any_item({}, {filter})", json::quote(&self.path.to_string()))
    }

    pub(super) fn bind_source(&mut self, find: &dyn Fn(&str) -> Option<SourceNo>) {
        self.fields.iter_mut().for_each(|field| field.bind_source(find));
    }

    /// Whether one element satisfies it, given the value of the path's outermost key; as of the event's time.
    pub(super) fn holds(&self, head: &str, facts: &Facts<'_>) -> bool {
        self.any(head, facts, |facts, values, slots| {
            filter::holds(&self.filter, values, slots, facts.timestamp)
        })
    }

    /// When one element satisfies it.
    pub(super) fn instants(&self, head: &str, facts: &Facts<'_>) -> Instants {
        let mut all = Vec::new();
        self.any(head, facts, |facts, values, slots| {
            all.push(filter::instants(&self.filter, &self.fields, facts, values, slots));
            false
        });
        Instants::any(all)
    }

    /// Whether one element of a trait's value satisfies it at `now`, and when that may change.
    pub(in crate::engine) fn on_trait(&self, value: &Value, now: Timestamp) -> (bool, Option<Timestamp>) {
        let facts = Facts {
            event_type: EventType::Identify,
            name: "",
            timestamp: now,
            received_at: now,
            offset: Offset(0),
            message_id: "",
            source: SourceNo(0),
            properties: "",
            context: "",
        };
        let head = if let Value::Json(text) = value { text } else { "" };
        if self.moves { self.instants(head, &facts).at(now) } else { (self.holds(head, &facts), None) }
    }

    /// Whether `accept` accepts any element, told what is read of it.
    fn any<'a>(
        &self,
        head: &'a str,
        facts: &Facts<'a>,
        mut accept: impl FnMut(&Facts<'a>, &[FieldValue<'a>], &[usize]) -> bool,
    ) -> bool {
        let slots: Vec<usize> = (0..self.fields.len()).collect();
        self.path.walk_each(head).into_iter().any(|element| {
            let facts = Facts { properties: element, ..*facts };
            let values: Vec<FieldValue<'a>> = self.fields.iter().map(|field| field.read(&facts)).collect();
            accept(&facts, &values, &slots)
        })
    }
}
