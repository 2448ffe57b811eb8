//! What is done for the people the data is about: regulations, suppressions, consent, sensitive data.

use serde_json::Value;

use super::{Cx, part};
use crate::console::client::Refusal;
use crate::console::form::{Ask, Field, Form};
use crate::console::show::{items, next, number, plain, state, text, time};
use crate::console::view::{Cell, Content, Page, Search, Section, Table};

const TYPES: [(&str, &str); 6] = [
    ("SUPPRESS_ONLY", "suppress: nothing new is taken"),
    ("DELETE_INTERNAL", "erase here"),
    ("SUPPRESS_WITH_DELETE_INTERNAL", "suppress and erase here"),
    ("DELETE_ONLY", "erase here and at destinations"),
    ("SUPPRESS_WITH_DELETE", "suppress, erase here and at destinations"),
    ("UNSUPPRESS", "end a suppression"),
];

/// The page.
pub(super) async fn page(context: Cx) -> Result<Page, Refusal> {
    let mut query = vec![("limit", "25")];
    query.extend(context.asked("cursor").map(|cursor| ("cursor", cursor)));
    let (regulations, suppressions, categories, findings, actions, retention) = tokio::join!(
        context.read(&["regulations"], &query),
        context.read(&["suppressions"], &[("limit", "50")]),
        context.read(&["consent", "categories"], &[]),
        context.read(&["sensitive-data", "findings"], &[("limit", "50")]),
        context.read(&["sensitive-data", "settings"], &[]),
        context.read(&["retention"], &[]),
    );
    Ok(Page::new("Privacy")
        .every(5)
        .with(asked(&context).await)
        .with(new(&context))
        .with(part("regulations", "Regulations", &regulations, |section, list| {
            section.with(table(&context, list))
        }))
        .with(part("suppressions", "Suppressed", &suppressions, |section, list| {
            section.with(suppressed(list)).folded()
        }))
        .with(part("consent", "Categories of consent", &categories, |section, list| {
            section.with(consent(list))
        }))
        .with(part("sensitive", "Sensitive data that was kept out", &findings, |section, list| {
            section.with(found(list)).with(Content::Facts(vec![(
                "What becomes of it".to_owned(),
                Cell::Tree(actions.as_ref().map(|answer| answer["actions"].clone()).unwrap_or_default()),
            )]))
        }))
        .with(part("retention", "How long events are kept", &retention, |section, answer| {
            section.with(Content::Tree(answer.clone()))
        })))
}

/// Whether somebody is suppressed.
async fn asked(context: &Cx) -> Section {
    let search = Search::new(
        "suppressed",
        "Is somebody suppressed? As type:value",
        "who",
        context.asked("who"),
        "Ask",
    );
    let section = Section::new("asked", "").with(Content::Search(search)).stays();
    let Some(who) = context.asked("who") else { return section };
    match context.read(&["suppressions", who], &[]).await {
        Ok(found) => section.with(Content::Tree(found)),
        Err(refusal) => section.with(crate::console::show::refusal(&refusal)),
    }
}

fn new(context: &Cx) -> Section {
    let form = Form::new(context, "regulation", "POST", &["regulations"], "Do it")
        .field(Field::choice("regulation_type", "What", "SUPPRESS_ONLY", &TYPES))
        .field(
            Field::text("subject_type", "Type of identifier", "USER_ID")
                .required()
                .hint("USER_ID, email, another type, or profile_id."),
        )
        .field(
            Field::list("subject_ids", "Who", "").required().hint("Up to 5,000, with commas between them."),
        )
        .asks(Ask::Confirm, "What is erased does not come back.");
    Section::new("new", "Suppress or erase people").with(form).folded().stays()
}

fn table(context: &Cx, list: &Value) -> Table {
    let rows = items(list, "data").iter().map(|regulation| {
        vec![
            time(regulation, "created_at"),
            Cell::from(text(regulation, "regulation_type")),
            state(text(regulation, "overall_status")),
            number(regulation, "subjects"),
            number(regulation, "found"),
            number(regulation, "events_erased"),
            Cell::More("where".to_owned(), Box::new(Cell::Tree(regulation["stream_status"].clone()))),
        ]
    });
    let columns = ["Asked", "What", "Status", "People", "Known here", "Events erased", ""];
    Table::new("Regulations", &columns)
        .empty("Nobody has asked for anything.")
        .rows(rows)
        .next(next(list).map(|cursor| context.here_with("cursor", cursor)))
}

fn suppressed(list: &Value) -> Table {
    let rows = items(list, "data").iter().map(|one| {
        vec![
            Cell::Code(text(one, "type").to_owned()),
            Cell::Code(text(one, "id").to_owned()),
            time(one, "created_at"),
            time(one, "expires_at"),
        ]
    });
    Table::new("Suppressed", &["Type", "Hash", "Since", "Until"]).empty("Nobody is suppressed.").rows(rows)
}

fn consent(list: &Value) -> Table {
    let rows = items(list, "data").iter().map(|category| {
        let destinations: Vec<String> = items(category, "destinations").iter().map(plain).collect();
        vec![
            Cell::Code(text(category, "id").to_owned()),
            Cell::from(text(category, "name")),
            Cell::from(destinations.join(", ")),
        ]
    });
    Table::new("Categories of consent", &["Category", "Name", "Destinations"])
        .empty("Nobody is asked for consent.")
        .rows(rows)
}

fn found(list: &Value) -> Table {
    let rows = items(list, "data").iter().map(|one| {
        vec![
            Cell::from(text(one, "what")),
            Cell::Code(text(one, "path").to_owned()),
            state(text(one, "action")),
            number(one, "occurrences"),
            time(one, "last_at"),
        ]
    });
    Table::new("Sensitive data", &["What", "Where", "Then", "Times", "Last"])
        .empty("None was found.")
        .rows(rows)
}
