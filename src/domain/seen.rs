//! What has been seen of the events of one name, or of the traits of one collection: fields, their types, how often, and
//! their most frequent values. For people who write queries; nothing is computed from it.
//!
//! Bounded whatever comes: at most [`FIELDS`] fields with [`VALUES`] values each. Of the first [`ALL_UP_TO`] events
//! everything is looked at, of later ones every [`STRIDE`]th, which then counts for as many: counts of fields are
//! estimates from there on, those of events are exact.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Timestamp, json};

/// Fields of one name; others are left out, and that is said.
pub const FIELDS: usize = 200;
/// Values kept of a field while counting.
pub const VALUES: usize = 20;
/// Events of a name that are all looked into.
pub const ALL_UP_TO: u64 = 1_000;
/// Of later ones each of so many.
pub const STRIDE: u64 = 32;
/// Longest value that is kept, in bytes of JSON.
const VALUE_BYTES_MAX: usize = 100;
/// Longest path of a field, in bytes.
const PATH_BYTES_MAX: usize = 255;
/// How deep objects are looked into.
const DEPTH: usize = 3;
/// Elements of a list that are looked at.
const ELEMENTS: usize = 5;

/// The types a value can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// Text.
    String,
    /// Text that is a date or a timestamp.
    Date,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// Null.
    Null,
    /// An object.
    Object,
    /// A list.
    List,
}

/// What has been seen of one name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Events, exact.
    pub count: u64,
    /// Time of receipt of the first.
    pub first: Timestamp,
    /// Time of receipt of the newest.
    pub last: Timestamp,
    /// Its fields, as they are written in a query.
    pub fields: Fields,
}

/// The fields of one name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fields {
    /// By path, as `property('…')` takes it.
    pub known: BTreeMap<String, Field>,
    /// There were more than [`FIELDS`].
    pub is_cut: bool,
}

/// What has been seen of one field.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Field {
    /// How often it was there.
    pub count: u64,
    /// Of what type.
    pub types: BTreeMap<Type, u64>,
    /// Scalars as JSON, with how often at most they were there: the most frequent ones are among them.
    values: Vec<(String, u64)>,
    /// There were more: some have the counts of others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    evicted: bool,
}

impl Seen {
    /// Notes one event and what is in it: a JSON object, or nothing.
    pub fn note(&mut self, body: &str, received_at: Timestamp) {
        if self.count == 0 {
            self.first = received_at;
        }
        self.count += 1;
        self.last = self.last.max(received_at);
        let weight = match self.count {
            count if count <= ALL_UP_TO => 1,
            count if count.is_multiple_of(STRIDE) => STRIDE,
            _ => return,
        };
        let fields = &mut self.fields;
        visit_all(body, &mut |path, kind, raw| fields.note(path, kind, raw, weight));
    }

    /// Takes the values of an event out that was noted before and is erased. How often there was what stays.
    pub fn forget(&mut self, body: &str) -> bool {
        let (fields, mut changed) = (&mut self.fields, false);
        visit_all(body, &mut |path, _, raw| {
            let known = fields.known.get_mut(path);
            changed |= known.is_some_and(|field| field.forget(raw));
            true
        });
        changed
    }
}

/// Hands over every field of an object with its path, type and value; what lies within one only where it is asked for.
fn visit_all(body: &str, visit: &mut impl FnMut(&str, Type, &str) -> bool) {
    for (key, value) in json::entries(body) {
        visit_field(&step(&key), value, DEPTH, visit);
    }
}

fn visit_field(path: &str, raw: &str, depth: usize, visit: &mut impl FnMut(&str, Type, &str) -> bool) {
    let kind = kind_of(raw);
    if !visit(path, kind, raw) || depth == 0 {
        return;
    }
    match kind {
        Type::Object => {
            for (key, value) in json::entries(raw) {
                visit_field(&format!("{path}.{}", step(&key)), value, depth - 1, visit);
            }
        }
        Type::List => {
            for element in json::elements(raw).take(ELEMENTS) {
                match kind_of(element) {
                    Type::Object => {
                        for (key, value) in json::entries(element) {
                            visit_field(&format!("{path}.$.{}", step(&key)), value, depth - 1, visit);
                        }
                    }
                    _ => visit_field(&format!("{path}.$"), element, 0, visit),
                }
            }
        }
        _ => {}
    }
}

/// A key as a path writes it.
fn step(key: &str) -> String {
    let escaped = key.replace('\\', "\\\\").replace('.', "\\.");
    if escaped == "$" { "\\$".to_owned() } else { escaped }
}

impl Fields {
    /// Notes one; whether what lies within it is to be noted, too.
    fn note(&mut self, path: &str, kind: Type, raw: &str, weight: u64) -> bool {
        if path.len() > PATH_BYTES_MAX || (self.known.len() >= FIELDS && !self.known.contains_key(path)) {
            self.is_cut = true;
            return false;
        }
        self.known.entry(path.to_owned()).or_default().note(kind, raw, weight);
        true
    }
}

fn kind_of(raw: &str) -> Type {
    match raw.as_bytes().first() {
        Some(b'"') => {
            let text = raw.trim_matches('"');
            let may_be_date = text.len() >= 10 && text.as_bytes().get(4) == Some(&b'-');
            if may_be_date && Timestamp::parse(text).is_some() { Type::Date } else { Type::String }
        }
        Some(b'{') => Type::Object,
        Some(b'[') => Type::List,
        Some(b't' | b'f') => Type::Boolean,
        Some(b'n') => Type::Null,
        _ => Type::Number,
    }
}

impl Field {
    fn note(&mut self, kind: Type, raw: &str, weight: u64) {
        self.count += weight;
        *self.types.entry(kind).or_default() += weight;
        let is_scalar = matches!(kind, Type::String | Type::Number | Type::Boolean);
        if !is_scalar || raw.len() > VALUE_BYTES_MAX {
            return;
        }
        // The "space saving" of Metwally, Agrawal and El Abbadi: a new value takes the place of the rarest one, and its
        // count, so that no frequent value can be missed.
        if let Some((_, count)) = self.values.iter_mut().find(|(known, _)| known == raw) {
            *count += weight;
        } else if self.values.len() < VALUES {
            self.values.push((raw.to_owned(), weight));
        } else if let Some(rarest) = self.values.iter_mut().min_by_key(|(_, count)| *count) {
            *rarest = (raw.to_owned(), rarest.1 + weight);
            self.evicted = true;
        }
    }

    /// Takes a value out: once, where it is known how often it was there, else for good.
    fn forget(&mut self, raw: &str) -> bool {
        let Some(place) = self.values.iter().position(|(known, _)| known == raw) else { return false };
        match self.values.get_mut(place) {
            Some((_, count)) if !self.evicted && *count > 1 => *count -= 1,
            _ => _ = self.values.swap_remove(place),
        }
        true
    }

    /// The most frequent values, as JSON, with how often they were there at most. Without those of which there is no
    /// telling whether they came again: whoever is the only one with a value is not shown.
    pub fn top_values(&self, most: usize) -> Vec<(&str, u64)> {
        let is_full = self.values.len() >= VALUES;
        let least = self.values.iter().map(|(_, count)| *count).min().filter(|_| is_full).unwrap_or(0);
        let mut top: Vec<(&str, u64)> = self
            .values
            .iter()
            .filter(|(_, count)| *count > least.max(1))
            .map(|(value, count)| (value.as_str(), *count))
            .collect();
        top.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        top.truncate(most);
        top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(bodies: &[&str]) -> Seen {
        let mut seen = Seen::default();
        for (at, body) in bodies.iter().enumerate() {
            seen.note(body, Timestamp::from_millis(at as i64 + 5));
        }
        seen
    }

    #[test]
    fn fields_are_found_where_queries_find_them() {
        let body = r#"{"total":5,"at":"2024-01-31","a.b":null,"ship":{"city":"Lyon","x":{"y":{"z":{"deep":1}}}},
            "items":[{"sku":"A"},{"sku":"B","n":2}],"tags":["x",true]}"#;
        let seen = seen(&[body, r#"{"total":"5"}"#]);
        let of = |path: &str| {
            seen.fields.known.get(path).map(|f| (f.count, f.types.keys().copied().collect::<Vec<_>>()))
        };
        assert_eq!(of("total"), Some((2, vec![Type::String, Type::Number])));
        assert_eq!(of("at"), Some((1, vec![Type::Date])));
        assert_eq!(of(r"a\.b"), Some((1, vec![Type::Null])));
        assert_eq!(of("ship.city"), Some((1, vec![Type::String])));
        assert_eq!(of("ship.x.y.z"), Some((1, vec![Type::Object])));
        assert_eq!(of("ship.x.y.z.deep"), None);
        assert_eq!(of("items"), Some((1, vec![Type::List])));
        assert_eq!(of("items.$.sku"), Some((2, vec![Type::String])));
        assert_eq!(of("items.$.n"), Some((1, vec![Type::Number])));
        assert_eq!(of("tags.$"), Some((2, vec![Type::String, Type::Boolean])));
        assert_eq!((seen.count, seen.first.millis(), seen.last.millis()), (2, 5, 6));
        for path in seen.fields.known.keys() {
            assert!(crate::domain::Path::parse(path).is_some(), "{path}");
        }
    }

    #[test]
    fn it_stays_bounded_and_frequent_values_are_not_missed() {
        let mut seen = Seen::default();
        for n in 0..10_000 {
            let plan = if n % 3 == 0 { "\"pro\"".to_owned() } else { format!("\"p{n}\"") };
            let body = format!("{{\"plan\":{plan},\"k{n}\":1}}");
            seen.note(&body, Timestamp::EPOCH);
        }
        assert_eq!(seen.count, 10_000);
        assert!(seen.fields.is_cut && seen.fields.known.len() == FIELDS);
        let plan = &seen.fields.known["plan"];
        assert_eq!(plan.values.len(), VALUES);
        let (value, count) = plan.top_values(5)[0];
        assert!(value == "\"pro\"" && (3_000..3_800).contains(&count), "{value} {count}");
        assert!((9_900..=10_100).contains(&plan.count), "{}", plan.count);
    }

    #[test]
    fn what_is_erased_is_not_among_the_values() {
        let mut seen = seen(&[r#"{"plan":"pro","id":"a"}"#, r#"{"plan":"pro","id":"b"}"#]);
        assert!(seen.forget(r#"{"plan":"pro","id":"a","new":1}"#));
        let values = |seen: &Seen, field: &str| seen.fields.known[field].values.clone();
        assert_eq!(values(&seen, "plan"), [("\"pro\"".to_owned(), 1)]);
        assert_eq!(values(&seen, "id"), [("\"b\"".to_owned(), 1)]);
        for n in 0..100 {
            seen.note(&format!("{{\"id\":\"c{n}\"}}"), Timestamp::EPOCH);
        }
        // It has the counts of others, and goes for good.
        assert!(seen.forget(r#"{"id":"c99"}"#));
        assert!(values(&seen, "id").iter().all(|(value, _)| value != "\"c99\""));
    }

    #[test]
    fn what_only_one_has_is_not_shown() {
        let seen = seen(&[r#"{"email":"a@x"}"#, r#"{"email":"b@x"}"#, r#"{"email":"b@x"}"#]);
        assert_eq!(seen.fields.known["email"].top_values(10), [("\"b@x\"", 2)]);
    }
}
