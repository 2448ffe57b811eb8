//! Conditions of `where` that are relative to now: the boundary instants, one by one.

use personas::domain::Timestamp;
use personas::engine::state::{EXACT_ITEMS, HOURLY_SPANS};
use personas::engine::{Flags, Kind};

use crate::harness::*;

const MINUTE: i64 = 60 * SECOND;

/// A trial that ends at an instant.
fn trial(at: i64, ends_at: i64) -> Event {
    let ends_at = Timestamp::from_millis(ends_at);
    Event {
        message_id: format!("{at}-{ends_at}"),
        ..event("Trial", at, &format!("{{\"ends_at\":\"{ends_at}\"}}"))
    }
}

/// All instants from `from` on at which the audience is another than before, as its `changes_at` leads to them.
fn changes(space: &Space, from: i64) -> Vec<(i64, bool)> {
    let mut evaluation = space.at(from);
    let mut found = vec![(from, truth(&evaluation))];
    while let Some(next) = evaluation.changes_at {
        assert_eq!(truth(&space.at(next.millis() - 1)), truth(&evaluation), "just before {next}");
        evaluation = space.at(next.millis());
        if truth(&evaluation) != found.last().expect("one").1 {
            found.push((next.millis(), truth(&evaluation)));
        }
    }
    found
}

fn audience(query: &str, events: &[Event]) -> Space {
    let mut space = Space::new(query, Kind::Audience);
    space.fold(events);
    space
}

#[test]
fn a_trial_that_ends_soon_enters_and_leaves_by_the_clock_alone() {
    let query = "event('Trial').where(property('ends_at').within_next(3 days)).count() >= 1";
    let space = audience(query, &[trial(NOW, NOW + 14 * DAY)]);
    assert_eq!(
        changes(&space, NOW),
        [(NOW, false), (NOW + 11 * DAY, true), (NOW + 14 * DAY + 1, false)],
        "both bounds are inside"
    );
    let none = audience(query, &[]);
    assert_eq!(changes(&none, NOW), [(NOW, false)]);
}

#[test]
fn all_four_comparators_to_the_millisecond() {
    let ends = NOW + 5 * DAY;
    for (method, expected) in [
        ("within_last", vec![(NOW, false), (ends, true), (ends + 2 * DAY + 1, false)]),
        ("within_next", vec![(NOW, false), (ends - 2 * DAY, true), (ends + 1, false)]),
        ("before_last", vec![(NOW, false), (ends + 2 * DAY, true)]),
        ("after_next", vec![(NOW, true), (ends - 2 * DAY + 1, false)]),
    ] {
        let query = format!("event('Trial').where(property('ends_at').{method}(2 days)) >= 1");
        assert_eq!(changes(&audience(&query, &[trial(NOW, ends)]), NOW), expected, "{method}");
        // The opposite counts at all other instants.
        let query = format!("event('Trial').where(NOT property('ends_at').{method}(2 days)) >= 1");
        let opposite: Vec<_> = expected.into_iter().map(|(at, truth)| (at, !truth)).collect();
        assert_eq!(changes(&audience(&query, &[trial(NOW, ends)]), NOW), opposite, "NOT {method}");
    }
}

#[test]
fn what_is_no_date_is_never_near_and_always_not_near() {
    for properties in ["", "{\"ends_at\":null}", "{\"ends_at\":\"soon\"}", "{\"ends_at\":5}"] {
        let events = [event("Trial", NOW, properties)];
        let near = audience("event('Trial').where(property('ends_at').within_next(3 days)) >= 1", &events);
        assert_eq!(changes(&near, NOW), [(NOW, false)], "{properties}");
        assert!(near.profile.states.is_empty(), "nothing is kept of {properties}");
        let far = audience("event('Trial').where(!property('ends_at').within_next(3 days)) >= 1", &events);
        assert_eq!(changes(&far, NOW), [(NOW, true)], "{properties}");
    }
}

#[test]
fn an_event_whose_time_has_not_come_waits_whatever_its_dates_say() {
    let query = "event('Trial').where(property('ends_at').within_next(3 days)) >= 1";
    let early = Event { received_at: NOW, ..trial(NOW + HOUR, NOW + DAY) };
    let space = audience(query, &[early]);
    assert_eq!(changes(&space, NOW), [(NOW, false), (NOW + HOUR, true), (NOW + DAY + 1, false)]);
    let query = "event('Trial').where(NOT property('ends_at').within_last(1 day)) >= 1";
    let early = Event { received_at: NOW, ..trial(NOW + HOUR, NOW - 9 * DAY) };
    assert_eq!(changes(&audience(query, &[early]), NOW), [(NOW, false), (NOW + HOUR, true)]);
}

#[test]
fn windows_and_relative_dates_hold_together() {
    let space = |window: &str| {
        let query = format!("event('Trial'){window}.where(property('ends_at').within_next(3 days)) >= 1");
        changes(&audience(&query, &[trial(NOW, NOW + 5 * DAY)]), NOW)
    };
    let (enters, leaves) = (NOW + 2 * DAY, NOW + 5 * DAY + 1);
    assert_eq!(space(""), [(NOW, false), (enters, true), (leaves, false)]);
    assert_eq!(space(".within(4 days)"), [(NOW, false), (enters, true), (NOW + 4 * DAY + 1, false)]);
    assert_eq!(space(".between(3 days, 9 days)"), [(NOW, false), (NOW + 3 * DAY, true), (leaves, false)]);
    assert_eq!(space(".within(1 day)"), [(NOW, false)]);
    assert_eq!(space(".between(2024-06-01, 2024-06-02)"), [(NOW, false), (enters, true), (leaves, false)]);
    assert_eq!(space(".between(2024-06-02, 2024-06-03)"), [(NOW, false)]);
}

#[test]
fn one_event_may_come_and_go_more_than_once() {
    let query = "event('Trial').where(
        property('ends_at').within_next(1 day) OR property('ends_at').before_last(2 days)
        AND NOT property('ends_at').before_last(3 days) OR timestamp().within_last(1 hour)) >= 1";
    let ends = NOW + 5 * DAY;
    let expected = [
        (NOW, true),
        (NOW + HOUR + 1, false),
        (ends - DAY, true),
        (ends + 1, false),
        (ends + 2 * DAY, true),
        (ends + 3 * DAY, false),
    ];
    let space = audience(query, &[trial(NOW, ends)]);
    assert_eq!(changes(&space, NOW), expected);
    // `changes_at` of a count is exact: the whole way is one event that is counted once at a time.
    let count = audience(&query.replace(">= 1", ">= 2"), &[trial(NOW, ends)]);
    assert_eq!(count.at(NOW).changes_at, None);
}

#[test]
fn static_conditions_are_decided_by_the_event() {
    let query = "event('Trial').where(property('plan') = 'pro' AND property('ends_at').within_next(3 days)
        OR property('plan') = 'free' AND timestamp().before_last(1 day)) >= 1";
    let of = |plan: &str| {
        let ends_at = Timestamp::from_millis(NOW + 5 * DAY);
        let properties = format!("{{\"plan\":\"{plan}\",\"ends_at\":\"{ends_at}\"}}");
        changes(&audience(query, &[event("Trial", NOW, &properties)]), NOW)
    };
    assert_eq!(of("pro"), [(NOW, false), (NOW + 2 * DAY, true), (NOW + 5 * DAY + 1, false)]);
    assert_eq!(of("free"), [(NOW, false), (NOW + DAY, true)]);
    assert_eq!(of("team"), [(NOW, false)]);
}

#[test]
fn reducers_read_only_the_events_that_count_at_the_instant() {
    let of = |reducer: &str| {
        let query = format!("event('Trial').where(property('ends_at').within_next(3 days)).{reducer}");
        let mut space = Space::new(&query, Kind::ComputedTrait);
        for (n, at, ends_in) in [(1, 3, 4), (2, 2, 5), (3, 1, 6)] {
            let ends_at = Timestamp::from_millis(NOW + ends_in * DAY);
            space.fold(&[event("Trial", NOW - at, &format!("{{\"n\":{n},\"ends_at\":\"{ends_at}\"}}"))]);
        }
        [0, 1, 2, 3, 5, 6].map(|day| space.at(NOW + day * DAY).value.to_json())
    };
    assert_eq!(of("count()"), ["0", "1", "2", "3", "2", "1"]);
    assert_eq!(of("sum(property('n'))"), ["null", "1", "3", "6", "5", "3"]);
    assert_eq!(of("avg(property('n'))"), ["null", "1", "1.5", "2", "2.5", "3"]);
    assert_eq!(of("min(property('n'))"), ["null", "1", "1", "1", "2", "3"]);
    assert_eq!(of("max(property('n'))"), ["null", "1", "2", "3", "3", "3"]);
    assert_eq!(of("first(property('n'))"), ["null", "1", "1", "1", "2", "3"]);
    assert_eq!(of("last(property('n'))"), ["null", "1", "2", "3", "3", "3"]);
    assert_eq!(of("unique(property('n'))"), ["null", "[1]", "[1,2]", "[1,2,3]", "[2,3]", "[3]"]);
    assert_eq!(of("mode(property('n'), 1)"), ["null", "1", "1", "1", "2", "3"]);
}

#[test]
fn first_and_last_go_by_the_time_of_the_event_not_by_that_of_its_entering() {
    let named = |at: i64, id: &str, ends_at: i64| Event { message_id: id.to_owned(), ..trial(at, ends_at) };
    let events = [
        named(NOW - 2, "b", NOW + DAY),
        named(NOW - 2, "a", NOW + 2 * DAY),
        named(NOW - 9, "c", NOW + 4 * DAY),
    ];
    for (reducer, expected) in [("first", [1, 2, 4]), ("last", [1, 1, 1])] {
        let query = format!(
            "event('Trial').where(property('ends_at').before_last(1 day)).{reducer}(property('ends_at'))"
        );
        let mut space = Space::new(&query, Kind::ComputedTrait);
        space.fold(&events);
        for (day, ends) in [2, 3, 5].into_iter().zip(expected) {
            let expected = format!("\"{}\"", Timestamp::from_millis(NOW + ends * DAY));
            assert_eq!(space.at(NOW + day * DAY).value.to_json(), expected, "{reducer}, day {day}");
            space.program.compact(&mut space.profile.states, Timestamp::from_millis(NOW + day * DAY));
            assert_eq!(
                space.at(NOW + day * DAY).value.to_json(),
                expected,
                "{reducer}, day {day}, compacted"
            );
        }
    }
}

#[test]
fn the_instant_of_reception_is_the_first_that_counts() {
    let of = |comparator: &str, ends_at: i64| {
        let query = format!("event('Trial').where(property('ends_at').{comparator}(1 day)) >= 1");
        changes(&audience(&query, &[trial(NOW, ends_at)]), NOW)
    };
    assert_eq!(of("within_next", NOW), [(NOW, true), (NOW + 1, false)]);
    assert_eq!(of("within_next", NOW - 1), [(NOW, false)]);
    assert_eq!(of("before_last", NOW - DAY), [(NOW, true)]);
    assert_eq!(of("before_last", NOW - DAY + 1), [(NOW, false), (NOW + 1, true)]);
}

#[test]
fn what_is_over_is_not_kept() {
    let mut space = audience(
        "event('Trial').where(property('ends_at').within_next(3 days)) >= 1",
        &[trial(NOW, NOW - 1)],
    );
    assert!(space.profile.states.is_empty(), "it was over when it came");
    space.fold(&[trial(NOW, NOW + DAY)]);
    let compact = |space: &mut Space, now| {
        space.program.compact(&mut space.profile.states, Timestamp::from_millis(now));
    };
    compact(&mut space, NOW + DAY);
    assert!(truth(&space.at(NOW + DAY)));
    compact(&mut space, NOW + DAY + HOUR);
    assert!(space.profile.states.is_empty(), "it has left");
    // What has entered for ever is a number.
    let mut space = audience("event('Trial').where(property('ends_at').before_last(3 days)) >= 1", &[]);
    let events: Vec<Event> = (0..100).map(|i| trial(NOW, NOW + i * HOUR)).collect();
    space.fold(&events);
    let before = stored(&space.profile.states).len();
    compact(&mut space, NOW + 30 * DAY);
    let after = stored(&space.profile.states).len();
    assert!(before < 1_000 && after < 20, "{before}, {after}");
    assert!(truth(&space.at(NOW + 30 * DAY)));
}

#[test]
fn beyond_the_exact_spans_they_count_by_the_hour_and_beyond_those_the_first_are_taken_as_over() {
    let trials =
        |n: i64, ends_at: fn(i64) -> i64| (0..n).map(move |i| trial(NOW, ends_at(i))).collect::<Vec<_>>();
    let counted = |comparator: &str, events: &[Event]| {
        let query = format!("event('Trial').where(property('ends_at').{comparator}(1000 days)).count()");
        let mut space = Space::new(&query, Kind::ComputedTrait);
        space.fold(events);
        space
    };
    let (exact, all) = (EXACT_ITEMS as i64, (EXACT_ITEMS + HOURLY_SPANS) as i64);
    let by_minute = |i: i64| NOW + DAY + i * MINUTE;
    let space = counted("within_next", &trials(exact, by_minute));
    assert_eq!((space.at(NOW).value.to_json(), space.at(NOW).flags), (exact.to_string(), Flags::default()));

    // 500 more: the first 500 to leave do so by the hour.
    let space = counted("within_next", &trials(exact + 500, by_minute));
    let coarse = Flags { coarse: true, ..Flags::default() };
    assert_eq!((space.at(NOW).value.to_json(), space.at(NOW).flags), ("1500".to_owned(), coarse));
    assert_eq!(space.at(NOW + DAY + HOUR - 1).value.to_json(), "1500");
    assert_eq!(space.at(NOW + DAY + HOUR).value.to_json(), "1440", "all of the hour leave together");
    let later = space.at(NOW + DAY + 700 * MINUTE);
    assert_eq!((later.value.to_json(), later.flags), ("800".to_owned(), Flags::default()));

    // One for each hour and 10 too many.
    let by_hour = |i: i64| NOW + DAY + i * HOUR - 1;
    let space = counted("within_next", &trials(all + 10, by_hour));
    let cut = Flags { cut: true, ..coarse };
    assert_eq!((space.at(NOW).value.to_json(), space.at(NOW).flags), (all.to_string(), cut));
    let later = space.at(NOW + DAY + 9 * HOUR);
    assert_eq!((later.value.to_json(), later.flags), (all.to_string(), coarse), "by now those 10 have left");
    assert!(stored(&space.profile.states).len() < 60_000);

    // Those that would enter for ever are in already.
    let space = counted("before_last", &trials(all + 10, by_hour));
    assert_eq!((space.at(NOW).value.to_json(), space.at(NOW).flags), ("10".to_owned(), cut));
    let entered = NOW + 1_001 * DAY + 9 * HOUR;
    assert_eq!((space.at(entered).value.to_json(), space.at(entered).flags), ("10".to_owned(), coarse));
    let end = NOW + 1_001 * DAY + (all + 10) * HOUR;
    assert_eq!(
        (space.at(end).value.to_json(), space.at(end).flags),
        ((all + 10).to_string(), Flags::default())
    );
}

#[test]
fn equal_leaves_are_found_and_others_are_not() {
    let canonical = |filter: &str| {
        let plan = compiled(&format!("event('E').where({filter}).count()"), Kind::ComputedTrait);
        plan.leaves().map(|(_, leaf)| leaf.canonical()).collect::<String>()
    };
    assert_eq!(
        canonical("property('d').within_next(3 days) AND property('x') = 1"),
        r#"event("E").where(property("x").equals(1)).where(property("d").within_next(259200000ms)).count()"#
    );
    assert_eq!(
        canonical("property('d').within_next(3 days) AND property('x') = 1"),
        canonical("property('x').equals(1)).where(property('d').within_next(72 hours)")
    );
    let others = [
        "property('d').within_next(3 days)",
        "property('d').within_last(3 days)",
        "property('d').before_last(3 days)",
        "property('d').after_next(3 days)",
        "property('d').after_next(4 days)",
        "context('d').after_next(4 days)",
        "timestamp().after_next(4 days)",
        "NOT timestamp().after_next(4 days)",
        "property('x') = 1",
        "property('x') = 1 OR property('d').within_next(3 days)",
        "property('x') = 1 AND property('d').within_next(3 days)",
    ];
    let distinct: std::collections::BTreeSet<String> = others.into_iter().map(canonical).collect();
    assert_eq!(distinct.len(), others.len());
}
