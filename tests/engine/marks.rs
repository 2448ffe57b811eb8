//! What is not marked has not changed: definitions of somebody of whom nothing is known, and those of a survivor that a
//! merge does not concern.

use personas::domain::{Collection, ComputationNo, LeafNo, Offset, ProfileNo, SourceNo, Timestamp, Value};
use personas::engine::profile::Profile;
use personas::engine::traits::Write;
use personas::engine::{
    Definition, Dirty, Evaluation, Kind, LeafSpec, Limits, ProfileView, Program, compile,
};
use proptest::prelude::*;

use crate::harness::{Event, sources};
use crate::naive::*;
use crate::oracle::{START, STEP, engine_events, items_json, query, reducer, scalar, tags_json, world};

fn definition(no: u32, text: &str, kind: Kind) -> Definition {
    let limits = Limits { expressions: 1_000, nesting: 100, ..Limits::default() };
    let mut plan = compile(text, kind, limits).unwrap_or_else(|errors| panic!("{text}\n{errors:#?}"));
    plan.bind_sources(&sources());
    Definition { no: ComputationNo(no), key: format!("of_{no}"), serving: true, plan }
}

fn build(definitions: Vec<Definition>) -> Program {
    let mut known: Vec<String> = Vec::new();
    let mut intern = |leaf: &LeafSpec| {
        let name = leaf.canonical();
        let place = known.iter().position(|one| *one == name).unwrap_or_else(|| {
            known.push(name);
            known.len() - 1
        });
        LeafNo(place as u32 + 1)
    };
    Program::build(definitions, &mut intern).expect("no circles")
}

fn profile(no: u64) -> Profile {
    let (no, offset) = (ProfileNo(no), Offset(no));
    Profile::new(no, Collection::Users, offset, Timestamp::from_millis(START))
}

fn fold(program: &Program, profile: &mut Profile, events: &[Event]) {
    for event in events {
        program.fold(&mut profile.leaves, &event.facts(), &mut Dirty::default());
    }
}

fn set_traits(profile: &mut Profile, world: &World, at: i64) {
    let write = Write {
        at: Timestamp::from_millis(at),
        message_id: format!("traits{at}"),
        source: SourceNo(1),
        public: false,
    };
    let seen = format!("\"{}\"", Timestamp::from_millis(world.seen));
    let (plan, tags, items) = (world.plan.json(), tags_json(world.tags.as_ref()), items_json(&world.items));
    let values = [("plan", plan), ("seen", seen), ("tags", tags), ("items", items)];
    profile.traits.update(|traits| {
        traits.apply(&write, values.iter().map(|(name, value)| ((*name).to_owned(), value.as_str())))
    });
}

fn said(program: &Program, profile: &Profile, now: i64) -> Vec<Evaluation> {
    let view = ProfileView { profile, leaves: &profile.leaves, tally: None, answers: |_: &str| None };
    let now = Timestamp::from_millis(now);
    program.computations().iter().map(|computation| computation.plan.evaluate(&view, now)).collect()
}

fn places(mut dirty: Dirty) -> Vec<usize> {
    std::iter::from_fn(|| dirty.pop()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn of_nobody_nothing_is_said_but_what_is_marked(
        queries in prop::collection::vec(query(), 1..6),
        scalars in prop::collection::vec(scalar(reducer()), 0..4),
        steps in 0..100_i64,
    ) {
        let audiences = queries.iter().map(|query| (query.text(), Kind::Audience));
        let traits = scalars.iter().map(|scalar| (scalar.text(), Kind::ComputedTrait));
        let all = audiences.chain(traits).enumerate();
        let program = build(all.map(|(no, (text, kind))| definition(no as u32 + 1, &text, kind)).collect());
        let mut dirty = Dirty::default();
        program.mark_nobody(&mut dirty);
        let marked = places(dirty);
        for (place, said) in said(&program, &profile(7), START + steps * STEP).into_iter().enumerate() {
            let computation = &program.computations()[place];
            let nothing = match computation.plan.kind() {
                Kind::Audience => Value::Bool(false),
                Kind::ComputedTrait => Value::Null,
            };
            let says_nothing = said.value == nothing && said.changes_at.is_none();
            prop_assert!(says_nothing || marked.contains(&place), "{:?}: {:?}", computation.plan, said);
        }
    }

    #[test]
    fn a_merge_changes_nothing_but_what_is_marked(
        queries in prop::collection::vec(query(), 1..6),
        own in world(),
        theirs in world(),
        has_traits: (bool, bool),
        newer: bool,
        steps in 0..12_i64,
    ) {
        let texts = queries.iter().map(Query::text).enumerate();
        let program = build(texts.map(|(no, text)| definition(no as u32 + 1, &text, Kind::Audience)).collect());
        let (mut survivor, mut absorbed) = (profile(1), profile(2));
        fold(&program, &mut survivor, &engine_events(&own.events));
        fold(&program, &mut absorbed, &engine_events(&theirs.events));
        if has_traits.0 {
            set_traits(&mut survivor, &own, START);
        }
        if has_traits.1 {
            set_traits(&mut absorbed, &theirs, if newer { START + 1 } else { START - 1 });
        }
        let received = own.events.iter().chain(&theirs.events).map(|event| event.received_at);
        let now = received.max().unwrap_or(START) + steps * STEP;
        let before = said(&program, &survivor, now);
        let changed = survivor.absorb(&absorbed);
        let mut dirty = Dirty::default();
        program.mark_absorbed(&absorbed, &changed, &mut dirty);
        let marked = places(dirty);
        let after = said(&program, &survivor, now);
        for (place, (before, after)) in before.iter().zip(&after).enumerate() {
            prop_assert!(before == after || marked.contains(&place), "{before:?}, then {after:?}");
        }
    }
}

#[test]
fn false_is_a_value_of_a_computed_trait_and_nothing_of_an_audience() {
    let program = build(vec![
        definition(1, "false", Kind::ComputedTrait),
        definition(2, "event('A') >= 1", Kind::Audience),
    ]);
    let mut dirty = Dirty::default();
    program.mark_nobody(&mut dirty);
    assert_eq!(places(dirty), [0]);
}
