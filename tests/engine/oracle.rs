//! The engine against a naive evaluator: random queries over random events, at random instants.
//!
//! The naive evaluator works on its own little description of a query, straight from decisions.md, over all raw
//! events at each instant. It shares no code with the engine; the two meet only in the query's text.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use personas::domain::{Timestamp, Value};
use personas::engine::{Kind, LeafStates, Limits, compile};
use proptest::prelude::*;

use crate::harness::*;

/// Event times and windows are multiples of this, so that few instants matter.
const STEP: i64 = 500;

/// The tests live in the first 20 seconds of 2024-06-01, so that dates are ordinary ones.
const START: i64 = NOW;

/// A value in thousandths, or another type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Naive {
    Null,
    Number(i64),
    Text(String),
    Truth(bool),
    List(Vec<Naive>),
}

#[derive(Debug, Clone)]
struct RawEvent {
    name: &'static str,
    at: i64,
    received_at: i64,
    id: String,
    x: Naive,
    y: Naive,
    /// A date in the properties and the context.
    d: Option<i64>,
}

#[derive(Debug, Clone)]
enum Query {
    And(Vec<Query>),
    Or(Vec<Query>),
    Not(Box<Query>),
    Compare(Scalar, &'static str, Naive),
    /// `trait('seen')`, comparator, seconds.
    Seen(&'static str, i64),
}

#[derive(Debug, Clone)]
enum Scalar {
    Plan,
    Event { name: &'static str, filter: Option<Where>, window: Option<(i64, i64)>, reducer: Reducer },
}

/// A condition on one event.
#[derive(Debug, Clone)]
enum Where {
    And(Vec<Where>),
    Or(Vec<Where>),
    Not(Box<Where>),
    /// `property('y')`, comparator, literal.
    Y(&'static str, Naive),
    /// What is read, comparator, seconds.
    Date(&'static str, &'static str, i64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Reducer {
    Count,
    Sum,
    Average,
    Min,
    MaxString,
    First,
    Last,
    Distinct,
    Unique,
    Mode(usize),
}

fn number_text(thousandths: i64) -> String {
    let sign = if thousandths < 0 { "-" } else { "" };
    let (whole, rest) = (thousandths.abs() / 1000, thousandths.abs() % 1000);
    format!("{sign}{whole}.{rest:03}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn parse_number(text: &str) -> Option<i64> {
    let value: f64 = text.parse().ok()?;
    Some((value * 1000.0).round() as i64)
}

impl Naive {
    fn text(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Number(n) => number_text(*n),
            Self::Text(text) => text.clone(),
            Self::Truth(truth) => truth.to_string(),
            Self::List(_) => self.json(),
        }
    }

    fn json(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{text}\""),
            Self::List(items) => format!("[{}]", items.iter().map(Self::json).collect::<Vec<_>>().join(",")),
            other => other.text(),
        }
    }

    fn literal(&self) -> String {
        match self {
            Self::Text(text) => format!("'{text}'"),
            other => other.text(),
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(n) => Some(*n),
            Self::Text(text) => parse_number(text),
            _ => None,
        }
    }
}

/// A6, against a literal.
fn order(value: &Naive, literal: &Naive) -> Option<Ordering> {
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

fn compare(value: &Naive, op: &str, literal: &Naive) -> bool {
    let order = order(value, literal);
    match op {
        "=" => order.is_some_and(Ordering::is_eq),
        "!=" => *value != Naive::Null && !order.is_some_and(Ordering::is_eq),
        ">" => order.is_some_and(Ordering::is_gt),
        ">=" => order.is_some_and(Ordering::is_ge),
        "<" => order.is_some_and(Ordering::is_lt),
        "<=" => order.is_some_and(Ordering::is_le),
        ".contains" => *value != Naive::Null && value.text().contains(&literal.text()),
        ".omits" => *value == Naive::Null || !value.text().contains(&literal.text()),
        other => panic!("{other}"),
    }
}

/// A9.
fn dated(date: i64, op: &str, seconds: i64, now: i64) -> bool {
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
    fn text(&self) -> String {
        let join = |parts: &[Self], junction: &str| {
            format!("({})", parts.iter().map(Self::text).collect::<Vec<_>>().join(junction))
        };
        match self {
            Self::And(parts) => join(parts, " AND "),
            Self::Or(parts) => join(parts, " OR "),
            Self::Not(part) => format!("NOT {}", part.text()),
            Self::Y(op, literal) => format!("property('y') {op} {}", literal.literal()),
            Self::Date(read, op, seconds) => format!("{read}.{op}({seconds} seconds)"),
        }
    }

    fn holds(&self, event: &RawEvent, now: i64) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|part| part.holds(event, now)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(event, now)),
            Self::Not(part) => !part.holds(event, now),
            Self::Y(op, literal) => compare(&event.y, op, literal),
            Self::Date(read, op, seconds) => {
                let date = if *read == "timestamp()" { Some(event.at) } else { event.d };
                date.is_some_and(|date| dated(date, op, *seconds, now))
            }
        }
    }
}

fn reduce(events: &[&RawEvent], reducer: Reducer) -> Naive {
    let numbers: Vec<i64> = events.iter().filter_map(|e| e.x.number()).collect();
    let mut present: Vec<&&RawEvent> = events.iter().filter(|e| e.x != Naive::Null).collect();
    present.sort_by_key(|e| (e.at, e.id.clone()));
    let mut counts: BTreeMap<&Naive, usize> = BTreeMap::new();
    for event in &present {
        *counts.entry(&event.x).or_default() += 1;
    }
    let whole = |n: usize| Naive::Number(n as i64 * 1000);
    match reducer {
        Reducer::Count => whole(events.len()),
        Reducer::Distinct => whole(counts.len()),
        Reducer::Sum | Reducer::Average | Reducer::Min if numbers.is_empty() => Naive::Null,
        Reducer::Sum => Naive::Number(numbers.iter().sum()),
        // Only compared with literals of three decimals, from which a rounded average cannot be told apart here.
        Reducer::Average => {
            let (sum, n) = (numbers.iter().sum::<i64>(), numbers.len() as i64);
            if sum % n == 0 {
                Naive::Number(sum / n)
            } else {
                Naive::Text(format!("{}", sum as f64 / n as f64 / 1000.0))
            }
        }
        Reducer::Min => Naive::Number(*numbers.iter().min().unwrap()),
        Reducer::MaxString => present.iter().map(|e| e.x.text()).max().map_or(Naive::Null, Naive::Text),
        Reducer::First => present.first().map_or(Naive::Null, |e| e.x.clone()),
        Reducer::Last => present.last().map_or(Naive::Null, |e| e.x.clone()),
        Reducer::Mode(minimum) => {
            let mut candidates: Vec<_> = counts.into_iter().filter(|(_, n)| *n >= minimum).collect();
            // Where a number and a string have the same text, the number comes first.
            candidates
                .sort_by_key(|(value, n)| (usize::MAX - n, value.text(), matches!(value, Naive::Text(_))));
            candidates.first().map_or(Naive::Null, |(value, _)| (*value).clone())
        }
        Reducer::Unique if counts.is_empty() => Naive::Null,
        Reducer::Unique => {
            let mut values: Vec<Naive> = counts.into_keys().cloned().collect();
            values.sort_by_key(|v| match v {
                Naive::Number(n) => (0, *n, String::new(), 0),
                Naive::Truth(_) => (1, 0, v.text(), 0),
                _ => (1, 0, v.text(), 1),
            });
            Naive::List(values)
        }
    }
}

impl Scalar {
    fn text(&self) -> String {
        let Self::Event { name, filter, window, reducer } = self else { return "trait('plan')".to_owned() };
        let filter = filter.as_ref().map_or_else(String::new, |filter| format!(".where({})", filter.text()));
        let window = match window {
            None => String::new(),
            Some((0, oldest)) => format!(".within({oldest} seconds)"),
            Some((newest, oldest)) => format!(".between({newest} seconds, {oldest} seconds)"),
        };
        let reducer = match reducer {
            Reducer::Count => ".count()",
            Reducer::Sum => ".sum(property('x'))",
            Reducer::Average => ".avg(property('x'))",
            Reducer::Min => ".min(property('x'))",
            Reducer::MaxString => ".max(property('x') as string)",
            Reducer::First => ".first(property('x'))",
            Reducer::Last => ".last(property('x'))",
            Reducer::Distinct => ".unique(property('x')).count()",
            Reducer::Unique => ".unique(property('x'))",
            Reducer::Mode(1) => ".mode(property('x'), 1)",
            Reducer::Mode(_) => ".mode(property('x'))",
        };
        format!("event('{name}'){filter}{window}{reducer}")
    }

    fn value(&self, events: &[RawEvent], plan: &Naive, now: i64) -> Naive {
        let Self::Event { name, filter, window, reducer } = self else { return plan.clone() };
        let inside: Vec<&RawEvent> = events
            .iter()
            .filter(|e| e.name == *name && e.at <= now)
            .filter(|e| filter.as_ref().is_none_or(|filter| filter.holds(e, now)))
            .filter(|e| {
                window
                    .is_none_or(|(newest, oldest)| now - oldest * 1000 <= e.at && e.at <= now - newest * 1000)
            })
            .collect();
        reduce(&inside, *reducer)
    }
}

impl Query {
    fn text(&self) -> String {
        let join = |parts: &[Self], junction: &str| {
            format!("({})", parts.iter().map(Self::text).collect::<Vec<_>>().join(junction))
        };
        match self {
            Self::And(parts) => join(parts, " AND "),
            Self::Or(parts) => join(parts, " OR "),
            Self::Not(part) => format!("NOT {}", part.text()),
            Self::Compare(scalar, op, literal) if op.starts_with('.') => {
                format!("{}{op}({})", scalar.text(), literal.literal())
            }
            Self::Compare(scalar, op, literal) => format!("{} {op} {}", scalar.text(), literal.literal()),
            Self::Seen(op, seconds) => format!("trait('seen').{op}({seconds} seconds)"),
        }
    }

    fn holds(&self, events: &[RawEvent], plan: &Naive, seen: i64, now: i64) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|part| part.holds(events, plan, seen, now)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(events, plan, seen, now)),
            Self::Not(part) => !part.holds(events, plan, seen, now),
            Self::Compare(scalar, op, literal) => compare(&scalar.value(events, plan, now), op, literal),
            Self::Seen(op, seconds) => dated(seen, op, *seconds, now),
        }
    }
}

fn naive() -> impl Strategy<Value = Naive> {
    prop_oneof![
        1 => Just(Naive::Null),
        4 => prop::sample::select(vec![1000, 2000, 1500, -100, 100, 200, 0]).prop_map(Naive::Number),
        3 => prop::sample::select(vec!["1.5", "2", "a", "b", "true", "10"]).prop_map(|t| Naive::Text(t.to_owned())),
        1 => any::<bool>().prop_map(Naive::Truth),
    ]
}

fn events() -> impl Strategy<Value = Vec<RawEvent>> {
    let date = prop::option::weighted(0.9, -10..60_i64);
    let one = (prop::sample::select(vec!["A", "B"]), 0..40_i64, 0..40_i64, naive(), naive(), date);
    prop::collection::vec(one, 0..16).prop_map(|raw| {
        raw.into_iter()
            .enumerate()
            .map(|(i, (name, at, delay, x, y, date))| {
                let at = START + at * STEP;
                // Most events are received after they happened, some before.
                let received_at = (at + (delay - 10) * STEP).clamp(START, START + 20 * SECOND);
                let d = date.map(|steps| START + steps * STEP);
                RawEvent { name, at, received_at, id: format!("m{}", (i * 7) % 16), x, y, d }
            })
            .collect()
    })
}

fn reducer() -> impl Strategy<Value = Reducer> {
    prop::sample::select(vec![
        Reducer::Count,
        Reducer::Count,
        Reducer::Count,
        Reducer::Sum,
        Reducer::Average,
        Reducer::Min,
        Reducer::MaxString,
        Reducer::First,
        Reducer::Last,
        Reducer::Distinct,
        Reducer::Mode(1),
        Reducer::Mode(2),
    ])
}

fn filter() -> impl Strategy<Value = Where> {
    let ops = prop::sample::select(vec!["=", "!=", ">", ">=", "<", "<="]);
    let read = prop::sample::select(vec!["property('d')", "property('d')", "context('d')", "timestamp()"]);
    let date = (read, relative(), 0..9_i64).prop_map(|(read, op, seconds)| Where::Date(read, op, seconds));
    let one = prop_oneof![2 => (ops, naive()).prop_map(|(op, literal)| Where::Y(op, literal)), 3 => date];
    one.prop_recursive(3, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Where::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Where::Or),
            inner.prop_map(|part| Where::Not(Box::new(part))),
        ]
    })
}

fn relative() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["within_last", "within_next", "before_last", "after_next"])
}

fn scalar(reducer: impl Strategy<Value = Reducer>) -> impl Strategy<Value = Scalar> {
    let window =
        prop::option::of((0..4_i64, 0..8_i64).prop_map(|(newest, more)| (newest, newest + more.max(1))));
    (prop::sample::select(vec!["A", "B"]), prop::option::of(filter()), window, reducer)
        .prop_map(|(name, filter, window, reducer)| Scalar::Event { name, filter, window, reducer })
}

fn comparison() -> impl Strategy<Value = Query> {
    let ops = || prop::sample::select(vec!["=", "!=", ">", ">=", "<", "<=", ".contains", ".omits"]);
    let literal = prop_oneof![naive(), (0..5_i64).prop_map(|n| Naive::Number(n * 1000))];
    prop_oneof![
        6 => (scalar(reducer()), ops(), literal).prop_filter_map("averages are not text", |(scalar, op, literal)| {
            let average = matches!(scalar, Scalar::Event { reducer: Reducer::Average, .. });
            let numeric = literal.number().is_some() && !op.starts_with('.');
            (!average || numeric).then_some(Query::Compare(scalar, op, literal))
        }),
        1 => (ops(), naive()).prop_map(|(op, literal)| Query::Compare(Scalar::Plan, op, literal)),
        1 => (relative(), 1..9_i64).prop_map(|(op, seconds)| Query::Seen(op, seconds)),
    ]
}

fn query() -> impl Strategy<Value = Query> {
    comparison().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Query::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Query::Or),
            inner.prop_map(|part| Query::Not(Box::new(part))),
        ]
    })
}

fn engine_events(events: &[RawEvent]) -> Vec<Event> {
    let field = |name: &str, value: &Naive| match value {
        Naive::Null => format!("\"{name}\":null"),
        other => format!("\"{name}\" : {}", other.json()),
    };
    let date = |e: &RawEvent| match e.d {
        None => "{\"d\":\"soon\"}".to_owned(),
        Some(at) => format!("{{\"d\":\"{}\"}}", Timestamp::from_millis(at)),
    };
    let convert = |(i, e): (usize, &RawEvent)| Event {
        received_at: e.received_at,
        context: date(e),
        message_id: e.id.clone(),
        offset: i as u64 + 1,
        ..event(
            e.name,
            e.at,
            &format!("{{ \"z\":[{{}}], {}, {}, {}", field("x", &e.x), field("y", &e.y), &date(e)[1..]),
        )
    };
    events.iter().enumerate().map(convert).collect()
}

/// A space for a query of any length.
fn space(text: &str, kind: Kind) -> Space {
    let limits = Limits { expressions: 1_000, nesting: 100, ..Limits::default() };
    Space::of(compile(text, kind, limits).unwrap_or_else(|errors| panic!("{text}\n{errors:#?}")))
}

/// All instants at which anything could change, and those right after: at most 40 s of events and 16 s of windows.
fn instants(from: i64) -> impl Iterator<Item = i64> {
    (0..140).flat_map(|i| [START + i * STEP, START + i * STEP + 1]).filter(move |at| *at >= from)
}

/// No event may be received after the evaluation.
fn now_after(events: &[RawEvent], steps: i64, odd: bool) -> i64 {
    let received = events.iter().map(|e| e.received_at).max().unwrap_or(START);
    received + steps * STEP + i64::from(odd)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn audiences_are_what_the_naive_evaluator_says(
        query in query(),
        events in events(),
        plan in naive(),
        seen in 0..60_i64,
        steps in 0..12_i64,
        odd: bool,
    ) {
        let text = query.text();
        let seen = START + seen * STEP;
        let mut space = space(&text, Kind::Audience)
            .with_trait("plan", &plan.json())
            .with_trait("seen", &format!("\"{}\"", Timestamp::from_millis(seen)));
        space.fold(&engine_events(&events));
        let now = now_after(&events, steps, odd);
        let holds = |at: i64| query.holds(&events, &plan, seen, at);
        let evaluation = space.at(now);
        prop_assert_eq!(truth(&evaluation), holds(now), "{}", text);
        prop_assert!(evaluation.changes_at.is_none_or(|at| at.millis() > now));

        // Until it says it may change, it does not.
        let until = evaluation.changes_at.map_or(i64::MAX, Timestamp::millis);
        for at in instants(now).take_while(|at| *at < until) {
            prop_assert_eq!(holds(at), holds(now), "{} at {} of {}, until {}", text, at - START, now - START, until - START);
        }
        // A count compared with a number changes exactly then.
        if let Query::Compare(Scalar::Event { reducer: Reducer::Count, .. }, ..) = query {
            let change = instants(now).find(|at| holds(*at) != holds(now));
            prop_assert_eq!(evaluation.changes_at.map(Timestamp::millis), change, "{}", text);
        }
        // Compaction keeps the meaning, now and later.
        space.program.compact(&mut space.profile.states, Timestamp::from_millis(now));
        for at in instants(now) {
            prop_assert_eq!(truth(&space.at(at)), holds(at), "{} compacted, at {}", text, at - START);
        }
    }

    #[test]
    fn values_are_what_the_naive_evaluator_says(
        scalar in scalar(prop_oneof![reducer(), Just(Reducer::Unique)]),
        events in events(),
        steps in 0..12_i64,
        order in any::<prop::sample::Index>(),
    ) {
        let average = matches!(scalar, Scalar::Event { reducer: Reducer::Average, .. });
        let text = scalar.text();
        let mut space = space(&text, Kind::ComputedTrait);
        let mut folded = engine_events(&events);
        folded.rotate_left(if events.is_empty() { 0 } else { order.index(events.len()) });
        space.fold(&folded);
        let now = now_after(&events, steps, false);
        let compare = |space: &Space, at: i64| {
            let (found, naive) = (space.at(at).value, scalar.value(&events, &Naive::Null, at));
            match (&found, &naive) {
                (Value::Number(number), Naive::Text(float)) if average => {
                    let (a, b): (f64, f64) = (number.to_string().parse().unwrap(), float.parse().unwrap());
                    (a - b).abs() <= b.abs() * 1e-11
                }
                _ => found.to_json() == naive.json(),
            }
        };
        let evaluation = space.at(now);
        for at in instants(now) {
            prop_assert!(compare(&space, at), "{} {:?} {:?}", text, space.at(at), scalar.value(&events, &Naive::Null, at));
        }
        let until = evaluation.changes_at.map_or(i64::MAX, Timestamp::millis);
        for at in instants(now).take_while(|at| *at < until) {
            prop_assert_eq!(&space.at(at).value, &evaluation.value);
        }
        // States survive their stored form.
        let stored = space.profile.states.encode().expect("bytes");
        prop_assert_eq!(&LeafStates::decode(&stored).expect("states"), &space.profile.states);
        space.program.compact(&mut space.profile.states, Timestamp::from_millis(now));
        for at in instants(now) {
            prop_assert!(compare(&space, at), "{} compacted", text);
        }
    }
}
