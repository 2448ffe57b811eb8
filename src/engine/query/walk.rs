//! What can be told of a query from its tree alone: the sources it names, message types that do not exist, and lists
//! where one value is needed.

use crate::domain::{Path, Value};

use super::ast::{Argument, ArgumentValue, Call, Expr, ExprKind};
use super::error::{ErrorKind, Errors, Span};
use super::vocabulary::{self, MESSAGE_TYPES};

/// Calls `visit` with each expression, outermost first.
fn each<'t>(expr: &'t Expr, visit: &mut impl FnMut(&'t Expr)) {
    visit(expr);
    match &expr.kind {
        ExprKind::And(parts) | ExprKind::Or(parts) => parts.iter().for_each(|part| each(part, visit)),
        ExprKind::Not(inner) | ExprKind::Quantifier(_, inner) | ExprKind::Group(inner) => each(inner, visit),
        ExprKind::Comparison(left, _, right) => {
            each(left, visit);
            each(right, visit);
        }
        ExprKind::Method(base, call) => {
            each(base, visit);
            each_argument(call, visit);
        }
        ExprKind::Call(call) => each_argument(call, visit),
        ExprKind::Literal(_) | ExprKind::Error => {}
    }
}

fn each_argument<'t>(call: &'t Call, visit: &mut impl FnMut(&'t Expr)) {
    for part in call.arguments.iter().flat_map(parts) {
        each(part, visit);
    }
}

/// The expressions of an argument.
fn parts(argument: &Argument) -> &[Expr] {
    match &argument.value {
        ArgumentValue::Expr(expr) => std::slice::from_ref(expr),
        ArgumentValue::List(items) => items,
        ArgumentValue::Duration(_) | ArgumentValue::Error => &[],
    }
}

fn text(expr: &Expr) -> Option<(&str, Span)> {
    match &expr.kind {
        ExprKind::Literal(Value::String(text)) => Some((text, expr.span)),
        _ => None,
    }
}

/// The sources named in `source('…')` and `sources(exclude: […])`, and where.
pub(super) fn sources(tree: &Expr) -> Vec<(String, Span)> {
    let mut found = Vec::new();
    each(tree, &mut |expr| {
        let (ExprKind::Call(call) | ExprKind::Method(_, call)) = &expr.kind else { return };
        if matches!(call.name.text.as_str(), "source" | "sources") {
            let names = call.arguments.iter().flat_map(parts).filter_map(text);
            found.extend(names.map(|(name, span)| (name.to_owned(), span)));
        }
    });
    found
}

/// Refuses comparisons of `message_type()` with what no event's type can be.
pub(super) fn check_message_types(tree: &Expr, errors: &mut Errors) {
    each(tree, &mut |expr| match &expr.kind {
        ExprKind::Comparison(left, _, right) if is_message_type(left) => check(right, errors),
        ExprKind::Comparison(left, _, right) if is_message_type(right) => check(left, errors),
        ExprKind::Method(base, call) if is_message_type(base) => {
            if matches!(call.name.text.as_str(), "equals" | "differs" | "one_of" | "none_of") {
                call.arguments.iter().flat_map(parts).for_each(|part| check(part, errors));
            }
        }
        _ => {}
    });
}

fn is_message_type(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::Call(call) if call.name.text == "message_type")
}

fn check(expr: &Expr, errors: &mut Errors) {
    let Some((name, span)) = text(expr).filter(|(name, _)| !MESSAGE_TYPES.contains(name)) else { return };
    if matches!(name, "identify" | "group" | "alias") {
        let message = format!("`{name}` calls are no events; conditions on what they set are `trait('…')`");
        errors.add_expecting(ErrorKind::Type, span, message, &MESSAGE_TYPES);
    } else {
        errors.add_unknown(span, "message type", name, &MESSAGE_TYPES);
    }
}

/// Refuses `$` on the right side of a comparison: there it would not be clear whether any or all elements are meant.
pub(super) fn check_lists(tree: &Expr, errors: &mut Errors) {
    each(tree, &mut |expr| {
        let rights = match &expr.kind {
            ExprKind::Comparison(_, _, right) => std::slice::from_ref(&**right),
            ExprKind::Method(_, call) if vocabulary::comparator(&call.name.text).is_some() => {
                return call.arguments.iter().flat_map(parts).for_each(|part| check_list(part, errors));
            }
            _ => &[],
        };
        for right in rights {
            check_list(right, errors);
        }
    });
}

fn check_list(expr: &Expr, errors: &mut Errors) {
    let ExprKind::Call(call) = &expr.kind else { return };
    let is_field = matches!(call.name.text.as_str(), "property" | "context" | "trait");
    let path = call.arguments.iter().flat_map(parts).find_map(text);
    if is_field && path.and_then(|(path, _)| Path::parse(path)).is_some_and(|path| path.reads_list()) {
        let message = "`$` means any element of a list, so it can only stand on the left of a comparison";
        errors.add(ErrorKind::Type, expr.span, message);
    }
}
