//! A bounded map for what the processor knows anyway: two generations, the older one dropped whole.
//!
//! Cheaper than a list of recency, and nothing that was asked for since the last turn is lost. Values are moved out
//! while a batch works on them and moved back after its commit, so a batch that fails leaves nothing wrong behind.

use std::hash::Hash;

use bytes::Bytes;
use hashbrown::HashMap;

/// What an entry counts for the bound of a cache.
pub(super) trait Weigh {
    fn weight(&self) -> usize;
}

/// Entries of fixed size are counted.
impl Weigh for crate::domain::ProfileNo {
    fn weight(&self) -> usize {
        1
    }
}

/// Bytes are bytes, and what a map and an allocation cost beside them.
impl Weigh for Bytes {
    fn weight(&self) -> usize {
        self.len() + 96
    }
}

/// The cache.
pub(super) struct Cache<K, V> {
    young: HashMap<K, V>,
    young_weight: usize,
    old: HashMap<K, V>,
    young_max: usize,
}

impl<K: Eq + Hash + Copy, V: Weigh> Cache<K, V> {
    /// A cache of at most that weight.
    pub(super) fn new(weight_max: usize) -> Self {
        Self {
            young: HashMap::new(),
            young_weight: 0,
            old: HashMap::new(),
            young_max: (weight_max / 2).max(1),
        }
    }

    /// Moves an entry out.
    pub(super) fn take(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.remove(key) {
            self.young_weight -= value.weight();
            return Some(value);
        }
        self.old.remove(key)
    }

    /// Puts an entry in (back).
    pub(super) fn put(&mut self, key: K, value: V) {
        if self.young_weight >= self.young_max {
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        self.old.remove(&key);
        self.young_weight += value.weight();
        if let Some(before) = self.young.insert(key, value) {
            self.young_weight -= before.weight();
        }
    }
}

impl<K: Eq + Hash + Copy, V: Copy + Weigh> Cache<K, V> {
    /// A copy of an entry, which counts as used.
    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(*value);
        }
        let value = self.old.remove(key)?;
        self.put(*key, value);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;
    use crate::domain::ProfileNo;

    #[test]
    fn it_stays_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::new(100);
        cache.put(0, ProfileNo(0));
        for key in 1..10_000 {
            assert_eq!(cache.get(&0), Some(ProfileNo(0)));
            cache.put(key, ProfileNo(key));
            assert!(cache.young.len() + cache.old.len() <= 100);
        }
        assert_eq!(cache.take(&0), Some(ProfileNo(0)));
        assert_eq!(cache.get(&0), None);
        assert_eq!(cache.get(&1), None);
    }
}
