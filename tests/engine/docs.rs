//! The examples of docs/query-language.md.

use personas::engine::query::ErrorKind;
use personas::engine::{Kind, Limits, compile};

/// The blocks of a Markdown text: their language and content.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let mut parts = text.split("```");
    parts.next();
    let fenced = parts.step_by(2).map(|block| block.split_once('\n').expect("a block has lines"));
    fenced.collect()
}

#[test]
fn examples_are_what_they_are_said_to_be() {
    let text = include_str!("../../docs/query-language.md");
    let blocks = blocks(text);
    assert!(blocks.len() > 30, "found {}", blocks.len());
    for (language, query) in blocks {
        let kind = if language == "computed-trait" { Kind::ComputedTrait } else { Kind::Audience };
        let compiled = compile(query, kind, Limits::default());
        match language {
            "audience" | "computed-trait" => assert!(compiled.is_ok(), "{query}\n{compiled:#?}"),
            "not-yet" => {
                let errors = compiled.err().unwrap_or_else(|| panic!("accepted: {query}"));
                assert!(errors.iter().all(|e| e.kind == ErrorKind::Unsupported), "{query}\n{errors:#?}");
            }
            other => panic!("what is a block of {other}?"),
        }
    }
}

#[test]
fn every_comparator_and_reducer_is_described() {
    let text = include_str!("../../docs/query-language.md");
    let error =
        &compile("trait('x').nothing_like_it()", Kind::Audience, Limits::default()).expect_err("unknown")[0];
    let reducers =
        ["count", "sum", "avg", "min", "max", "first", "last", "unique", "mode"].map(str::to_owned);
    for name in error.expected.iter().chain(&reducers) {
        assert!(text.contains(&format!("`{name}(")), "{name}");
    }
}
