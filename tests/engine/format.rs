//! The formatter: one spelling, the same meaning, and nothing more to do the second time.

use personas::engine::{Kind, Limits, Plan, compile, format};
use proptest::prelude::*;

use crate::harness::refused;

fn formatted(query: &str) -> String {
    format(query, Limits::default()).unwrap_or_else(|errors| panic!("{query}\n{errors:#?}"))
}

/// All that a plan means.
fn meaning(plan: &Plan) -> impl PartialEq + std::fmt::Debug + use<> {
    let leaves: Vec<_> = plan.leaves().map(|(no, leaf)| (no, leaf.clone())).collect();
    let conditions = plan.conditions().len();
    (plan.root().clone(), leaves, plan.traits().to_vec(), conditions)
}

fn compiled(query: &str) -> Option<Plan> {
    [Kind::Audience, Kind::ComputedTrait]
        .into_iter()
        .find_map(|kind| compile(query, kind, Limits::default()).ok())
}

/// Formats, and checks what always has to hold.
#[track_caller]
fn checked(query: &str) -> String {
    let text = formatted(query);
    assert_eq!(formatted(&text), text, "from\n{query}");
    let (before, after) = (compiled(query).expect("compiles"), compiled(&text).expect("compiles"));
    assert_eq!(meaning(&before), meaning(&after), "{query}\n{text}");
    text
}

#[test]
fn words_get_one_spelling() {
    for (query, expected) in [
        ("EVENT( 'A' ) . count( )>=1", "event('A').count() >= 1"),
        (
            "trait('x')==1&&!(trait('y')='a\\'b\\\\')||TRUE=Null",
            r"trait('x') = 1 AND NOT (trait('y') = 'a\'b\\') OR true = null",
        ),
        ("event('A').within(1 DAYS)>-1.50", "event('A').within(1 day) > -1.5"),
        ("event('A').within( 7 day ).count()=1e3", "event('A').within(7 days).count() = 1000"),
        ("event('A').between(2024-01-01,'2024-02-01')=1", "event('A').between(2024-01-01, '2024-02-01') = 1"),
        ("event('A').sources( exclude :[ 'a','b' ] )<2", "event('A').sources(exclude: ['a', 'b']) < 2"),
        ("event('A').max(property('x')AS STRING)", "event('A').max(property('x') as string)"),
        ("not not(everyone())", "NOT NOT (everyone())"),
        ("trait('x').one_of(1,2 ,'3')", "trait('x').one_of(1, 2, '3')"),
        ("5.exists() or 2024-01-01.exists()", "5.exists() OR 2024-01-01.exists()"),
    ] {
        assert_eq!(checked(query), expected);
    }
}

#[test]
fn long_queries_are_broken_where_they_can_be() {
    let query = "event('Order Completed').where(property('total') >= 100 and any_item('products', property('sku').one_of('A', 'B') and property('price') > 20)).within(30 days).count() >= 2 AND trait('plan') = 'pro' or audience('vip') and not trait('email').matches('@example\\\\.com$')";
    let expected = "\
event('Order Completed')
        .where(
            property('total') >= 100
            AND any_item('products', property('sku').one_of('A', 'B') AND property('price') > 20)
        )
        .within(30 days)
        .count() >= 2
    AND trait('plan') = 'pro'
OR audience('vip') AND NOT trait('email').matches('@example\\\\.com$')";
    assert_eq!(checked(query), expected);
    let many = (0..40).map(|i| format!("'value {i}'")).collect::<Vec<_>>().join(",");
    let text = checked(&format!("trait('x').one_of({many})"));
    assert_eq!(text.lines().count(), 42);
    assert!(text.ends_with("\n    'value 39'\n)"), "{text}");
}

#[test]
fn comments_stay_behind_the_words_they_follow() {
    let query = "-- Who buys\n\n--often\nevent('A') -- all\n >= 3 --three\n and -- also\n( -- in\ntrait('x') = 1 --  \n ) -- end\n--last";
    let expected = "\
-- Who buys
-- often
event('A') -- all
>= 3 -- three
AND -- also
( -- in
    trait('x') = 1 --
) -- end
-- last";
    assert_eq!(checked(query), expected);
}

#[test]
fn what_cannot_be_compiled_cannot_be_formatted() {
    for query in ["", "event('A'", "evnt('A') >= 1", "trait('x') = 1 AND", "event('A')"] {
        let errors = format(query, Limits::default()).expect_err(query);
        assert_eq!(errors, refused(query, Kind::Audience), "{query}");
    }
    let of_value = format("event('A').summ(property('x'))", Limits::default()).expect_err("wrong");
    assert_eq!(of_value.len(), 1);
}

#[test]
fn the_examples_of_the_documentation_keep_their_meaning() {
    let text = include_str!("../../docs/query-language.md");
    for block in text.split("```").skip(1).step_by(2) {
        let (_, query) = block.split_once('\n').expect("lines");
        if compiled(query).is_some() {
            checked(query);
        }
    }
}

/// White space and comments that may stand between two words.
fn gap() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just(String::new()),
        3 => Just(" ".to_owned()),
        1 => Just("\n\t ".to_owned()),
        1 => "-- ?[-a-z'é ]{0,8}\n",
    ]
}

fn condition() -> impl Strategy<Value = Vec<&'static str>> {
    let simple = prop::sample::select(vec![
        vec!["trait", "(", "'x'", ")", "==", "1"],
        vec!["trait", "(", "'a.b'", ")", ".", "one_of", "(", "1", ",", "'it\\'s'", ",", "2024-01-01", ")"],
        vec![
            "event", "(", "'Cart *'", ")", ".", "within", "(", "7 day", ")", ".", "count", "(", ")", ">",
            "-1",
        ],
        vec![
            "event",
            "(",
            "'A long name of an event'",
            ")",
            ".",
            "where",
            "(",
            "property",
            "(",
            "'price of it'",
            ")",
            "<=",
            "1.50",
            " AND ",
            "any_item",
            "(",
            "'products'",
            ",",
            "property",
            "(",
            "'sku'",
            ")",
            "!=",
            "'A'",
            ")",
            ")",
            "=",
            "0",
        ],
        vec!["everyone", "(", ")"],
        vec![
            "event", "(", "'A'", ")", ".", "sources", "(", "exclude", ":", "[", "'a'", ",", "'b'", "]", ")",
            ">=", "1",
        ],
        vec![
            "event", "(", "'A'", ")", ".", "max", "(", "property", "(", "'x'", ")", " as ", "string", ")",
            "=", "null",
        ],
    ]);
    simple.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (
                prop::collection::vec(inner.clone(), 2..5),
                prop::sample::select(vec!["&&", "||", " and ", " OR "])
            )
                .prop_map(|(parts, word)| parts.join(&word)),
            inner.clone().prop_map(|part| [&["!", "("][..], &part, &[")"]].concat()),
            inner.prop_map(|part| [&["("][..], &part, &[")"]].concat()),
        ]
    })
}

proptest! {
    #[test]
    fn formatting_is_stable_and_keeps_the_meaning(
        (words, gaps) in condition().prop_flat_map(|words| {
            let gaps = prop::collection::vec(gap(), words.len() + 1);
            (Just(words), gaps)
        }),
    ) {
        let mut query = gaps[0].clone();
        for (word, gap) in words.iter().zip(&gaps[1..]) {
            query.push_str(word);
            query.push_str(gap);
        }
        let limits = Limits { expressions: 1_000, nesting: 100, ..Limits::default() };
        let before = compile(&query, Kind::Audience, limits);
        prop_assert!(before.is_ok(), "{} {:?}", query, before);
        let text = format(&query, limits).expect("formats");
        let after = compile(&text, Kind::Audience, limits).expect("compiles");
        prop_assert_eq!(meaning(&before.expect("ok")), meaning(&after), "{}\n{}", query, text);
        prop_assert_eq!(&format(&text, limits).expect("formats"), &text, "{}", query);
        prop_assert!(text.lines().all(|line| line == line.trim_end()), "{:?}", text);
        let comments = |text: &str| text.matches("--").count();
        prop_assert!(comments(&text) >= gaps.iter().filter(|gap| gap.starts_with("--")).count(), "{}", text);
    }
}
