//! Streams of events: `event('X')`, its filters, and the reducer that makes a leaf of them.

use crate::domain::{Timestamp, Value};
use crate::engine::condition::{Condition, Logic, Op};
use crate::engine::state::{
    self, AnyItem, Cast, EventName, Field, Filter, FilterOperand, LeafSpec, Read, Reducer, SourceName, Window,
};

use super::ast::{Argument, ArgumentValue, Call, Expr, ExprKind};
use super::error::{ErrorKind, Span};
use super::lower::{Lowering, Scope, Typed};
use super::vocabulary::EVENT_FUNCTIONS;

/// How often a value must occur to be the mode when nothing is said (decision R9).
const MODE_MINIMUM: u64 = 2;

/// Inside of `where` and of reducers: what can be read of one event.
#[derive(Default)]
struct EventScope {
    fields: Vec<Field>,
    /// An item of a trait's list, where there is no event.
    in_trait: bool,
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
    let scope = EventScope { fields: Vec::new(), in_trait: lowering.scope.is_in_trait() };
    let mut inner = Lowering { scope, errors: &mut *lowering.errors };
    let filter = inner.boolean(condition)?;
    Some(AnyItem::new(path?, inner.scope.fields, filter))
}

impl EventScope {
    fn place(&mut self, field: Field) -> usize {
        self.fields.iter().position(|known| *known == field).unwrap_or_else(|| {
            self.fields.push(field);
            self.fields.len() - 1
        })
    }
}

impl Scope for EventScope {
    type Operand = FilterOperand;

    fn literal(value: Value) -> FilterOperand {
        FilterOperand::Literal(value)
    }

    fn function(lowering: &mut Lowering<'_, Self>, call: &Call) -> Option<Typed<FilterOperand>> {
        let field = lowering.field(call)?;
        let is_condition = field.is_condition();
        let left = FilterOperand::Field(lowering.scope.place(field));
        Some(if is_condition { Typed::Boolean(holds(left)) } else { Typed::Scalar(left) })
    }

    // An event has no events inside of it, so there is nothing to reduce.
    fn reduced(&mut self, _: Draft, _: Reducer, _: Read) -> Option<Typed<FilterOperand>> {
        None
    }

    fn list_count(_: usize) -> Option<FilterOperand> {
        None
    }

    fn is_in_trait(&self) -> bool {
        self.in_trait
    }
}

impl Lowering<'_, EventScope> {
    /// The field of an event that a function reads.
    fn field(&mut self, call: &Call) -> Option<Field> {
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
            "event" => self.unsupported(call.span, "funnels (`event` inside of `where`)"),
            "trait" | "audience" => {
                let what = format!("`{}` inside of `where` or a reducer", call.name.text);
                self.unsupported(call.span, &what)
            }
            name @ ("everyone" | "random_bucket") => {
                let message = format!("`{name}` is about a profile, so it stands outside of `where`");
                self.error(ErrorKind::Type, call.span, message)
            }
            _ => self.unknown_function(call, &EVENT_FUNCTIONS),
        }
    }
}

/// Events on the way to a leaf.
pub(super) struct Draft {
    event: EventName,
    fields: Vec<Field>,
    filters: Vec<Filter>,
    window: Option<Window>,
    between: Option<(Timestamp, Timestamp)>,
    session: Option<i64>,
}

impl Draft {
    /// `event('X')`.
    pub(super) fn new<S: Scope>(lowering: &mut Lowering<'_, S>, call: &Call) -> Option<Self> {
        let (event, span) = lowering.only_string(call)?;
        if event.is_empty() {
            return lowering.error(ErrorKind::Syntax, span, "the event's name is empty");
        }
        Some(Self {
            event: EventName::parse(event),
            fields: Vec::new(),
            filters: Vec::new(),
            window: None,
            between: None,
            session: None,
        })
    }

    /// `.where(…)`, `.sources(…)`, `.within(…)`, `.between(…)` or `.expires_after(…)`.
    pub(super) fn filter<S: Scope>(mut self, lowering: &mut Lowering<'_, S>, call: &Call) -> Option<Self> {
        match call.name.text.as_str() {
            "where" => {
                self.add_where(lowering, call)?;
                return Some(self);
            }
            "sources" => {
                self.exclude_sources(lowering, call)?;
                return Some(self);
            }
            _ => {}
        }
        if self.window.is_some() || self.between.is_some() || self.session.is_some() {
            return lowering.error(ErrorKind::Type, call.span, "events can have only one window");
        }
        if call.name.text == "between" {
            self.add_between(lowering, call)?;
            return Some(self);
        }
        let length = lowering.only_duration(call)?;
        if length == 0 {
            return lowering.error(ErrorKind::Type, call.span, "a window needs a length");
        }
        if call.name.text == "within" {
            self.window = Some(Window { newest: 0, oldest: length });
        } else {
            self.session = Some(length);
            self.check_session(lowering, call.span)?;
        }
        Some(self)
    }

    /// Sessions are made of events that stay: it is not defined which one an event belongs to that comes and goes.
    fn check_session<S: Scope>(&self, lowering: &mut Lowering<'_, S>, span: Span) -> Option<()> {
        let moves = |filter| state::filter::moves(filter, &self.fields);
        if self.session.is_none() || !self.filters.iter().any(moves) {
            return Some(());
        }
        let message = "`expires_after` cannot be combined with conditions that are relative to now";
        lowering.error(ErrorKind::Type, span, message)
    }

    fn add_where<S: Scope>(&mut self, lowering: &mut Lowering<'_, S>, call: &Call) -> Option<()> {
        let [argument] = call.arguments.as_slice() else {
            return lowering.error(ErrorKind::Syntax, call.span, "`where` needs one condition");
        };
        let ArgumentValue::Expr(condition) = lowering.plain(argument)? else {
            return lowering.error(ErrorKind::Type, argument.span, "`where` needs a condition");
        };
        let filter = self.in_event(lowering, |inner| inner.boolean(condition))?;
        match filter {
            Logic::And(parts) => self.filters.extend(parts),
            other => self.filters.push(other),
        }
        self.check_session(lowering, argument.span)
    }

    /// `.sources(exclude: ['…', …])`.
    fn exclude_sources<S: Scope>(&mut self, lowering: &mut Lowering<'_, S>, call: &Call) -> Option<()> {
        let [Argument { label: Some(label), value, cast: None, .. }] = call.arguments.as_slice() else {
            let message = "`sources` needs the ones to leave out: `sources(exclude: ['…'])`";
            lowering.errors.add_expecting(ErrorKind::Syntax, call.span, message, &["exclude"]);
            return None;
        };
        if label.text != "exclude" {
            lowering.errors.add_unknown(label.span, "label", &label.text, &["exclude"]);
            return None;
        }
        let list = match value {
            ArgumentValue::List(items) if !items.is_empty() => items.as_slice(),
            ArgumentValue::Expr(one) => std::slice::from_ref(one),
            ArgumentValue::Error => return None,
            _ => &[],
        };
        if list.is_empty() {
            return lowering.error(ErrorKind::Syntax, call.span, "`sources` needs at least one source");
        }
        for item in list {
            let ExprKind::Literal(Value::String(name)) = &item.kind else {
                let message = "a source is named by its id or name, in single quotes";
                return lowering.error(ErrorKind::Type, item.span, message);
            };
            let field = Field::Source(SourceName { name: name.to_string(), no: None });
            let left = self.in_event(lowering, |inner| Some(inner.scope.place(field)))?;
            self.filters.push(Logic::Not(Box::new(holds(FilterOperand::Field(left)))));
        }
        Some(())
    }

    fn add_between<S: Scope>(&mut self, lowering: &mut Lowering<'_, S>, call: &Call) -> Option<()> {
        let [first, second] = call.arguments.as_slice() else {
            return lowering.error(ErrorKind::Syntax, call.span, "`between` needs two bounds");
        };
        if let (Some(from), Some(to)) = (instant(first), instant(second)) {
            if from >= to {
                return lowering.error(
                    ErrorKind::Type,
                    call.span,
                    "the first instant must be before the second",
                );
            }
            self.between = Some((from, to));
            return Some(());
        }
        let (newest, oldest) = (lowering.duration(first), lowering.duration(second));
        let (newest, oldest) = (newest?, oldest?);
        if newest > oldest {
            return lowering.error(ErrorKind::Type, call.span, "the first time span must be the shorter one");
        }
        self.window = Some(Window { newest, oldest });
        Some(())
    }

    /// The reducer that a method names. Adds the field it reads.
    pub(super) fn reducer<S: Scope>(
        &mut self,
        lowering: &mut Lowering<'_, S>,
        call: &Call,
    ) -> Option<(Reducer, Read)> {
        let name = call.name.text.as_str();
        if name == "count" {
            lowering.no_arguments(call)?;
            return Some((Reducer::Count, Read::Count));
        }
        let most = if name == "mode" { 2 } else { 1 };
        let (Some(first), true) = (call.arguments.first(), call.arguments.len() <= most) else {
            let message = format!("`{name}` needs what it reads, such as `property('price')`");
            return lowering.error(ErrorKind::Syntax, call.span, message);
        };
        let (field, cast) = self.reduced_field(lowering, name, first)?;
        let text = self.fields.get(field) == Some(&Field::Timestamp);
        if text && (matches!(name, "sum" | "avg") || matches!(cast, Some(Cast::Number | Cast::Array))) {
            return lowering.error(
                ErrorKind::Type,
                first.span,
                "`timestamp()` is neither a number nor a list",
            );
        }
        let extreme = cast.unwrap_or(if text { Cast::String } else { Cast::Number });
        Some(match name {
            "sum" => (Reducer::Total(field), Read::Sum),
            "avg" => (Reducer::Total(field), Read::Average),
            "min" => (Reducer::Min(field, extreme), Read::Value),
            "max" => (Reducer::Max(field, extreme), Read::Value),
            "first" => (Reducer::First(field), Read::Value),
            "last" => (Reducer::Last(field), Read::Value),
            "mode" => (Reducer::Tally(field, cast), Read::Mode(mode_minimum(lowering, call)?)),
            _ => (Reducer::Tally(field, None), Read::Unique),
        })
    }

    /// What a reducer reads, and how.
    fn reduced_field<S: Scope>(
        &mut self,
        lowering: &mut Lowering<'_, S>,
        reducer: &str,
        argument: &Argument,
    ) -> Option<(usize, Option<Cast>)> {
        let cast = match &argument.cast {
            None => None,
            Some(cast) if !matches!(reducer, "min" | "max" | "mode") => {
                let message = "`as` can only be used in `min`, `max` and `mode`";
                return lowering.error(ErrorKind::Type, cast.span, message);
            }
            Some(cast) => Some(match cast.text.as_str() {
                "number" => Cast::Number,
                "string" => Cast::String,
                "array" if reducer == "mode" => Cast::Array,
                "array" => {
                    let message = "`as array` can only be used in `mode`";
                    return lowering.error(ErrorKind::Type, cast.span, message);
                }
                other => {
                    let known = ["number", "string", "array"];
                    let known = if reducer == "mode" { &known[..] } else { &known[..2] };
                    lowering.errors.add_unknown(cast.span, "type", other, known);
                    return None;
                }
            }),
        };
        let plain = Argument { cast: None, ..argument.clone() };
        let ArgumentValue::Expr(Expr { kind: ExprKind::Call(call), .. }) = lowering.plain(&plain)? else {
            let message = format!("`{reducer}` reads `property(…)`, `context(…)` or `timestamp()`");
            lowering.errors.add_expecting(ErrorKind::Type, argument.span, message, &EVENT_FUNCTIONS);
            return None;
        };
        let field = self.in_event(lowering, |inner| {
            let field = inner.field(call)?;
            if field.is_condition() {
                let message = format!("`{}` is a condition; it stands inside of `where`", call.name.text);
                return inner.error(ErrorKind::Type, call.span, message);
            }
            Some(inner.scope.place(field))
        })?;
        Some((field, cast))
    }

    /// Runs `lower` in the scope of one of these events.
    fn in_event<S: Scope, T>(
        &mut self,
        lowering: &mut Lowering<'_, S>,
        lower: impl FnOnce(&mut Lowering<'_, EventScope>) -> Option<T>,
    ) -> Option<T> {
        let scope = EventScope { fields: std::mem::take(&mut self.fields), in_trait: false };
        let mut inner = Lowering { scope, errors: &mut *lowering.errors };
        let result = lower(&mut inner);
        self.fields = inner.scope.fields;
        result
    }

    /// The leaf of these events.
    pub(super) fn finish(self, reducer: Reducer) -> LeafSpec {
        let (moving, still) =
            self.filters.into_iter().partition(|filter| state::filter::moves(filter, &self.fields));
        LeafSpec {
            event: self.event,
            fields: self.fields,
            filter: all_of(still).unwrap_or(Logic::Constant(true)),
            moving_filter: all_of(moving),
            reducer,
            window: self.window,
            between: self.between,
            session: self.session,
            enough: None,
            since: None,
        }
    }
}

/// The condition that a field is true.
fn holds(left: FilterOperand) -> Filter {
    let arguments = vec![FilterOperand::Literal(Value::Bool(true))];
    Logic::Is(Condition { left, op: Op::Equals, arguments })
}

fn all_of(mut filters: Vec<Filter>) -> Option<Filter> {
    if filters.len() > 1 { Some(Logic::And(filters)) } else { filters.pop() }
}

fn mode_minimum<S: Scope>(lowering: &mut Lowering<'_, S>, call: &Call) -> Option<u64> {
    let Some(argument) = call.arguments.get(1) else { return Some(MODE_MINIMUM) };
    let number = match lowering.plain(argument)? {
        ArgumentValue::Expr(Expr { kind: ExprKind::Literal(Value::Number(number)), .. }) => {
            number.to_string().parse().ok().filter(|minimum| *minimum > 0)
        }
        _ => None,
    };
    if number.is_none() {
        let message = "the least number of times a value must occur is a whole number from 1";
        return lowering.error(ErrorKind::Type, argument.span, message);
    }
    number
}

/// The instant of a date literal.
fn instant(argument: &Argument) -> Option<Timestamp> {
    match &argument.value {
        ArgumentValue::Expr(Expr { kind: ExprKind::Literal(value), .. }) if argument.label.is_none() => {
            value.as_timestamp()
        }
        _ => None,
    }
}
