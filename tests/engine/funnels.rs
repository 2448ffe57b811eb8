//! Funnels and traits inside of `where`: the specification's vectors, and random ones against the naive evaluator over
//! few instants, so that parents and children often share one.

use personas::domain::Timestamp;
use personas::engine::Kind;
use proptest::prelude::*;

use crate::harness::*;
use crate::naive::*;
use crate::oracle::*;

const ABANDONED: &str =
    "event('Added').where(event('Bought').within(parent: 1 day).count() = 0).within(30 days).count() >= 1";

fn at(name: &str, hours: i64) -> Event {
    event(name, NOW + hours * HOUR, "")
}

#[test]
fn au_07_and_08_a_child_must_follow_its_parent() {
    let holds = |events: &[Event]| {
        let mut space = Space::new(ABANDONED, Kind::Audience);
        space.fold(events);
        truth(&space.at(NOW + 30 * HOUR))
    };
    assert!(holds(&[at("Added", 1), at("Bought", 2), at("Added", 3)]), "AU-07");
    assert!(!holds(&[at("Added", 1), at("Bought", 2)]), "AU-08");
    assert!(holds(&[at("Bought", 0), at("Added", 1)]), "AU-08, before");
    assert!(!holds(&[at("Added", 1), at("Bought", 25)]), "the bound is inside");
    let late = Event { at: NOW + 25 * HOUR + 1, ..at("Bought", 25) };
    assert!(holds(&[at("Added", 1), late]), "one millisecond later it is not");
}

#[test]
fn of_two_at_one_instant_the_larger_message_id_is_later() {
    let holds = |parent: &str, child: &str| {
        let mut space = Space::new(ABANDONED, Kind::Audience);
        let named = |name: &str, id: &str| Event { message_id: id.to_owned(), ..at(name, 1) };
        space.fold(&[named("Bought", child), named("Added", parent)]);
        truth(&space.at(NOW + 2 * HOUR))
    };
    assert!(!holds("a", "b"), "bought after it");
    assert!(holds("b", "a"), "bought before it");
    assert!(!holds("m10", "m9"), "as texts");
}

#[test]
fn a_child_whose_time_has_not_come_does_not_count_yet() {
    let mut space = Space::new(ABANDONED, Kind::Audience);
    let ahead = Event { received_at: NOW + HOUR, ..at("Bought", 5) };
    space.fold(&[at("Added", 1), ahead]);
    let evaluation = space.at(NOW + HOUR);
    assert!(truth(&evaluation));
    assert_eq!(evaluation.changes_at, Some(Timestamp::from_millis(NOW + 5 * HOUR)));
    assert!(!truth(&space.at(NOW + 5 * HOUR)));
}

#[test]
fn chains_and_parents_are_those_next_to_them() {
    let query = "event('A').where(event('B').where(property('k') = property(parent: 'k') AND \
        event('C').where(property('k') = property(parent: 'k')).within(parent: 1 hour) >= 2).count() >= 1).count()";
    let with = |name: &str, minutes: i64, k: &str| {
        event(name, NOW + minutes * 60 * SECOND, &format!("{{\"k\":{k}}}"))
    };
    let value = |events: &[Event]| {
        let mut space = Space::new(query, Kind::ComputedTrait);
        space.fold(events);
        space.at(NOW + DAY).value.to_json()
    };
    let whole = [
        with("A", 0, "1"),
        with("A", 1, "1"),
        with("B", 2, "1"),
        with("C", 3, "1"),
        with("C", 60, "1"),
        with("A", 70, "1"),
    ];
    assert_eq!(value(&whole), "2");
    assert_eq!(value(&whole[1..]), "1");
    assert_eq!(value(&whole[..4]), "0", "one C is not enough");
    let mut other = whole;
    other[2] = with("B", 2, "2");
    assert_eq!(value(&other), "0", "not what the parent has");
    other[2] = with("B", -1, "1");
    assert_eq!(value(&other), "0", "before the parent");
}

#[test]
fn a_trait_that_changes_looks_at_all_events_again() {
    let query = "event('A').where(property('x') >= trait('t')).sum(property('x'))";
    let mut space = Space::new(query, Kind::ComputedTrait);
    assert_eq!(space.program.computations()[0].plan.traits(), ["t"]);
    let events: Vec<Event> = (1..=4).map(|x| event("A", NOW + x, &format!("{{\"x\":{x}}}"))).collect();
    space.fold(&events);
    for (value, sum) in [("3", "7"), ("1", "10"), ("9", "null"), ("null", "null")] {
        space = space.with_trait("t", value);
        assert_eq!(space.at(NOW + DAY).value.to_json(), sum, "{value}");
    }
}

/// The same, with all events at a few instants.
fn dense(mut world: World) -> World {
    for event in &mut world.events {
        event.at = START + (event.at - START) / STEP % 5 * STEP;
        event.received_at = event.received_at.max(event.at);
        event.name = if event.call == "identify" {
            ""
        } else if event.id.as_str() > "m4" {
            "A"
        } else {
            "B"
        };
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3_000) })]

    #[test]
    fn funnels_are_what_the_naive_evaluator_says(
        child in child(3),
        window in prop::option::weighted(0.3, (0..2_i64, 1..5_i64)),
        world in world().prop_map(dense),
        (steps, split) in (0..12_i64, any::<prop::sample::Index>()),
    ) {
        let scalar = Scalar::Event {
            name: "A",
            filter: Some(Where::More(child)),
            without: None,
            window: window.map(|(newest, more)| (newest, newest + more)),
            session: None,
            fixed: None,
            reducer: Reducer::Count,
            read: "x",
        };
        let text = scalar.text();
        let mut space = with_traits(space(&text, Kind::ComputedTrait), &world);
        let mut folded = engine_events(&world.events);
        let middle = split.index(folded.len() + 1);
        folded.rotate_left(middle);
        space.fold(&folded);
        let received = world.events.iter().map(|e| e.received_at).max().unwrap_or(START);
        let now = received + steps * STEP;
        prop_assert_eq!(space.at(now).value.to_json(), scalar.value(&world, now).json(), "{}", text);
    }
}
