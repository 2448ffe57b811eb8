//! Whatever a definition is: it is compiled or refused with places within the text, and what is formatted means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use personas::domain::Collection;
use personas::engine::query::{compile_for, format};
use personas::engine::{Kind, Limits};

fuzz_target!(|text: &str| {
    let limits = Limits::default();
    for collection in [Collection::Users, Collection::Accounts] {
        for kind in [Kind::Audience, Kind::ComputedTrait] {
            match compile_for(collection, text, kind, limits) {
                Ok(plan) => {
                    let formatted = format(text, limits).expect("what compiles can be formatted");
                    let again = compile_for(collection, &formatted, kind, limits).expect("it compiles again");
                    let leaves = |plan: &personas::engine::Plan| {
                        let mut all: Vec<String> = plan.leaves().map(|(_, leaf)| leaf.canonical()).collect();
                        all.sort_unstable();
                        all
                    };
                    assert_eq!(leaves(&plan), leaves(&again), "{text:?} became {formatted:?}");
                }
                Err(errors) => assert!(!errors.is_empty()),
            }
        }
    }
});
