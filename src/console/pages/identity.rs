//! How people are told apart: the settings, and what was refused by them.

use serde_json::Value;

use super::{Cx, part};
use crate::console::client::Refusal;
use crate::console::form::{Ask, Field, Form};
use crate::console::show::{is_true, items, next, number, plain, text, time, whole};
use crate::console::view::{Cell, Content, Page, Section, Table};

/// The page.
pub(super) async fn page(context: Cx) -> Result<Page, Refusal> {
    let mut query = vec![("limit", "50")];
    query.extend(context.asked("cursor").map(|cursor| ("cursor", cursor)));
    let (settings, problems, quarantine) = tokio::join!(
        context.read(&["identity", "settings"], &[]),
        context.read(&["identity", "problems"], &query),
        context.read(&["identity", "quarantine"], &[("limit", "100")]),
    );
    Ok(Page::new("Identity")
        .with(part("settings", "Types of identifiers", &settings, |section, answer| {
            section
                .note("Higher priorities win where two people would become one. A change applies to new events and is tried first.")
                .with(types(answer))
                .with(Content::Facts(caps(answer)))
        }))
        .with(change(&context, &settings))
        .with(part("quarantine", "Quarantine", &quarantine, |section, list| section.with(quarantined(&context, list))))
        .with(part("problems", "Refused identifiers", &problems, |section, list| {
            section.with(rules(list)).with(refused(&context, list))
        })))
}

fn types(settings: &Value) -> Table {
    let rows = items(settings, "identifiers").iter().map(|one| {
        let keys: Vec<String> = items(one, "keys").iter().map(plain).collect();
        vec![
            Cell::Code(text(one, "type").to_owned()),
            number(one, "priority"),
            Cell::from(format!("{} {}", whole(one, "limit"), text(one, "frequency"))),
            Cell::from(if is_true(one, "case_insensitive") { "yes" } else { "no" }),
            Cell::from(keys.join(", ")),
            Cell::More("blocked".to_owned(), Box::new(Cell::Tree(one["blocked"].clone()))),
        ]
    });
    Table::new("Types of identifiers", &["Type", "Priority", "Limit", "Any case", "Read from", "Never"])
        .rows(rows)
}

fn caps(settings: &Value) -> Vec<(String, Cell)> {
    vec![
        ("Merges of one profile".to_owned(), number(settings, "merges_max")),
        ("Identifiers of one profile".to_owned(), number(settings, "identifiers_max")),
        ("Quarantine after".to_owned(), number(settings, "quarantine_threshold")),
        (
            "New types".to_owned(),
            Cell::from(if is_true(settings, "add_unknown_types") { "are added" } else { "are passed over" }),
        ),
        ("Version".to_owned(), number(settings, "version")),
    ]
}

fn change(context: &Cx, settings: &Result<Value, Refusal>) -> Section {
    let version = settings.as_ref().map(|settings| whole(settings, "version")).unwrap_or_default();
    let form = Form::new(context, "identity", "PATCH", &["identity", "settings"], "Try it")
        .field(
            Field::json("identifiers", "Types", "[{\"type\": \"phone\", \"limit\": 3, \"frequency\": \"ever\"}]")
                .hint("Those that are named change or are added: type, keys, limit, frequency, priority, case_insensitive, blocked."),
        )
        .field(Field::number("merges_max", "Merges of one profile", ""))
        .field(Field::number("identifiers_max", "Identifiers of one profile", ""))
        .field(Field::number("version", "Version", version.to_string()).hint("It is refused if somebody was quicker."))
        .asks(Ask::Try, "New events are told apart by these settings; a rebuild applies them to history.");
    let one = Form::new(context, "move", "POST", &["identity", "blocks"], "Keep apart")
        .field(
            Field::list("profiles", "Keep two users apart", "")
                .hint("As type:value, such as user_id:ada, user_id:bob."),
        )
        .asks(Ask::Try, "No event makes one profile of these two any more.");
    Section::new("change", "Change them").with(form).with(one).folded().stays()
}

fn quarantined(context: &Cx, list: &Value) -> Table {
    let rows = items(list, "data").iter().enumerate().map(|(no, one)| {
        let name = format!("{}:{}", text(one, "type"), text(one, "id"));
        let free = Form::new(
            context,
            &format!("free-{no}"),
            "DELETE",
            &["identity", "quarantine", &name],
            "Let out",
        )
        .asks(Ask::Confirm, "The identifier counts again, from the next event on.")
        .small();
        vec![super::profiles::identifier(one), time(one, "quarantined_at"), free.into()]
    });
    Table::new("Quarantine", &["Identifier", "Since", ""]).empty("No identifier is in quarantine.").rows(rows)
}

fn rules(list: &Value) -> Table {
    let rows = items(list, "rules").iter().map(|rule| {
        vec![Cell::Code(text(rule, "rule").to_owned()), number(rule, "ids"), number(rule, "occurrences")]
    });
    Table::new("Rules", &["Rule", "Identifiers", "Times"]).empty("Nothing was refused.").rows(rows)
}

fn refused(context: &Cx, list: &Value) -> Table {
    let rows = items(list, "data").iter().map(|one| {
        vec![
            super::profiles::identifier(one),
            Cell::Code(text(one, "rule").to_owned()),
            number(one, "occurrences"),
            number(one, "profiles"),
            time(one, "last_at"),
        ]
    });
    Table::new("Refused identifiers", &["Identifier", "Rule", "Times", "Profiles", "Last"])
        .rows(rows)
        .next(next(list).map(|cursor| context.here_with("cursor", cursor)))
}
