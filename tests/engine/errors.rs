//! What is refused, where, and with which words.

use personas::domain::Collection;
use personas::engine::query::ErrorKind;
use personas::engine::{Kind, Limits, QueryError, compile, compile_for};
use proptest::prelude::*;

use crate::harness::{refused, sources};

/// The only error, and the text it points at.
fn only(query: &str, kind: Kind) -> (QueryError, String) {
    let mut errors = refused(query, kind);
    assert_eq!(errors.len(), 1, "{query:.200}\n{errors:#?}");
    let error = errors.remove(0);
    let text = query[error.offset..error.offset + error.length].to_owned();
    (error, text)
}

#[test]
fn nothing_stands_for_what_cannot_be_stored() {
    for query in ["event('A\0') >= 1", "event('A\\\0') >= 1", "event('A') >= 1 -- \0"] {
        let (error, text) = only(query, Kind::Audience);
        assert_eq!((error.kind, text.as_str()), (ErrorKind::Syntax, "\0"), "{query:?}: {error}");
        assert!(error.message.contains("U+0000"), "{error}");
    }
}

#[test]
fn any_and_all_stand_in_definitions_of_accounts_alone() {
    for (query, place) in [("ANY event('A') >= 1", "ANY"), ("ALL NOT event('A').count() >= 1", "ALL")] {
        let (error, text) = only(query, Kind::Audience);
        assert_eq!((error.kind, text.as_str()), (ErrorKind::Type, place), "{query}: {error}");
        assert!(error.message.contains("a definition of type `accounts`"), "{error}");
        compile_for(Collection::Accounts, query, Kind::Audience, Limits::default()).expect(query);
    }
    for (query, place) in [
        ("ANY (trait('a') = 1 AND ALL trait('b') = 1)", "ALL"),
        ("event('A').where(ANY trait('b') = 1).count() >= 1", "ANY"),
        ("any_item('a', ALL property('b') = 1)", "ALL"),
    ] {
        let errors =
            compile_for(Collection::Accounts, query, Kind::Audience, Limits::default()).expect_err(query);
        let place_of = |e: &QueryError| query[e.offset..e.offset + e.length].to_owned();
        assert_eq!(errors.iter().map(place_of).collect::<Vec<_>>(), [place], "{query}: {errors:?}");
        assert!(errors.iter().all(|e| e.kind == ErrorKind::Type), "{errors:?}");
    }
}

#[test]
fn held_for_follows_a_trait_on_a_profile_and_nothing_else() {
    for query in [
        "event('A').where(property('d').held_for(3 days)) >= 1",
        "event('A').where(trait('d').held_for(3 days)) >= 1",
        "event('A').count().held_for(3 days)",
        "event('A').held_for(3 days)",
        "audience('a').held_for(3 days)",
        "trait('tags.$').held_for(3 days)",
        "random_bucket('a').held_for(1 day)",
    ] {
        let (error, text) = only(query, Kind::Audience);
        assert_eq!((error.kind, text.as_str()), (ErrorKind::Type, "held_for"), "{query}: {error}");
        assert_eq!(error.message, "`held_for` can only follow `trait('…')`, outside of `where`");
    }
    let (error, text) = only("trait('a').held_for()", Kind::Audience);
    assert_eq!((error.kind, text.as_str()), (ErrorKind::Syntax, "held_for()"), "{error}");
}

#[test]
fn a_parent_is_refused_where_there_is_none() {
    for (query, place) in [
        ("event('A').within(parent: 5 days) >= 1", "within(parent: 5 days)"),
        ("event('A').where(property(parent: 'x') = 1) >= 1", "property(parent: 'x')"),
        ("event('A').where(property('d').within_next(parent: 3 days)) >= 1", "parent: 3 days"),
        (
            "event('A').where(event('B').within(parent: 1 day).within(parent: 2 days) >= 1) >= 1",
            "within(parent: 2 days)",
        ),
        ("event('A').where(event('B').expires_after(1 day).count() >= 1) >= 1", "expires_after(1 day)"),
        ("event('A').where(trait('x') = 1).expires_after(1 day).count() >= 1", "expires_after(1 day)"),
        ("event('A').where(any_item('p', trait('x') = 1)) >= 1", "trait('x')"),
        ("event('A').where(any_item('p', event('x') = 1)) >= 1", "event('x')"),
        ("event('A').where(event('B')) >= 1", "event('B')"),
    ] {
        let (error, text) = only(query, Kind::Audience);
        assert_eq!((error.kind, text.as_str()), (ErrorKind::Type, place), "{query}: {error}");
    }
    let (error, text) = only("event('A').mode(trait('email'), 1)", Kind::ComputedTrait);
    assert_eq!((error.kind, text.as_str()), (ErrorKind::Type, "trait('email')"));
    for query in [
        "event('A').where(trait('tags.$') = 'x') >= 1",
        "event('A').where(any_item('p', property('d').within_last(1 day)) OR trait('x') = 1) >= 1",
    ] {
        assert_eq!(refused(query, Kind::Audience)[0].kind, ErrorKind::Unsupported, "{query}");
    }
}

#[test]
fn entities_are_refused_with_what_to_do_instead() {
    for (query, place) in [
        ("entity('orders').where(entity('p').count() >= 1).count() >= 1", "entity('orders')"),
        ("entity('orders').count() >= 1 OR trait('VIP') = 'true'", "entity('orders')"),
        ("entity('orders').where(property('total') > 500).count() >= 1", "entity('orders')"),
        ("event('A').where(entity('orders') > 1) >= 1", "entity('orders')"),
    ] {
        let (error, text) = only(query, Kind::Audience);
        assert_eq!((error.kind, text.as_str()), (ErrorKind::Unsupported, place), "{query}: {error}");
        assert!(error.message.contains("as traits or events"), "{error}");
    }
}

#[test]
fn relative_dates_inside_of_where_compile() {
    for read in ["property('d')", "context('d')", "timestamp()"] {
        for method in ["within_last", "within_next", "before_last", "after_next"] {
            let query = format!("event('A').where(NOT {read}.{method}(3 days) OR property('x') = 1) >= 1");
            assert!(compile(&query, Kind::Audience, Limits::default()).is_ok(), "{query}");
        }
    }
    for (query, kind, place) in [
        ("event('A').where(property('d').within_next(3)) >= 1", ErrorKind::Syntax, "3"),
        ("event('A').where(property('d').within_next()) >= 1", ErrorKind::Syntax, "within_next()"),
        ("event('A').where(property('d').within_nxt(3 days)) >= 1", ErrorKind::Syntax, "within_nxt"),
        (
            "event('A').where(property('d').within_next(99999999999 weeks)) >= 1",
            ErrorKind::Limit,
            "99999999999 weeks",
        ),
    ] {
        let (error, text) = only(query, Kind::Audience);
        assert_eq!((error.kind, text.as_str()), (kind, place), "{query}: {error}");
    }
}

#[test]
fn near_misses_get_a_suggestion() {
    for (query, suggestion) in [
        ("evnt('A') >= 1", "event"),
        ("event('A').cuont() >= 1", "count"),
        ("event('A').withn(7 days) >= 1", "within"),
        ("event('A').within(7 dyas) >= 1", "days"),
        ("trait('x').contain('a')", "contains"),
        ("trait('x').equal(1)", "equals"),
        ("event('A').where(propertty('x') = 1) >= 1", "property"),
        ("event('A').max(property('x') as nubmer) >= 1", "number"),
        ("event('A').mode(property('x.$') as aray, 1) = 1", "array"),
        ("any_itm('x', property('y') = 1)", "any_item"),
        ("event('A').sources(exlude: ['web']) >= 1", "exclude"),
        ("event('A').where(message_type() = 'trak') >= 1", "track"),
        ("event('A').where('pge' != message_type()) >= 1", "page"),
        ("event('A').where(message_type().one_of('track', 'scren')) >= 1", "screen"),
    ] {
        let (error, _) = only(query, Kind::Audience);
        assert!(error.message.ends_with(&format!("did you mean `{suggestion}`?")), "{error}");
        assert_eq!(error.suggestion.as_deref(), Some(suggestion), "{error:?}");
        assert!(error.expected.iter().any(|e| e == suggestion), "{error:?}");
    }
    for (query, suggestion) in [
        ("trait('x') = 1 ADN trait('y') = 2", "AND"),
        ("(trait('x') = 1 orr trait('y') = 2)", "OR"),
        ("trait('x') = flase", "false"),
        ("trait('x') = nul", "null"),
        ("event('A').within(parnt: 5 days) >= 1", "parent"),
        ("event('A').where(property(parant: 'x') = 1) >= 1", "parent"),
    ] {
        let errors = refused(query, Kind::Audience);
        assert_eq!(errors[0].suggestion.as_deref(), Some(suggestion), "{query} {errors:?}");
    }
    assert!(!only("frobnicate('A') >= 1", Kind::Audience).0.message.contains("did you mean"));
    assert_eq!(only("frobnicate('A') >= 1", Kind::Audience).0.suggestion, None);
}

#[test]
fn mistakes_are_told_at_their_place() {
    for (query, kind, place) in [
        ("event('A') = ", ErrorKind::Syntax, ""),
        ("event('A' >= 1", ErrorKind::Syntax, ""),
        ("(event('A') >= 1", ErrorKind::Syntax, ""),
        ("event('A') >= 1)", ErrorKind::Syntax, ")"),
        ("event('A') >= 1 event('B') >= 1", ErrorKind::Syntax, "event"),
        ("1 < event('A') < 3", ErrorKind::Syntax, "<"),
        ("event(A) >= 1", ErrorKind::Syntax, "A"),
        ("event(5) >= 1", ErrorKind::Syntax, "5"),
        ("event() >= 1", ErrorKind::Syntax, "event()"),
        ("event('') >= 1", ErrorKind::Syntax, "''"),
        ("trait('a..b') = 1", ErrorKind::Syntax, "'a..b'"),
        ("trait(\"x\") = 1", ErrorKind::Syntax, "\"x\""),
        ("trait('x') = 'abc", ErrorKind::Syntax, "'abc"),
        ("trait('x') = 2024-02-30", ErrorKind::Syntax, "2024-02-30"),
        ("trait('x').exists(1)", ErrorKind::Syntax, "1"),
        ("trait('x').one_of()", ErrorKind::Syntax, "one_of()"),
        ("trait('x').within_last(7)", ErrorKind::Syntax, "7"),
        ("event('A').within(1.5 days) >= 1", ErrorKind::Type, "1.5"),
        ("event('A').within(0 days) >= 1", ErrorKind::Type, "within(0 days)"),
        ("event('A').within(99999999999 weeks) >= 1", ErrorKind::Limit, "99999999999 weeks"),
        ("event('A').between(3 days, 2 days) >= 1", ErrorKind::Type, "between(3 days, 2 days)"),
        (
            "event('A').between(2024-02-01, 2024-01-01) >= 1",
            ErrorKind::Type,
            "between(2024-02-01, 2024-01-01)",
        ),
        ("event('A').within(1 day).within(2 days) >= 1", ErrorKind::Type, "within(2 days)"),
        ("event('A').within(1 day).expires_after(2 days) >= 1", ErrorKind::Type, "expires_after(2 days)"),
        ("event('A').expires_after(0 days) >= 1", ErrorKind::Type, "expires_after(0 days)"),
        (
            "event('A').where(property('d').within_last(1 day)).expires_after(2 days) >= 1",
            ErrorKind::Type,
            "expires_after(2 days)",
        ),
        (
            "event('A').expires_after(2 days).where(property('d').within_last(1 day)) >= 1",
            ErrorKind::Type,
            "property('d').within_last(1 day)",
        ),
        ("event('A').count().within(1 day) >= 1", ErrorKind::Type, "within"),
        ("trait('x').exists().where(1 = 1)", ErrorKind::Type, "where"),
        ("trait('x')", ErrorKind::Type, "trait('x')"),
        ("event('A')", ErrorKind::Type, "event('A')"),
        ("event('A').unique(property('x')) >= 1", ErrorKind::Type, "event('A').unique(property('x'))"),
        ("event('A').sum(5) >= 1", ErrorKind::Type, "5"),
        ("event('A').sum(property('x') as number) >= 1", ErrorKind::Type, "number"),
        ("event('A').sum(timestamp()) >= 1", ErrorKind::Type, "timestamp()"),
        ("event('A').mode(property('x'), 0) = 1", ErrorKind::Type, "0"),
        ("property('x') = 1", ErrorKind::Type, "property('x')"),
        ("trait('x').before_date('soon')", ErrorKind::Type, "'soon'"),
        ("trait('x').matches('(')", ErrorKind::Type, "'('"),
        ("event('A').where(source('web') = true) >= 1", ErrorKind::Type, "source('web')"),
        ("event('A').last(source('web')) = true", ErrorKind::Type, "source('web')"),
        ("event('A').sources() >= 1", ErrorKind::Syntax, "sources()"),
        ("event('A').sources(['web']) >= 1", ErrorKind::Syntax, "sources(['web'])"),
        ("event('A').sources(exclude: []) >= 1", ErrorKind::Syntax, "sources(exclude: [])"),
        ("event('A').sources(exclude: ['web', 5]) >= 1", ErrorKind::Type, "5"),
        ("event('A').where(message_type() = 'identify') >= 1", ErrorKind::Type, "'identify'"),
        ("event('A').max(property('x.$') as array) = 1", ErrorKind::Type, "array"),
        ("event('A').mode(timestamp() as array) = 1", ErrorKind::Type, "timestamp() as array"),
        ("trait('$') = 1", ErrorKind::Syntax, "'$'"),
        ("trait('x') = trait('tags.$')", ErrorKind::Type, "trait('tags.$')"),
        (
            "event('A').where(property('x').one_of(1, property('y.$.z'))) = 1",
            ErrorKind::Type,
            "property('y.$.z')",
        ),
        ("random_bucket('') < 0.1", ErrorKind::Syntax, "''"),
        ("random_bucket() < 0.1", ErrorKind::Syntax, "random_bucket()"),
        ("event('A').where(random_bucket('a') < 0.1) = 1", ErrorKind::Type, "random_bucket('a')"),
        ("event('A').where(everyone()) = 1", ErrorKind::Type, "everyone()"),
        ("source('web')", ErrorKind::Type, "source('web')"),
        ("any_item('p')", ErrorKind::Syntax, "any_item('p')"),
        ("any_item(p, 1 = 1)", ErrorKind::Syntax, "p"),
        ("any_item('p', 5 days)", ErrorKind::Type, "5 days"),
        ("any_item('p', property('x'))", ErrorKind::Type, "property('x')"),
        ("any_item('p', context('x') = 1)", ErrorKind::Type, "context('x')"),
        ("any_item('p', any_item('q', timestamp() = 1))", ErrorKind::Type, "timestamp()"),
        ("event('A').first(any_item('p', 1 = 1)) = 1", ErrorKind::Type, "any_item('p', 1 = 1)"),
        ("(trait('x') = 1) = true", ErrorKind::Type, "(trait('x') = 1)"),
    ] {
        let (error, text) = only(query, Kind::Audience);
        assert_eq!((error.kind, text.as_str()), (kind, place), "{query}: {error}");
    }
    for query in ["event('A')", "event('A') >= 1", "everyone()"] {
        assert_eq!(only(query, Kind::ComputedTrait).0.kind, ErrorKind::Type, "{query}");
    }
}

#[test]
fn sources_must_be_known_and_be_one() {
    let checked = |query: &str| {
        let plan = compile(query, Kind::Audience, Limits::default()).expect(query);
        plan.check_sources(&sources()).err().unwrap_or_default()
    };
    for query in [
        "event('A').where(source('web') OR source('src_3')).sources(exclude: ['app', 'src_4']) >= 1",
        "trait('x') = 1",
    ] {
        assert_eq!(checked(query), []);
    }
    let errors = checked("event('A').where(source('wbe')).sources(exclude: ['twice', 'src_9']) >= 1");
    let texts: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(
        texts,
        [
            "unknown source `wbe`; did you mean `web`?",
            "2 sources are called `twice`; name the one by its id",
            "unknown source `src_9`",
        ]
    );
    assert_eq!((errors[0].column, errors[0].length, errors[1].expected.len()), (25, 5, 2));
}

#[test]
fn lines_and_columns_count_characters_and_offsets_bytes() {
    let query = "trait('é') = 1 AND -- ünï\n  'é' = trait('x').frob()";
    let (error, text) = only(query, Kind::Audience);
    assert_eq!((error.line, error.column, text.as_str()), (2, 20, "frob"));
    assert_eq!(error.offset, query.find("frob").expect("there"));
    let json = serde_json::to_value(&error).expect("json");
    for key in ["message", "line", "column", "offset", "length", "expected"] {
        assert!(json.get(key).is_some(), "{key}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let errors = refused(
        "evnt('A') >= 1 AND trait('x').frob() OR (trait('y') = AND entity('x') = 1) OR traitt('z') = 1",
        Kind::Audience,
    );
    let messages: Vec<&str> = errors.iter().map(|e| e.message.as_str()).collect();
    assert_eq!(messages.len(), 5, "{messages:#?}");
    assert!(errors.is_sorted_by_key(|e| e.offset));
}

#[test]
fn an_empty_definition_is_nobody_and_an_error() {
    for query in ["", " \n\t", "-- nothing"] {
        for kind in [Kind::Audience, Kind::ComputedTrait] {
            assert_eq!(only(query, kind).0.message, "the definition is empty");
        }
    }
}

#[test]
fn limits_hold_to_the_last_one() {
    let many = |n: usize| vec!["trait('x') = 1"; n].join(" OR ");
    assert!(compile(&many(50), Kind::Audience, Limits::default()).is_ok());
    assert_eq!(only(&many(51), Kind::Audience).0.kind, ErrorKind::Limit);
    for (open, close) in [("(", ")"), ("NOT ", ""), ("!", "")] {
        let deep =
            |n: usize| format!("{}event('A').sum(property('x')) = 1{}", open.repeat(n), close.repeat(n));
        assert!(compile(&deep(20), Kind::Audience, Limits::default()).is_ok(), "{open}");
        assert_eq!(only(&deep(21), Kind::Audience).0.kind, ErrorKind::Limit, "{open}");
        assert_eq!(only(&deep(5_000), Kind::Audience).0.kind, ErrorKind::Limit, "{open}");
    }
    let errors = refused(&"trait(".repeat(5_000), Kind::Audience);
    assert!(
        errors.len() == 2 && errors.iter().all(|e| e.kind == ErrorKind::Limit),
        "expressions and nesting"
    );
    assert_eq!(
        only(&format!("trait('x'){}", ".exists()".repeat(3_000)), Kind::Audience).0.kind,
        ErrorKind::Limit
    );
    let long = |n: usize| format!("trait('x') = '{}'", "a".repeat(n - "trait('x') = ''".len()));
    assert!(compile(&long(32 * 1024), Kind::Audience, Limits::default()).is_ok());
    assert_eq!(only(&long(32 * 1024 + 1), Kind::Audience).0.kind, ErrorKind::Limit);
}

/// Pieces of queries, right and wrong.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "event('A')",
            "event(",
            "'A'",
            ")",
            "(",
            ".",
            ",",
            ":",
            "where(",
            ".count()",
            ".within(7 days)",
            ">=",
            "=",
            "1",
            "-1.5",
            "AND",
            "OR",
            "NOT",
            "ALL",
            "trait('x')",
            "property('x')",
            "as",
            "string",
            "[",
            "]",
            "7 days",
            "2024-01-01",
            "2024-01-01T",
            "'",
            "\\",
            "--",
            "\n",
            "parent:",
            "any_item('x.$', ",
            "random_bucket('s')",
            "source('web')",
            ".sources(exclude: ['a'])",
            ".expires_after(1 hour)",
            "message_type()",
            "property('a.$.b')",
            "event('*')",
            "!",
            "-- c\n",
            "é",
            ".one_of(1, 2)",
            "null",
            "true",
            "\u{0}",
        ])
        .prop_map(str::to_owned),
        ".{0,5}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_text_never_panics_and_errors_lie_inside_of_it(parts in prop::collection::vec(fragment(), 0..25)) {
        let query = parts.join(" ");
        for kind in [Kind::Audience, Kind::ComputedTrait] {
            match compile(&query, kind, Limits::default()) {
                Ok(plan) => {
                    prop_assert!(!plan.conditions().is_empty() || kind == Kind::ComputedTrait);
                    prop_assert!(personas::engine::format(&query, Limits::default()).is_ok());
                }
                Err(errors) => {
                    prop_assert!(!errors.is_empty());
                    for error in errors {
                        let end = error.offset + error.length;
                        prop_assert!(query.is_char_boundary(error.offset) && query.is_char_boundary(end));
                        prop_assert!(end <= query.len() && error.line >= 1 && error.column >= 1);
                    }
                }
            }
        }
    }
}
