//! Whether a filter holds for an event.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use crate::domain::Number;

use super::ast::{Expr, Operator};
use super::functions::Unfit;

/// Whether an expression is true of an event; null is not.
pub(super) fn condition(expr: &Expr, event: &Value) -> Result<bool, Unfit> {
    match expr {
        Expr::Or(operands) => {
            for operand in operands {
                if condition(operand, event)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Expr::And(operands) => {
            for operand in operands {
                if !condition(operand, event)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Expr::Not(operand) => condition(operand, event).map(|holds| !holds),
        Expr::Comparison(left, operator, right) => {
            compare(value(left, event)?.as_ref(), *operator, value(right, event)?.as_ref())
        }
        Expr::Call(..) | Expr::Path(_) | Expr::Literal(_) => match value(expr, event)?.as_ref() {
            Value::Bool(holds) => Ok(*holds),
            Value::Null => Ok(false),
            _ => Err(Unfit),
        },
    }
}

fn value<'a>(expr: &'a Expr, event: &'a Value) -> Result<Cow<'a, Value>, Unfit> {
    match expr {
        Expr::Path(keys) => {
            let found = keys.iter().try_fold(event, |value, key| value.as_object()?.get(key));
            Ok(Cow::Borrowed(found.unwrap_or(&Value::Null)))
        }
        Expr::Literal(value) => Ok(Cow::Borrowed(value)),
        Expr::Call(function, arguments) => {
            let values = arguments.iter().map(|argument| value(argument, event));
            function.call(&values.collect::<Result<Vec<_>, _>>()?).map(Cow::Owned)
        }
        Expr::Or(_) | Expr::And(_) | Expr::Not(_) | Expr::Comparison(..) => {
            condition(expr, event).map(|holds| Cow::Owned(Value::Bool(holds)))
        }
    }
}

fn compare(left: &Value, operator: Operator, right: &Value) -> Result<bool, Unfit> {
    match operator {
        Operator::Equal => Ok(is_equal(left, right)),
        Operator::NotEqual => Ok(!is_equal(left, right)),
        Operator::In => match right {
            Value::Array(items) => Ok(items.iter().any(|item| is_equal(left, item))),
            Value::Null => Ok(false),
            _ => Err(Unfit),
        },
        Operator::Greater => order(left, right, Ordering::is_gt),
        Operator::GreaterOrEqual => order(left, right, Ordering::is_ge),
        Operator::Less => order(left, right, Ordering::is_lt),
        Operator::LessOrEqual => order(left, right, Ordering::is_le),
    }
}

/// Numbers only; false when one is null.
fn order(left: &Value, right: &Value, holds: impl FnOnce(Ordering) -> bool) -> Result<bool, Unfit> {
    match (left, right) {
        (Value::Null, Value::Null | Value::Number(_)) | (Value::Number(_), Value::Null) => Ok(false),
        (Value::Number(left), Value::Number(right)) => {
            Ok(holds(exact(left).ok_or(Unfit)?.cmp(&exact(right).ok_or(Unfit)?)))
        }
        _ => Err(Unfit),
    }
}

/// Of one type and the same. 1 and 1.0 are one number.
fn is_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || exact(left) == exact(right),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_equal(left, right))
        }
        _ => left == right,
    }
}

fn exact(number: &serde_json::Number) -> Option<Number> {
    Number::parse(&number.to_string())
}
