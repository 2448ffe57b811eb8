//! The audit log: who did what, and who read personal data; and whether it is whole.

use serde_json::Value;

use super::Cx;
use crate::console::client::Refusal;
use crate::console::show::{any, is_true, items, next, number, text, time, whole};
use crate::console::view::{Cell, Content, Link, Notice, Page, Search, Section, Table};

const KINDS: [(&str, &str); 4] = [
    ("", "everything"),
    ("act", "acts on profiles"),
    ("change", "changes"),
    ("read", "reads of personal data"),
];

/// The page.
pub(super) async fn page(context: Cx) -> Result<Page, Refusal> {
    let mut query = vec![("limit", "50")];
    let asked = ["kind", "action", "cursor"].into_iter();
    query.extend(asked.filter_map(|name| Some((name, context.asked(name)?))));
    let listed = context.read(&["audit-log"], &query).await?;
    let search = Search::new("kind", "Show", "kind", context.asked("kind"), "Show").words(KINDS).also(
        "action",
        "Action",
        context.asked("action"),
    );
    let links = vec![
        Link::new("Verify the chain", context.page(&["audit"], &[("verify", "1")])),
        Link::file("All of it as NDJSON", context.through(&["audit-log"], &[("format", "ndjson")])),
    ];
    let mut page = Page::new("Audit log");
    if context.asked("verify").is_some() {
        page = page.with(verified(&context).await);
    }
    let section = Section::new("log", "").with(Content::Search(search)).with(Content::Links(links));
    Ok(page.with(section.with(table(&context, &listed))))
}

async fn verified(context: &Cx) -> Section {
    let section = Section::new("verified", "");
    match context.read(&["audit-log", "verify"], &[]).await {
        Ok(found) if is_true(&found, "intact") => {
            section.with(Notice::good(format!("The chain of {} entries is whole.", whole(&found, "entries"))))
        }
        Ok(found) => section.with(Notice::bad("The chain is broken.")).with(Content::Tree(found)),
        Err(refusal) => section.with(crate::console::show::refusal(&refusal)),
    }
}

fn table(context: &Cx, list: &Value) -> Table {
    let rows = items(list, "data").iter().map(|entry| {
        vec![
            number(entry, "no"),
            time(entry, "at"),
            Cell::Badge("plain", text(entry, "kind").to_owned()),
            Cell::Code(text(entry, "action").to_owned()),
            Cell::from(text(&entry["actor"], "name")),
            number(entry, "status"),
            any(&entry["target"]),
            Cell::More("all".to_owned(), Box::new(Cell::Tree(entry.clone()))),
        ]
    });
    Table::new("Audit log", &["No", "When", "Kind", "Action", "By", "Status", "Of", ""])
        .empty("Nothing of that kind was done.")
        .rows(rows)
        .next(next(list).map(|cursor| context.here_with("cursor", cursor)))
}
