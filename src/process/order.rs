//! In which order what happened in a batch is told: that of time.

use std::hash::Hash;

use hashbrown::HashMap;

use crate::domain::Timestamp;

/// Sorts by time what happened in this order. Clocks of processes differ: what one thing went through stays in its order
/// though it was received by a clock that is behind.
pub(super) fn sort_by_time<T, K: Eq + Hash>(changes: &mut Vec<T>, what: impl Fn(&T) -> (K, Timestamp)) {
    let mut latest: HashMap<K, Timestamp> = HashMap::with_capacity(changes.len());
    let timed = changes.drain(..).map(|change| {
        let (key, at) = what(&change);
        let latest = latest.entry(key).or_insert(at);
        *latest = at.max(*latest);
        (*latest, change)
    });
    let mut timed: Vec<(Timestamp, T)> = timed.collect();
    timed.sort_by_key(|(at, _)| *at);
    changes.extend(timed.into_iter().map(|(_, change)| change));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What one thing went through keeps its order, whatever the clocks said; by time it is where they agree.
        #[test]
        fn nothing_is_turned_round(changes in prop::collection::vec((0..4_u8, 0..6_i64), 0..40)) {
            let happened: Vec<(u8, i64, usize)> =
                changes.iter().enumerate().map(|(n, (thing, at))| (*thing, *at, n)).collect();
            let mut told = happened.clone();
            sort_by_time(&mut told, |(thing, at, _)| (*thing, Timestamp::from_millis(*at)));
            for thing in 0..4 {
                let of = |list: &[(u8, i64, usize)]| -> Vec<usize> {
                    list.iter().filter(|one| one.0 == thing).map(|one| one.2).collect()
                };
                prop_assert_eq!(of(&told), of(&happened));
            }
            let goes_back = |thing: u8| {
                let times: Vec<i64> = happened.iter().filter(|one| one.0 == thing).map(|one| one.1).collect();
                times.windows(2).any(|pair| pair[0] > pair[1])
            };
            if !(0..4).any(goes_back) {
                let mut by_time = happened;
                by_time.sort_by_key(|one| one.1);
                prop_assert_eq!(told, by_time);
            }
        }
    }
}
