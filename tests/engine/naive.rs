//! A naive evaluator: queries and events in their own little description, and what they mean straight from
//! decisions.md, over all raw events at each instant. It shares no code with the engine.

use std::cmp::Ordering;

use personas::domain::Timestamp;

use crate::naive_funnel::*;
use crate::naive_items::*;
pub(crate) use crate::naive_reduce::*;

/// A value in thousandths, or another type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Naive {
    Null,
    Number(i64),
    Text(String),
    Truth(bool),
    List(Vec<Naive>),
}

#[derive(Debug, Clone)]
pub(crate) struct RawEvent {
    pub(crate) name: &'static str,
    /// `track`, `page`, …
    pub(crate) call: &'static str,
    pub(crate) source: &'static str,
    pub(crate) at: i64,
    pub(crate) received_at: i64,
    pub(crate) id: String,
    pub(crate) x: Naive,
    pub(crate) y: Naive,
    /// A date in the properties and the context.
    pub(crate) d: Option<i64>,
    /// A list of scalars, or a text instead of it.
    pub(crate) tags: Option<Vec<Naive>>,
    /// A list of objects.
    pub(crate) items: Vec<RawItem>,
}

/// All there is of one profile.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) events: Vec<RawEvent>,
    /// The trait `plan`.
    pub(crate) plan: Naive,
    /// The trait `seen`, a date.
    pub(crate) seen: i64,
    /// The trait `tags`.
    pub(crate) tags: Option<Vec<Naive>>,
    /// The trait `items`.
    pub(crate) items: Vec<RawItem>,
}

#[derive(Debug, Clone)]
pub(crate) enum Query {
    And(Vec<Query>),
    Or(Vec<Query>),
    Not(Box<Query>),
    Compare(Scalar, &'static str, Naive),
    /// `trait('seen')`, comparator, seconds.
    Seen(&'static str, i64),
    /// `trait('tags.$')` or `trait('items.$.a')`.
    TraitList(&'static str, &'static str, Naive),
    /// `any_item` on the trait `items`.
    TraitItem(Item),
    /// `trait('seen')`, `before_date` or `after_date`, instant.
    SeenFixed(&'static str, i64),
    /// Two computed values.
    Pair(Box<(Scalar, &'static str, Scalar)>),
    /// The time of the last event, comparator, seconds.
    LastSeen(Scalar, &'static str, i64),
    /// `trait('x').held_for(…)`, in seconds: `x` is what identify calls write.
    Held(i64),
    /// `random_bucket('a')`, which is 0.376… for the profile of the tests, below so many thousandths.
    Bucket(i64),
}

#[derive(Debug, Clone)]
pub(crate) enum Scalar {
    Plan,
    Event {
        /// A name, or a pattern with one `*`.
        name: &'static str,
        filter: Option<Where>,
        /// A source to be left out.
        without: Option<&'static str>,
        window: Option<(i64, i64)>,
        /// `expires_after`, in seconds.
        session: Option<i64>,
        /// `between` two instants.
        fixed: Option<(i64, i64)>,
        reducer: Reducer,
        /// What the reducer reads: `x`, `tags.$` or `items.$.a`.
        read: &'static str,
    },
}

/// Whether an event is one of those that `event('…')` names.
pub(crate) fn is_named(event: &RawEvent, name: &str) -> bool {
    let fits = match name.split_once('*') {
        None => event.name == name,
        Some((start, end)) => {
            event.name.len() >= start.len() + end.len()
                && event.name.starts_with(start)
                && event.name.ends_with(end)
        }
    };
    fits && ["track", "page", "screen"].contains(&event.call)
}

/// Since when the trait `x` has had its value: the newest write says the value, and no other one lies in between.
fn held_since(world: &World) -> Option<i64> {
    let mut writes: Vec<&RawEvent> = world.events.iter().filter(|event| event.call == "identify").collect();
    writes.sort_by_key(|event| (event.at, &event.id));
    let value = writes.last().map(|last| &last.x).filter(|value| **value != Naive::Null)?;
    let first_of_run = writes.iter().rev().take_while(|write| write.x == *value).last();
    first_of_run.map(|write| write.at)
}

/// A condition on one event.
#[derive(Debug, Clone)]
pub(crate) enum Where {
    And(Vec<Where>),
    Or(Vec<Where>),
    Not(Box<Where>),
    /// `property('y')`, comparator, literal.
    Y(&'static str, Naive),
    /// `source('…')`.
    Source(&'static str),
    /// `message_type()`, comparator, type.
    Type(&'static str, &'static str),
    /// `property('tags.$')` or `property('items.$.a')`, comparator, literal.
    List(&'static str, &'static str, Naive),
    /// `property('items.$.d')`, comparator, seconds.
    ListDate(&'static str, i64),
    /// `any_item` on `items`.
    AnyItem(Item),
    /// What is read, `before_date` or `after_date`, instant.
    Fixed(&'static str, &'static str, i64),
    /// What is read, comparator, seconds.
    Date(&'static str, &'static str, i64),
    /// What more than the event decides.
    More(More),
}

pub(crate) fn number_text(thousandths: i64) -> String {
    let sign = if thousandths < 0 { "-" } else { "" };
    let (whole, rest) = (thousandths.abs() / 1000, thousandths.abs() % 1000);
    format!("{sign}{whole}.{rest:03}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(crate) fn parse_number(text: &str) -> Option<i64> {
    let value: f64 = text.parse().ok()?;
    Some((value * 1000.0).round() as i64)
}

impl Naive {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Number(n) => number_text(*n),
            Self::Text(text) => text.clone(),
            Self::Truth(truth) => truth.to_string(),
            Self::List(_) => self.json(),
        }
    }

    pub(crate) fn json(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{text}\""),
            Self::List(items) => format!("[{}]", items.iter().map(Self::json).collect::<Vec<_>>().join(",")),
            other => other.text(),
        }
    }

    pub(crate) fn literal(&self) -> String {
        match self {
            Self::Text(text) => format!("'{text}'"),
            other => other.text(),
        }
    }

    pub(crate) fn number(&self) -> Option<i64> {
        match self {
            Self::Number(n) => Some(*n),
            Self::Text(text) => parse_number(text),
            _ => None,
        }
    }
}

/// A6, against a literal.
pub(crate) fn order(value: &Naive, literal: &Naive) -> Option<Ordering> {
    match (value, literal) {
        (Naive::Text(a), Naive::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Naive::Number(_) | Naive::Text(_), Naive::Number(_) | Naive::Text(_)) => {
            Some(value.number()?.cmp(&literal.number()?))
        }
        (Naive::Truth(_), Naive::Truth(_) | Naive::Text(_)) | (Naive::Text(_), Naive::Truth(_)) => {
            (value.text() == literal.text()).then_some(Ordering::Equal)
        }
        _ => None,
    }
}

pub(crate) fn compare(value: &Naive, op: &str, literal: &Naive) -> bool {
    let order = order(value, literal);
    match op {
        "=" => order.is_some_and(Ordering::is_eq),
        "!=" => *value != Naive::Null && !order.is_some_and(Ordering::is_eq),
        ">" => order.is_some_and(Ordering::is_gt),
        ">=" => order.is_some_and(Ordering::is_ge),
        "<" => order.is_some_and(Ordering::is_lt),
        "<=" => order.is_some_and(Ordering::is_le),
        // Null is a part of nothing.
        ".contains" | ".omits" if *literal == Naive::Null => op == ".omits",
        ".contains" => *value != Naive::Null && value.text().contains(&literal.text()),
        ".starts_with" | ".ends_with" if *literal == Naive::Null => false,
        ".starts_with" => *value != Naive::Null && value.text().starts_with(&literal.text()),
        ".ends_with" => *value != Naive::Null && value.text().ends_with(&literal.text()),
        ".one_of" => [literal, &Naive::Number(1000)].iter().any(|one| compare(value, "=", one)),
        ".none_of" => ![literal, &Naive::Number(1000)].iter().any(|one| compare(value, "=", one)),
        ".matches" => *value != Naive::Null && value.text().starts_with(['a', 'b', '1']),
        ".exists" => *value != Naive::Null,
        ".absent" => *value == Naive::Null,
        ".omits" => *value == Naive::Null || !value.text().contains(&literal.text()),
        other => panic!("{other}"),
    }
}

/// A6, between two values that are computed: no type becomes another one.
pub(crate) fn compare_values(a: &Naive, op: &str, b: &Naive) -> bool {
    let order = match (a, b) {
        (Naive::Null, _) | (_, Naive::Null) => None,
        (Naive::Number(a), Naive::Number(b)) => Some(a.cmp(b)),
        (Naive::Text(a), Naive::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (a, b) => (a == b).then_some(Ordering::Equal),
    };
    match op {
        "=" => order.is_some_and(Ordering::is_eq),
        "!=" => *a != Naive::Null && !order.is_some_and(Ordering::is_eq),
        ">=" => order.is_some_and(Ordering::is_ge),
        "<" => order.is_some_and(Ordering::is_lt),
        other => panic!("{other}"),
    }
}

/// An instant as a literal and as `timestamp()` gives it.
pub(crate) fn instant_text(at: i64) -> String {
    Timestamp::from_millis(at).to_string()
}

/// `before_date` and `after_date`.
fn fixed(date: Option<i64>, op: &str, bound: i64) -> bool {
    date.is_some_and(|date| if op == "before_date" { date < bound } else { date > bound })
}

/// A9.
pub(crate) fn dated(date: i64, op: &str, seconds: i64, now: i64) -> bool {
    let n = seconds * 1000;
    match op {
        "within_last" => now - n <= date && date <= now,
        "within_next" => now <= date && date <= now + n,
        "before_last" => date <= now - n,
        "after_next" => date >= now + n,
        other => panic!("{other}"),
    }
}

impl Where {
    pub(crate) fn text(&self) -> String {
        let join = |parts: &[Self], junction: &str| {
            format!("({})", parts.iter().map(Self::text).collect::<Vec<_>>().join(junction))
        };
        match self {
            Self::And(parts) => join(parts, " AND "),
            Self::Or(parts) => join(parts, " OR "),
            Self::Not(part) => format!("NOT {}", part.text()),
            Self::Y(op, literal) => compared("property('y')", op, literal),
            Self::List(path, op, literal) => compared(&format!("property('{path}')"), op, literal),
            Self::ListDate(op, seconds) => format!("property('items.$.d').{op}({seconds} seconds)"),
            Self::AnyItem(item) => format!("any_item('items', {})", item.text()),
            Self::Fixed(read, op, at) => format!("{read}.{op}({})", instant_text(*at)),
            Self::Source(name) => format!("source('{name}')"),
            Self::Type(op, call) => format!("message_type() {op} '{call}'"),
            Self::Date(read, op, seconds) => format!("{read}.{op}({seconds} seconds)"),
            Self::More(more) => more.text(),
        }
    }

    /// Whether more than the event decides it.
    pub(crate) fn is_dynamic(&self) -> bool {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().any(Self::is_dynamic),
            Self::Not(part) => part.is_dynamic(),
            Self::More(_) => true,
            _ => false,
        }
    }

    pub(crate) fn holds(&self, event: &RawEvent, around: Around<'_>) -> bool {
        let now = around.now;
        match self {
            Self::And(parts) => parts.iter().all(|part| part.holds(event, around)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(event, around)),
            Self::Not(part) => !part.holds(event, around),
            Self::More(more) => more.holds(event, around),
            Self::Y(op, literal) => compare(&event.y, op, literal),
            Self::List(path, op, literal) => any_of(&event.list(path), |value| compare(value, op, literal)),
            Self::ListDate(op, seconds) => is_any_dated(&event.items, op, *seconds, now),
            Self::AnyItem(condition) => event.items.iter().any(|item| condition.holds(item, now)),
            Self::Source(name) => event.source == *name,
            Self::Type(op, call) => (event.call == *call) == (*op == "="),
            Self::Date(read, op, seconds) => {
                event.date(read).is_some_and(|date| dated(date, op, *seconds, now))
            }
            Self::Fixed(read, op, at) => fixed(event.date(read), op, *at),
        }
    }
}

impl Scalar {
    pub(crate) fn text(&self) -> String {
        let Self::Event { name, filter, without, window, session, fixed, reducer, read } = self else {
            return "trait('plan')".to_owned();
        };
        let without = without.map_or_else(String::new, |name| format!(".sources(exclude: ['{name}'])"));
        let filter = filter.as_ref().map_or_else(String::new, |filter| format!(".where({})", filter.text()));
        let window = match window {
            None => String::new(),
            Some((0, oldest)) => format!(".within({oldest} seconds)"),
            Some((newest, oldest)) => format!(".between({newest} seconds, {oldest} seconds)"),
        };
        let reducer = match reducer {
            Reducer::Count => ".count()".to_owned(),
            Reducer::Sum => format!(".sum(property('{read}'))"),
            Reducer::Average => format!(".avg(property('{read}'))"),
            Reducer::Min => format!(".min(property('{read}'))"),
            Reducer::MinString => format!(".min(property('{read}') as string)"),
            Reducer::MaxNumber => format!(".max(property('{read}') as number)"),
            Reducer::ModeString => format!(".mode(property('{read}') as string)"),
            Reducer::ModeNumber => format!(".mode(property('{read}') as number, 1)"),
            Reducer::FirstTime => ".first(timestamp())".to_owned(),
            Reducer::LastTime => ".last(timestamp())".to_owned(),
            Reducer::MaxString => format!(".max(property('{read}') as string)"),
            Reducer::First => format!(".first(property('{read}'))"),
            Reducer::Last => format!(".last(property('{read}'))"),
            Reducer::Distinct => format!(".unique(property('{read}')).count()"),
            Reducer::Unique => format!(".unique(property('{read}'))"),
            Reducer::Mode(1) => format!(".mode(property('{read}'), 1)"),
            Reducer::Mode(_) => format!(".mode(property('{read}'))"),
            Reducer::ModeArray => format!(".mode(property('{read}') as array, 1)"),
        };
        let session = session.map_or_else(String::new, |gap| format!(".expires_after({gap} seconds)"));
        let fixed = fixed.map_or_else(String::new, |(from, to)| {
            format!(".between({}, '{}')", instant_text(from), instant_text(to))
        });
        format!("event('{name}'){filter}{without}{window}{session}{fixed}{reducer}")
    }

    pub(crate) fn value(&self, world: &World, now: i64) -> Naive {
        let Self::Event { name, filter, without, window, session, fixed, reducer, read } = self else {
            return world.plan.clone();
        };
        let inside: Vec<&RawEvent> = world
            .events
            .iter()
            .filter(|e| is_named(e, name) && e.at <= now && *without != Some(e.source))
            .filter(|e| {
                filter.as_ref().is_none_or(|filter| filter.holds(e, Around { world, now, parent: None }))
            })
            .filter(|e| {
                window
                    .is_none_or(|(newest, oldest)| now - oldest * 1000 <= e.at && e.at <= now - newest * 1000)
            })
            .filter(|e| fixed.is_none_or(|(from, to)| from <= e.at && e.at < to))
            .collect();
        match session {
            None => reduce(&inside, *reducer, read),
            Some(gap) => {
                let latest = latest_session(&inside, gap * 1000, now);
                latest.map_or(Naive::Null, |events| reduce(&events, *reducer, read))
            }
        }
    }
}

impl Query {
    pub(crate) fn text(&self) -> String {
        let join = |parts: &[Self], junction: &str| {
            format!("({})", parts.iter().map(Self::text).collect::<Vec<_>>().join(junction))
        };
        match self {
            Self::And(parts) => join(parts, " AND "),
            Self::Or(parts) => join(parts, " OR "),
            Self::Not(part) => format!("NOT {}", part.text()),
            Self::Compare(scalar, op, literal) => compared(&scalar.text(), op, literal),
            Self::TraitList(path, op, literal) => compared(&format!("trait('{path}')"), op, literal),
            Self::SeenFixed(op, at) => format!("trait('seen').{op}('{}')", instant_text(*at)),
            Self::Pair(pair) => format!("{} {} {}", pair.0.text(), pair.1, pair.2.text()),
            Self::LastSeen(scalar, op, seconds) => format!("{}.{op}({seconds} seconds)", scalar.text()),
            Self::Held(seconds) => format!("trait('x').held_for({seconds} seconds)"),
            Self::Bucket(limit) => format!("random_bucket('a') < {}", number_text(*limit)),
            Self::TraitItem(item) => format!("any_item('items', {})", item.text()),
            Self::Seen(op, seconds) => format!("trait('seen').{op}({seconds} seconds)"),
        }
    }

    pub(crate) fn holds(&self, world: &World, now: i64) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|part| part.holds(world, now)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(world, now)),
            Self::Not(part) => !part.holds(world, now),
            Self::Compare(scalar, op, literal) => compare(&scalar.value(world, now), op, literal),
            Self::Seen(op, seconds) => dated(world.seen, op, *seconds, now),
            Self::TraitList(path, op, literal) => {
                let values = match *path {
                    "tags.$" => tag_values(world.tags.as_ref()),
                    _ => item_values(&world.items),
                };
                any_of(&values, |value| compare(value, op, literal))
            }
            Self::SeenFixed(op, at) => fixed(Some(world.seen), op, *at),
            Self::Pair(pair) => compare_values(&pair.0.value(world, now), pair.1, &pair.2.value(world, now)),
            Self::LastSeen(scalar, op, seconds) => match scalar.value(world, now) {
                Naive::Text(at) => dated(Timestamp::parse(&at).unwrap().millis(), op, *seconds, now),
                _ => false,
            },
            Self::Held(seconds) => held_since(world).is_some_and(|since| since + seconds * 1000 <= now),
            Self::Bucket(limit) => *limit > 376,
            Self::TraitItem(condition) => world.items.iter().any(|item| condition.holds(item, now)),
        }
    }
}
