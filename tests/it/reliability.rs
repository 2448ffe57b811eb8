//! The page about faults names tests that there are, and leaves none of them out.

use std::fs;

#[test]
fn every_fault_and_invariant_has_tests_that_are_there() {
    let page = fs::read_to_string("docs/reliability.md").unwrap();
    let named: Vec<[&str; 3]> =
        page.split('`').filter_map(|word| word.split("::").collect::<Vec<_>>().try_into().ok()).collect();
    assert!(named.len() > 60, "{named:?}");
    for [binary, module, test] in named {
        let file = fs::read_to_string(format!("tests/{binary}/{module}.rs")).unwrap_or_default();
        assert!(
            file.contains(&format!("fn {test}(")),
            "docs/reliability.md names {binary}::{module}::{test}, which is not there"
        );
    }
    let rows = (1..=32).map(|no| format!("| F{no:02} |")).chain((1..=34).map(|no| format!("| I{no} |")));
    for row in rows {
        assert_eq!(page.matches(&row).count(), 1, "{row}");
    }
}
