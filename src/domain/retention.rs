//! How long a space keeps its events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A day, in milliseconds.
const DAY_MS: i64 = 86_400_000;

/// How long events are kept and counted: what is older is as if it had never been sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// All of them, in days; none: as long as the service keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    /// Those of some names, in days, where that is shorter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub events: BTreeMap<String, u32>,
}

impl Retention {
    /// Whether the space says nothing of it.
    pub fn is_unlimited(&self) -> bool {
        self.days.is_none() && self.events.is_empty()
    }

    /// For how many milliseconds an event counts, from its time on: of all that `is_meant` may name, the shortest.
    pub fn counts_for_ms(&self, is_meant: impl Fn(&str) -> bool) -> Option<i64> {
        let own = self.events.iter().filter(|(name, _)| is_meant(name)).map(|(_, days)| *days);
        own.chain(self.days).min().map(|days| i64::from(days) * DAY_MS)
    }

    /// Those names whose events are kept for a shorter time than all others, with how many days.
    pub fn shorter(&self) -> impl Iterator<Item = (&str, u32)> {
        let is_shorter = |days: u32| self.days.is_none_or(|all| days < all);
        self.events
            .iter()
            .filter(move |(_, days)| is_shorter(**days))
            .map(|(name, days)| (name.as_str(), *days))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_counts() {
        let mut retention = Retention::default();
        assert_eq!((retention.is_unlimited(), retention.counts_for_ms(|_| true)), (true, None));
        retention.events.insert("Page Viewed".to_owned(), 3);
        retention.events.insert("Order".to_owned(), 400);
        assert_eq!(retention.counts_for_ms(|name| name == "Order"), Some(400 * DAY_MS));
        assert_eq!(retention.counts_for_ms(|name| name == "Other"), None);
        retention.days = Some(90);
        assert_eq!(retention.counts_for_ms(|name| name == "Order"), Some(90 * DAY_MS));
        assert_eq!(retention.counts_for_ms(|name| name == "Other"), Some(90 * DAY_MS));
        assert_eq!(retention.counts_for_ms(|_| true), Some(3 * DAY_MS), "a pattern may name any");
        assert_eq!(retention.shorter().collect::<Vec<_>>(), [("Page Viewed", 3)]);
    }
}
