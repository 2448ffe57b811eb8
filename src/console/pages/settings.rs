//! Sources with their write keys, access tokens, and what profiles can be found by.

use serde_json::{Value, json};

use super::{Cx, part};
use crate::console::client::Refusal;
use crate::console::form::{Ask, Field, Form};
use crate::console::show::{is_true, items, number, plain, state, text, time};
use crate::console::view::{Cell, Content, Page, Section, Table};

const ROLES: [(&str, &str); 5] = [
    ("viewer", "viewer: reads"),
    ("editor", "editor: reads, and decides about definitions and destinations"),
    ("admin", "admin: everything but seeing personal data"),
    ("privacy", "privacy: sees personal data, and does what people ask for"),
    ("owner", "owner: everything in the space"),
];

/// The page.
pub(super) async fn page(context: Cx) -> Result<Page, Refusal> {
    let all = [("limit", "1000")];
    let (space, sources, tokens, search) = tokio::join!(
        context.read(&[], &[]),
        context.read(&["sources"], &all),
        context.read(&["tokens"], &all),
        context.read(&["search", "settings"], &[]),
    );
    Ok(Page::new("Settings")
        .with(part("space", "Space", &space, |section, space| {
            section.with(Content::Facts(vec![
                ("Id".to_owned(), Cell::Code(text(space, "id").to_owned())),
                ("Name".to_owned(), Cell::from(text(space, "name"))),
                ("Plan".to_owned(), state(space["plan"]["state"].as_str().unwrap_or_default())),
            ]))
        }))
        .with(part("sources", "Sources", &sources, |section, list| {
            section
                .note("A source has write keys: with one of them events are sent, and nothing is read.")
                .with(source_table(&context, list))
        }))
        .with(new_source(&context))
        .with(part("tokens", "Access tokens", &tokens, |section, list| {
            section.with(token_table(&context, list))
        }))
        .with(new_token(&context))
        .with(part("search", "What profiles can be found by", &search, |section, settings| {
            section.with(search_form(&context, settings))
        })))
}

fn source_table(context: &Cx, list: &Value) -> Table {
    let rows = items(list, "data").iter().enumerate().map(|(no, source)| {
        let id = text(source, "id");
        let is_on = is_true(source, "enabled");
        let switch = Form::new(
            context,
            &format!("source-{no}"),
            "PATCH",
            &["sources", id],
            if is_on { "Switch off" } else { "Switch on" },
        )
        .field(Field::raw("body", json!({"enabled": !is_on}).to_string()))
        .asks(Ask::Confirm, "A source that is off is answered 403; its events are not taken.")
        .small();
        let key =
            Form::new(context, &format!("key-{no}"), "POST", &["sources", id, "write-keys"], "Another key")
                .asks(Ask::Confirm, "A write key is made and shown once; the others go on.")
                .shows()
                .small();
        vec![
            Cell::from(text(source, "name")),
            Cell::Code(id.to_owned()),
            state(if is_on { "on" } else { "off" }),
            Cell::Many(
                items(source, "write_keys")
                    .iter()
                    .enumerate()
                    .map(|(k, key)| write_key(context, id, key, no, k))
                    .collect(),
            ),
            number(source, "events_per_second_max"),
            Cell::Many(vec![switch.into(), key.into()]),
        ]
    });
    let columns = ["Name", "Id", "", "Write keys", "Events per second", ""];
    Table::new("Sources", &columns).empty("There are no sources yet.").rows(rows)
}

fn write_key(context: &Cx, source: &str, key: &Value, no: usize, place: usize) -> Cell {
    let prefix = text(key, "prefix");
    let path = ["sources", source, "write-keys", prefix];
    let revoke = Form::new(context, &format!("revoke-{no}-{place}"), "DELETE", &path, "Revoke")
        .asks(Ask::Confirm, "Whoever sends with this key is refused from now on.")
        .small();
    Cell::Many(vec![
        Cell::Code(format!("{prefix}…")),
        "used".into(),
        time(key, "last_used_at"),
        revoke.into(),
    ])
}

fn new_source(context: &Cx) -> Section {
    let form = Form::new(context, "new-source", "POST", &["sources"], "Make it")
        .field(Field::text("name", "Name", "").required())
        .field(
            Field::list("allowed_origins", "Pages it takes calls from", "")
                .hint("Such as https://shop.example.com; any where nothing is said."),
        )
        .field(Field::number("events_per_second_max", "Events per second, at most", ""))
        .shows();
    Section::new("new-source", "New source").note("The write key is shown once.").with(form).folded().stays()
}

fn token_table(context: &Cx, list: &Value) -> Table {
    let rows = items(list, "data").iter().enumerate().map(|(no, token)| {
        let revoke =
            Form::new(context, &format!("token-{no}"), "DELETE", &["tokens", text(token, "id")], "Revoke")
                .asks(Ask::Confirm, "Whoever uses this token is refused from now on.")
                .small();
        let scopes: Vec<String> = items(token, "scopes").iter().map(plain).collect();
        vec![
            Cell::from(text(token, "name")),
            Cell::Code(format!("{}…", text(token, "prefix"))),
            Cell::from(text(token, "role")),
            Cell::from(scopes.join(", ")),
            time(token, "last_used_at"),
            time(token, "expires_at"),
            revoke.into(),
        ]
    });
    let columns = ["Name", "Begins", "Role", "Scopes", "Used last", "Expires", ""];
    Table::new("Access tokens", &columns).empty("None of this space.").rows(rows)
}

fn new_token(context: &Cx) -> Section {
    let form = Form::new(context, "new-token", "POST", &["tokens"], "Make it")
        .field(Field::text("name", "Name", "").required())
        .field(Field::choice("role", "Role", "viewer", &ROLES))
        .field(
            Field::text("expires_at", "Expires", "").hint("Such as 2030-01-31; never where nothing is said."),
        )
        .shows();
    Section::new("new-token", "New token").note("The token is shown once.").with(form).folded().stays()
}

fn search_form(context: &Cx, settings: &Value) -> Form {
    let traits: Vec<String> = items(settings, "traits").iter().map(plain).collect();
    Form::new(context, "search", "PATCH", &["search", "settings"], "Save")
        .field(Field::list("traits", "Traits", traits.join(", ")).hint("With commas between them."))
        .asks(Ask::Confirm, "Profiles can be found by the values of these traits; it takes a moment to fill.")
}
