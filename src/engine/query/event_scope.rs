//! Inside of `where` and of reducers: what can be read of one event, of its parent, and of the profile it belongs to.

use std::collections::BTreeSet;

use crate::domain::Value;
use crate::engine::condition::{Condition, Logic};
use crate::engine::state::{AnyItem, Field, FilterOperand, Read, Reducer, SourceName};

use super::ast::{ArgumentValue, Call, Expr, Name};
use super::error::ErrorKind;
use super::lower::{Lowering, Scope, Typed};
use super::stream::{Draft, has_parent, holds, without_parent};
use super::vocabulary::{EVENT_FUNCTIONS, FIELD_FUNCTIONS};

/// One event, or the item of a list.
#[derive(Default)]
pub(super) struct EventScope {
    pub(super) fields: Vec<Field>,
    /// Events inside of it, and how they are reduced.
    pub(super) scans: Vec<(Draft, Reducer)>,
    /// The fields of the event in whose `where` this one stands.
    pub(super) parent: Option<Vec<Field>>,
    /// Traits it reads, by their canonical names.
    pub(super) traits: BTreeSet<String>,
    /// The item of a list.
    pub(super) in_item: bool,
    /// An item of a trait's list, where there is no event.
    pub(super) in_trait: bool,
}

/// `any_item('list', condition)`.
pub(super) fn any_item<S: Scope>(lowering: &mut Lowering<'_, S>, call: &Call) -> Option<AnyItem> {
    let [list, condition] = call.arguments.as_slice() else {
        // What could not be read may have been both.
        call.arguments.iter().try_for_each(|argument| lowering.plain(argument).map(|_| ()))?;
        let message = "`any_item` needs a list and a condition on its items: `any_item('products', property('price') > 5)`";
        return lowering.error(ErrorKind::Syntax, call.span, message);
    };
    let path = lowering.path_in(call, list);
    let ArgumentValue::Expr(condition) = lowering.plain(condition)? else {
        return lowering.error(ErrorKind::Type, condition.span, "`any_item` needs a condition");
    };
    let scope = EventScope { in_item: true, in_trait: lowering.scope.is_in_trait(), ..EventScope::default() };
    let mut inner = Lowering { scope, errors: &mut *lowering.errors };
    let filter = inner.boolean(condition)?;
    Some(AnyItem::new(path?, inner.scope.fields, filter))
}

/// The position of a field among others, new or known.
fn place(fields: &mut Vec<Field>, field: Field) -> usize {
    fields.iter().position(|known| *known == field).unwrap_or_else(|| {
        fields.push(field);
        fields.len() - 1
    })
}

impl EventScope {
    pub(super) fn place(&mut self, field: Field) -> usize {
        place(&mut self.fields, field)
    }
}

impl Scope for EventScope {
    type Operand = FilterOperand;

    fn literal(value: Value) -> FilterOperand {
        FilterOperand::Literal(value)
    }

    fn function(lowering: &mut Lowering<'_, Self>, call: &Call) -> Option<Typed<FilterOperand>> {
        match call.name.text.as_str() {
            name @ ("event" | "trait" | "audience") if lowering.scope.in_item => {
                let message = format!("`{name}` cannot stand inside of `any_item`");
                lowering.errors.add_expecting(ErrorKind::Type, call.span, message, &FIELD_FUNCTIONS);
                None
            }
            "event" => Draft::new(lowering, call).map(Typed::Stream),
            "trait" => lowering.trait_of_profile(call).map(Typed::Scalar),
            "audience" => {
                let left = lowering.trait_of_profile(call)?;
                Some(Typed::Boolean(holds(left)))
            }
            "property" | "context" if has_parent(call) => lowering.parent_field(call).map(Typed::Scalar),
            _ => {
                let field = lowering.field(call)?;
                let is_condition = field.is_condition();
                let left = FilterOperand::Field(lowering.scope.place(field));
                Some(if is_condition { Typed::Boolean(holds(left)) } else { Typed::Scalar(left) })
            }
        }
    }

    fn quantified(
        lowering: &mut Lowering<'_, Self>,
        keyword: &Name,
        _operand: &Expr,
    ) -> Option<Logic<Condition<FilterOperand>>> {
        let word = keyword.text.to_uppercase();
        let place = if lowering.scope.in_item { "any_item" } else { "where" };
        let message = format!(
            "`{word}` asks about the users of an account, so it cannot stand inside of `{place}`; write it around the \
             whole condition: `{word} event('…').where(…).count() >= 1`"
        );
        lowering.error(ErrorKind::Type, keyword.span, message)
    }

    fn reduced(&mut self, draft: Draft, reducer: Reducer, read: Read) -> Option<Typed<FilterOperand>> {
        self.scans.push((draft, reducer));
        let operand = FilterOperand::Scan(self.scans.len() - 1, read);
        Some(if read == Read::Unique { Typed::List(operand) } else { Typed::Scalar(operand) })
    }

    fn list_count(list: FilterOperand) -> Option<FilterOperand> {
        match list {
            FilterOperand::Scan(scan, _) => Some(FilterOperand::Scan(scan, Read::UniqueCount)),
            _ => None,
        }
    }

    fn is_in_trait(&self) -> bool {
        self.in_trait
    }

    fn is_event(&self) -> bool {
        !self.in_item
    }

    fn lend_fields(&mut self) -> Option<Vec<Field>> {
        Some(std::mem::take(&mut self.fields))
    }

    fn take_back(&mut self, fields: Option<Vec<Field>>, mut traits: BTreeSet<String>) {
        self.fields = fields.unwrap_or_default();
        self.traits.append(&mut traits);
    }

    fn traits(&mut self) -> &mut BTreeSet<String> {
        &mut self.traits
    }
}

impl Lowering<'_, EventScope> {
    /// A trait of the profile whose event this is.
    fn trait_of_profile(&mut self, call: &Call) -> Option<FilterOperand> {
        let path = self.trait_path(call)?;
        if path.reads_list() {
            let message = "`$` on a trait stands outside of `where`: compare the list on the profile";
            return self.error(ErrorKind::Unsupported, call.span, message);
        }
        Some(FilterOperand::Trait(path))
    }

    /// `property(parent: 'x')`.
    fn parent_field(&mut self, call: &Call) -> Option<FilterOperand> {
        let path = self.path(&without_parent(call))?;
        let field = if call.name.text == "context" { Field::Context(path) } else { Field::Property(path) };
        let Some(parent) = &mut self.scope.parent else {
            let message =
                "`parent:` means the event in whose `where` another `event(…)` stands; here is none";
            return self.error(ErrorKind::Type, call.span, message);
        };
        Some(FilterOperand::Parent(place(parent, field)))
    }

    /// The field of an event that a function reads.
    pub(super) fn field(&mut self, call: &Call) -> Option<Field> {
        match call.name.text.as_str() {
            name @ ("context" | "timestamp" | "message_type" | "source") if self.scope.in_trait => {
                let message = format!("`{name}` reads an event, and this is the item of a trait");
                self.errors.add_expecting(ErrorKind::Type, call.span, message, &["property"]);
                None
            }
            "property" => self.path(call).map(Field::Property),
            "context" => self.path(call).map(Field::Context),
            "message_type" => self.no_arguments(call).map(|()| Field::MessageType),
            "timestamp" => self.no_arguments(call).map(|()| Field::Timestamp),
            "source" => {
                let (name, _) = self.only_string(call)?;
                Some(Field::Source(SourceName { name: name.to_owned(), no: None }))
            }
            "any_item" => any_item(self, call).map(|item| Field::AnyItem(Box::new(item))),
            name @ ("event" | "trait" | "audience") => {
                let message = format!("a reducer reads the event itself, not `{name}`");
                self.errors.add_expecting(ErrorKind::Type, call.span, message, &FIELD_FUNCTIONS);
                None
            }
            name @ ("everyone" | "random_bucket") => {
                let message = format!("`{name}` is about a profile, so it stands outside of `where`");
                self.error(ErrorKind::Type, call.span, message)
            }
            _ => self.unknown_function(call, &EVENT_FUNCTIONS),
        }
    }
}
