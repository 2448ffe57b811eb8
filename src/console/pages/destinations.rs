//! Destinations: how they are, what waits, what was given up, and what can be done about it.

use serde_json::{Value, json};

use super::{Cx, deliveries, part, people};
use crate::console::client::Refusal;
use crate::console::form::{Ask, Field, Form};
use crate::console::show::{is_true, items, number, plain, state, text, time, whole};
use crate::console::view::{Cell, Content, Notice, Page, Search, Section, Table};

const KINDS: [(&str, &str); 5] = [
    ("webhook", "webhook: your own endpoint"),
    ("http", "http: any interface, by templates"),
    ("segment", "segment: an endpoint of Segment's protocol"),
    ("postgres", "postgres: tables in your own database"),
    ("file", "file: NDJSON in a folder or a bucket"),
];
const SUBJECTS: [(&str, &str); 4] = [
    ("audience", "an audience"),
    ("computed_trait", "a computed trait"),
    ("custom_traits", "custom traits"),
    ("merges", "merges"),
];

/// All destinations.
pub(super) async fn list(context: Cx) -> Result<Page, Refusal> {
    let listed = context.read(&["destinations"], &[("limit", "1000")]).await?;
    let rows = items(&listed, "data").iter().map(|destination| {
        let counts = &destination["deliveries"];
        vec![
            Cell::link(
                text(destination, "name"),
                context.page(&["destinations", text(destination, "id")], &[]),
            ),
            Cell::from(text(destination, "kind")),
            state(text(destination, "state")),
            number(counts, "queued"),
            number(counts, "in_flight"),
            number(counts, "succeeded"),
            number(counts, "dead"),
            time(counts, "last_succeeded_at"),
        ]
    });
    let columns = ["Name", "Kind", "State", "Waiting", "Under way", "Delivered", "Given up", "Last success"];
    let table = Table::new("Destinations", &columns).empty("There are no destinations yet.").rows(rows);
    let form = Form::new(&context, "new-destination", "POST", &["destinations"], "Make it")
        .field(Field::text("name", "Name", "").required())
        .field(Field::choice("kind", "Kind", "webhook", &KINDS))
        .field(
            Field::json("settings", "Settings", "{\"url\": \"https://example.com/hook\"}")
                .required()
                .hint("As JSON; docs/destination-kinds.md has those of every kind."),
        )
        .shows();
    Ok(Page::new("Destinations").every(5).with(Section::new("list", "").with(table)).with(
        Section::new("new", "New destination")
            .note("The answer has the secret that signs what is sent; it is shown once.")
            .with(form)
            .folded()
            .stays(),
    ))
}

/// One destination.
pub(super) async fn page(context: Cx) -> Result<Page, Refusal> {
    let id = context.named("id");
    let destination = context.read(&["destinations", id], &[]).await?;
    let mut query = vec![("destination", id), ("limit", "50")];
    query.extend(["state", "cursor"].into_iter().filter_map(|name| Some((name, context.asked(name)?))));
    let path = ["destinations", id, "subscriptions"];
    let (subscriptions, sent) = tokio::join!(
        context.read(&path, &[("limit", "200")]),
        people(&context, ("deliveries", "Deliveries"), &["deliveries"], &query, |section, list| {
            let search = Search::new("which", "Which", "state", context.asked("state"), "Show")
                .words(deliveries::STATES);
            section.with(Content::Search(search)).with(deliveries::table(&context, list))
        }),
    );
    let page = Page::new(text(&destination, "name"))
        .back("Destinations", context.page(&["destinations"], &[]))
        .every(5)
        .lead(text(&destination, "kind"))
        .lead(state(text(&destination, "state")))
        .lead(text(&destination, "state_reason"))
        .with(health(&destination))
        .with(part("subscriptions", "What it wants", &subscriptions, |section, list| {
            section.with(subscription_table(&context, id, list))
        }))
        .with(sent);
    let page =
        if whole(&destination["deliveries"], "dead") > 0 { page.with(dead(&context, id)) } else { page };
    Ok(page.with(acts(&context, &destination)).with(wants(&context, id)))
}

fn health(destination: &Value) -> Section {
    let counts = &destination["deliveries"];
    let mut facts: Vec<(String, Cell)> = [
        ("Waiting", "queued"),
        ("Under way", "in_flight"),
        ("Delivered", "succeeded"),
        ("Filtered", "filtered"),
        ("Given up", "dead"),
    ]
    .into_iter()
    .map(|(name, field)| (name.to_owned(), number(counts, field)))
    .collect();
    facts.push(("Oldest that waits".to_owned(), time(counts, "oldest_pending_at")));
    facts.push(("Last success".to_owned(), time(counts, "last_succeeded_at")));
    facts.push(("Failures".to_owned(), Cell::Tree(counts["failed"].clone())));
    facts.push(("Settings".to_owned(), Cell::Tree(destination["settings"].clone())));
    let section = Section::new("health", "");
    let section = match counts.get("last_error").filter(|error| !error.is_null()) {
        Some(error) => section.with(Notice::bad(format!("Last error: {}", text(error, "message")))),
        None => section,
    };
    section.with(Content::Facts(facts))
}

fn subscription_table(context: &Cx, destination: &str, list: &Value) -> Table {
    let rows = items(list, "data").iter().enumerate().map(|(no, subscription)| {
        let id = text(subscription, "id");
        let path = ["destinations", destination, "subscriptions", id];
        let is_on = is_true(subscription, "enabled");
        let switch = Form::new(
            context,
            &format!("switch-{no}"),
            "PATCH",
            &path,
            if is_on { "Switch off" } else { "Switch on" },
        )
        .field(Field::raw("body", json!({"enabled": !is_on}).to_string()))
        .asks(Ask::Confirm, "It is told from then on, or no longer.")
        .small();
        let remove = Form::new(context, &format!("remove-{no}"), "DELETE", &path, "Remove")
            .asks(Ask::Confirm, "The destination is told no more of it.")
            .small();
        let send: Vec<String> = items(subscription, "send").iter().map(plain).collect();
        vec![
            Cell::from(text(subscription, "subject")),
            Cell::Code(text(subscription, "key").to_owned()),
            Cell::from(send.join(", ")),
            state(if is_on { "on" } else { "off" }),
            Cell::from(format!(
                "{}, {:.0} %",
                text(&subscription["sync"], "status"),
                subscription["sync"]["progress"].as_f64().unwrap_or_default() * 100.0
            )),
            Cell::Many(vec![switch.into(), remove.into()]),
        ]
    });
    let columns = ["Subject", "Key", "As", "", "Full sync", ""];
    Table::new("What it wants", &columns).empty("Nothing yet: it is told nothing.").rows(rows)
}

fn wants(context: &Cx, id: &str) -> Section {
    let form = Form::new(context, "subscribe", "POST", &["destinations", id, "subscriptions"], "Subscribe")
        .field(Field::choice("subject", "What", "audience", &SUBJECTS))
        .field(
            Field::text("key", "Key", "")
                .hint("Of the audience or computed trait; * for all there are and will be."),
        )
        .field(Field::list("send", "As", "").hint("identify, track or both."))
        .asks(Ask::Confirm, "Everybody it holds for now is told, and then every change.");
    Section::new("subscribe", "Make it want something").with(form).folded().stays()
}

fn dead(context: &Cx, id: &str) -> Section {
    let body = json!({"destination": id, "state": "dead"}).to_string();
    let act = |name: &'static str, button: &str, says: &str| {
        Form::new(context, name, "POST", &["deliveries", name], button)
            .field(Field::raw("body", body.clone()))
            .asks(Ask::TryInBody, says)
            .small()
    };
    Section::new("dead", "What was given up").with(Content::Line(vec![
        act("replay", "Send all again", "Everything that was given up is sent again.").into(),
        act("discard", "Discard all", "Everything that was given up is given up for good.").into(),
    ]))
}

fn acts(context: &Cx, destination: &Value) -> Section {
    let id = text(destination, "id");
    let path = |word: &'static str| ["destinations", id, word];
    let is_paused = text(destination, "state") == "paused";
    let word = if is_paused { "resume" } else { "pause" };
    let pause =
        Form::new(context, word, "POST", &path(word), if is_paused { "Resume" } else { "Pause" }).small();
    let test = Form::new(context, "test", "POST", &path("test"), "Send a test")
        .field(Field::raw("body", "{}"))
        .shows()
        .small();
    let resync = Form::new(context, "resync", "POST", &path("resync"), "Send everything again")
        .field(Field::raw("body", "{}"))
        .asks(Ask::Confirm, "Everything it wants is sent again, as it is now.")
        .small();
    let rotate = Form::new(context, "rotate", "POST", &path("rotate-secret"), "New signing secret")
        .asks(Ask::Confirm, "A new secret is made and shown once; the old one signs beside it for a while.")
        .shows()
        .small();
    let delete = Form::new(context, "delete", "DELETE", &["destinations", id], "Delete")
        .asks(Ask::Confirm, "The destination goes away with what waits for it.")
        .back(context.page(&["destinations"], &[]))
        .small();
    let settings = Form::new(context, "settings", "PATCH", &["destinations", id], "Save")
        .field(
            Field::json("settings", "Settings", format!("{:#}", destination["settings"]))
                .hint("Only what is named changes."),
        )
        .asks(Ask::Confirm, "It is told by the new settings from the next delivery on.");
    Section::new("acts", "Look after it")
        .with(Content::Line(vec![pause.into(), test.into(), resync.into(), rotate.into(), delete.into()]))
        .with(settings)
        .stays()
}
