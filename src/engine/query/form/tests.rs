//! Forms and their texts: reading what was written gives the form, and what is written means what was read.

use proptest::prelude::*;

use super::*;
use crate::domain::Number;
use crate::engine::query::{Kind, Plan, compile, format};

fn read(text: &str) -> Option<Form> {
    Form::read(text, Limits::default())
}

/// Everything a query does, without where its words stand.
fn meaning(plan: &Plan) -> String {
    let Plan { root, quantifiers, leaves, traits, scans, kind, .. } = plan;
    format!("{root:?} {quantifiers:?} {leaves:?} {traits:?} {scans:?} {kind:?}")
}

fn compiled(text: &str) -> Option<Plan> {
    let limits = Limits::default();
    compile(text, Kind::Audience, limits).or_else(|_| compile(text, Kind::ComputedTrait, limits)).ok()
}

#[test]
fn every_kind_of_condition_is_read_however_it_is_spelled() {
    for (text, written) in [
        ("event('A') . count()>=1", "event('A').count() >= 1"),
        ("event('A') >= 1", "event('A').count() >= 1"),
        ("event('A').within(1 week).count() == 0", "event('A').within(7 days).count() = 0"),
        ("Event('A').Within(24 hours) < 3", "event('A').within(1 day).count() < 3"),
        ("trait('it\\'s') = 'x' && trait('b') != 2", "trait('it\\'s') = 'x' AND trait('b') != 2"),
        ("trait('a') = '12' OR (trait('a') = 12)", "trait('a') = '12' OR trait('a') = 12"),
        ("(trait('a') = true)", "trait('a') = true"),
        ("trait('since') > 2024-01-31", "trait('since') > '2024-01-31'"),
        ("trait('a').contains('b')", "trait('a').contains('b')"),
        ("trait('a').exists() or trait('b').absent()", "trait('a').exists() OR trait('b').absent()"),
        ("!audience('vip') AND audience('new')", "NOT audience('vip') AND audience('new')"),
        ("event('A').count()", "event('A').count()"),
        ("event('A').within(30 days).sum(property('x'))", "event('A').within(30 days).sum(property('x'))"),
        ("event('A').unique(property('x.y'))", "event('A').unique(property('x.y'))"),
    ] {
        let form = read(text).unwrap_or_else(|| panic!("not read: {text}"));
        assert_eq!(form.text(), written, "{text}");
        let (before, after) = (compiled(text).expect(text), compiled(written).expect(written));
        assert_eq!(meaning(&before), meaning(&after), "{text}");
    }
}

#[test]
fn what_says_more_than_a_form_shows_is_left_alone() {
    for text in [
        "event('A').where(property('x') = 1).count() >= 1",
        "event('A').within(36 hours).count() >= 1",
        "event('A').count() >= 1.5",
        "event('A').sum(property('x')) >= 1",
        "1 <= event('A').count()",
        "trait('a') = 1 AND trait('b') = 1 OR trait('c') = 1",
        "trait('a') = 1 AND (trait('b') = 1 OR trait('c') = 1)",
        "trait('a') = trait('b')",
        "trait('a') = null",
        "trait('a') = 'two\nlines'",
        "trait('a') = 12345678901234567890",
        "trait('a').starts_with('b')",
        "trait('a').one_of('b')",
        "NOT trait('a').exists()",
        "NOT NOT audience('a')",
        "everyone()",
        "trait('a') = 1 -- for a reason",
        "event('A').sources(exclude: ['x']).count() >= 1",
        "event('A').mode(property('x'), 3)",
        "event('A').sum(property('x') as number)",
        "trait('a')",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
    // Nor is what is no query.
    assert_eq!(read("event('A').count( >= 1"), None);
    assert_eq!(read(""), None);
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("Order Completed".to_owned()), "[a-z' \\\\\"éß0-9]{1,8}"]
}

fn comparison() -> impl Strategy<Value = Comparison> {
    prop::sample::select(Comparison::ALL.to_vec())
}

fn days() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(1_u32..1000)
}

fn literals() -> impl Strategy<Value = Value> {
    let number = |(mantissa, exponent): (i64, i32)| Number::from_parts(mantissa.into(), exponent);
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        (-999_999_i64..999_999, -4..4).prop_filter_map("a number", number).prop_map(Value::Number),
        prop_oneof![name(), Just("12".to_owned()), Just("true".to_owned()), Just(String::new())]
            .prop_map(|text| Value::from(text.as_str())),
    ]
}

fn conditions() -> impl Strategy<Value = FormCondition> {
    let test = prop_oneof![
        (comparison(), literals()).prop_map(|(comparison, value)| Test::Compare(comparison, value)),
        name().prop_map(Test::Contains),
        Just(Test::Exists),
        Just(Test::Absent),
    ];
    prop_oneof![
        (name(), comparison(), 0..1000_u32, days()).prop_map(|(event, comparison, times, days)| {
            FormCondition::Event { event, comparison, times, days }
        }),
        (name(), test).prop_map(|(name, test)| FormCondition::Trait { name, test }),
        (name(), any::<bool>()).prop_map(|(key, is_in)| FormCondition::Audience { key, is_in }),
    ]
}

fn forms() -> impl Strategy<Value = Form> {
    let some = (any::<bool>(), prop::collection::vec(conditions(), 1..6)).prop_map(|(all, conditions)| {
        let join = if all || conditions.len() == 1 { Join::And } else { Join::Or };
        Form::Conditions(join, conditions)
    });
    let value = (name(), prop::sample::select(REDUCERS.to_vec()), name(), days()).prop_map(
        |(event, reducer, property, days)| {
            let property = (reducer != "count").then_some(property);
            Form::Value { event, reducer, property, days }
        },
    );
    prop_oneof![4 => some, 1 => value]
}

/// One piece of a query: what a form knows in other spellings, and what none knows.
const PIECES: [&str; 20] = [
    "event('A') >= 1",
    "EVENT('A').within( 2 weeks ).count() == 3",
    "event('A').within(48 hours).count() != 0",
    "event('A').within(36 hours).count() >= 1",
    "event('A').sum(property('x')) >= 1",
    "event('A').where(property('x') = 1).count() >= 1",
    "(event('B')).count() <= 2",
    "(event('B').within(1 day)).count() > 2",
    "event('*').expires_after(1 day).count() >= 1",
    "trait('a') == 'x'",
    "(trait('a')) = ('x')",
    "trait('a.b') != -1.50",
    "trait('a') > 1e3",
    "trait('since') < 2024-01-31",
    "trait('a').contains('x')",
    "trait('a').exists()",
    "NOT (audience('vip'))",
    "audience('vip')",
    "not trait('a') = 1",
    "trait('a').equals('x')",
];

fn texts() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(PIECES.to_vec()).prop_map(str::to_owned).boxed();
    let wrapped = (piece, any::<bool>())
        .prop_map(|(piece, is_wrapped)| if is_wrapped { format!("( {piece})") } else { piece });
    let join = prop::sample::select(vec![" AND ", " and ", "&&", " OR ", "||", "\nor\n"]);
    prop::collection::vec((wrapped, join), 1..4).prop_map(|parts| {
        let last = parts.len() - 1;
        let parts = parts.into_iter().enumerate();
        parts.map(|(at, (piece, join))| if at == last { piece } else { piece + join }).collect()
    })
}

proptest! {
    #[test]
    fn a_form_written_and_read_is_the_form(form in forms()) {
        prop_assert_eq!(read(&form.text()), Some(form.clone()));
        // Also as it is laid out, where it is right: a name can be one that no query takes.
        if let Ok(text) = format(&form.text(), Limits::default()) {
            prop_assert_eq!(read(&text), Some(form));
        }
    }

    #[test]
    fn a_text_read_and_written_means_the_same(text in texts()) {
        let before = compiled(&text);
        prop_assert!(before.is_some(), "{}", text);
        let Some(form) = read(&text) else { return Ok(()) };
        let after = compiled(&form.text());
        prop_assert_eq!(before.as_ref().map(meaning), after.as_ref().map(meaning), "{}", text);
    }
}
