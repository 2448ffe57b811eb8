//! A bounded map for what the processor knows anyway: two generations, the older one dropped whole.
//!
//! Cheaper than a list of recency, and nothing that was asked for since the last turn is lost. Values are moved out
//! while a batch works on them and moved back after its commit, so a batch that fails leaves nothing wrong behind.

use std::hash::Hash;

use hashbrown::HashMap;

/// The cache.
pub(super) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    young_max: usize,
}

impl<K: Eq + Hash + Copy, V> Cache<K, V> {
    /// A cache of at most `entries_max` entries.
    pub(super) fn new(entries_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_max: (entries_max / 2).max(1) }
    }

    /// Moves an entry out.
    pub(super) fn take(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    /// Puts an entry in (back).
    pub(super) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.young_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }
}

impl<K: Eq + Hash + Copy, V: Copy> Cache<K, V> {
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

    #[test]
    fn it_stays_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::new(100);
        cache.put(0, 0);
        for key in 1..10_000 {
            assert_eq!(cache.get(&0), Some(0));
            cache.put(key, key);
            assert!(cache.young.len() + cache.old.len() <= 100);
        }
        assert_eq!(cache.take(&0), Some(0));
        assert_eq!(cache.get(&0), None);
        assert_eq!(cache.get(&1), None);
    }
}
