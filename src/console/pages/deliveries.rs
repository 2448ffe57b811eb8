//! Deliveries: what destinations were told, or will be, and what they answered.

use serde_json::Value;

use super::Cx;
use super::definition::profile;
use crate::console::client::Refusal;
use crate::console::show::{any, items, next, number, state, text, time};
use crate::console::view::{Cell, Content, Page, Section, Table};

/// Words of the API for what became of a delivery.
pub(super) const STATES: [(&str, &str); 6] = [
    ("", "all"),
    ("queued", "waiting"),
    ("delivered", "delivered"),
    ("filtered", "filtered"),
    ("dead", "given up"),
    ("discarded", "discarded"),
];

/// A page of deliveries.
pub(super) fn table(context: &Cx, list: &Value) -> Table {
    let row = |delivery: &Value| {
        let id = text(delivery, "id");
        let what = match text(delivery, "key") {
            "" => text(delivery, "subject").to_owned(),
            key => format!("{} {key}", text(delivery, "subject")),
        };
        let who = match text(delivery, "profile_id") {
            "" => Cell::Muted("–".to_owned()),
            id => profile(context, id),
        };
        vec![
            time(delivery, "at"),
            state(text(delivery, "state")),
            Cell::link(what, context.page(&["deliveries", id], &[])),
            who,
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
