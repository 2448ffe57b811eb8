//! The naive evaluator's reducers: what is read of an event, and what becomes of it.

use std::collections::BTreeMap;

use crate::naive::{Naive, RawEvent, instant_text};
use crate::naive_items::*;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reducer {
    Count,
    Sum,
    Average,
    Min,
    MaxString,
    MinString,
    MaxNumber,
    ModeString,
    ModeNumber,
    /// `first(timestamp())`.
    FirstTime,
    /// `last(timestamp())`.
    LastTime,
    First,
    Last,
    Distinct,
    Unique,
    Mode(usize),
    /// `mode(… as array, 1)`.
    ModeArray,
}

impl RawEvent {
    pub(crate) fn date(&self, read: &str) -> Option<i64> {
        if read == "timestamp()" { Some(self.at) } else { self.d }
    }

    /// The values at a path through a list.
    pub(crate) fn list(&self, path: &str) -> Vec<Naive> {
        if path == "tags.$" { tag_values(self.tags.as_ref()) } else { item_values(&self.items) }
    }

    /// What a reducer takes of it, in order.
    fn values(&self, read: &str, reducer: Reducer) -> Vec<Naive> {
        match (read, reducer) {
            (_, Reducer::FirstTime | Reducer::LastTime) => vec![Naive::Text(instant_text(self.at))],
            ("x", Reducer::ModeArray) => Vec::new(),
            ("x", _) => vec![self.x.clone()],
            (path, Reducer::ModeArray) => {
                Some(self.list(path)).filter(|all| !all.is_empty()).map(Naive::List).into_iter().collect()
            }
            (path, _) => self.list(path),
        }
    }
}

pub(crate) fn reduce(events: &[&RawEvent], reducer: Reducer, read: &str) -> Naive {
    let mut events = events.to_vec();
    events.sort_by_key(|e| (e.at, e.id.clone()));
    let mut values: Vec<Naive> = events.iter().flat_map(|e| e.values(read, reducer)).collect();
    match reducer {
        Reducer::ModeString => {
            for value in values.iter_mut().filter(|value| **value != Naive::Null) {
                *value = Naive::Text(value.text());
            }
        }
        Reducer::ModeNumber => {
            for value in &mut values {
                *value = value.number().map_or(Naive::Null, Naive::Number);
            }
        }
        _ => {}
    }
    let numbers: Vec<i64> = values.iter().filter_map(Naive::number).collect();
    let present: Vec<&Naive> = values.iter().filter(|value| **value != Naive::Null).collect();
    let mut counts: BTreeMap<&Naive, usize> = BTreeMap::new();
    for value in &present {
        *counts.entry(value).or_default() += 1;
    }
    let whole = |n: usize| Naive::Number(n as i64 * 1000);
    match reducer {
        Reducer::Count => whole(events.len()),
        Reducer::Distinct => whole(counts.len()),
        Reducer::Sum | Reducer::Average | Reducer::Min | Reducer::MaxNumber if numbers.is_empty() => {
            Naive::Null
        }
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
        Reducer::MaxNumber => Naive::Number(*numbers.iter().max().unwrap()),
        Reducer::MinString => present.iter().map(|v| v.text()).min().map_or(Naive::Null, Naive::Text),
        Reducer::MaxString => present.iter().map(|v| v.text()).max().map_or(Naive::Null, Naive::Text),
        Reducer::First | Reducer::FirstTime => present.first().map_or(Naive::Null, |v| (*v).clone()),
        Reducer::Last | Reducer::LastTime => present.last().map_or(Naive::Null, |v| (*v).clone()),
        Reducer::ModeArray | Reducer::ModeNumber => mode(&counts, 1),
        Reducer::ModeString => mode(&counts, 2),
        Reducer::Mode(minimum) => mode(&counts, minimum),
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

/// R11: the latest run of events with gaps of at most `gap`, unless more has passed since its last one.
pub(crate) fn latest_session<'e>(events: &[&'e RawEvent], gap: i64, now: i64) -> Option<Vec<&'e RawEvent>> {
    let mut events = events.to_vec();
    events.sort_by_key(|e| std::cmp::Reverse(e.at));
    let mut before = now;
    let run = events.into_iter().take_while(|e| std::mem::replace(&mut before, e.at) - e.at <= gap);
    Some(run.collect::<Vec<_>>()).filter(|run| !run.is_empty())
}

fn mode(counts: &BTreeMap<&Naive, usize>, minimum: usize) -> Naive {
    let mut candidates: Vec<_> = counts.iter().filter(|(_, n)| **n >= minimum).collect();
    // Where a number and a string have the same text, the number comes first.
    candidates.sort_by_key(|(value, n)| (usize::MAX - **n, value.text(), matches!(value, Naive::Text(_))));
    candidates.first().map_or(Naive::Null, |(value, _)| (**value).clone())
}
