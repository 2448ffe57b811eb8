//! Templates within bounds: no files, no other templates, no macros, so many steps, so much text.
//!
//! What is printed is escaped for where it stands: in a URL it is percent-encoded, in a JSON body it is JSON, quotes and
//! all (`{"email": {{ email }}}`). What is not there may be asked for and tested; printing it is an error, and so is
//! printing null outside of JSON: a URL without its id would be another URL.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minijinja::value::{Rest, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value};
use sha2::{Digest, Sha256};

use crate::deliver::kind::Invalid;
use crate::domain::json;

/// Bytes of a template.
pub(super) const TEMPLATE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of what a template makes.
const RENDERED_BYTES_MAX: usize = 4 << 20;
/// Steps of one rendering, about one for each operation.
const FUEL: u64 = 500_000;
/// Depth of what templates do inside of each other.
const RECURSION_MAX: usize = 32;

/// What a template is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// A header or a body that is no JSON: as it is.
    Text,
    /// A URL: percent-encoded, unless it is marked as `safe`.
    Url,
    /// A body of JSON.
    Json,
    /// An expression that holds or not: makes `1` or nothing.
    Condition,
    /// An expression whose value is told as JSON.
    Value,
}

impl Escape {
    /// The start of the names of such templates, from which the library tells them apart.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Text => "text:",
            Self::Url => "url:",
            Self::Json | Self::Value => "json:",
            Self::Condition => "condition:",
        }
    }
}

/// All templates of a mapping, by name.
pub(super) struct Templates {
    environment: Environment<'static>,
    escapes: BTreeMap<String, Escape>,
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.escapes.keys()).finish()
    }
}

impl Default for Templates {
    fn default() -> Self {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_auto_escape_callback(|name| match name.split_once(':') {
            Some(("json", _)) => AutoEscape::Json,
            Some(("url", _)) => AutoEscape::Custom("url".into()),
            _ => AutoEscape::None,
        });
        environment.set_formatter(print);
        environment.add_filter("compact", compact);
        environment.add_filter("merge", merge);
        environment.add_filter("without", without);
        environment.add_filter("texts", texts);
        environment.add_filter("b64encode", |text: &str| BASE64_STANDARD.encode(text));
        environment.add_filter("sha256", |text: &str| hex::encode(Sha256::digest(text)));
        Self { environment, escapes: BTreeMap::new() }
    }
}

impl Templates {
    /// Adds a template, or says what is wrong with it.
    pub(super) fn add(
        &mut self,
        name: &str,
        escape: Escape,
        text: &str,
        options: &BTreeMap<String, String>,
        secrets: &BTreeMap<String, String>,
    ) -> Result<(), Invalid> {
        let invalid = |message: String| Invalid { field: name.to_owned(), message };
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(invalid(format!("a template may have at most {TEMPLATE_BYTES_MAX} bytes")));
        }
        let source = match escape {
            Escape::Text | Escape::Url | Escape::Json => text.to_owned(),
            // Judged as an expression: it cannot end the tag that it is put into.
            Escape::Condition | Escape::Value => {
                self.environment.compile_expression(text).map_err(|error| invalid(told(&error)))?;
                match escape {
                    Escape::Condition => format!("{{% if {text} %}}1{{% endif %}}"),
                    _ => format!("{{{{ {text} }}}}"),
                }
            }
        };
        let full = format!("{}{name}", escape.prefix());
        let added = self.environment.add_template_owned(full.clone(), source);
        added.map_err(|error| invalid(told(&error)))?;
        let template = self.environment.get_template(&full).map_err(|error| invalid(told(&error)))?;
        for used in template.undeclared_variables(true) {
            let (of, key) = used.split_once('.').unwrap_or((&used, ""));
            let known = match of {
                "options" => options,
                "secrets" => secrets,
                _ => continue,
            };
            let key = key.split('.').next().unwrap_or_default();
            if !key.is_empty() && !known.contains_key(key) {
                return Err(invalid(format!("`{of}.{key}` is used and not set")));
            }
        }
        self.escapes.insert(name.to_owned(), escape);
        Ok(())
    }

    fn render_raw(&self, name: &str, escape: Escape, context: &Value) -> Result<Vec<u8>, Error> {
        let template = self.environment.get_template(&format!("{}{name}", escape.prefix()))?;
        let mut rendered = Bounded(Vec::new());
        template.render_captured_to(context.clone(), &mut rendered)?;
        Ok(rendered.0)
    }

    /// Filters, tests and functions that templates use for a context and that there are not: the library finds them only
    /// by using them.
    pub(super) fn unknown(&self, context: &Value) -> Vec<Invalid> {
        let unknown = |(name, escape): (&String, &Escape)| {
            let error = self.render_raw(name, *escape, context).err()?;
            let is_unknown = matches!(
                error.kind(),
                ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction
            );
            is_unknown.then(|| Invalid { field: name.clone(), message: told(&error) })
        };
        self.escapes.iter().filter_map(unknown).collect()
    }

    /// What a template makes of a context, or why it makes nothing.
    pub(super) fn render(&self, name: &str, context: &Value) -> Result<String, String> {
        let escape = self.escapes.get(name).copied().unwrap_or(Escape::Text);
        let rendered = self.render_raw(name, escape, context).map_err(|error| told(&error))?;
        let text = String::from_utf8(rendered).map_err(|_| "it makes what is no text".to_owned())?;
        if escape != Escape::Json {
            return Ok(text);
        }
        match serde_json::from_str::<&serde_json::value::RawValue>(&text) {
            Ok(_) => Ok(json::compact(text.trim())),
            Err(error) => Err(format!("it makes what is not JSON: {error}")),
        }
    }
}

/// Takes so much text and no more.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.0.len() + text.len() > RENDERED_BYTES_MAX {
            return Err(io::Error::other(format!("it makes more than {RENDERED_BYTES_MAX} bytes")));
        }
        self.0.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is wrong and in which line, without the name that only we know.
fn told(error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let line = error.line().map_or_else(String::new, |line| format!(" (line {line})"));
    // Nobody but this module writes to where templates are rendered to.
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    format!("{what}{cause}{line}")
}

fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let escape = state.auto_escape();
    let is_json = matches!(escape, AutoEscape::Json);
    if value.is_undefined() || (value.is_none() && !is_json) {
        return Err(Error::new(ErrorKind::UndefinedError, "what is printed here is not there"));
    }
    if value.kind() == ValueKind::Bool && !is_json {
        return out.write_str(if value.is_true() { "true" } else { "false" }).map_err(Error::from);
    }
    match escape {
        AutoEscape::Custom(_) if !value.is_safe() => {
            out.write_str(&percent_encoded(&value.to_string())).map_err(Error::from)
        }
        AutoEscape::Custom(_) => out.write_str(&value.to_string()).map_err(Error::from),
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// All bytes but the unreserved characters of RFC 3986 as `%XX`.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn entries(value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    if value.is_undefined() || value.is_none() {
        return Ok(Vec::new());
    }
    if value.kind() != ValueKind::Map {
        return Err(Error::new(ErrorKind::InvalidOperation, "this filter takes an object"));
    }
    value.try_iter()?.map(|key| Ok((key.clone(), value.get_item(&key)?))).collect()
}

/// `| compact`: an object without what is not there; nulls stay.
fn compact(value: &Value) -> Result<Value, Error> {
    Ok(Value::from_pairs(entries(value)?.into_iter().filter(|(_, value)| !value.is_undefined())))
}

/// `| merge(other)`: an object with the entries of another, which win.
fn merge(value: &Value, other: &Value) -> Result<Value, Error> {
    Ok(Value::from_pairs(entries(value)?.into_iter().chain(entries(other)?)))
}

/// `| without('a', 'b')`: an object without some entries.
fn without(value: &Value, names: Rest<String>) -> Result<Value, Error> {
    let names: BTreeSet<String> = names.0.into_iter().collect();
    let stays = |(key, _): &(Value, Value)| !key.as_str().is_some_and(|key| names.contains(key));
    Ok(Value::from_pairs(entries(value)?.into_iter().filter(stays)))
}

/// `| texts`: an object whose values are all texts: lists and objects as JSON, null as the empty text.
fn texts(value: &Value) -> Result<Value, Error> {
    let text = |value: Value| -> Result<Value, Error> {
        if value.as_str().is_some() {
            return Ok(value);
        }
        if value.is_none() || value.is_undefined() {
            return Ok(Value::from(""));
        }
        let written = serde_json::to_string(&value);
        written.map(Value::from).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
    };
    let texts = entries(value)?.into_iter().map(|(key, value)| Ok((key, text(value)?)));
    Ok(Value::from_pairs(texts.collect::<Result<Vec<_>, Error>>()?))
}
