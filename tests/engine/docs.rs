//! The examples of docs/query-language.md, each of them run for the profile that stands there.

use std::borrow::Cow;
use std::collections::BTreeMap;

use personas::domain::{Collection, EventType, LeafNo, Timestamp, Value, trait_names};
use personas::engine::query::ErrorKind;
use personas::engine::{
    Dirty, Kind, KnownSource, LeafState, LeafStates, Limits, Sources, Tally, Target, Users, View, compile,
    compile_for, format,
};

use crate::harness::*;

const TEXT: &str = include_str!("../../docs/query-language.md");

/// The blocks of a Markdown text: their language and content.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let mut parts = text.split("```");
    parts.next();
    let fenced = parts.step_by(2).map(|block| block.split_once('\n').expect("a block has lines"));
    fenced.collect()
}

/// The profile of the examples.
fn profile() -> serde_json::Value {
    let (_, json) = blocks(TEXT).into_iter().find(|(language, _)| *language == "profile").expect("a profile");
    serde_json::from_str(json).expect("json")
}

/// The value of a definition for it.
fn result(query: &str, kind: Kind) -> String {
    let profile = profile();
    let mut plan = compiled(query, kind);
    let known = |(no, name): (i32, &str)| KnownSource {
        no: personas::domain::SourceNo(no),
        id: "src_0190163d86947b0b9a3e5fd3c2f1a7e4".to_owned() + &"x".repeat(no as usize - 1),
        name: name.to_owned(),
    };
    let sources =
        Sources::new([(1, "App"), (2, "Web shop"), (3, "Import"), (4, "Back office")].map(known).to_vec());
    plan.check_sources(&sources).expect("known sources");
    plan.bind_sources(&sources);
    let mut space = Space::of_bound(plan);
    for (name, value) in profile["traits"].as_object().expect("traits") {
        space
            .profile
            .traits
            .insert(trait_names::canonical(name).into_owned(), Value::from_json(&value.to_string()));
    }
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    for (offset, told) in (1..).zip(profile["events"].as_array().expect("events")) {
        let at = Timestamp::parse(told["at"].as_str().expect("at")).expect("instant").millis();
        let (call, name) = match told["type"].as_str() {
            Some("page") => (EventType::Page, "Page Viewed".to_owned()),
            Some("identify") => (EventType::Identify, String::new()),
            _ => (EventType::Track, text(&told["event"]).expect("a name")),
        };
        let body = if call == EventType::Identify { "traits" } else { "properties" };
        let object = |key: &str| if told[key].is_object() { told[key].to_string() } else { String::new() };
        space.fold(&[Event {
            call,
            context: object("context"),
            source: if told["source"] == "Web shop" { 2 } else { 1 },
            offset,
            ..event(&name, at, &object(body))
        }]);
    }
    space.at(Timestamp::parse("2024-06-01").expect("date").millis()).value.to_json()
}

/// The account of the examples and what its users have brought.
struct Account {
    profile: Profile,
    tally: Tally,
}

impl View for Account {
    fn profile_id(&self) -> uuid::Uuid {
        self.profile.profile_id()
    }

    fn leaf(&self, leaf: LeafNo) -> Option<Cow<'_, LeafState>> {
        self.profile.leaf(leaf)
    }

    fn trait_value(&self, name: &str) -> Option<Cow<'_, Value>> {
        self.profile.trait_value(name)
    }

    fn users(&self, quantifier: usize) -> Users {
        Users { holding: self.tally.holding(quantifier), all: self.tally.all() }
    }
}

fn traits(profile: &serde_json::Value) -> BTreeMap<String, Value> {
    let traits = profile["traits"].as_object().expect("traits").iter();
    traits.map(|(name, value)| (name.clone(), Value::from_json(&value.to_string()))).collect()
}

/// The value of a definition for the account.
fn account_result(query: &str, kind: Kind) -> String {
    let (_, json) =
        blocks(TEXT).into_iter().find(|(language, _)| *language == "account").expect("an account");
    let told: serde_json::Value = serde_json::from_str(json).expect("json");
    let plan = compile_for(Collection::Accounts, query, kind, Limits::default());
    let space = Space::of(plan.unwrap_or_else(|errors| panic!("{query}\n{errors:#?}")));
    let definition = &space.program.computations()[0];
    let now = Timestamp::parse("2024-06-01").expect("date");
    let mut account =
        Account { profile: Profile { traits: traits(&told), ..Profile::default() }, tally: Tally::default() };
    for user in told["users"].as_array().expect("users") {
        let (mut own, mut named) = (LeafStates::default(), LeafStates::default());
        for (offset, told_event) in (1..).zip(user["events"].as_array().expect("events")) {
            let at = Timestamp::parse(told_event["at"].as_str().expect("at")).expect("instant").millis();
            let of = told_event["context"]["groupId"].as_str();
            let properties = told_event["properties"].to_string();
            let event =
                Event { offset, ..event(told_event["event"].as_str().expect("a name"), at, &properties) };
            let target = Target::User { named: of.is_some() };
            space.program.fold_into(target, &mut own, &event.facts(), &mut Dirty::default());
            if of == told["group_id"].as_str() {
                space.program.fold_into(Target::Seat, &mut named, &event.facts(), &mut Dirty::default());
            }
        }
        own.merge(&named);
        definition.plan.pool(&mut account.profile.states, &own);
        let (bits, _) = definition.plan.ask(&Profile { states: own, traits: traits(user) }, now);
        account.tally.count(None, Some(bits));
    }
    definition.plan.evaluate(&account, now).value.to_json()
}

#[test]
fn examples_are_what_they_are_said_to_be() {
    let (mut wrong, mut run) = (Vec::new(), 0);
    for (language, query) in blocks(TEXT) {
        let (language, expected) = language.split_once(' ').unwrap_or((language, ""));
        let found = match (language, expected) {
            ("audience", _) => match result(query, Kind::Audience).as_str() {
                "true" => "in".to_owned(),
                _ => "out".to_owned(),
            },
            ("computed-trait", _) => result(query, Kind::ComputedTrait),
            ("account-audience", _) => match account_result(query, Kind::Audience).as_str() {
                "true" => "in".to_owned(),
                _ => "out".to_owned(),
            },
            ("account-trait", _) => account_result(query, Kind::ComputedTrait),
            ("not-yet", _) => {
                let errors = refused(query, Kind::Audience);
                assert!(errors.iter().all(|e| e.kind == ErrorKind::Unsupported), "{query}\n{errors:#?}");
                continue;
            }
            // The form is sent through the front door: tests/it/queries.rs.
            ("profile" | "account" | "grammar" | "form", "") => continue,
            (other, _) => panic!("what is a block of {other}?"),
        };
        run += 1;
        if found != expected {
            wrong.push(format!("{language} {found}, not {expected:?}\n{query}"));
        }
    }
    assert!(run > 30, "found {run}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn examples_are_formatted() {
    for (language, query) in blocks(TEXT) {
        // The one that shows how freely a query may be written.
        let is_example =
            ["audience", "computed-trait", "account-"].iter().any(|kind| language.starts_with(kind));
        if is_example && !query.contains("as you like it") {
            assert_eq!(format(query, Limits::default()).expect("formats"), query.trim_end());
        }
    }
}

#[test]
fn every_comparator_and_reducer_is_described() {
    let error =
        &compile("trait('x').nothing_like_it()", Kind::Audience, Limits::default()).expect_err("unknown")[0];
    let reducers =
        ["count", "sum", "avg", "min", "max", "first", "last", "unique", "mode"].map(str::to_owned);
    for name in error.expected.iter().chain(&reducers) {
        assert!(TEXT.contains(&format!("`{name}(")), "{name}");
    }
    let of =
        |query: &str| compile(query, Kind::Audience, Limits::default()).expect_err(query)[0].expected.clone();
    let functions =
        [of("nothing('x') = 1"), of("event('x').where(nothing('x') = 1) = 1"), of("event('x').nothing()")];
    for name in functions.concat() {
        assert!(TEXT.contains(&format!("`{name}`")) || TEXT.contains(&format!("`{name}(")), "{name}");
    }
}
