//! The specification's test vectors (personas.md 6.13) and the rows of decisions.md, one by one.

use personas::domain::{Offset, Timestamp};
use personas::engine::{Kind, Limits, compile};

use crate::harness::*;

fn shoes(age: i64, price: &str) -> Event {
    event("Shoes Bought", NOW - age, &format!("{{\"price\":{price}}}"))
}

#[test]
fn au_01_leaves_a_seven_day_window_with_no_new_event() {
    let query = "event('Shoes Bought').where( property('price') >= 100 ).within(7 days).count() >= 1";
    let mut space = Space::new(query, Kind::Audience);
    space.fold(&[shoes(6 * DAY + 23 * HOUR, "100")]);
    let evaluation = space.at(NOW);
    assert!(truth(&evaluation));
    let leaves = NOW + HOUR + 1;
    assert_eq!(evaluation.changes_at, Some(Timestamp::from_millis(leaves)));
    assert!(truth(&space.at(leaves - 1)) && !truth(&space.at(leaves)));
    assert_eq!(space.at(leaves).changes_at, None);
    assert!(!holds(query, &[shoes(DAY, "99.99")]));
    assert!(
        holds(query, &[shoes(DAY, "\"100\"")]),
        "a string that is a number compares with a literal number"
    );
}

#[test]
fn au_02_window_of_ninety_days_is_exact() {
    let query = "event('Shoes Bought').within(90 days).count() >= 1";
    assert!(holds(query, &[shoes(2_160 * HOUR, "1")]));
    assert!(!holds(query, &[shoes(2_160 * HOUR + 1, "1")]));
}

#[test]
fn au_03_differs_is_false_on_null_and_not_negates() {
    assert!(!holds_for_trait("trait('plan') != 'pro'", "other", "1"));
    assert!(holds_for_trait("NOT trait('plan') = 'pro'", "other", "1"));
    assert!(holds_for_trait("trait('plan') != 'pro'", "plan", "\"free\""));
    assert!(!holds_for_trait("trait('plan') != 'pro'", "plan", "null"));
}

#[test]
fn au_04_text_comparators() {
    let holds = |query: &str| holds_for_trait(query, "category", "\"running shoes\"");
    assert!(holds("trait('category').contains('shoes', 'shirts')"));
    assert!(!holds("trait('category').one_of('shoes')"));
    assert!(holds("trait('category').none_of('shoes')"));
    assert!(holds("trait('category').omits('boots')"));
    assert!(holds("trait('category').starts_with('running') AND trait('category').ends_with('shoes')"));
}

#[test]
fn au_05_null() {
    let holds = |query: &str| holds_for_trait(query, "x", "null");
    assert!(!holds("trait('x').exists()"));
    assert!(holds("trait('x').absent()"));
    assert!(holds("trait('x').omits('a')") && holds("trait('x').none_of('a')"));
    assert!(!holds("trait('x').starts_with('')") && !holds("trait('x') = null") && !holds("trait('x') < 1"));
    assert!(!holds("trait('x').before_date(2024-01-01)") && !holds("trait('x').before_last(1 day)"));
}

#[test]
fn au_06_date_operators_have_inclusive_bounds() {
    let seen = format!("\"{}\"", Timestamp::from_millis(NOW - 7 * DAY));
    let holds = |query: &str| holds_for_trait(query, "seen", &seen);
    assert!(holds("trait('seen').within_last(7 days)"));
    assert!(holds("trait('seen').before_last(7 days)"));
    assert!(!holds("trait('seen').within_last(6 days)"));
    assert!(!holds("trait('seen').within_next(7 days)"));
    assert!(!holds("trait('seen').after_next(1 day)"));
    let space = Space::new("trait('seen').within_last(7 days)", Kind::Audience).with_trait("seen", &seen);
    assert_eq!(space.at(NOW).changes_at, Some(Timestamp::from_millis(NOW + 1)));
}

#[test]
fn au_16_exactly_zero_is_never_performed() {
    for query in
        ["event('A').count() = 0", "event('A').count() <= 0", "event('A') < 1", "NOT event('A') >= 1"]
    {
        assert!(holds(query, &[]), "{query}");
        assert!(!holds(query, &[event("A", NOW - 1, "")]), "{query}");
    }
    assert!(holds("event('A').within(1 day) < 2", &[event("A", NOW - 1, "")]));
}

#[test]
fn au_17_a_merge_adds_up() {
    let query = "event('Viewed').count() >= 3";
    let (mut known, mut anonymous) = (Space::new(query, Kind::Audience), Space::new(query, Kind::Audience));
    known.fold(&[event("Viewed", NOW - 5, "")]);
    anonymous.fold(&[event("Viewed", NOW - 4, ""), event("Viewed", NOW - 3, "")]);
    assert!(!truth(&known.at(NOW)) && !truth(&anonymous.at(NOW)));
    known.profile.states.merge(&anonymous.profile.states);
    assert!(truth(&known.at(NOW)));
}

#[test]
fn au_15_conditions_on_lists_may_be_met_by_different_elements_and_any_item_asks_for_one() {
    let products = r#"{"products":[{"sku":"A","price":5},{"sku":"B","price":50}]}"#;
    let of = |filter: &str| holds(&format!("event('E').where({filter}) = 1"), &[event("E", NOW, products)]);
    assert!(of("property('products.$.sku') = 'A' AND property('products.$.price') > 20"));
    assert!(!of("any_item('products', property('sku') = 'A' AND property('price') > 20)"));
    assert!(of("any_item('products', property('sku') = 'B' AND property('price') > 20)"));
    assert!(of("NOT any_item('products', property('sku') = 'C')"));
    assert!(of("property('products.$.name').absent() AND property('products.$').exists()"));
    let on_trait = |query: &str, json: &str| holds_for_trait(query, "products", json);
    let list = r#"[{"sku":"A","price":5},{"sku":"B","price":50,"tags":["x","y"]}]"#;
    assert!(on_trait("trait('products.$.sku') = 'A' AND trait('products.$.price') > 20", list));
    assert!(!on_trait("any_item('products', property('sku') = 'A' AND property('price') > 20)", list));
    assert!(on_trait("any_item('products', property('tags.$') = 'y' AND property('price') > 20)", list));
    assert!(on_trait("any_item('products.$.tags', 1 = 1)", list));
    assert!(!on_trait("any_item('products', 1 = 1)", "[]"));
}

#[test]
fn a2b_an_empty_list_has_no_elements() {
    let vip = r#"["new","vip"]"#;
    let holds = |query: &str, json: &str| holds_for_trait(query, "tags", json);
    assert!(holds("trait('tags.$') = 'vip'", vip) && !holds("trait('tags.$') = 'old'", vip));
    assert!(holds("trait('tags.$').exists()", vip));
    for nothing in ["[]", "null", "\"vip\"", "{}"] {
        assert!(!holds("trait('tags.$').exists()", nothing), "{nothing}");
        assert!(holds("trait('tags.$').absent() AND trait('tags.$').none_of('vip')", nothing), "{nothing}");
        assert!(!holds("trait('tags.$') != 'vip'", nothing), "{nothing}");
    }
    assert!(holds("trait('tags.$') != 'vip'", vip), "one element is another");
    let soon = format!("[\"x\",\"{}\"]", Timestamp::from_millis(NOW + DAY));
    let space = Space::new("trait('tags.$').within_next(1 hour)", Kind::Audience).with_trait("tags", &soon);
    assert!(!truth(&space.at(NOW)));
    assert_eq!(space.at(NOW).changes_at, Some(Timestamp::from_millis(NOW + 23 * HOUR)));
    assert!(truth(&space.at(NOW + 23 * HOUR)));
}

#[test]
fn lists_of_the_item_scope_move_with_time() {
    let ends = |at: i64| format!(r#"{{"subs":[{{"n":1,"ends":"{}"}}]}}"#, Timestamp::from_millis(at));
    let query =
        "event('E').where(any_item('subs', property('n') = 1 AND property('ends').within_next(1 day))) = 1";
    let mut space = Space::new(query, Kind::Audience);
    space.fold(&[event("E", NOW, &ends(NOW + 2 * DAY))]);
    assert!(!truth(&space.at(NOW)));
    assert_eq!(space.at(NOW).changes_at, Some(Timestamp::from_millis(NOW + DAY)));
    assert!(truth(&space.at(NOW + DAY)) && !truth(&space.at(NOW + 2 * DAY + 1)));
    let list = format!("[{{\"ends\":\"{}\"}},5]", Timestamp::from_millis(NOW + 2 * DAY));
    let on_trait = "any_item('subs', property('ends').within_next(1 day))";
    let space = Space::new(on_trait, Kind::Audience).with_trait("subs", &list);
    assert!(!truth(&space.at(NOW)) && truth(&space.at(NOW + DAY)));
    assert_eq!(space.at(NOW + DAY).changes_at, Some(Timestamp::from_millis(NOW + 2 * DAY + 1)));
}

#[test]
fn reducers_take_each_element() {
    let events = [
        event("E", NOW - 1, r#"{"p":[{"n":"b","x":2},{"n":"a","x":0.5},{"y":1}],"t":["u","v"]}"#),
        event("E", NOW, r#"{"p":[{"n":"a","x":"3"}],"t":["u","v"]}"#),
        event("E", NOW, r#"{"p":[],"t":["v"]}"#),
        event("E", NOW, r#"{"p":5,"t":"v"}"#),
    ];
    let of = |reducer: &str| value(&format!("event('E').{reducer}"), &events);
    assert_eq!(of("sum(property('p.$.x'))"), "5.5");
    assert_eq!(of("avg(property('p.$.x'))"), "1.83333333333");
    assert_eq!(of("max(property('p.$.x'))"), "3");
    assert_eq!(of("unique(property('p.$.n'))"), r#"["a","b"]"#);
    assert_eq!(of("first(property('p.$.n'))"), "\"b\"");
    assert_eq!(of("last(property('p.$.n'))"), "\"a\"");
    assert_eq!(of("mode(property('p.$.n'), 2)"), "\"a\"");
    assert_eq!(of("mode(property('t.$'), 2)"), "\"v\"");
    assert_eq!(of("mode(property('t.$') as array, 2)"), r#"["u","v"]"#);
    assert_eq!(of("mode(property('t') as array, 2)"), r#"["u","v"]"#);
    assert_eq!(of("count()"), "4");
}

#[test]
fn ct_01_mode() {
    let of = |values: &[&str], query: &str| {
        let events: Vec<Event> =
            (0..).zip(values).map(|(i, v)| event("E", NOW - i, &format!("{{\"c\":{v}}}"))).collect();
        value(query, &events)
    };
    let query = "event('E').mode(property('c'), 2)";
    assert_eq!(of(&["\"a\"", "\"b\"", "\"b\""], query), "\"b\"");
    assert_eq!(of(&["\"a\"", "\"b\""], query), "null");
    assert_eq!(of(&["\"b\"", "\"b\"", "\"a\"", "\"a\""], query), "\"a\"");
    assert_eq!(of(&["\"a\"", "\"b\"", "\"b\""], "event('E').mode(property('c'))"), "\"b\"", "2 by default");
    assert_eq!(of(&["\"a\""], "event('E').mode(property('c'), 1)"), "\"a\"");
    assert_eq!(of(&["5", "\"5\"", "7"], "event('E').mode(property('c') as string)"), "\"5\"");
    assert_eq!(of(&["5", "\"5\"", "7"], "event('E').mode(property('c') as number)"), "5");
}

#[test]
fn ct_02_unique() {
    let events =
        [("b", 3), ("a", 2), ("b", 1)].map(|(c, age)| event("E", NOW - age, &format!("{{\"c\":\"{c}\"}}")));
    assert_eq!(value("event('E').unique(property('c'))", &events), r#"["a","b"]"#);
    assert_eq!(value("event('E').unique(property('c')).count()", &events), "2");
    assert_eq!(value("event('E').unique(property('c')).count()", &[]), "0");
    assert_eq!(value("event('E').unique(property('c'))", &[]), "null");
}

#[test]
fn ct_03_max_as_number_and_as_string() {
    let events = [9, 10].map(|x| event("E", NOW - x, &format!("{{\"x\":{x}}}")));
    assert_eq!(value("event('E').max(property('x'))", &events), "10");
    assert_eq!(value("event('E').max(property('x') as number)", &events), "10");
    assert_eq!(value("event('E').max(property('x') as string)", &events), "\"9\"");
    assert_eq!(value("event('E').min(property('x') as string)", &events), "\"10\"");
}

#[test]
fn ct_04_sum_takes_numbers_and_numeric_strings() {
    let of = |values: &[&str], query: &str| {
        let events: Vec<Event> =
            (0..).zip(values).map(|(i, v)| event("E", NOW - i, &format!("{{\"x\":{v}}}"))).collect();
        value(query, &events)
    };
    let mixed = ["10", "\"20\"", "null", "\"x\"", "true", "[5]", "\" 5\""];
    assert_eq!(of(&mixed, "event('E').sum(property('x'))"), "30");
    assert_eq!(of(&mixed, "event('E').avg(property('x'))"), "15");
    assert_eq!(of(&["0.1", "0.2"], "event('E').sum(property('x'))"), "0.3");
    assert_eq!(of(&["1", "0", "0"], "event('E').avg(property('x'))"), "0.333333333333");
    assert_eq!(of(&["\"x\""], "event('E').sum(property('x'))"), "null");
}

#[test]
fn ct_05_sessions_reset_after_the_gap() {
    let minute = 60 * SECOND;
    let [ten, twenty, late] = [NOW, NOW + 20 * minute, NOW + 90 * minute];
    let mut space = Space::new("event('Page Viewed').expires_after(1 hour).count()", Kind::ComputedTrait);
    let at = |space: &Space, now: i64| space.at(now).value.to_json();
    assert_eq!(at(&space, ten), "null", "there is no session yet");
    space.fold(&[event("Page Viewed", ten, "")]);
    assert_eq!(at(&space, ten), "1");
    space.fold(&[event("Page Viewed", twenty, "")]);
    assert_eq!(at(&space, twenty), "2");
    let expires = twenty + HOUR + 1;
    assert_eq!(space.at(twenty).changes_at, Some(Timestamp::from_millis(expires)));
    assert_eq!((at(&space, expires - 1), at(&space, expires)), ("2".to_owned(), "null".to_owned()));
    space.fold(&[event("Page Viewed", late, "")]);
    assert_eq!(at(&space, late), "1", "70 minutes after the one before");
    // A late event joins what was apart.
    space.fold(&[Event { received_at: late, ..event("Page Viewed", twenty + 30 * minute, "") }]);
    assert_eq!(at(&space, late), "4");
    let first = "event('Page Viewed').expires_after(1 hour).first(property('x'))";
    let events =
        [(ten, 1), (twenty, 2), (late, 3)].map(|(t, x)| event("Page Viewed", t, &format!("{{\"x\":{x}}}")));
    let mut space = Space::new(first, Kind::ComputedTrait);
    space.fold(&events);
    assert_eq!(at(&space, late), "3");
    assert_eq!(at(&space, late + HOUR + 1), "null");
}

#[test]
fn ct_06_first_and_last_go_by_event_time_then_message_id() {
    let late =
        [event("E", NOW - 1, r#"{"x":"new"}"#), event("E", NOW - 9, r#"{"x":"old"}"#), event("E", NOW, "{}")];
    assert_eq!(value("event('E').first(property('x'))", &late), "\"old\"");
    assert_eq!(value("event('E').last(property('x'))", &late), "\"new\"");
    let tie = ["b", "a", "c"]
        .map(|id| Event { message_id: id.to_owned(), ..event("E", NOW, &format!("{{\"x\":\"{id}\"}}")) });
    assert_eq!(value("event('E').first(property('x'))", &tie), "\"a\"");
    assert_eq!(value("event('E').last(property('x'))", &tie), "\"c\"");
    let objects = [event("E", NOW, r#"{"x":{"y": [1, "é"]}}"#)];
    assert_eq!(value("event('E').last(property('x'))", &objects), r#"{"y":[1,"é"]}"#);
}

#[test]
fn official_examples() {
    let bought = |age, price: i64, brand: &str| {
        event("Shoes Bought", NOW - age, &format!(r#"{{"price":{price},"brand":"{brand}","spend":{price}}}"#))
    };
    let events =
        [bought(DAY, 150, "My Brand"), bought(2 * DAY, 120, "Other"), bought(40 * DAY, 300, "My Brand")];
    let q3 = "NOT ( event('Shoes Bought').count() >= 1 AND trait('total_spend') > 200 )";
    for (spend, expected) in [("201", false), ("200", true), ("null", true)] {
        let mut space = Space::new(q3, Kind::Audience).with_trait("total_spend", spend);
        space.fold(&events);
        assert_eq!(truth(&space.at(NOW)), expected, "Q3 {spend}");
    }
    assert!(holds_for_trait("trait('VIP') = 'true'", "VIP", "true"), "Q8");
    assert!(holds_for_trait("trait('VIP') = true", "VIP", "\"true\""), "Q8, the reverse");
    assert_eq!(value("event('Shoes Bought').within(30 days).avg(property('spend'))", &events), "135", "Q10");
    let q11 = "event('Shoes Bought').where( property('price') > 100 AND property('brand') = 'My Brand' ).min(property('spend'))";
    assert_eq!(value(q11, &events), "150");
    assert_eq!(
        value("event('Shoes Bought').within(30 days).first(property('spend'))", &events),
        "120",
        "Q12"
    );
    assert_eq!(
        value("event('Shoes Bought').within(30 days).mode(property('spend'), 2)", &events),
        "null",
        "Q13"
    );
    let q14 = "event('Shoes Bought').count() >= 1 && event('Shirt Bought').count() >= 2";
    assert!(!holds(q14, &events));
    assert!(holds(
        q14,
        &[&events[..], &[event("Shirt Bought", NOW, ""), event("Shirt Bought", NOW, "")]].concat()
    ));
}

#[test]
fn a6_types() {
    assert!(holds_for_trait("trait('n') = '5'", "n", "5"));
    assert!(holds_for_trait("trait('n') = 5", "n", "\"5\""));
    assert!(holds_for_trait("trait('n') = '5'", "n", "5.0"));
    assert!(!holds_for_trait("trait('n') = 'five'", "n", "5"));
    assert!(!holds_for_trait("trait('n') < 'a'", "n", "5"));
    assert!(holds_for_trait("trait('n') < 'b'", "n", "\"a\""));
    assert!(!holds_for_trait("trait('n') = 'PRO'", "n", "\"pro\""));
    let both = |a: &str, b: &str| {
        truth(
            &Space::new("trait('a') = trait('b')", Kind::Audience)
                .with_trait("a", a)
                .with_trait("b", b)
                .at(NOW),
        )
    };
    assert!(both("5", "5.0") && both("\"x\"", "\"x\"") && !both("5", "\"5\"") && !both("null", "null"));
}

#[test]
fn a7_future_events_wait_for_their_time() {
    for query in ["event('A').count() >= 1", "event('A').within(1 day).count() >= 1"] {
        let mut space = Space::new(query, Kind::Audience);
        space.fold(&[Event { received_at: NOW, ..event("A", NOW + HOUR, "") }]);
        let evaluation = space.at(NOW);
        assert!(!truth(&evaluation), "{query}");
        assert_eq!(evaluation.changes_at, Some(Timestamp::from_millis(NOW + HOUR)));
        assert!(truth(&space.at(NOW + HOUR)));
        space.program.compact(&mut space.profile.states, Timestamp::from_millis(NOW + HOUR));
        assert!(truth(&space.at(NOW + HOUR)));
    }
}

#[test]
fn a8_between_enters_and_leaves_by_time() {
    let mut space = Space::new("event('A').between(7 days, 10 days).count() >= 1", Kind::Audience);
    space.fold(&[event("A", NOW - 6 * DAY, "")]);
    assert!(!truth(&space.at(NOW)));
    let (enters, leaves) = (NOW + DAY, NOW + 4 * DAY + 1);
    assert_eq!(space.at(NOW).changes_at, Some(Timestamp::from_millis(enters)));
    assert!(truth(&space.at(enters)) && truth(&space.at(leaves - 1)) && !truth(&space.at(leaves)));
    assert_eq!(space.at(enters).changes_at, Some(Timestamp::from_millis(leaves)));
}

#[test]
fn absolute_between_includes_from_and_not_to() {
    let query = "event('A').between(2024-05-01, '2024-05-02T00:00:00Z').count() = 1";
    let first = Timestamp::parse("2024-05-01").expect("date").millis();
    assert!(holds(query, &[event("A", first, "")]));
    assert!(holds(query, &[event("A", first + DAY - 1, "")]));
    assert!(!holds(query, &[event("A", first + DAY, "")]));
    assert!(!holds(query, &[event("A", first - 1, "")]));
}

#[test]
fn counts_are_tight_and_junctions_wait_for_the_last_that_decides() {
    let mut space = Space::new("event('A').within(1 day).count() >= 2", Kind::Audience);
    space.fold(&[event("A", NOW - 4, ""), event("A", NOW - 3, ""), event("A", NOW - 2, "")]);
    assert_eq!(
        space.at(NOW).changes_at,
        Some(Timestamp::from_millis(NOW - 3 + DAY + 1)),
        "not when the first leaves"
    );
    let mut space = Space::new(
        "event('A').within(1 day) >= 1 OR event('B').within(2 days) >= 1 OR trait('x') = 1",
        Kind::Audience,
    );
    space.fold(&[event("A", NOW, ""), event("B", NOW, "")]);
    assert_eq!(space.at(NOW).changes_at, Some(Timestamp::from_millis(NOW + 2 * DAY + 1)));
    let space = space.with_trait("x", "1");
    assert_eq!(space.at(NOW).changes_at, None);
}

#[test]
fn names_walk_into_objects_and_reserved_ones_have_two_spellings() {
    assert!(holds_for_trait("trait('address.city') = 'Paris'", "address", r#"{"city":"Paris"}"#));
    assert!(!holds_for_trait("trait('address.city').exists()", "address", "\"Paris\""));
    assert!(holds_for_trait(r"trait('a\\.b') = 1", "a.b", "1"));
    assert!(holds_for_trait("trait('firstName') = 'Ada'", "first_name", "\"Ada\""));
    assert!(holds_for_trait("trait('first_name') = 'Ada'", "first_name", "\"Ada\""));
    let nested = [event("E", NOW, r#"{"cart":{"total":7}, "a.b":1}"#)];
    assert!(holds(r"event('E').where(property('cart.total') = 7 AND property('a\\.b') = 1) = 1", &nested));
    let page = [Event { context: r#"{"page":{"url":"/x"}}"#.to_owned(), ..event("E", NOW, "") }];
    assert!(holds(
        "event('E').where(context('page.url').ends_with('x') && !context('page.y').exists()) = 1",
        &page
    ));
}

#[test]
fn small_extras() {
    assert!(holds_for_trait("audience('vip')", "vip", "true"));
    assert!(!holds_for_trait("AUDIENCE('vip')", "vip", "false"));
    assert!(holds("everyone()", &[]));
    assert!(holds_for_trait(r"trait('email').matches('@example\\.com$')", "email", "\"a@example.com\""));
    let query = "event('E').where(message_type() = 'track').last(timestamp()).within_last(3 days)";
    assert!(holds(query, &[event("E", NOW - 3 * DAY, "")]));
    assert!(!holds(query, &[event("E", NOW - 3 * DAY - 1, "")]));
    assert_eq!(value("event('E').max(timestamp())", &[event("E", 0, "")]), "\"1970-01-01T00:00:00.000Z\"");
    let query = "Event('E') /* no */";
    assert!(compile(query, Kind::Audience, Limits::default()).is_err());
    assert!(holds("event('E')\n.COUNT() -- the number\n == 0 and not (TRUE = false)", &[]));
}

#[test]
fn random_buckets_are_stable_shares() {
    let of = |query: &str| truth(&Space::new(query, Kind::Audience).at(NOW));
    let half = "random_bucket('b') < 0.5";
    assert_ne!(of(half), of(&format!("NOT {half}")));
    assert!(of("random_bucket('b') >= 0 AND random_bucket('b') < 1"));
    assert_eq!(value("random_bucket('a')", &[]), value("random_bucket('a')", &[event("A", NOW, "")]));
    assert_ne!(value("random_bucket('a')", &[]), value("random_bucket('b')", &[]));
}

#[test]
fn a14_without_history_only_later_events_count() {
    let plan = compiled("event('A') >= 1 AND trait('x') = 1", Kind::Audience).with_events_since(Offset(7));
    let mut space = Space::of(plan).with_trait("x", "1");
    space.fold(&[Event { offset: 7, ..event("A", NOW, "") }]);
    assert!(!truth(&space.at(NOW)));
    space.fold(&[Event { offset: 8, ..event("A", NOW, "") }]);
    assert!(truth(&space.at(NOW)));
}

#[test]
fn beyond_the_exact_items_a_window_counts_by_the_hour_and_says_so() {
    let mut space = Space::new("event('A').within(7 days).count()", Kind::ComputedTrait);
    let events: Vec<Event> = (0..3_000).map(|i| event("A", NOW - i * 60_000, "")).collect();
    space.fold(&events[..1_000]);
    assert!(!space.at(NOW).flags.coarse);
    space.fold(&events[1_000..]);
    assert_eq!(space.at(NOW).value.to_json(), "3000");
    assert!(space.at(NOW).flags.coarse);
    assert!(stored(&space.profile.states).len() < 6_000);
}

#[test]
fn the_conditions_of_a_plan_are_the_operands_of_its_outermost_junction() {
    let plan = compiled(
        "( event('A') >= 1 AND NOT (trait('x') = 1 OR trait('y') = 2)\n AND everyone() )",
        Kind::Audience,
    );
    let texts: Vec<&str> = plan.conditions().into_iter().map(|(text, _)| text).collect();
    assert_eq!(texts, ["event('A') >= 1", "NOT (trait('x') = 1 OR trait('y') = 2)", "everyone()"]);
    assert_eq!(plan.traits(), ["x", "y"]);
    assert_eq!(plan.events(), ["A"]);
    let single = compiled("trait('x') = 1", Kind::Audience);
    assert_eq!(single.conditions().len(), 1);
}

#[test]
fn equal_leaves_are_found_in_any_spelling() {
    let canonical = |query: &str| {
        let plan = compiled(query, Kind::ComputedTrait);
        plan.leaves().map(|(_, leaf)| leaf.canonical()).collect::<Vec<_>>()
    };
    let one = canonical(
        "event('E').where(property('a') = 1 AND property('b').exists()).within(7 days).sum(property('c'))",
    );
    let other = canonical(
        "EVENT('E').within(1 week).where(property('b').exists()).where(property('a').equals(1.0)).avg(property('c'))",
    );
    assert_eq!(one, other);
    assert_eq!(
        one,
        [
            r#"event("E").where((property("a").equals(1) AND property("b").exists())).between(0ms, 604800000ms).total(property("c"))"#
        ]
    );
    assert_ne!(one, canonical("event('E').within(7 days).sum(property('c'))"));
    let shared =
        compiled("event('E').count() > 1 OR event('E') < 9 OR event('E').within(1 day) = 1", Kind::Audience);
    assert_eq!(shared.leaves().len(), 2);
}
