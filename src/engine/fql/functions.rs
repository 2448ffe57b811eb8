//! The functions of the language: their names, what they take and what they give.

use std::borrow::Cow;

use heck::{ToKebabCase, ToSnakeCase, ToTitleCase};
use serde_json::Value;

use super::ast::Type;
use super::glob::Glob;

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Contains,
    Length,
    Lowercase,
    Uppercase,
    Snakecase,
    Kebabcase,
    Titlecase,
    Typeof,
    Match,
    Bool,
    String,
    Number,
}

/// Each function as it is written.
pub(super) const FUNCTIONS: [(&str, Function); 12] = [
    ("contains", Function::Contains),
    ("length", Function::Length),
    ("lowercase", Function::Lowercase),
    ("uppercase", Function::Uppercase),
    ("snakecase", Function::Snakecase),
    ("kebabcase", Function::Kebabcase),
    ("titlecase", Function::Titlecase),
    ("typeof", Function::Typeof),
    ("match", Function::Match),
    ("bool", Function::Bool),
    ("string", Function::String),
    ("number", Function::Number),
];

/// What a function was given makes no sense for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit;

impl Function {
    /// As it is written.
    pub(super) fn name(self) -> &'static str {
        FUNCTIONS.iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }

    /// What it takes: any of these types (or null) in each place.
    pub(super) const fn takes(self) -> &'static [&'static [Type]] {
        const ALL: &[Type] = &[Type::Any, Type::Bool, Type::Number, Type::String, Type::List];
        match self {
            Self::Contains | Self::Match => &[&[Type::String], &[Type::String]],
            Self::Length => &[&[Type::String, Type::List]],
            Self::Lowercase | Self::Uppercase | Self::Snakecase | Self::Kebabcase | Self::Titlecase => {
                &[&[Type::String]]
            }
            Self::Typeof => &[ALL],
            Self::Bool | Self::String | Self::Number => &[&[Type::Bool, Type::Number, Type::String]],
        }
    }

    /// What it gives.
    pub(super) const fn returns(self) -> Type {
        match self {
            Self::Contains | Self::Match | Self::Bool => Type::Bool,
            Self::Length | Self::Number => Type::Number,
            _ => Type::String,
        }
    }

    /// Its value. What is null gives the sensible default; what is of another type than it takes is unfit.
    pub(super) fn call(self, arguments: &[Cow<'_, Value>]) -> Result<Value, Unfit> {
        let argument = |place: usize| arguments.get(place).map_or(&Value::Null, Cow::as_ref);
        let (first, second) = (argument(0), argument(1));
        match self {
            Self::Contains => two_texts(first, second, |text, part| Ok(text.contains(part))),
            Self::Match => two_texts(first, second, |text, pattern| {
                Ok(Glob::parse(pattern).map_err(|_| Unfit)?.matches(text))
            }),
            Self::Length => match first {
                Value::Null => Ok(0.into()),
                Value::String(text) => Ok(text.len().into()),
                Value::Array(items) => Ok(items.len().into()),
                _ => Err(Unfit),
            },
            Self::Lowercase => text(first, str::to_lowercase),
            Self::Uppercase => text(first, str::to_uppercase),
            Self::Snakecase => text(first, ToSnakeCase::to_snake_case),
            Self::Kebabcase => text(first, ToKebabCase::to_kebab_case),
            Self::Titlecase => text(first, ToTitleCase::to_title_case),
            Self::Typeof => Ok(type_name(first).into()),
            Self::Bool => to_bool(first),
            Self::String => to_string(first),
            Self::Number => to_number(first),
        }
    }
}

/// False when either is null.
fn two_texts(
    first: &Value,
    second: &Value,
    holds: impl FnOnce(&str, &str) -> Result<bool, Unfit>,
) -> Result<Value, Unfit> {
    match (first, second) {
        (Value::String(first), Value::String(second)) => holds(first, second).map(Value::Bool),
        (Value::Null, Value::String(_) | Value::Null) | (Value::String(_), Value::Null) => {
            Ok(Value::Bool(false))
        }
        _ => Err(Unfit),
    }
}

/// Null when it is null.
fn text(value: &Value, change: impl FnOnce(&str) -> String) -> Result<Value, Unfit> {
    match value {
        Value::Null => Ok(Value::Null),
        Value::String(text) => Ok(Value::String(change(text))),
        _ => Err(Unfit),
    }
}

const fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// `'true'` and `'false'`, and whether a number is not 0; null for other texts.
fn to_bool(value: &Value) -> Result<Value, Unfit> {
    match value {
        Value::Null | Value::Bool(_) => Ok(value.clone()),
        Value::Number(number) => Ok(Value::Bool(number.as_f64() != Some(0.0))),
        Value::String(text) => Ok(text.parse().map_or(Value::Null, Value::Bool)),
        _ => Err(Unfit),
    }
}

fn to_string(value: &Value) -> Result<Value, Unfit> {
    match value {
        Value::Null | Value::String(_) => Ok(value.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(Value::String(value.to_string())),
        _ => Err(Unfit),
    }
}

/// 1 for true, 0 for false; null for texts that are no number.
fn to_number(value: &Value) -> Result<Value, Unfit> {
    match value {
        Value::Null | Value::Number(_) => Ok(value.clone()),
        Value::Bool(is_true) => Ok(i32::from(*is_true).into()),
        Value::String(text) => Ok(serde_json::from_str(text.trim()).map_or(Value::Null, Value::Number)),
        _ => Err(Unfit),
    }
}
