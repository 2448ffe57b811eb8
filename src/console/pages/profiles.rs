//! Profiles: found by an identifier or a trait, or listed as they were seen last.

use serde_json::Value;

use super::Cx;
use crate::console::client::Refusal;
use crate::console::show::{items, next, plain, text, time};
use crate::console::view::{Cell, Content, Notice, Page, Search, Section, Table};

/// Profiles of one page.
const SHOWN: &str = "25";
/// Identifiers shown of each.
const IDS_SHOWN: usize = 4;

/// The collection of a page; `users` where nothing is said.
pub(super) const COLLECTIONS: [(&str, &str); 2] = [("users", "users"), ("accounts", "accounts")];

/// The page.
pub(super) async fn page(context: Cx) -> Result<Page, Refusal> {
    let collection = match context.asked("collection") {
        Some("accounts") => "accounts",
        _ => "users",
    };
    let by_id = ["query", "trait", "value", "cursor"]
        .into_iter()
        .filter_map(|name| Some((name, context.asked(name)?)));
    let query: Vec<(&str, &str)> = by_id.chain([("limit", SHOWN)]).collect();
    let listed = context.read(&["collections", collection, "profiles"], &query).await;
    let page = Page::new("Profiles").with(searches(&context, collection).await);
    let section = Section::new("profiles", "");
    let listed = match listed {
        Ok(listed) => listed,
        Err(refusal) => return Ok(page.with(section.with(crate::console::show::refusal(&refusal)))),
    };
    let section = if listed.get("complete").and_then(Value::as_bool) == Some(false) {
        section.with(Notice::plain("The trait is still being made searchable: there may be more."))
    } else {
        section
    };
    let rows = items(&listed, "data").iter().map(|profile| row(&context, collection, profile));
    let table = Table::new("Profiles", &["Profile", "Identifiers", "Seen last", "Since"])
        .empty("Nobody is found.")
        .rows(rows)
        .next(next(&listed).map(|cursor| context.here_with("cursor", cursor)));
    Ok(page.with(section.with(table)))
}

async fn searches(context: &Cx, collection: &str) -> Section {
    let by_id = Search::new("by-id", "Identifier that starts with", "query", context.asked("query"), "Find")
        .keep("collection", Some(collection));
    let settings = context.read(&["search", "settings"], &[]).await.unwrap_or_default();
    let names: Vec<String> = items(&settings, "traits").iter().map(plain).collect();
    let whose = Search::new("of", "Whose", "collection", Some(collection), "Show").words(COLLECTIONS);
    let section = Section::new("search", "").with(Content::Search(by_id));
    let section = if names.is_empty() {
        let text = "Choose under Settings which traits profiles can be found by.";
        section.with(Content::Line(vec![Cell::Muted(text.to_owned())]))
    } else {
        let by_trait = Search::new("by-trait", "Trait", "trait", context.asked("trait"), "Find")
            .words(names.iter().map(|name| (name.as_str(), name.as_str())))
            .also("value", "has the value", context.asked("value"))
            .keep("collection", Some(collection));
        section.with(Content::Search(by_trait))
    };
    section.with(Content::Search(whose))
}

fn row(context: &Cx, collection: &str, profile: &Value) -> Vec<Cell> {
    let id = text(profile, "profile_id");
    vec![
        Cell::link(id, context.page(&["profiles", collection, &format!("profile_id:{id}")], &[])),
        identifiers(profile),
        time(profile, "last_seen_at"),
        time(profile, "created_at"),
    ]
}

/// The first identifiers of a profile, in one line.
pub(super) fn identifiers(profile: &Value) -> Cell {
    let all = items(profile, "external_ids");
    let mut cells: Vec<Cell> = all.iter().take(IDS_SHOWN).map(identifier).collect();
    if all.len() > IDS_SHOWN {
        cells.push(Cell::Muted(format!("and {} more", all.len() - IDS_SHOWN)));
    }
    Cell::Many(cells)
}

/// An identifier: its type and its value.
pub(super) fn identifier(id: &Value) -> Cell {
    Cell::Many(vec![Cell::Muted(text(id, "type").to_owned()), Cell::Code(text(id, "id").to_owned())])
}
