//! Streams of events: `event('X')`, its filters, and the reducer that makes a leaf or a scan of them.

use crate::domain::{Timestamp, Value};
use crate::engine::condition::{Condition, Logic, Op};
use crate::engine::state::{
    self, Cast, EventName, Field, Filter, FilterOperand, LeafSpec, Read, Reducer, SourceName, Window,
};

use super::ast::{Argument, ArgumentValue, Call, Expr, ExprKind};
use super::error::{ErrorKind, Span};
use super::event_scope::EventScope;
use super::funnel;
use super::lower::{Lowering, Scope};
use super::vocabulary::FIELD_FUNCTIONS;

/// How often a value must occur to be the mode when nothing is said (decision R9).
const MODE_MINIMUM: u64 = 2;

/// Events on the way to a leaf or a scan.
pub(super) struct Draft {
    pub(super) event: EventName,
    pub(super) fields: Vec<Field>,
    pub(super) filters: Vec<Filter>,
    pub(super) window: Option<Window>,
    pub(super) between: Option<(Timestamp, Timestamp)>,
    pub(super) session: Option<i64>,
    /// `within(parent: …)`: how long after its parent an event counts, in milliseconds.
    pub(super) after_parent: Option<i64>,
    /// Events inside of `where`, and how they are reduced.
    pub(super) scans: Vec<(Self, Reducer)>,
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
            after_parent: None,
            scans: Vec::new(),
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
            "within" if has_parent(call) => {
                self.after_parent(lowering, call)?;
                return Some(self);
            }
            "expires_after" if lowering.scope.is_event() => {
                let message = "`expires_after` cannot stand inside of another event's `where`";
                return lowering.error(ErrorKind::Type, call.span, message);
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

    /// `.within(parent: 5 days)`.
    fn after_parent<S: Scope>(&mut self, lowering: &mut Lowering<'_, S>, call: &Call) -> Option<()> {
        if !lowering.scope.is_event() {
            let message =
                "`parent:` means the event in whose `where` another `event(…)` stands; this one has none";
            return lowering.error(ErrorKind::Type, call.span, message);
        }
        if self.after_parent.is_some() {
            return lowering.error(ErrorKind::Type, call.span, "`within(parent: …)` is said twice");
        }
        self.after_parent = Some(lowering.only_duration(&without_parent(call))?);
        Some(())
    }

    /// Sessions are made of events that stay: it is not defined which one an event belongs to that comes and goes.
    fn check_session<S: Scope>(&self, lowering: &mut Lowering<'_, S>, span: Span) -> Option<()> {
        let moves = |filter| state::filter::moves(filter, &self.fields) || funnel::is_dynamic(filter);
        if self.session.is_none() || !self.filters.iter().any(moves) {
            return Some(());
        }
        let message = "`expires_after` cannot be combined with conditions that are relative to now, or that read traits or other events";
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
        funnel::check_items(self, lowering, argument.span)?;
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
            lowering.errors.add_expecting(ErrorKind::Type, argument.span, message, &FIELD_FUNCTIONS);
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
        let scope = EventScope {
            fields: std::mem::take(&mut self.fields),
            scans: std::mem::take(&mut self.scans),
            parent: lowering.scope.lend_fields(),
            ..EventScope::default()
        };
        let mut inner = Lowering { scope, errors: &mut *lowering.errors };
        let result = lower(&mut inner);
        let EventScope { fields, scans, parent, traits, .. } = inner.scope;
        self.fields = fields;
        self.scans = scans;
        lowering.scope.take_back(parent, traits);
        result
    }

    /// The leaf of these events.
    pub(super) fn finish(self, reducer: Reducer) -> LeafSpec {
        debug_assert!(!self.is_dynamic(), "those become scans");
        let (moving, still) =
            self.filters.into_iter().partition(|filter| state::filter::moves(filter, &self.fields));
        LeafSpec {
            scope: state::Scope::Own,
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

/// Whether the only argument is labelled `parent`.
pub(super) fn has_parent(call: &Call) -> bool {
    matches!(call.arguments.as_slice(), [Argument { label: Some(label), .. }] if label.text == "parent")
}

/// The same call without the labels of its arguments.
pub(super) fn without_parent(call: &Call) -> Call {
    let plain = |argument: &Argument| Argument { label: None, ..argument.clone() };
    Call { arguments: call.arguments.iter().map(plain).collect(), ..call.clone() }
}

/// The condition that a field is true.
pub(super) fn holds(left: FilterOperand) -> Filter {
    let arguments = vec![FilterOperand::Literal(Value::Bool(true))];
    Logic::Is(Condition { left, op: Op::Equals, arguments })
}

pub(super) fn all_of(mut filters: Vec<Filter>) -> Option<Filter> {
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
