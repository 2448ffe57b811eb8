//! Definitions together: sharing, order of evaluation, circles, and which events concern which definitions.

use std::collections::HashMap;

use personas::domain::{ComputationNo, LeafNo, Timestamp, Value};
use personas::engine::{Definition, Dirty, Kind, LeafSpec, LeafStates, Program, ProgramError};

use crate::harness::*;

fn definition(no: u32, key: &str, kind: Kind, query: &str) -> Definition {
    Definition { no: ComputationNo(no), key: key.to_owned(), serving: true, plan: compiled(query, kind) }
}

fn audience(no: u32, key: &str, query: &str) -> Definition {
    definition(no, key, Kind::Audience, query)
}

/// Interns as a space does: by the canonical text.
fn build(definitions: Vec<Definition>) -> Result<Program, ProgramError> {
    let mut known: HashMap<String, LeafNo> = HashMap::new();
    let mut intern = |leaf: &LeafSpec| {
        let next = LeafNo(known.len() as u32 + 1);
        *known.entry(leaf.canonical()).or_insert(next)
    };
    Program::build(definitions, &mut intern)
}

fn taken(program: &Program, mut dirty: Dirty) -> Vec<String> {
    std::iter::from_fn(|| dirty.pop()).map(|place| program.computations()[place].key.clone()).collect()
}

#[test]
fn equal_leaves_are_shared_and_events_find_their_definitions() {
    let program = build(vec![
        audience(1, "buyers", "event('Bought').count() >= 1"),
        audience(2, "fans", "event('Bought') >= 10 AND trait('plan') = 'pro'"),
        audience(3, "lookers", "event('Viewed').where(context('a') = 1 OR property('b') = 1) >= 1"),
        audience(4, "everybody", "everyone()"),
    ])
    .expect("program");
    assert_eq!(program.leaves().len(), 2);
    let mut states = LeafStates::default();
    let fold = |states: &mut LeafStates, event: &Event| {
        let mut dirty = Dirty::default();
        let changed = program.fold(states, &event.facts(), &mut dirty);
        assert_eq!(changed, !dirty.is_empty());
        taken(&program, dirty)
    };
    assert_eq!(fold(&mut states, &event("Bought", NOW, "")), ["buyers", "fans"]);
    assert_eq!(fold(&mut states, &event("Other", NOW, "")), Vec::<String>::new());
    assert_eq!(fold(&mut states, &event("Viewed", NOW, r#"{"b":2}"#)), Vec::<String>::new());
    assert_eq!(fold(&mut states, &event("Viewed", NOW, r#"{"b":2,"b":1}"#)), ["lookers"]);
    assert_eq!(
        fold(&mut states, &Event { context: r#"{"a":1}"#.to_owned(), ..event("Viewed", NOW, "") }),
        ["lookers"]
    );

    let mut dirty = Dirty::default();
    program.mark_trait("plan", &mut dirty);
    program.mark(ComputationNo(4), &mut dirty);
    assert_eq!(taken(&program, dirty), ["fans", "everybody"]);
    let mut dirty = Dirty::default();
    program.mark_all(&mut dirty);
    assert_eq!(taken(&program, dirty).len(), 4);
}

#[test]
fn patterns_find_their_events_beside_exact_names() {
    let program = build(vec![
        audience(1, "cart", "event('Cart *').where(property('a') = 1) >= 1"),
        audience(2, "viewed", "event('Cart Viewed').where(property('b') = 2 AND property('a') = 1) >= 1"),
        audience(3, "any", "event('*') >= 1"),
    ])
    .expect("program");
    let mut states = LeafStates::default();
    let mut fold = |name: &str, properties: &str| {
        let mut dirty = Dirty::default();
        program.fold(&mut states, &event(name, NOW, properties).facts(), &mut dirty);
        taken(&program, dirty)
    };
    for _ in 0..2 {
        assert_eq!(fold("Cart Viewed", r#"{"a":1,"b":2}"#), ["cart", "viewed", "any"]);
        assert_eq!(fold("Cart Left", r#"{"a":1,"b":2}"#), ["cart", "any"]);
        assert_eq!(fold("Cart Left", r#"{"b":2}"#), ["any"]);
        assert_eq!(fold("Other", ""), ["any"]);
        assert_eq!(fold("", ""), Vec::<String>::new());
    }
    // More names than are remembered are answered the same.
    for i in 0..10_100 {
        assert_eq!(fold(&format!("Cart {i}"), r#"{"a":1}"#), ["cart", "any"]);
    }
}

#[test]
fn what_is_referred_to_comes_first() {
    let program = build(vec![
        audience(1, "a", "audience('b') AND audience('c')"),
        audience(2, "b", "trait('c') = true"),
        definition(3, "n", Kind::ComputedTrait, "event('X').count()"),
        audience(4, "c", "trait('n') >= 2"),
    ])
    .expect("program");
    let order: Vec<&str> = program.computations().iter().map(|c| c.key.as_str()).collect();
    assert_eq!(order, ["n", "c", "b", "a"]);

    // A change runs through all of them in one pass.
    let mut profile = Profile::default();
    let mut evaluate = |dirty: &mut Dirty| {
        while let Some(place) = dirty.pop() {
            let computation = &program.computations()[place];
            let value = computation.plan.evaluate(&profile, Timestamp::from_millis(NOW)).value;
            if profile.traits.insert(computation.key.clone(), value.clone()) != Some(value) {
                program.mark_trait(&computation.key, dirty);
            }
        }
        profile.traits.get("a").cloned()
    };
    let mut dirty = Dirty::default();
    program.mark_all(&mut dirty);
    assert_eq!(evaluate(&mut dirty), Some(Value::Bool(false)));
    let mut states = LeafStates::default();
    for i in 0..2 {
        program.fold(&mut states, &event("X", NOW + i, "").facts(), &mut dirty);
    }
    profile.states = states;
    let mut evaluate = |dirty: &mut Dirty| {
        while let Some(place) = dirty.pop() {
            let computation = &program.computations()[place];
            let value = computation.plan.evaluate(&profile, Timestamp::from_millis(NOW + 9)).value;
            if profile.traits.insert(computation.key.clone(), value.clone()) != Some(value) {
                program.mark_trait(&computation.key, dirty);
            }
        }
        profile.traits.get("a").cloned()
    };
    assert_eq!(evaluate(&mut dirty), Some(Value::Bool(true)));
}

#[test]
fn circles_are_refused_by_name() {
    let circle = |definitions| match build(definitions) {
        Err(ProgramError::Cycle(keys)) => keys,
        Ok(_) => panic!("accepted"),
    };
    let keys = circle(vec![
        audience(1, "a", "audience('b')"),
        audience(2, "b", "audience('c')"),
        audience(3, "c", "NOT trait('b') = true"),
    ]);
    assert_eq!(keys, ["b", "c", "b"]);
    assert_eq!(circle(vec![audience(1, "self", "audience('self')")]), ["self", "self"]);
    let chain = (0..2_000).map(|i| audience(i, &format!("k{i}"), &format!("audience('k{}')", i + 1)));
    assert_eq!(build(chain.collect()).expect("long, but no circle").computations()[0].key, "k1999");
}

#[test]
fn references_mean_the_serving_version() {
    let next = Definition { serving: false, ..audience(3, "b", "audience('a')") };
    let program = build(vec![audience(1, "a", "audience('b')"), audience(2, "b", "everyone()"), next])
        .expect("no circle");
    let order: Vec<u32> = program.computations().iter().map(|c| c.no.0).collect();
    assert_eq!(order, [2, 1, 3]);
}

#[test]
fn compaction_forgets_leaves_that_nobody_reads() {
    let mut space = Space::new("event('A').within(1 day) >= 1", Kind::Audience);
    space.fold(&[event("A", NOW - 3 * DAY, "")]);
    let mut other = Space::new("event('B') >= 1", Kind::Audience);
    other.fold(&[event("B", NOW, "")]);
    let state = other.profile.states.get(LeafNo(11)).expect("state").into_owned();
    space.profile.states.update(LeafNo(99), |slot| {
        *slot = state;
        true
    });
    assert_eq!(space.profile.states.iter().count(), 2);
    space.program.compact(&mut space.profile.states, Timestamp::from_millis(NOW));
    assert!(space.profile.states.is_empty());
}
