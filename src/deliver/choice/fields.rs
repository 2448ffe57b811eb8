//! Paths with dots into an event, and what is kept or removed by them.

use serde_json::{Map, Value};

/// Fields that make it an event of the protocol: no list takes them away.
const PROTECTED: [&str; 4] = ["type", "event", "messageId", "timestamp"];

/// Fields that stay when only some are allowed: beside those, whose event it is and for whom.
const KEPT: [&str; 5] = ["userId", "anonymousId", "groupId", "integrations", "context.personas"];

/// Keys that lead to a field: `traits.address.city`. `\` escapes a dot. On the way, it means each element of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    keys: Vec<String>,
}

impl Field {
    /// Reads a path; `None` when it or one of its keys is empty.
    fn parse(text: &str) -> Option<Self> {
        let mut keys = vec![String::new()];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '.' => keys.push(String::new()),
                '\\' => keys.last_mut()?.push(chars.next()?),
                _ => keys.last_mut()?.push(c),
            }
        }
        (!keys.iter().any(String::is_empty)).then_some(Self { keys })
    }

    /// A field of an allow or deny list, or why it cannot be one.
    pub(super) fn parse_listed(text: &str) -> Result<Self, String> {
        let field = Self::parse(text)
            .ok_or_else(|| format!("`{text}` is no field; one is written like `traits.address.city`"))?;
        if PROTECTED.contains(&text) {
            return Err(format!("`{text}` is always sent"));
        }
        Ok(field)
    }

    /// A field that an identifier can be put into, or why it cannot.
    pub(super) fn parse_target(text: &str) -> Result<Self, String> {
        let field = Self::parse(text)
            .ok_or_else(|| format!("`{text}` is no field; one is written like `traits.mail`"))?;
        let is_inside = matches!(field.keys.as_slice(), [head, _, ..] if ["traits", "properties", "context"].contains(&head.as_str()));
        let is_id = ["userId", "anonymousId", "groupId"].contains(&text);
        let is_ours = text == "context.personas" || text.starts_with("context.personas.");
        if (is_inside || is_id) && !is_ours {
            return Ok(field);
        }
        Err(format!(
            "`{text}` cannot take an identifier; `userId`, `anonymousId`, `groupId` and fields in `traits`, \
             `properties` and `context` can"
        ))
    }

    /// Puts a value there, and makes the objects on the way. `traits` and `properties` are both the place where the
    /// values of a call are, so one path serves identify and track.
    pub fn put(&self, event: &mut Value, values: &str, value: Value) {
        let Some((last, way)) = self.keys.split_last() else { return };
        let mut at = event;
        for (place, key) in way.iter().enumerate() {
            let key =
                if place == 0 && ["traits", "properties"].contains(&key.as_str()) { values } else { key };
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            let Some(object) = at.as_object_mut() else { return };
            at = object.entry(key).or_insert(Value::Null);
        }
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        if let Some(object) = at.as_object_mut() {
            object.insert(last.clone(), value);
        }
    }

    /// Takes the field away, in each element of the lists on the way.
    pub(super) fn remove_from(&self, event: &mut Value) {
        remove(&self.keys, event);
    }
}

fn remove(keys: &[String], from: &mut Value) {
    match (from, keys) {
        (Value::Array(items), _) => items.iter_mut().for_each(|item| remove(keys, item)),
        (Value::Object(object), [last]) => drop(object.remove(last)),
        (Value::Object(object), [first, rest @ ..]) => {
            if let Some(inner) = object.get_mut(first) {
                remove(rest, inner);
            }
        }
        _ => {}
    }
}

/// Takes everything away but some fields and what makes it an event.
pub(super) fn keep_only(allowed: &[Field], event: &mut Value) {
    let own = PROTECTED.into_iter().chain(KEPT).filter_map(Field::parse);
    let kept: Vec<Field> = own.chain(allowed.iter().cloned()).collect();
    let paths: Vec<&[String]> = kept.iter().map(|field| field.keys.as_slice()).collect();
    keep(&paths, event);
}

fn keep(paths: &[&[String]], value: &mut Value) {
    if paths.iter().any(|path| path.is_empty()) {
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| keep(paths, item)),
        Value::Object(object) => object.retain(|key, inner| {
            let inside: Vec<&[String]> = paths
                .iter()
                .filter_map(|path| {
                    path.split_first().filter(|(first, _)| *first == key).map(|(_, rest)| rest)
                })
                .collect();
            keep(&inside, inner);
            // An object of which nothing is allowed is nothing, and what is no object has nothing inside of it.
            let is_whole = inside.iter().any(|path| path.is_empty());
            let holds_something = match inner {
                Value::Object(object) => !object.is_empty(),
                Value::Array(_) => true,
                _ => false,
            };
            !inside.is_empty() && (is_whole || holds_something)
        }),
        _ => {}
    }
}
