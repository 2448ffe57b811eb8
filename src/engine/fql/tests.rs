//! The language through its door: the vectors of personas.md 7.8, mistakes, bounds and laws.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{BYTES_MAX, Fql};

fn event() -> Value {
    json!({
        "event": "Button Clicked",
        "type": "track",
        "context": {"library": {"name": "analytics.js", "version": "1.0"}},
        "properties": {
            "features": ["discounts", "dark-mode"], "price": 10, "zero": 0, "is_new": true, "kana": "ア",
            "product 1": {"price": "19.99"}, "a.b": 1, "in": 5, "Mixed_Case word": "x", "nothing": null,
        },
    })
}

fn holds(text: &str) -> bool {
    Fql::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).matches(&event())
}

fn error(text: &str) -> String {
    Fql::parse(text).expect_err(text).to_string()
}

#[test]
fn vectors_of_the_specification() {
    for (text, expected) in [
        ("event = 'Button Clicked'", true),
        ("event = 'Screen Tapped'", false),
        ("context.path.path = '/login'", false),
        ("type = 'identify' or type = 'track'", true),
        ("event = 'Button Clicked' and type = 'track'", true),
        ("match( context.library.version, '1.*' )", true),
        ("match( context.library.version, '2.*' )", false),
        ("type = 'track' and ( event = 'Click' or match( event, 'Button *' ) )", true),
        ("!contains( context.library.name, 'js' )", false),
        ("'dark-mode' in properties.features", true),
        ("'blink' in properties.features", false),
        ("match('abcd','a*d')", true),
        ("match('','*')", true),
        ("match('abc','ab')", false),
        ("match('abcd','a??d')", true),
        (r"match('ab*d','ab\*d')", true),
        ("match('abCd','ab[cC]d')", true),
        ("match('abcd','ab[a-z]d')", true),
        ("match('abcd','ab[A-Z]d')", false),
    ] {
        assert_eq!(holds(text), expected, "{text}");
    }
}

#[test]
fn null_has_sensible_defaults() {
    for (text, expected) in [
        ("length(absent) = 0", true),
        ("contains(absent, 'x')", false),
        ("lowercase(absent) = null", true),
        ("uppercase(null) = null", true),
        ("typeof(absent) = 'null'", true),
        ("match(absent, '*')", false),
        ("absent = null", true),
        ("properties.nothing = null", true),
        ("absent.deep.er = null", true),
        ("event.deeper = null", true),
        ("absent > 1", false),
        ("absent <= 1", false),
        ("'x' in absent", false),
        ("absent or type = 'x'", false),
        ("absent or true", true),
        ("absent and true", false),
        ("!absent", true),
        ("bool(absent) = null and string(absent) = null and number(absent) = null", true),
    ] {
        assert_eq!(holds(text), expected, "{text}");
    }
}

#[test]
fn equality_is_strict() {
    for (text, expected) in [
        ("properties.price = 10", true),
        ("properties.price = 10.0", true),
        ("properties.price = '10'", false),
        ("properties.price != '10'", true),
        ("properties.zero = false", false),
        ("properties.zero = null", false),
        ("properties.is_new = 'true'", false),
        ("properties.is_new", true),
        ("properties.features = ['discounts', 'dark-mode']", true),
        ("properties.features = ['dark-mode', 'discounts']", false),
        ("event = 'button clicked'", false),
        ("properties.price > 9.5 and properties.price >= 10 and properties.price < 1e2", true),
        ("-1 < properties.zero", true),
        ("type in ['track', 'identify']", true),
        ("!( type in ['page', 1, true, null] )", true),
        ("1 in []", false),
    ] {
        assert_eq!(holds(text), expected, "{text}");
    }
}

#[test]
fn functions_give_what_they_say() {
    for text in [
        "length('ア') = 3",
        "length(properties.kana) = 3",
        "length(properties.features) = 2",
        "lowercase(event) = 'button clicked'",
        "uppercase(type) = 'TRACK'",
        "snakecase(event) = 'button_clicked'",
        "kebabcase(event) = 'button-clicked'",
        "titlecase('button_clicked') = 'Button Clicked'",
        "typeof(type) = 'string' and typeof(properties.price) = 'number'",
        "typeof(properties.features) = 'list' and typeof(properties.is_new) = 'bool'",
        "typeof(properties) = 'object'",
        "number('19.99') = 19.99 and number('x') = null and number(true) = 1",
        "string(10) = '10' and string(true) = 'true'",
        "bool('true') and !bool('false') and bool(2) and !bool(0) and bool('maybe') = null",
        "match(lowercase(event), '*click*')",
    ] {
        assert!(holds(text), "{text}");
    }
}

#[test]
fn names_and_strings_are_escaped() {
    for text in [
        r"properties.product\ 1.price = '19.99'",
        r"properties.a\.b = 1",
        r"properties.in = 5",
        r"properties.Mixed_Case\ word = 'x'",
        r#""it's" = 'it\'s'"#,
        r"length('a\\b') = 3",
        r"length('a\b') = 3",
        r"match('a\\b', 'a\\\\b')",
        r"match('[x]', '\[x\]')",
        r"match('a-c', 'a[-x]c')",
    ] {
        assert!(holds(text), "{text}");
    }
}

#[test]
fn what_makes_no_sense_for_an_event_is_false_either_way() {
    for text in [
        "length(properties.price) = 2",
        "!(length(properties.price) = 2)",
        "!(event > 5)",
        "event",
        "!event",
        "event or true",
        "!('x' in event)",
        "!contains(properties.features, 'x')",
        "!match(event, properties.features)",
        "!match(event, lowercase('['))",
    ] {
        assert!(!holds(text), "{text}");
    }
    // What decides stands before it.
    assert!(holds("true or event"));
    assert!(!holds("type = 'page' and event > 5"));
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (text, expected) in [
        ("", "expected a field, a value or a function, found the end of the filter (line 1, column 1)"),
        ("userId = oops\"", "this string has no end; it ends with \" (line 1, column 14)"),
        ("type == 'x'", "expected a field, a value or a function, found `=` (line 1, column 7)"),
        ("type = 'a' &&\ntype = 'b'", "unexpected character `&`; did you mean `and`? (line 1, column 12)"),
        (
            "type = 'a'\n or",
            "expected a field, a value or a function, found the end of the filter (line 2, column 4)",
        ),
        ("type = 'a' type", "unexpected `type` (line 1, column 12)"),
        ("contain(type, 'a')", "there is no function `contain`; did you mean `contains`? (line 1, column 1)"),
        ("contains(type)", "`contains` takes 2 in its parentheses, not 1 (line 1, column 1)"),
        ("length()", "`length` takes 1 in its parentheses, not 0 (line 1, column 1)"),
        ("contains(type, 5)", "`contains` needs a string, this is a number (line 1, column 16)"),
        ("'abc'", "a filter needs true or false, this is a string (line 1, column 1)"),
        ("type = 'a' and 5", "`and` needs true or false, this is a number (line 1, column 16)"),
        ("!length(type)", "`!` needs true or false, this is a number (line 1, column 2)"),
        ("type > 'a'", "this comparison needs a number, this is a string (line 1, column 8)"),
        ("type in 'abc'", "the right side of `in` needs a list, this is a string (line 1, column 9)"),
        ("a = b = c", "comparisons cannot be chained; join two with `and` (line 1, column 7)"),
        ("a..b", "a field's name is missing before this dot (line 1, column 3)"),
        ("a. = 1", "a field's name is missing after the dot (line 1, column 3)"),
        ("(type = 'a'", "expected `)`, found the end of the filter (line 1, column 12)"),
        ("type in ['a' 'b']", "expected `,` or `]`, found `\"b\"` (line 1, column 14)"),
        (
            "type in [type]",
            "a list has strings, numbers, true, false or null, found `type` (line 1, column 10)",
        ),
        (
            "match(type, '[a')",
            "this pattern is not right: `[` has no `]`; to match it literally write `\\[` (line 1, column 13)",
        ),
        ("01 = 1", "`01` is no number that can be compared; write it as JSON does (line 1, column 1)"),
        (
            "3d = 1",
            "`3` is followed by more; a field whose name begins with a digit is written `\\3…` (line 1, column 1)",
        ),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn length_and_nesting_are_bounded() {
    let long = format!("event = '{}'", "x".repeat(BYTES_MAX));
    assert!(error(&long).contains("at most 5120 bytes"));
    for deep in ["(".repeat(2_000), "!".repeat(5_000), "typeof(".repeat(700)] {
        assert!(error(&deep).contains("32 deep"), "{deep}");
    }
    assert!(holds(&format!("{}type = 'track'{}", "(".repeat(32), ")".repeat(32))));
    assert!(holds(&vec!["type = 'track'"; 200].join(" and ")));
}

#[test]
fn patterns_cost_no_more_than_their_lengths() {
    let text = "a".repeat(20_000);
    let fql = Fql::parse("match(s, '*a*a*a*a*a*a*a*a*a*a*a*a*b')").expect("filter");
    assert!(!fql.matches(&json!({"s": text})));
}

#[test]
fn the_canonical_text_is_readable() {
    for (text, expected) in [
        ("(type='a' or (a.b>1))and!(c in[1,'x'])", "(type = 'a' or a.b > 1) and !(c in [1, 'x'])"),
        (r"\and = \3 and (!x) = true", r"\and = \3 and (!x) = true"),
        (r"match( a\ b , 'x\*' )", r"match(a\ b, 'x\\*')"),
    ] {
        assert_eq!(Fql::parse(text).expect(text).to_string(), expected);
    }
}

fn texts() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "and",
        "or",
        "!",
        "=",
        "!=",
        ">",
        "<=",
        "in",
        "(",
        ")",
        "[",
        "]",
        ",",
        "'",
        "\"",
        "\\",
        ".",
        "type",
        "a.b",
        "contains(",
        "match(",
        "length(",
        "typeof(",
        "'x'",
        "5",
        "-1.5e3",
        "null",
        "true",
        "é",
        " ",
        "\n",
    ]);
    prop_oneof![any::<String>(), prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.join(" "))]
}

fn conditions() -> impl Strategy<Value = String> {
    let path = "[a-z_]{1,6}(\\.([a-zA-Z0-9_-]|\\\\[ .\\\\'é]){1,5}){0,2}";
    let literal = prop_oneof![
        "'([a-z *?]|\\\\.){0,6}'",
        any::<i32>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| json!(f).to_string()),
        prop::sample::select(vec!["true", "false", "null"]).prop_map(str::to_owned),
    ];
    let symbol = prop::sample::select(vec!["=", "!="]);
    let leaf =
        (path, symbol, literal).prop_map(|(path, symbol, literal)| format!("{path} {symbol} {literal}"));
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(|of| format!("({})", of.join(" or "))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|of| format!("({})", of.join(" and "))),
            inner.clone().prop_map(|of| format!("!({of})")),
            inner.prop_map(|of| format!("(bool({of})) = (typeof({of}) in ['x', 1])")),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in texts()) {
        if let Ok(fql) = Fql::parse(&text) {
            fql.matches(&event());
            prop_assert_eq!(Fql::parse(&fql.to_string()), Ok(fql));
        }
    }

    #[test]
    fn printing_and_reading_again_gives_the_same_filter(text in conditions()) {
        if text.len() <= BYTES_MAX / 4 {
            let fql = Fql::parse(&text);
            prop_assert!(fql.is_ok(), "{} {:?}", text, fql);
            let fql = fql?;
            prop_assert_eq!(Fql::parse(&fql.to_string()), Ok(fql));
        }
    }
}
