//! The laws of states: a commutative monoid, down to the bytes.

use personas::domain::{LeafNo, Timestamp};
use personas::engine::state::{EXACT_ITEMS, HOURLY_SPANS, ROWS, ROWS_BYTES, Read};
use personas::engine::{Kind, LeafSpec, LeafState, LeafStates, Limits, compile};
use proptest::prelude::*;

use crate::harness::*;

/// Leaves of every kind, with and without windows.
const QUERIES: [&str; 33] = [
    "event('A').count()",
    "event('A').within(3 hours).count()",
    "event('A').sum(property('x'))",
    "event('A').between(1 hour, 3 hours).sum(property('x'))",
    "event('A').min(property('x'))",
    "event('A').within(3 hours).max(property('x') as string)",
    "event('A').first(property('x'))",
    "event('A').within(3 hours).first(property('x'))",
    "event('A').last(property('x'))",
    "event('A').within(3 hours).last(property('x'))",
    "event('A').unique(property('x'))",
    "event('A').within(3 hours).unique(property('x'))",
    "event('A').where(property('x') > 1).mode(property('x'), 1)",
    "event('A').between(2024-01-01, 2024-06-01T02:00:00Z).within_nothing()",
    "event('A').where(property('d').within_next(90 minutes)).within(3 hours).count()",
    "event('A').where(NOT property('d').within_last(1 hour) OR property('x') = 1).sum(property('x'))",
    "event('A').where(property('d').before_last(1 hour)).first(property('x'))",
    "event('A').where(property('d').after_next(30 minutes)).last(property('x'))",
    "event('A').where(property('d').within_next(2 hours)).between(1 hour, 4 hours).max(property('x'))",
    "event('A').where(NOT property('d').before_last(2 hours)).unique(property('x'))",
    "event('A').within(3 hours).count() >= 3",
    "event('A').within(3 hours).count() < 1",
    "event('A').between(1 hour, 3 hours).count() = 2",
    "event('A').where(property('x') > 1).within(2 hours).count().one_of(1, 4)",
    "event('A').within(2 hours).sum(property('l.$.x'))",
    "event('A').expires_after(20 minutes).count()",
    "event('A').expires_after(7 minutes).sum(property('x'))",
    "event('A').where(property('x') > 1).expires_after(1 hour).last(property('x'))",
    "event('A').expires_after(1 minute).unique(property('x'))",
    "event('A').where(any_item('l', property('d').within_next(1 hour) OR property('x') = 1)).last(property('l.$.x'))",
    "event('A').where(property('x') = trait('t')).within(3 hours).count()",
    "event('A').where(property('d').within_next(1 hour) AND property('l.$.x') = trait('t')).sum(property('x'))",
    "event('A').where(event('B').where(property('x') = property(parent: 'x')).count() = 0).last(timestamp())",
];

fn leaf(index: usize) -> LeafSpec {
    let query = QUERIES[index].replace("within_nothing", "count");
    let is_value = compile(&query, Kind::ComputedTrait, Limits::default()).is_ok();
    let kind = if is_value { Kind::ComputedTrait } else { Kind::Audience };
    compiled(&query, kind).leaves().next().expect("one leaf").1.clone()
}

fn of(leaf: &LeafSpec, events: &[Event]) -> LeafState {
    let mut state = LeafState::default();
    for event in events {
        leaf.fold(&mut state, &event.facts());
    }
    state
}

fn merged(mut a: LeafState, b: LeafState) -> LeafState {
    a.merge(b);
    a
}

fn bytes(state: &LeafState) -> Vec<u8> {
    let mut states = LeafStates::default();
    states.update(LeafNo(1), |slot| {
        *slot = state.clone();
        true
    });
    stored(&states)
}

fn instant(at: i64) -> Timestamp {
    Timestamp::from_millis(at)
}

/// Events within six hours; some are in the future when received.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let value = prop::sample::select(vec![
        "1",
        "2.50",
        "0.1",
        "-3",
        "\"a\"",
        "\"7\"",
        "null",
        "true",
        "1e20",
        "[1]",
        "12345678901234567890123456789",
    ]);
    let one = (0..360_i64, -60..60_i64, value, 0..50_u64, 0..500_i64);
    prop::collection::vec(one, 0..30).prop_map(|all| {
        let convert = |(i, (minute, delay, x, id, date)): (usize, (i64, i64, &str, u64, i64))| Event {
            received_at: NOW + (minute + delay) * 60_000,
            message_id: format!("{id}-{i}"),
            ..event(
                "A",
                NOW + minute * 60_000,
                &format!(
                    "{{\"x\":{x},\"d\":\"{0}\",\"l\":[{{\"x\":{x},\"d\":\"{0}\"}},{{\"x\":{id}}}]}}",
                    instant(NOW + date * 60_000)
                ),
            )
        };
        all.into_iter().enumerate().map(convert).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn merge_is_associative_and_commutative_with_a_neutral_element(
        index in 0..QUERIES.len(), a in events(), b in events(), c in events(),
    ) {
        let leaf = leaf(index);
        let (a, b, c) = (of(&leaf, &a), of(&leaf, &b), of(&leaf, &c));
        prop_assert_eq!(merged(a.clone(), b.clone()), merged(b.clone(), a.clone()));
        prop_assert_eq!(
            merged(merged(a.clone(), b.clone()), c.clone()),
            merged(a.clone(), merged(b, c))
        );
        prop_assert_eq!(&merged(a.clone(), LeafState::default()), &a);
        prop_assert_eq!(&merged(LeafState::default(), a.clone()), &a);
    }

    #[test]
    fn any_order_and_any_split_give_the_same_bytes(
        index in 0..QUERIES.len(),
        (events, shuffled) in events().prop_flat_map(|e| (Just(e.clone()), Just(e).prop_shuffle())),
        split in any::<prop::sample::Index>(),
        hours in 0..9_i64,
    ) {
        let leaf = leaf(index);
        let whole = of(&leaf, &events);
        let (left, right) = shuffled.split_at(split.index(shuffled.len() + 1));
        let (left, right) = (of(&leaf, left), of(&leaf, right));
        let parts = merged(left.clone(), right.clone());
        prop_assert_eq!(&parts, &whole);
        prop_assert_eq!(bytes(&parts), bytes(&whole));

        // Compaction is the same before and after a merge.
        let now = Timestamp::from_millis(NOW + hours * HOUR);
        let compacted = |mut state: LeafState| { state.compact(leaf.window, now); state };
        prop_assert_eq!(
            compacted(merged(compacted(left), compacted(right))),
            compacted(whole)
        );
    }
}

#[test]
fn the_laws_hold_beyond_the_exact_items() {
    for index in [1, 3, 7, 11] {
        let leaf = leaf(index);
        let events: Vec<Event> = (0..2_600_i64)
            .map(|i| event("A", NOW + (i * 7_919) % (5 * HOUR), &format!("{{\"x\":{}}}", i % 50)))
            .collect();
        let whole = of(&leaf, &events);
        let backward: Vec<Event> = events.iter().rev().cloned().collect();
        assert_eq!(bytes(&of(&leaf, &backward)), bytes(&whole));
        for parts in [2, 3, 7] {
            let merged = events
                .chunks(2_600 / parts)
                .fold(LeafState::default(), |state, part| merged(of(&leaf, part), state));
            assert_eq!(bytes(&merged), bytes(&whole));
        }
        let now = Timestamp::from_millis(NOW + 5 * HOUR);
        let compacted = |mut state: LeafState| {
            state.compact(leaf.window, now);
            state
        };
        let (left, right) = events.split_at(1_700);
        let early = merged(compacted(of(&leaf, left)), compacted(of(&leaf, right)));
        assert_eq!(bytes(&compacted(early)), bytes(&compacted(whole)));
    }
}

#[test]
fn the_laws_hold_beyond_the_rows_that_are_kept() {
    let query = "event('A').where(property('x') = trait('t')).count()";
    let leaf = compiled(query, Kind::ComputedTrait).leaves().next().expect("one leaf").1.clone();
    // Short ones, of which the number decides, and long ones, of which the bytes do.
    for (length, most) in [(1, ROWS), (400, ROWS)] {
        let one = |i: i64| {
            let long = "x".repeat(length * (1 + i as usize % 3));
            event("A", NOW + (i * 7_919) % 2_500 * 1_000, &format!("{{\"x\":\"{long}\"}}"))
        };
        let events: Vec<Event> = (0..2_500).map(one).collect();
        let whole = of(&leaf, &events);
        assert!(bytes(&whole).len() <= ROWS_BYTES + most * 4, "{}", bytes(&whole).len());
        let backward: Vec<Event> = events.iter().rev().cloned().collect();
        assert_eq!(bytes(&of(&leaf, &backward)), bytes(&whole));
        for split in [1, 900, 2_400] {
            let (left, right) = events.split_at(split);
            let (left, right) = (of(&leaf, left), of(&leaf, right));
            assert_eq!(bytes(&merged(left.clone(), right.clone())), bytes(&whole));
            assert_eq!(bytes(&merged(right, left)), bytes(&whole));
        }
    }
}

#[test]
fn more_rows_than_are_kept_are_flagged_and_the_newest_count() {
    let query = "event('A').where(property('x') = trait('t')).within(1 hour).count()";
    let mut space = Space::new(query, Kind::ComputedTrait).with_trait("t", "1");
    let events: Vec<Event> = (0..1_500).map(|i| event("A", NOW + i, "{\"x\":1}")).collect();
    space.fold(&events);
    let found = space.at(NOW + 1_500);
    assert_eq!((found.value.to_json().as_str(), found.flags.cut), ("1000", true));
    // The dropped ones would have left by then.
    let found = space.at(NOW + HOUR + 700);
    assert_eq!((found.value.to_json().as_str(), found.flags.cut), ("800", false));
}

#[test]
fn the_laws_hold_beyond_the_cells_of_sessions() {
    const COUNT: i64 = 2_000;
    let session = compiled("event('A').expires_after(10 minutes).sum(property('x'))", Kind::ComputedTrait);
    let leaf = session.leaves().next().expect("one leaf").1.clone();
    // Some of them are ahead of their time, and more than are kept one by one.
    for ahead in [0, i64::MAX] {
        let one = |i: i64| {
            let at = NOW + (i * 7_919) % COUNT * 4 * 60_000;
            Event { received_at: at - ahead.min(1), ..event("A", at, &format!("{{\"x\":{i}}}")) }
        };
        let events: Vec<Event> = (0..COUNT).map(one).collect();
        let whole = of(&leaf, &events);
        assert!(bytes(&whole).len() < 20_000, "{}", bytes(&whole).len());
        let backward: Vec<Event> = events.iter().rev().cloned().collect();
        assert_eq!(bytes(&of(&leaf, &backward)), bytes(&whole));
        let (left, right) = events.split_at(900);
        let (left, right) = (of(&leaf, left), of(&leaf, right));
        assert_eq!(bytes(&merged(left.clone(), right.clone())), bytes(&whole));
        for minutes in [0, 100, 2_001, 4_000, 7_995, 7_996, 8_006, 8_007, 20_000] {
            let now = instant(NOW + minutes * 60_000);
            let compacted = |mut state: LeafState| {
                state.compact(leaf.window, now);
                state
            };
            let early = merged(compacted(left.clone()), compacted(right.clone()));
            assert_eq!(bytes(&compacted(early)), bytes(&compacted(whole.clone())), "at {minutes}");
            let read = |state: &LeafState| (state.read(Read::Sum, None, now), state.changes_at(None, now));
            assert_eq!(read(&compacted(whole.clone())), read(&whole), "at {minutes}");
        }
        let end = instant(NOW + (COUNT - 1) * 4 * 60_000);
        let flags = whole.read(Read::Sum, None, end).flags;
        assert!(flags.cut && !flags.coarse, "{flags:?}");
    }
}

#[test]
fn the_laws_hold_beyond_the_exact_and_the_hourly_spans() {
    const COUNT: i64 = (EXACT_ITEMS + HOURLY_SPANS) as i64 + 700;
    // About one for each hour, with ties; some events leave for ever, some stay for ever, some do both.
    let date = |i: i64| instant(NOW + (i * 7_919) % COUNT * (HOUR - 90_000)).to_string();
    let one =
        |i: i64| event("A", NOW, &format!("{{\"x\":{},\"y\":{},\"d\":\"{}\"}}", i % 50, i % 3, date(i)));
    let events: Vec<Event> = (0..COUNT).map(one).collect();
    let filter = "property('y') = 0 AND property('d').before_last(1 hour)
        OR property('y') = 1 AND property('d').within_last(2 hours)
        OR property('y') = 2 AND NOT property('d').within_last(3 days)";
    for reducer in ["count()", "sum(property('x'))", "last(property('x'))"] {
        let plan = compiled(&format!("event('A').where({filter}).{reducer}"), Kind::ComputedTrait);
        let leaf = plan.leaves().next().expect("one leaf").1.clone();
        let whole = of(&leaf, &events);
        assert!(bytes(&whole).len() < 200_000, "{}", bytes(&whole).len());
        let backward: Vec<Event> = events.iter().rev().cloned().collect();
        assert_eq!(bytes(&of(&leaf, &backward)), bytes(&whole), "{reducer}");
        for parts in [2, 7] {
            let merged = events
                .chunks(events.len() / parts)
                .fold(LeafState::default(), |state, part| merged(of(&leaf, part), state));
            assert_eq!(bytes(&merged), bytes(&whole), "{reducer} of {parts} parts");
        }
        let (left, right) = events.split_at(2_300);
        let (left, right) = (of(&leaf, left), of(&leaf, right));
        for hours in [0, 1, 100, 700, 720, 1_000, 3_000, 5_000, 6_500, 8_000] {
            let now = instant(NOW + hours * HOUR + 58 * 60_000);
            let compacted = |mut state: LeafState| {
                state.compact(leaf.window, now);
                state
            };
            let early = merged(compacted(left.clone()), compacted(right.clone()));
            assert_eq!(bytes(&compacted(early)), bytes(&compacted(whole.clone())), "{reducer} at {hours}");
            let half = merged(compacted(left.clone()), right.clone());
            assert_eq!(bytes(&compacted(half)), bytes(&compacted(whole.clone())), "{reducer} at {hours}");
            // Compaction changes no reading and no flag, now or later.
            for later in [0, 1, 30, 2_000] {
                let later = now.plus_millis(later * HOUR);
                let read =
                    |state: &LeafState| (state.read(Read::Value, None, later), state.changes_at(None, later));
                assert_eq!(read(&compacted(whole.clone())), read(&whole), "{reducer} at {hours}");
            }
        }
    }
}

#[test]
fn states_are_small() {
    let leaf = leaf(0);
    let once = of(&leaf, &[event("A", NOW, "")]);
    assert_eq!(bytes(&once).len(), 5, "leaf, its length, kind, count, nothing moving");
    let leaf = self::leaf(1);
    let many: Vec<Event> = (0..100).map(|i| event("A", NOW + i * 60_000, "")).collect();
    assert!(bytes(&of(&leaf, &many)).len() < 330);
    let soon = self::leaf(14);
    let many: Vec<Event> = (0..100)
        .map(|i| event("A", NOW, &format!("{{\"d\":\"{}\"}}", instant(NOW + (i + 60) * 60_000))))
        .collect();
    assert!(bytes(&of(&soon, &many)).len() < 1_000);
}

#[test]
fn the_stored_form_of_plain_windows_stays_what_it_was() {
    let stored = |index: usize| {
        let events = [(0, "1"), (90, "2.50"), (90, "\"7\""), (1_000, "[1]")].map(|(minutes, x)| Event {
            received_at: NOW + HOUR,
            ..event("A", NOW + minutes * 60_000, &format!("{{\"x\":{x}}}"))
        });
        let state = of(&leaf(index), &events);
        hex::encode(bytes(&state))
    };
    let counted = stored(0);
    assert_eq!(counted, "01100101010380e7d796fa63008085893400");
    let windowed = stored(1);
    assert_eq!(windowed, "01140100010480d0c491fa6380979305008085893400");
    let last = stored(9);
    assert!(last.starts_with("015e0600010480d0c491fa630e6d3137313732"), "{last}");
}
