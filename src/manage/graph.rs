//! Which definitions refer to which: through trait names that are the keys of others.

use std::collections::{BTreeMap, BTreeSet};

/// Keys and the traits their queries read. A key whose versions read different traits has all of them.
#[derive(Debug, Default)]
pub(super) struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    /// Adds what the query behind `key` reads.
    pub(super) fn add<'a>(&mut self, key: &str, traits: impl IntoIterator<Item = &'a String>) {
        self.0.entry(key.to_owned()).or_default().extend(traits.into_iter().cloned());
    }

    /// The keys `key` refers to.
    pub(super) fn references(&self, key: &str) -> Vec<String> {
        let read = self.0.get(key).into_iter().flatten();
        read.filter(|name| self.0.contains_key(*name)).cloned().collect()
    }

    /// The other keys that refer to `key`.
    pub(super) fn referrers(&self, key: &str) -> Vec<String> {
        let others = self.0.iter().filter(|(other, read)| *other != key && read.contains(key));
        others.map(|(other, _)| other.clone()).collect()
    }

    /// A circle through `key`, as `a → b → a`, if there is one. The search keeps its own stack: a chain of references
    /// may be as long as there are definitions.
    pub(super) fn circle_through(&self, key: &str) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut open = vec![key];
        while let Some(at) = open.pop() {
            for name in self.0.get(at).into_iter().flatten() {
                if name == key {
                    return Some(path(key, at, &came_from));
                }
                let Some((next, _)) = self.0.get_key_value(name) else { continue };
                if !came_from.contains_key(next.as_str()) {
                    came_from.insert(next, at);
                    open.push(next);
                }
            }
        }
        None
    }
}

/// From `key` to `last` and back to `key`.
fn path(key: &str, last: &str, came_from: &BTreeMap<&str, &str>) -> Vec<String> {
    let mut path = vec![key.to_owned(), last.to_owned()];
    let mut at = last;
    while let Some(&before) = came_from.get(at).filter(|_| at != key) {
        path.push(before.to_owned());
        at = before;
    }
    if last == key {
        path.pop();
        path.push(key.to_owned());
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::Graph;

    fn graph(edges: &[(&str, &[&str])]) -> Graph {
        let mut graph = Graph::default();
        for (key, traits) in edges {
            let traits: Vec<String> = traits.iter().map(|&t| t.to_owned()).collect();
            graph.add(key, &traits);
        }
        graph
    }

    #[test]
    fn circles_are_found_and_named_in_order() {
        let found = |edges: &[(&str, &[&str])], key| graph(edges).circle_through(key).map(|c| c.join(" "));
        assert_eq!(found(&[("a", &["a"])], "a").as_deref(), Some("a a"));
        assert_eq!(found(&[("a", &["b", "plan"]), ("b", &["a"])], "a").as_deref(), Some("a b a"));
        let three: &[(&str, &[&str])] = &[("a", &["b"]), ("b", &["c"]), ("c", &["a", "b"])];
        assert_eq!(found(three, "a").as_deref(), Some("a b c a"));
        assert_eq!(found(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])], "a"), None, "not through a");
        assert_eq!(found(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])], "a"), None);
    }

    #[test]
    fn references_are_keys_only() {
        let graph = graph(&[("a", &["b", "plan"]), ("b", &[]), ("c", &["b", "c"])]);
        assert_eq!(graph.references("a"), ["b"]);
        assert_eq!(graph.referrers("b"), ["a", "c"]);
        assert!(graph.referrers("c").is_empty(), "its own reference does not keep it");
    }

    #[test]
    fn a_long_chain_is_no_trouble() {
        let mut graph = Graph::default();
        for i in 0..20_000 {
            graph.add(&format!("k{i}"), &[format!("k{}", (i + 1) % 20_000)]);
        }
        assert_eq!(graph.circle_through("k0").map(|c| c.len()), Some(20_001));
    }
}
