//! One audience or computed trait: its query, how large it was and is, who came and went, and what refers to it.

use serde_json::{Value, json};

use super::definitions::{AUDIENCES, Kind, TRAITS};
use super::{Cx, deliveries, part, people};
use crate::console::chart::{self, Course};
use crate::console::client::Refusal;
use crate::console::form::{Ask, Field, Form};
use crate::console::show::{any, grouped, is_true, items, next, number, state, text, time, whole};
use crate::console::view::{Cell, Content, Link, Notice, Page, Search, Section, Table};
use crate::domain::Timestamp;

const DAY_MS: i64 = 86_400_000;
/// Rows of a list on the page.
const ROWS: &str = "20";

/// Spans of the chart: word, name, days and step.
const SPANS: [(&str, &str, i64, &str); 4] = [
    ("day", "24 hours", 1, "minute"),
    ("week", "7 days", 7, "hour"),
    ("month", "30 days", 30, "hour"),
    ("quarter", "90 days", 90, "day"),
];

/// An audience.
pub(super) async fn audience(context: Cx) -> Result<Page, Refusal> {
    page(context, AUDIENCES).await
}

/// A computed trait.
pub(super) async fn computed(context: Cx) -> Result<Page, Refusal> {
    page(context, TRAITS).await
}

async fn page(context: Cx, kind: Kind) -> Result<Page, Refusal> {
    let key = context.named("key");
    let definition = context.read(&[kind.api, key], &[]).await?;
    let name = text(&definition, "name");
    let title = if name.is_empty() { key } else { name };
    let page = Page::new(title)
        .back(kind.many, context.page(&[kind.part], &[]))
        .every(5)
        .lead(Cell::Code(key.to_owned()))
        .lead(state(text(&definition, "status")))
        .lead(text(&definition, "description"))
        .with(about(&context, kind, &definition));
    let page = if kind.api == AUDIENCES.api {
        of_audience(&context, page, key).await
    } else {
        let mut query = vec![("limit", ROWS)];
        query.extend(context.asked("values").map(|cursor| ("cursor", cursor)));
        let path = [kind.api, key, "values"];
        let table = |section: Section, list: &Value| section.with(value_table(&context, list));
        page.with(people(&context, ("values", "Values"), &path, &query, table).await)
    };
    let (referred, versions) = ([kind.api, key, "references"], [kind.api, key, "versions"]);
    let (sent, referred, versions) = tokio::join!(
        deliveries::of_definition(&context, key),
        context.read(&referred, &[]),
        context.read(&versions, &[("limit", ROWS)]),
    );
    Ok(page
        .with(sent)
        .with(part("references", "References", &referred, |section, list| {
            section.with(references(&context, list))
        }))
        .with(part("versions", "Versions", &versions, |section, list| {
            section.with(version_table(list)).folded()
        }))
        .with(acts(&context, kind, &definition)))
}

fn about(context: &Cx, kind: Kind, definition: &Value) -> Section {
    let key = text(definition, "key");
    let what = &definition["definition"];
    let of = if text(what, "type") == "accounts" { "accounts" } else { "users" };
    let serving = whole(definition, "serving_version");
    let version = whole(definition, "version");
    let mut facts = vec![
        ("Size".to_owned(), Cell::from(format!("{} {of}", grouped(whole(definition, "size"))))),
        ("Version".to_owned(), version_fact(version, serving)),
        ("Changed".to_owned(), time(definition, "updated_at")),
        ("Options".to_owned(), Cell::Tree(definition["options"].clone())),
    ];
    let purpose = text(definition, "purpose");
    if !purpose.is_empty() {
        facts.push(("Purpose".to_owned(), Cell::from(purpose)));
    }
    let mut section = Section::new("about", "");
    let failure = text(definition, "failure");
    if !failure.is_empty() {
        section = section.with(Notice::bad(failure));
    }
    let warnings: Vec<String> =
        items(definition, "warnings").iter().map(|warning| text(warning, "message").to_owned()).collect();
    if !warnings.is_empty() {
        section = section.with(Notice { items: warnings, ..Notice::plain("Worth a look:") });
    }
    let query = if is_true(what, "list") { "a list: members are uploaded" } else { text(what, "query") };
    let mut links = vec![Link::new("Edit", context.page(&[kind.part, key, "edit"], &[]))];
    if kind.api == AUDIENCES.api {
        let file = |format| context.through(&[kind.api, key, "members"], &[("format", format)]);
        links.push(Link::file("Members as CSV", file("csv")));
        links.push(Link::file("as NDJSON", file("ndjson")));
    }
    section.with(Content::Pre(query.to_owned())).with(Content::Facts(facts)).with(Content::Links(links))
}

fn version_fact(version: i64, serving: i64) -> Cell {
    if serving == version {
        return Cell::from(version.to_string());
    }
    let serves =
        if serving == 0 { "none serves yet".to_owned() } else { format!("{serving} serves until then") };
    Cell::from(format!("{version} is being computed, {serves}"))
}

async fn of_audience(context: &Cx, page: Page, key: &str) -> Page {
    let mut members = vec![("limit", ROWS)];
    members.extend(context.asked("members").map(|cursor| ("cursor", cursor)));
    let mut changes = vec![("limit", ROWS)];
    changes.extend(context.asked("changes").map(|cursor| ("cursor", cursor)));
    let (members_path, changes_path) = (["audiences", key, "members"], ["audiences", key, "transitions"]);
    let (history, members, changes, identifiers, other) = tokio::join!(
        history(context, key),
        people(context, ("members", "Members"), &members_path, &members, |section, list| {
            section.with(member_table(context, list))
        }),
        people(context, ("changes", "Who came and went"), &changes_path, &changes, |section, list| {
            section.with(change_table(context, list))
        }),
        identifiers(context, key),
        overlap(context, key),
    );
    page.with(history).with(members).with(changes).with(identifiers).with(other)
}

/// Which identifiers its members have. All of them are gone through, which takes seconds for a million: they are counted when somebody
/// asks for it, and not while the page fetches itself again.
async fn identifiers(context: &Cx, key: &str) -> Section {
    if context.is_poll {
        return Section::kept("identifiers");
    }
    let title = "Identifiers of members";
    if context.asked("identifiers").is_none() {
        let count = Link::new("Count them", context.here_with("identifiers", "counted"));
        return Section::new("identifiers", title).with(Content::Links(vec![count])).folded();
    }
    let answer = context.read(&["audiences", key, "identifiers"], &[]).await;
    part("identifiers", title, &answer, |section, list| {
        let rows = items(list, "identifiers").iter().map(|one| {
            vec![Cell::Code(text(one, "type").to_owned()), number(one, "members"), percent(&one["percent"])]
        });
        section.with(Table::new(title, &["Type", "Members", "Share"]).rows(rows))
    })
}

fn percent(value: &Value) -> Cell {
    Cell::Number(format!("{:.1} %", value.as_f64().unwrap_or_default()))
}

/// The size over a span that can be chosen.
async fn history(context: &Cx, key: &str) -> Section {
    let asked = context.asked("span").unwrap_or("week");
    let span = SPANS.iter().find(|(word, ..)| *word == asked).unwrap_or(&SPANS[1]);
    let (_, name, days, step) = *span;
    let now = context.console.0.settings.clock.now();
    let from = now.plus_millis(-days * DAY_MS).to_string();
    let query = [("from", from.as_str()), ("step", step)];
    let answer = context.read(&["audiences", key, "size", "history"], &query).await;
    let links = SPANS.iter().map(|(word, name, ..)| Link::new(*name, context.here_with("span", word)));
    part("history", "Size", &answer, |section, answer| {
        let point = |point: &Value| Some((Timestamp::parse(text(point, "at"))?, whole(point, "size")));
        let course: Course = items(answer, "data").iter().filter_map(point).collect();
        let drawn = chart::history(&course, now, &format!("size over {name}"));
        let section =
            section.note(format!("Over {name}. Times are UTC.")).with(Content::Links(links.collect()));
        match drawn {
            Some(drawing) => section.with(drawing),
            None => section.with(Notice::plain("Nothing to draw yet.")),
        }
    })
}

/// How many members it has in common with another one.
async fn overlap(context: &Cx, key: &str) -> Section {
    let search =
        Search::new("overlap-with", "The key of another audience", "with", context.asked("with"), "Compare");
    let section = Section::new("overlap", "Overlap").with(Content::Search(search));
    let Some(other) = context.asked("with") else { return section.folded() };
    let facts = match context.read(&["audiences", key, "overlap", other], &[]).await {
        Ok(overlap) => Content::Facts(vec![
            ("In both".to_owned(), number(&overlap, "both")),
            (format!("Only in {key}"), number(&overlap["a"], "only")),
            (format!("Only in {other}"), number(&overlap["b"], "only")),
        ]),
        Err(refusal) => crate::console::show::refusal(&refusal).into(),
    };
    section.with(facts)
}

/// The link to a profile.
pub(super) fn profile(context: &Cx, id: &str) -> Cell {
    Cell::link(id, context.page(&["profiles", "users", &format!("profile_id:{id}")], &[]))
}

fn member_table(context: &Cx, list: &Value) -> Table {
    let row = |member: &Value| vec![profile(context, text(member, "profile_id")), time(member, "entered_at")];
    Table::new("Members", &["Profile", "Since"])
        .empty("Nobody is in it.")
        .rows(items(list, "data").iter().map(row))
        .next(next(list).map(|cursor| context.here_with("members", cursor)))
}

fn change_table(context: &Cx, list: &Value) -> Table {
    let row = |change: &Value| {
        let word = text(change, "transition");
        let kind = if word == "entered" { "good" } else { "plain" };
        vec![
            time(change, "at"),
            Cell::Badge(kind, word.to_owned()),
            profile(context, text(change, "profile_id")),
        ]
    };
    Table::new("Who came and went", &["When", "What", "Profile"])
        .empty("Nobody has come or gone.")
        .rows(items(list, "data").iter().map(row))
        .next(next(list).map(|cursor| context.here_with("changes", cursor)))
}

fn value_table(context: &Cx, list: &Value) -> Table {
    let row = |value: &Value| {
        vec![profile(context, text(value, "profile_id")), any(&value["value"]), time(value, "updated_at")]
    };
    Table::new("Values", &["Profile", "Value", "Changed"])
        .empty("No profile has a value.")
        .rows(items(list, "data").iter().map(row))
        .next(next(list).map(|cursor| context.here_with("values", cursor)))
}

fn references(context: &Cx, list: &Value) -> Table {
    let mut table =
        Table::new("References", &["Direction", "Definition"]).empty("None, in either direction.");
    for (name, says) in [("refers_to", "refers to"), ("referenced_by", "is referred to by")] {
        table = table.rows(items(list, name).iter().map(|other| {
            let (kind, key) = (text(other, "kind"), text(other, "key"));
            let segment = match kind {
                "audience" => Some("audiences"),
                "computed_trait" => Some("traits"),
                _ => None,
            };
            let shown = match segment {
                Some(segment) => Cell::link(key, context.page(&[segment, key], &[])),
                None => Cell::from(format!("{kind} {key}")),
            };
            vec![Cell::from(says), shown]
        }));
    }
    table
}

fn version_table(list: &Value) -> Table {
    let row = |version: &Value| {
        vec![
            number(version, "version"),
            state(text(version, "status")),
            number(version, "size"),
            time(version, "created_at"),
            Cell::Code(text(&version["definition"], "query").to_owned()),
        ]
    };
    Table::new("Versions", &["Version", "Status", "Size", "Made", "Query"])
        .rows(items(list, "data").iter().map(row))
}

/// What can be done to it.
fn acts(context: &Cx, kind: Kind, definition: &Value) -> Section {
    let key = text(definition, "key");
    let is_on = is_true(definition, "enabled");
    let (button, says) = if is_on {
        (
            "Switch off",
            format!("The {} {key} stops: it keeps no members or values until it is on again.", kind.one),
        )
    } else {
        ("Switch on", format!("The {} {key} is computed over history and kept up to date.", kind.one))
    };
    let switch = Form::new(context, "switch", "PATCH", &[kind.api, key], button)
        .field(Field::raw("body", json!({"enabled": !is_on}).to_string()))
        .asks(Ask::Confirm, says)
        .small();
    let delete = Form::new(context, "delete", "DELETE", &[kind.api, key], "Delete")
        .asks(
            Ask::Confirm,
            format!(
                "The {} {key} is deleted, with its history; what was sent about it stays sent.",
                kind.one
            ),
        )
        .back(context.page(&[kind.part], &[]))
        .small();
    let copy = Form::new(context, "copy", "POST", &[kind.api, key, "clone"], "Make a copy")
        .field(Field::text("key", "Key of the copy", "").required())
        .back(context.page(&[kind.part, ":key"], &[]));
    Section::new("acts", "Change it")
        .with(Content::Line(vec![switch.into(), delete.into()]))
        .with(copy)
        .folded()
        .stays()
}
