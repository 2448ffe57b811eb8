//! Syntax tree → plan: gives the names their meaning and checks that they fit together.
//!
//! The same rules hold on a profile and inside of `where`; what differs is the [`Scope`]: which functions can be
//! called there and what they become.

use std::collections::BTreeSet;

use crate::domain::{Collection, Path, Value, trait_names};
use crate::engine::condition::{Condition, Logic, Op, Operand, Pattern, RelativeDate};
use crate::engine::state::{Field, Read, Reducer};

use super::ast::{Argument, ArgumentValue, Call, Expr, ExprKind, Name};
use super::error::{ErrorKind, Errors, Span};
use super::mentions;
use super::narrow::narrow;
use super::plan::{Plan, Root};
use super::profile_scope::ProfileScope;
use super::stream::Draft;
use super::vocabulary::{self, COMPARATORS, FILTERS, REDUCERS, TRAIT_METHODS, Takes};
use super::walk;
use super::{Kind, Shape};

/// Lowers a whole definition; nothing when an error was told.
pub(super) fn lower(
    text: &str,
    tree: &Expr,
    (collection, kind): (Collection, Kind),
    errors: &mut Errors,
) -> Option<Plan> {
    let mut lowering = Lowering { scope: ProfileScope::of(collection), errors };
    let root = match kind {
        Kind::Audience => lowering.boolean(tree).map(Root::Condition),
        Kind::ComputedTrait => lowering.output(tree).map(Root::Value),
    };
    let ProfileScope { leaves, traits, traits_of_users, scans, quantifiers, .. } = lowering.scope;
    let (mut leaves, numbers) = leaves.finish();
    let root = root?;
    narrow(&root, &quantifiers, &mut leaves);
    Some(Plan {
        text: text.to_owned(),
        kind,
        collection,
        root,
        quantifiers,
        operands: outermost_operands(tree),
        shape: Shape::of(tree),
        leaves,
        numbers,
        traits: traits.union(&traits_of_users).cloned().collect(),
        traits_of_users: traits_of_users.into_iter().collect(),
        traits_of_profile: traits.into_iter().collect(),
        scans,
        sources: walk::sources(tree),
        mentions: mentions::mentions(tree),
    })
}

fn outermost_operands(tree: &Expr) -> Vec<Span> {
    match &tree.kind {
        ExprKind::Group(inner) => outermost_operands(inner),
        ExprKind::And(parts) | ExprKind::Or(parts) => parts.iter().map(|part| part.span).collect(),
        _ => vec![tree.span],
    }
}

/// What an expression is.
pub(super) enum Typed<O> {
    /// A condition.
    Boolean(Logic<Condition<O>>),
    /// A value.
    Scalar(O),
    /// A list.
    List(O),
    /// Events that are not reduced to a value yet.
    Stream(Draft),
}

/// Where an expression stands.
pub(super) trait Scope: Sized {
    /// What values are read from.
    type Operand: Operand;

    /// A value written in the query.
    fn literal(value: Value) -> Self::Operand;

    /// The meaning of a function; tells the error when it has none here.
    fn function(lowering: &mut Lowering<'_, Self>, call: &Call) -> Option<Typed<Self::Operand>>;

    /// `ANY` and `ALL`.
    fn quantified(
        lowering: &mut Lowering<'_, Self>,
        keyword: &Name,
        operand: &Expr,
    ) -> Option<Logic<Condition<Self::Operand>>>;

    /// The value of reduced events.
    fn reduced(&mut self, draft: Draft, reducer: Reducer, read: Read) -> Option<Typed<Self::Operand>>;

    /// The number of elements of a list.
    fn list_count(list: Self::Operand) -> Option<Self::Operand>;

    /// Since when a trait has had its value; nothing where that is not known.
    fn held_since(&mut self, _operand: Self::Operand) -> Option<Self::Operand> {
        None
    }

    /// Whether it is an event, so that events inside of it come after it.
    fn is_event(&self) -> bool {
        false
    }

    /// The fields of the event it is, to become those of a parent; to be given back.
    fn lend_fields(&mut self) -> Option<Vec<Field>> {
        None
    }

    /// Gives back what was lent, and the traits that were read meanwhile.
    fn take_back(&mut self, _fields: Option<Vec<Field>>, mut traits: BTreeSet<String>) {
        self.traits().append(&mut traits);
    }

    /// The traits it reads, by their canonical names.
    fn traits(&mut self) -> &mut BTreeSet<String>;

    /// Whether there is no event, but a trait.
    fn is_in_trait(&self) -> bool;
}

/// The walk through a tree in one scope.
pub(super) struct Lowering<'e, S> {
    pub(super) scope: S,
    pub(super) errors: &'e mut Errors,
}

impl<S: Scope> Lowering<'_, S> {
    /// The path of a trait; notes that it is read.
    pub(super) fn trait_path(&mut self, call: &Call) -> Option<Path> {
        let path = self.path(call)?;
        let head = trait_names::canonical(path.head()).into_owned();
        self.scope.traits().insert(head.clone());
        Some(path.with_head(head))
    }

    /// Tells an error. Always nothing, so that it can end a function.
    pub(super) fn error<T>(&mut self, kind: ErrorKind, span: Span, message: impl Into<String>) -> Option<T> {
        self.errors.add(kind, span, message);
        None
    }

    pub(super) fn unknown_function<T>(&mut self, call: &Call, known: &[&str]) -> Option<T> {
        let name = call.name.text.as_str();
        if name == "entity" {
            let message = "`entity` reads linked tables of a warehouse, which do not exist here; send what they hold as \
                traits or events, and use `trait('…')` or `event('…')`";
            return self.error(ErrorKind::Unsupported, call.span, message);
        }
        self.errors.add_unknown(call.name.span, "function", name, known);
        None
    }

    /// A condition.
    pub(super) fn boolean(&mut self, expr: &Expr) -> Option<Logic<Condition<S::Operand>>> {
        match &expr.kind {
            ExprKind::And(parts) => self.all(parts).map(Logic::And),
            ExprKind::Or(parts) => self.all(parts).map(Logic::Or),
            ExprKind::Not(operand) => Some(Logic::Not(Box::new(self.boolean(operand)?))),
            ExprKind::Group(inner) => self.boolean(inner),
            ExprKind::Quantifier(keyword, operand) => S::quantified(self, keyword, operand),
            _ => {
                if let Typed::Boolean(condition) = self.typed(expr)? {
                    return Some(condition);
                }
                let message = "this is a value, not a condition; compare it with something";
                self.errors.add_expecting(ErrorKind::Type, expr.span, message, &COMPARATORS);
                None
            }
        }
    }

    /// All conditions. Goes on after an error, to tell all of them.
    fn all(&mut self, parts: &[Expr]) -> Option<Vec<Logic<Condition<S::Operand>>>> {
        let parts: Vec<_> = parts.iter().map(|part| self.boolean(part)).collect();
        parts.into_iter().collect()
    }

    /// Any expression.
    pub(super) fn typed(&mut self, expr: &Expr) -> Option<Typed<S::Operand>> {
        match &expr.kind {
            ExprKind::Error => None,
            ExprKind::Group(inner) => self.typed(inner),
            ExprKind::Literal(value) => Some(Typed::Scalar(S::literal(value.clone()))),
            ExprKind::Call(call) => S::function(self, call),
            ExprKind::Method(base, call) => {
                let typed = self.typed(base)?;
                self.method(typed, call)
            }
            ExprKind::Comparison(left, symbol, right) => {
                let (left, right) = (self.scalar(left), self.scalar(right));
                let op = vocabulary::symbol(&symbol.text);
                Some(Typed::Boolean(Logic::Is(Condition { left: left?, op, arguments: vec![right?] })))
            }
            ExprKind::And(_) | ExprKind::Or(_) | ExprKind::Not(_) | ExprKind::Quantifier(..) => {
                self.boolean(expr).map(Typed::Boolean)
            }
        }
    }

    /// A value; events alone are counted.
    fn scalar(&mut self, expr: &Expr) -> Option<S::Operand> {
        let typed = self.typed(expr)?;
        self.scalar_of(typed, expr.span)
    }

    fn scalar_of(&mut self, typed: Typed<S::Operand>, span: Span) -> Option<S::Operand> {
        match typed {
            Typed::Scalar(operand) => Some(operand),
            Typed::Stream(draft) => match self.scope.reduced(draft, Reducer::Count, Read::Count)? {
                Typed::Scalar(operand) => Some(operand),
                _ => None,
            },
            Typed::List(_) => {
                let message = "a list cannot be compared; compare its `.count()`";
                self.errors.add_expecting(ErrorKind::Type, span, message, &["count"]);
                None
            }
            Typed::Boolean(_) => {
                self.error(ErrorKind::Type, span, "a value is needed here, and this is already a condition")
            }
        }
    }

    fn method(&mut self, base: Typed<S::Operand>, call: &Call) -> Option<Typed<S::Operand>> {
        let name = call.name.text.as_str();
        if TRAIT_METHODS.contains(&name) {
            return self.held_for(base, call);
        }
        let comparator = vocabulary::comparator(name);
        let known = comparator.is_some() || FILTERS.contains(&name) || REDUCERS.contains(&name);
        match (base, comparator) {
            (Typed::Boolean(_), _) if known => {
                self.error(ErrorKind::Type, call.name.span, format!("`{name}` cannot follow a comparison"))
            }
            (base @ (Typed::Scalar(_) | Typed::Stream(_) | Typed::List(_)), Some(takes)) => {
                let left = self.scalar_of(base, call.name.span)?;
                let (op, arguments) = self.comparator(takes, call)?;
                Some(Typed::Boolean(Logic::Is(Condition { left, op, arguments })))
            }
            (Typed::Stream(draft), _) if FILTERS.contains(&name) => {
                draft.filter(self, call).map(Typed::Stream)
            }
            (Typed::Stream(mut draft), _) if REDUCERS.contains(&name) => {
                let (reducer, read) = draft.reducer(self, call)?;
                self.scope.reduced(draft, reducer, read)
            }
            (Typed::List(list), _) if name == "count" => {
                self.no_arguments(call)?;
                S::list_count(list).map(Typed::Scalar)
            }
            (Typed::Scalar(_) | Typed::List(_), _) if known => {
                let message = format!("`{name}` can only follow events, before they are reduced to a value");
                self.error(ErrorKind::Type, call.name.span, message)
            }
            (base, _) => {
                let mut candidates = [&COMPARATORS[..], &TRAIT_METHODS].concat();
                if matches!(base, Typed::Stream(_)) {
                    candidates = [&FILTERS[..], &REDUCERS, &COMPARATORS].concat();
                }
                self.errors.add_unknown(call.name.span, "method", name, &candidates);
                None
            }
        }
    }

    /// `trait('x').held_for(3 days)`: the instant from which on it has had its value is at least so long ago.
    fn held_for(&mut self, base: Typed<S::Operand>, call: &Call) -> Option<Typed<S::Operand>> {
        let length = self.only_duration(call)?;
        let held = match base {
            Typed::Scalar(operand) => self.scope.held_since(operand),
            _ => None,
        };
        let Some(left) = held else {
            let message = "`held_for` can only follow `trait('…')`, outside of `where`";
            return self.error(ErrorKind::Type, call.name.span, message);
        };
        let op = Op::Relative(RelativeDate::BeforeLast, length);
        Some(Typed::Boolean(Logic::Is(Condition { left, op, arguments: Vec::new() })))
    }

    fn comparator(&mut self, takes: Takes, call: &Call) -> Option<(Op, Vec<S::Operand>)> {
        match takes {
            Takes::Nothing(op) => {
                self.no_arguments(call)?;
                Some((op, Vec::new()))
            }
            Takes::One(op) => Some((op, vec![self.only_value(call)?])),
            Takes::Some(op) => {
                if call.arguments.is_empty() {
                    return self.error(
                        ErrorKind::Syntax,
                        call.span,
                        format!("`{}` needs a value", call.name.text),
                    );
                }
                let values: Vec<_> = call.arguments.iter().map(|argument| self.value(argument)).collect();
                Some((op, values.into_iter().collect::<Option<_>>()?))
            }
            Takes::Date(op) => {
                let date = self.only_value(call)?;
                if date.literal().is_some_and(|value| value.as_timestamp().is_none()) {
                    let span = call.arguments.first().map_or(call.span, |argument| argument.span);
                    return self.error(
                        ErrorKind::Type,
                        span,
                        "this is not a date; write 2024-01-31 or a timestamp",
                    );
                }
                Some((op, vec![date]))
            }
            Takes::Span(date) => {
                let distance = self.only_duration(call)?;
                Some((Op::Relative(date, distance), Vec::new()))
            }
            Takes::Pattern => {
                let (text, span) = self.only_string(call)?;
                match Pattern::new(text) {
                    Ok(pattern) => Some((Op::Matches(pattern), Vec::new())),
                    Err(reason) => {
                        self.error(ErrorKind::Type, span, format!("not a regular expression: {reason}"))
                    }
                }
            }
        }
    }

    /// A plain expression as argument.
    fn value(&mut self, argument: &Argument) -> Option<S::Operand> {
        match self.plain(argument)? {
            ArgumentValue::Expr(expr) => self.scalar(expr),
            _ => self.error(ErrorKind::Type, argument.span, "a value is needed here"),
        }
    }

    fn only_value(&mut self, call: &Call) -> Option<S::Operand> {
        let argument = self.only(call, "one value")?;
        self.value(argument)
    }

    pub(super) fn only_duration(&mut self, call: &Call) -> Option<i64> {
        let argument = self.only(call, "a time span such as `7 days`")?;
        self.duration(argument)
    }

    /// `7 days`, in milliseconds.
    pub(super) fn duration(&mut self, argument: &Argument) -> Option<i64> {
        if let ArgumentValue::Duration(millis) = self.plain(argument)? {
            return Some(*millis);
        }
        let units = ["seconds", "minutes", "hours", "days", "weeks"];
        let message = "a time span is a number and a unit, such as `7 days`";
        self.errors.add_expecting(ErrorKind::Syntax, argument.span, message, &units);
        None
    }

    /// The only argument, a string literal.
    pub(super) fn only_string<'c>(&mut self, call: &'c Call) -> Option<(&'c str, Span)> {
        let argument = self.only(call, "a name in single quotes")?;
        self.string(call, argument)
    }

    fn string<'c>(&mut self, call: &Call, argument: &'c Argument) -> Option<(&'c str, Span)> {
        if let ArgumentValue::Expr(Expr { kind: ExprKind::Literal(Value::String(text)), span }) =
            self.plain(argument)?
        {
            return Some((text, *span));
        }
        let message = format!("`{}` needs a string in single quotes", call.name.text);
        self.errors.add_expecting(ErrorKind::Syntax, argument.span, message, &["'…'"]);
        None
    }

    /// The only argument, a dotted name.
    pub(super) fn path(&mut self, call: &Call) -> Option<Path> {
        let argument = self.only(call, "a name in single quotes")?;
        self.path_in(call, argument)
    }

    /// An argument that is a dotted name.
    pub(super) fn path_in(&mut self, call: &Call, argument: &Argument) -> Option<Path> {
        let (text, span) = self.string(call, argument)?;
        Path::parse(text).or_else(|| {
            let message = if text == "$" || text.starts_with("$.") {
                "`$` is each element of a list, so the list's name stands before it"
            } else {
                "a name is empty here; a dot inside of a name is written `\\\\.`"
            };
            self.error(ErrorKind::Syntax, span, message)
        })
    }

    fn only<'c>(&mut self, call: &'c Call, what: &str) -> Option<&'c Argument> {
        if let [argument] = call.arguments.as_slice() {
            return Some(argument);
        }
        self.error(ErrorKind::Syntax, call.span, format!("`{}` needs {what}", call.name.text))
    }

    pub(super) fn no_arguments(&mut self, call: &Call) -> Option<()> {
        match call.arguments.first() {
            None => Some(()),
            Some(argument) => {
                self.error(ErrorKind::Syntax, argument.span, format!("`{}()` takes nothing", call.name.text))
            }
        }
    }

    /// The value of an argument that may have neither label nor cast; nothing when it could not be read.
    pub(super) fn plain<'c>(&mut self, argument: &'c Argument) -> Option<&'c ArgumentValue> {
        if let Some(Name { text, span }) = &argument.label {
            if text == "parent" {
                let message = "`parent:` can only stand in `within`, `property` and `context`, for an `event(…)` inside of another one's `where`";
                return self.error(ErrorKind::Type, argument.span, message);
            }
            self.errors.add_unknown(*span, "label", text, &["parent"]);
            return None;
        }
        if let Some(cast) = &argument.cast {
            return self.error(
                ErrorKind::Type,
                cast.span,
                "`as` can only be used in `min`, `max` and `mode`",
            );
        }
        match &argument.value {
            ArgumentValue::Error | ArgumentValue::Expr(Expr { kind: ExprKind::Error, .. }) => None,
            value => Some(value),
        }
    }
}
