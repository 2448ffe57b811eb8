//! Deliveries: what destinations were told, or will be, and what they answered.

use serde_json::Value;

use super::definition::profile;
use super::{Cx, people};
use crate::console::client::Refusal;
use crate::console::show::{any, items, next, number, plain, state, text, time};
use crate::console::view::{Cell, Content, Page, Search, Section, Table};

/// Words of the API for what became of a delivery.
pub(super) const STATES: [(&str, &str); 6] = [
    ("", "all"),
    ("queued", "waiting"),
    ("delivered", "delivered"),
    ("filtered", "filtered"),
    ("dead", "given up"),
    ("discarded", "discarded"),
];

/// Bytes of a value in a list.
const SHOWN_MAX: usize = 60;

/// The deliveries of an audience or computed trait, over all destinations.
pub(super) async fn of_definition(context: &Cx, key: &str) -> Section {
    let mut query = vec![("key", key), ("limit", "20")];
    query.extend(context.asked("state").map(|state| ("state", state)));
    query.extend(context.asked("deliveries").map(|cursor| ("cursor", cursor)));
    // Where the names of destinations may not be read, their ids do.
    let known = if context.is_poll {
        Value::Null
    } else {
        context.read(&["destinations"], &[("limit", "1000")]).await.unwrap_or_default()
    };
    let search = Search::new("which", "Which", "state", context.asked("state"), "Show")
        .words(STATES)
        .keep("span", context.asked("span"))
        .keep("with", context.asked("with"));
    people(context, ("deliveries", "Deliveries"), &["deliveries"], &query, |section, list| {
        section.with(Content::Search(search)).with(table_of_definition(context, list, &known))
    })
    .await
}

fn table_of_definition(context: &Cx, list: &Value, known: &Value) -> Table {
    let row = |delivery: &Value| {
        let to = text(delivery, "destination");
        let name = items(known, "data").iter().find(|one| text(one, "id") == to).map(|one| text(one, "name"));
        let told: String = plain(&delivery["value"]).chars().take(SHOWN_MAX).collect();
        let what = format!("{} {told}", text(delivery, "call"));
        vec![
            time(delivery, "at"),
            state(text(delivery, "state")),
            Cell::link(what, context.page(&["deliveries", text(delivery, "id")], &[])),
            Cell::link(name.unwrap_or(to), context.page(&["destinations", to], &[])),
            who(context, delivery),
            number(delivery, "attempts"),
            Cell::from(text(delivery, "message")),
        ]
    };
    let columns = ["When", "State", "What", "Destination", "Profile", "Attempts", "Last answer"];
    Table::new("Deliveries", &columns)
        .empty("No deliveries.")
        .rows(items(list, "data").iter().map(row))
        .next(next(list).map(|cursor| context.here_with("deliveries", cursor)))
}

fn who(context: &Cx, delivery: &Value) -> Cell {
    match text(delivery, "profile_id") {
        "" => Cell::Muted("–".to_owned()),
        id => profile(context, id),
    }
}

/// A page of deliveries.
pub(super) fn table(context: &Cx, list: &Value) -> Table {
    let row = |delivery: &Value| {
        let id = text(delivery, "id");
        let what = match text(delivery, "key") {
            "" => text(delivery, "subject").to_owned(),
            key => format!("{} {key}", text(delivery, "subject")),
        };
        vec![
            time(delivery, "at"),
            state(text(delivery, "state")),
            Cell::link(what, context.page(&["deliveries", id], &[])),
            who(context, delivery),
            number(delivery, "attempts"),
            Cell::from(text(delivery, "message")),
        ]
    };
    Table::new("Deliveries", &["When", "State", "What", "Profile", "Attempts", "Last answer"])
        .empty("No deliveries.")
        .rows(items(list, "data").iter().map(row))
        .next(next(list).map(|cursor| context.here_with("cursor", cursor)))
}

/// One delivery with all its attempts.
pub(super) async fn page(context: Cx) -> Result<Page, Refusal> {
    let id = context.named("id");
    let delivery = context.read(&["deliveries", id], &[]).await?;
    let destination = text(&delivery, "destination");
    let facts = vec![
        ("State".to_owned(), state(text(&delivery, "state"))),
        ("What".to_owned(), Cell::from(format!("{} {}", text(&delivery, "subject"), text(&delivery, "key")))),
        ("As".to_owned(), Cell::Code(text(&delivery, "call").to_owned())),
        ("Value".to_owned(), any(&delivery["value"])),
        ("Profile".to_owned(), profile(&context, text(&delivery, "profile_id"))),
        ("Happened".to_owned(), time(&delivery, "at")),
        ("Next attempt".to_owned(), time(&delivery, "next_attempt_at")),
        ("Ended".to_owned(), time(&delivery, "done_at")),
    ];
    let rows = items(&delivery, "attempt_log").iter().map(|attempt| {
        let exchange = |name: &str| match text(attempt, name) {
            "" => Cell::Muted("–".to_owned()),
            text => Cell::More(name.to_owned(), Box::new(Cell::Pre(text.to_owned()))),
        };
        vec![
            number(attempt, "attempt"),
            time(attempt, "at"),
            state(text(attempt, "outcome")),
            number(attempt, "status"),
            number(attempt, "took_ms"),
            Cell::Many(vec![text(attempt, "message").into(), exchange("request"), exchange("response")]),
        ]
    });
    let columns = ["No", "When", "Outcome", "Status", "Milliseconds", "What was said"];
    let attempts = Table::new("Attempts", &columns).empty("It has not been tried yet.").rows(rows);
    Ok(Page::new("Delivery")
        .back("The destination", context.page(&["destinations", destination], &[]))
        .lead(Cell::Code(id.to_owned()))
        .with(Section::new("about", "").with(Content::Facts(facts)))
        .with(Section::new("attempts", "Attempts").with(attempts)))
}
