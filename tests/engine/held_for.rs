//! `held_for`: how long a trait has had its value, whatever the order in which its writes come.

use personas::domain::{EventType, Timestamp};
use personas::engine::{Kind, LeafStates};
use proptest::prelude::*;

use crate::harness::*;

const STEP: i64 = 500;
const HELD: &str = "trait('plan').held_for(3 seconds)";

/// An identify call; `body` is its traits.
fn write(step: i64, id: usize, body: &str) -> Event {
    Event {
        call: EventType::Identify,
        message_id: format!("m{id}"),
        received_at: NOW,
        ..event("", NOW + step * STEP, body)
    }
}

fn held_at(query: &str, writes: &[Event], now: i64) -> bool {
    let mut space = Space::new(query, Kind::Audience);
    space.fold(writes);
    truth(&space.at(now))
}

#[test]
fn a_repetition_keeps_the_time_and_another_value_starts_anew() {
    let pro = r#"{"plan":"pro"}"#;
    let writes = [write(0, 1, pro), write(5, 2, pro), write(4, 3, r#"{"seats":3}"#)];
    assert!(!held_at(HELD, &writes, NOW + 2_999));
    assert!(held_at(HELD, &writes, NOW + 3_000), "the bound is inside");
    let late = [&writes[..], &[write(2, 4, r#"{"plan":"free"}"#)]].concat();
    assert!(!held_at(HELD, &late, NOW + 3_000), "a late write comes between the two");
    assert!(held_at(HELD, &late, NOW + 5 * STEP + 3_000));
}

#[test]
fn the_traits_of_a_group_call_are_the_accounts() {
    let pro = r#"{"plan":"pro"}"#;
    let of_account = Event { call: EventType::Group, ..write(4, 2, r#"{"plan":"enterprise"}"#) };
    assert!(held_at(HELD, &[write(0, 1, pro), of_account.clone()], NOW + 3_000));
    assert!(!held_at(HELD, &[of_account], NOW + DAY));
}

#[test]
fn no_value_is_never_held() {
    assert!(!held_at(HELD, &[], NOW + DAY));
    assert!(!held_at(HELD, &[write(0, 1, r#"{"plan":null}"#)], NOW + DAY));
    let removed = [write(0, 1, r#"{"plan":"pro"}"#), write(1, 2, r#"{"plan":null}"#)];
    assert!(!held_at(HELD, &removed, NOW + DAY));
    assert!(held_at("NOT trait('plan').held_for(3 days)", &removed, NOW + DAY));
}

#[test]
fn what_is_inside_of_an_object_has_a_time_of_its_own() {
    let query = "trait('address.city').held_for(3 seconds)";
    let writes = [
        write(0, 1, r#"{"address":{"city":"Lyon","street":"a"}}"#),
        write(6, 2, r#"{"address":{"city":"Lyon","street":"b"}}"#),
    ];
    assert!(held_at(query, &writes, NOW + 6 * STEP));
    assert!(!held_at("trait('address').held_for(3 seconds)", &writes, NOW + 6 * STEP));
}

#[test]
fn both_spellings_of_a_reserved_name_are_one_trait() {
    for query in ["trait('firstName').held_for(3 seconds)", "trait('first_name').held_for(3 seconds)"] {
        let writes = [write(0, 1, r#"{"firstName":"Ada"}"#), write(5, 2, r#"{"first_name":"Ada"}"#)];
        assert!(held_at(query, &writes, NOW + 3_000), "{query}");
        assert!(!held_at(
            query,
            &[&writes[..], &[write(3, 3, r#"{"firstName":"Bob"}"#)]].concat(),
            NOW + 3_000
        ));
    }
}

#[test]
fn other_calls_write_no_traits() {
    let track = Event { call: EventType::Track, ..write(0, 1, r#"{"plan":"pro"}"#) };
    assert!(!held_at(HELD, &[track], NOW + DAY));
    let alias = Event { call: EventType::Alias, ..write(0, 1, r#"{"plan":"pro"}"#) };
    assert!(!held_at(HELD, &[alias], NOW + DAY));
}

/// Straight from the words: the newest write says the value, and no other value lies between it and `since`.
fn naive(writes: &[(i64, usize, Option<&str>)], now: i64) -> bool {
    let mut sorted = writes.to_vec();
    sorted.sort_unstable();
    let Some((_, _, Some(value))) = sorted.last().copied() else { return false };
    let mut since = None;
    for (at, _, written) in sorted {
        since = if written == Some(value) { since.or(Some(at)) } else { None };
    }
    since.is_some_and(|at| NOW + at * STEP <= now - 3_000)
}

proptest! {
    #[test]
    fn it_is_what_the_words_say_in_any_order_and_any_split(
        writes in prop::collection::vec((0..12_i64, prop::option::weighted(0.85, prop::sample::select(vec!["a", "b"]))), 0..10)
            .prop_map(|w| w.into_iter().enumerate().map(|(id, (at, value))| (at, id, value)).collect::<Vec<_>>())
            .prop_shuffle(),
        split in 0..10_usize, now in 0..30_i64,
    ) {
        let events: Vec<Event> = writes.iter().map(|(at, id, value)| {
            let value = value.map_or("null".to_owned(), |value| format!("\"{value}\""));
            write(*at, *id, &format!("{{\"plan\":{value}}}"))
        }).collect();
        let (left, right) = events.split_at(split.min(events.len()));
        let mut space = Space::new(HELD, Kind::Audience);
        space.fold(right);
        let states: LeafStates = std::mem::take(&mut space.profile.states);
        space.fold(left);
        space.profile.states.merge(&states);
        let now = NOW + now * STEP;
        let evaluation = space.at(now);
        prop_assert_eq!(truth(&evaluation), naive(&writes, now));
        // It says when it turns.
        let turns = (now + 1..now + 20_000).step_by(1).find(|at| naive(&writes, *at) != truth(&evaluation));
        prop_assert_eq!(evaluation.changes_at, turns.map(Timestamp::from_millis));
    }
}
