//! How fast events come in, by what pages have seen of the log's end. It is known only while somebody looks, and costs
//! nothing when nobody does.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::domain::Timestamp;

/// What is looked back on, in milliseconds.
const SPAN_MS: i64 = 5 * 60 * 1_000;
/// A rate is taken over no less than that.
const RATE_MS: i64 = 5_000;
/// Samples of one space.
const SAMPLES_MAX: usize = 300;
/// Spaces; past that all are forgotten.
const SPACES_MAX: usize = 1_000;

type Samples = VecDeque<(Timestamp, u64)>;

/// What was seen, by space.
#[derive(Debug, Default)]
pub(super) struct Pulses(Mutex<HashMap<String, Samples>>);

/// How fast events come in.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Pulse {
    /// Events per second, now; none when it was looked at only once.
    pub rate: Option<f64>,
    /// Events per second over the last minutes, oldest first.
    pub course: Vec<f64>,
}

impl Pulses {
    /// Takes down how long the log of a space is, and says how fast it grows.
    pub(super) fn note(&self, space: &str, now: Timestamp, end: u64) -> Pulse {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SPACES_MAX && !all.contains_key(space) {
            all.clear();
        }
        let samples = all.entry(space.to_owned()).or_default();
        samples.retain(|(at, seen)| now.millis() - at.millis() < SPAN_MS && *at <= now && *seen <= end);
        if samples.back().is_none_or(|(at, _)| now.millis() - at.millis() >= 1_000) {
            samples.push_back((now, end));
        }
        if samples.len() > SAMPLES_MAX {
            samples.pop_front();
        }
        let since = samples.iter().rev().find(|(at, _)| now.millis() - at.millis() >= RATE_MS);
        let since = since.or_else(|| samples.front()).copied();
        let course = samples.iter().zip(samples.iter().skip(1)).filter_map(|(a, b)| rate(*a, *b)).collect();
        Pulse { rate: since.and_then(|since| rate(since, (now, end))), course }
    }
}

fn rate(from: (Timestamp, u64), to: (Timestamp, u64)) -> Option<f64> {
    let millis = to.0.millis() - from.0.millis();
    (millis > 0).then(|| to.1.saturating_sub(from.1) as f64 * 1e3 / millis as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_came_since() {
        let pulses = Pulses::default();
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        assert_eq!(pulses.note("a", at(0), 100), Pulse::default());
        assert_eq!(pulses.note("a", at(2), 300).rate, Some(100.0));
        let later = pulses.note("a", at(10), 300);
        assert_eq!((later.rate, later.course), (Some(0.0), vec![100.0, 0.0]));
        assert_eq!(pulses.note("b", at(10), 5), Pulse::default(), "of another space");
        assert_eq!(pulses.note("a", at(1_000), 300).rate, None, "what is long ago says nothing");
        assert_eq!(pulses.note("a", at(1_010), 5).rate, None, "a space that was purged begins anew");
    }
}
