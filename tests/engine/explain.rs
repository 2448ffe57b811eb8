//! Explanations say what evaluations say: never anything else, and never less.

use personas::domain::{Timestamp, Value};
use personas::engine::Kind;
use personas::engine::explain::{Explanation, Forecast, Reason, ReasonKind};
use proptest::prelude::*;

use crate::harness::*;
use crate::oracle::{START, STEP, engine_events, query, reducer, scalar, space, with_traits, world};

fn explain(space: &Space, now: i64) -> Explanation {
    space.program.computations()[0].plan.explain(&space.profile, Timestamp::from_millis(now))
}

fn explained(text: &str, events: &[Event]) -> Explanation {
    let mut space = Space::new(text, Kind::Audience);
    space.fold(events);
    explain(&space, NOW)
}

fn ordered(days_ago: i64, total: u32) -> Event {
    event("Ordered", NOW - days_ago * DAY, &format!("{{\"total\":{total}}}"))
}

fn day(days: i64) -> Timestamp {
    Timestamp::from_millis(NOW + days * DAY)
}

#[test]
fn every_condition_tells_its_value_and_whether_it_holds() {
    let text = "event('Ordered').count() >= 3 AND (NOT trait('plan') = 'pro' OR event('Ordered').sum(property('total')) > 100)";
    let told = explained(text, &[ordered(2, 30), ordered(1, 20)]);
    assert_eq!(told.evaluation.value, Value::Bool(false));
    let whole = &told.reason;
    assert_eq!((whole.kind, whole.text.as_str(), whole.holds()), (ReasonKind::All, text, false));
    let [count, either] = whole.parts.as_slice() else { panic!("{whole:?}") };
    assert_eq!((count.kind, count.holds(), count.must_become), (ReasonKind::Condition, false, Some(true)));
    assert_eq!(count.text, "event('Ordered').count() >= 3");
    assert_eq!(
        (count.readings[0].text.as_str(), &count.readings[0].value),
        ("event('Ordered').count()", &Value::from(2))
    );
    assert_eq!((either.kind, either.holds(), either.must_become), (ReasonKind::Any, true, None));
    let [not, sum] = either.parts.as_slice() else { panic!("{either:?}") };
    assert_eq!((not.kind, not.holds(), not.parts[0].holds()), (ReasonKind::Not, true, false));
    assert_eq!(not.parts[0].readings[0].value, Value::Null);
    assert_eq!((sum.readings[0].value.to_json().as_str(), sum.holds()), ("50", false));
    let hints = ["`event('Ordered').count()` is 2; it would have to be at least 3"];
    assert_eq!(whole.hints(), hints);
    assert_eq!((&told.forecast, &whole.forecast), (&Forecast::Never, &Forecast::Never));
}

#[test]
fn a_member_is_told_what_keeps_it_in_and_until_when() {
    let text = "event('Ordered').within(7 days).count() >= 1 OR trait('plan') = 'pro'";
    let told = explained(text, &[ordered(2, 1), ordered(1, 1)]);
    let instant = day(6).plus_millis(1);
    assert_eq!(told.forecast, Forecast::At(instant, Value::Bool(false)), "when the newer of the two leaves");
    let [count, plan] = told.reason.parts.as_slice() else { panic!("{told:?}") };
    assert!(!told.reason.one_is_enough);
    assert_eq!((count.must_become, plan.must_become), (Some(false), None), "the other one is out already");
    assert_eq!(count.forecast, Forecast::At(instant, Value::Bool(false)));
    // A windowed count is kept only as far as it matters.
    assert!(count.readings[0].is_at_least, "{:?}", count.readings);
    let hints =
        ["`event('Ordered').within(7 days).count()` is at least 1; it would have to not be at least 1"];
    assert_eq!(told.reason.hints(), hints);
}

#[test]
fn who_would_enter_by_itself_is_told_when() {
    let told = explained("event('Ordered').between(3 days, 5 days).count() >= 1", &[ordered(1, 1)]);
    assert_eq!(told.forecast, Forecast::At(day(2), Value::Bool(true)));
    let quiet = explained("event('Ordered').last(timestamp()).before_last(30 days)", &[ordered(1, 1)]);
    assert_eq!(quiet.forecast, Forecast::At(day(29), Value::Bool(true)));
    let last = Timestamp::from_millis(NOW - DAY);
    let hint = format!(
        "`event('Ordered').last(timestamp())` is \"{last}\"; it would have to be at least 30 days ago"
    );
    assert_eq!(quiet.reason.hints(), [hint]);
}

#[test]
fn what_cannot_change_the_whole_is_not_in_the_way() {
    let told =
        explained("(trait('a') = 1 OR trait('b') = 1) AND everyone() AND NOT trait('c').absent()", &[]);
    let [either, everyone, not] = told.reason.parts.as_slice() else { panic!("{told:?}") };
    assert_eq!((either.must_become, either.one_is_enough), (Some(true), true));
    assert_eq!((everyone.kind, everyone.must_become), (ReasonKind::Constant, None));
    assert_eq!((not.must_become, not.parts[0].must_become), (Some(true), Some(false)));
    let hints = [
        "`trait('a')` is absent; it would have to be 1",
        "`trait('b')` is absent; it would have to be 1",
        "`trait('c')` is absent; it would have to not be absent",
    ];
    assert_eq!(told.reason.hints(), hints);
    let always = explained("everyone()", &[]);
    assert!(always.reason.hints()[0].contains("always holds"), "{always:?}");
}

#[test]
fn sides_are_told_unless_they_are_written_in_the_query() {
    let told = explained("event('Ordered').count() > event('Seen').count()", &[ordered(1, 1)]);
    let read: Vec<(&str, String)> =
        told.reason.readings.iter().map(|r| (r.text.as_str(), r.value.to_json())).collect();
    assert_eq!(read, [("event('Ordered').count()", "1".into()), ("event('Seen').count()", "0".into())]);
    let out = explained("audience('vip')", &[]);
    assert_eq!(out.reason.readings[0].text, "audience('vip')");
    assert_eq!(out.reason.hints(), ["`audience('vip')` would have to be true"]);
    let words = "trait('name').contains('a', 'b')";
    let told = explain(
        &Space::new(words, Kind::Audience).with_trait("name", &format!("{:?}", "x".repeat(200))),
        NOW,
    );
    let hint = told.reason.hints()[0];
    assert!(hint.contains("xxx…; it would have to contain 'a' or 'b'") && hint.len() < 200, "{hint}");
}

#[test]
fn held_for_tells_the_value_and_since_when() {
    let mut space =
        Space::new("trait('plan').held_for(3 days)", Kind::Audience).with_trait("plan", "\"pro\"");
    let since = NOW - 2 * DAY;
    let mut write = event("", since, "{\"plan\":\"pro\"}");
    write.call = personas::domain::EventType::Identify;
    space.fold(&[write]);
    let told = explain(&space, NOW);
    let reading = &told.reason.readings[0];
    assert_eq!(
        (reading.value.to_json().as_str(), reading.since),
        ("\"pro\"", Some(Timestamp::from_millis(since)))
    );
    assert_eq!(told.forecast, Forecast::At(day(1), Value::Bool(true)));
    let hint = format!(
        "`trait('plan')` is \"pro\" since {}; it would have to have had its value for 3 days",
        Timestamp::from_millis(since)
    );
    assert_eq!(told.reason.hints(), [hint]);
}

#[test]
fn a_computed_trait_is_its_value() {
    let mut space = Space::new("event('Ordered').within(7 days).sum(property('total'))", Kind::ComputedTrait);
    space.fold(&[ordered(6, 5), ordered(1, 7)]);
    let told = explain(&space, NOW);
    assert_eq!(
        (told.reason.kind, told.reason.readings[0].value.to_json().as_str()),
        (ReasonKind::Value, "12")
    );
    assert_eq!(told.forecast, Forecast::At(day(1).plus_millis(1), Value::from(7)));
    assert_eq!(told.reason.hints(), Vec::<&str>::new());
}

#[test]
fn a_future_with_too_much_in_it_is_not_guessed() {
    // Each event that leaves is a possible change of a sum, and none of them is one.
    let sum = "event('Ordered').within(7 days).sum(property('total'))";
    let text = [-1, -2, -3, -4].map(|never| format!("{sum} = {never}")).join(" OR ");
    let mut events: Vec<Event> = (1..=1_000).map(|n| event("Ordered", NOW - n, "{\"total\":1}")).collect();
    for event in &mut events {
        event.message_id = format!("m{}", event.at);
    }
    let told = explained(&text, &events);
    let [first, .., last] = told.reason.parts.as_slice() else { panic!("{told:?}") };
    assert_eq!((&told.forecast, &first.forecast), (&Forecast::Never, &Forecast::Never));
    assert!(matches!(last.forecast, Forecast::NotBefore(at) if at > day(6)), "{:?}", last.forecast);
}

/// Whether a part agrees with its own parts, all the way down.
fn check(reason: &Reason) {
    let holds: Vec<bool> = reason.parts.iter().map(Reason::holds).collect();
    let expected = match reason.kind {
        ReasonKind::All => holds.iter().all(|h| *h),
        ReasonKind::Any => holds.iter().any(|h| *h),
        ReasonKind::Not => !holds[0],
        _ => reason.holds(),
    };
    assert_eq!(reason.holds(), expected, "{reason:?}");
    assert!(reason.must_become.is_none_or(|target| target != reason.holds()), "{reason:?}");
    let is_leaf = reason.parts.is_empty();
    assert_eq!(reason.hint.is_some(), is_leaf && reason.must_become.is_some(), "{reason:?}");
    reason.parts.iter().for_each(check);
}

/// The truth of the whole once everything that must change has, taking `choose` where one is enough.
fn changed(reason: &Reason, applies: bool, choose: usize) -> bool {
    let wanted: Vec<usize> =
        (0..reason.parts.len()).filter(|i| reason.parts[*i].must_become.is_some()).collect();
    let applied = |i: usize| {
        let chosen = !reason.one_is_enough || wanted.is_empty() || wanted[choose % wanted.len()] == i;
        applies && chosen && reason.parts[i].must_become.is_some()
    };
    let parts = || (0..reason.parts.len()).map(|i| changed(&reason.parts[i], applied(i), choose));
    match reason.kind {
        ReasonKind::All => parts().all(|holds| holds),
        ReasonKind::Any => parts().any(|holds| holds),
        ReasonKind::Not => !changed(&reason.parts[0], applied(0), choose),
        _ => {
            if applies {
                !reason.holds()
            } else {
                reason.holds()
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn an_explanation_is_the_evaluation_with_its_reasons(
        query in query(),
        world in world(),
        steps in 0..12_i64,
        choose in 0..4_usize,
    ) {
        let text = query.text();
        let mut space = with_traits(space(&text, Kind::Audience), &world);
        space.fold(&engine_events(&world.events));
        let received = world.events.iter().map(|e| e.received_at).max().unwrap_or(START);
        let now = received + steps * STEP;
        let told = explain(&space, now);
        prop_assert_eq!(&told.evaluation, &space.at(now));
        prop_assert_eq!(&told.evaluation, &told.reason.evaluation);
        prop_assert_eq!(truth(&told.evaluation), query.holds(&world, now), "{}", text);
        check(&told.reason);
        // What would have to change is enough.
        prop_assert_eq!(changed(&told.reason, true, choose), !truth(&told.evaluation), "{}", text);
        // The forecast is the first instant of another truth.
        let instants = (0..140).flat_map(|i| [START + i * STEP, START + i * STEP + 1]).filter(|at| *at >= now);
        let first = instants.into_iter().find(|at| query.holds(&world, *at) != truth(&told.evaluation));
        let expected = first.map_or(Forecast::Never, |at| {
            Forecast::At(Timestamp::from_millis(at), Value::Bool(!truth(&told.evaluation)))
        });
        prop_assert_eq!(&told.forecast, &expected, "{}", text);
    }

    #[test]
    fn the_forecast_of_a_value_is_its_next_one(
        scalar in scalar(reducer()),
        world in world(),
        steps in 0..12_i64,
    ) {
        let mut space = with_traits(space(&scalar.text(), Kind::ComputedTrait), &world);
        space.fold(&engine_events(&world.events));
        let received = world.events.iter().map(|e| e.received_at).max().unwrap_or(START);
        let now = received + steps * STEP;
        let told = explain(&space, now);
        prop_assert_eq!(&told.evaluation, &space.at(now));
        let mut instants = (0..140).flat_map(|i| [START + i * STEP, START + i * STEP + 1]).filter(|at| *at >= now);
        let first = instants.find(|at| space.at(*at).value != told.evaluation.value);
        let expected = first.map_or(Forecast::Never, |at| {
            Forecast::At(Timestamp::from_millis(at), space.at(at).value)
        });
        prop_assert_eq!(&told.forecast, &expected, "{}", scalar.text());
    }
}
