//! One profile: who it is and how it came to be, what is known of it, what it did, and what can be done about it.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::profiles::identifiers;
use super::{Cx, deliveries, graph, part};
use crate::console::client::Refusal;
use crate::console::form::{Ask, Field, Form};
use crate::console::show::{any, is_true, items, next, number, plain, state, text, time};
use crate::console::view::{Cell, Content, Link, Notice, Page, Section, Table};

/// Traits of one page.
const TRAITS: &str = "100";
/// Rows of a list on the page.
const ROWS: &str = "25";

/// The path of the profile in the API, and what follows.
fn path<'a>(context: &'a Cx, rest: &[&'a str]) -> Vec<&'a str> {
    let profile = ["collections", context.named("collection"), "profiles", context.named("profile")];
    profile.iter().chain(rest).copied().collect()
}

async fn read(context: &Cx, rest: &[&str], query: &[(&str, &str)]) -> Result<Value, Refusal> {
    context.read(&path(context, rest), query).await
}

/// The page.
pub(super) async fn page(context: Cx) -> Result<Page, Refusal> {
    let identity = read(&context, &["identity"], &[]).await?;
    let id = text(&identity, "profile_id");
    let mut events = vec![("limit", ROWS)];
    events.extend(context.asked("events").map(|cursor| ("next", cursor)));
    let class = |class| [("class", class), ("verbose", "true"), ("limit", TRAITS)];
    let (custom, computed, sent) =
        (class("custom"), class("computed_trait"), [("profile", id), ("limit", ROWS)]);
    let all = [("limit", "1000")];
    let (metadata, custom, computed, audiences, events, consent, objections, links, sent, sources) = tokio::join!(
        read(&context, &["metadata"], &[]),
        read(&context, &["traits"], &custom),
        read(&context, &["traits"], &computed),
        read(&context, &["audiences"], &[]),
        read(&context, &["events"], &events),
        read(&context, &["consent"], &[]),
        read(&context, &["objections"], &[]),
        read(&context, &["links"], &[]),
        context.read(&["deliveries"], &sent),
        context.read(&["sources"], &all),
    );
    let sources = names(&sources);
    let page = Page::new(title(&identity, id))
        .back("Profiles", context.page(&["profiles"], &[("collection", context.named("collection"))]))
        .lead(Cell::Code(id.to_owned()))
        .lead(lead(&metadata))
        .with(part("traits", "Traits", &custom, |section, list| section.with(trait_table(list, &sources))))
        .with(part("computed", "Computed traits", &computed, |section, list| {
            section.with(computed_table(&context, list))
        }))
        .with(part("audiences", "Audiences", &audiences, |section, list| {
            section.with(audience_table(&context, list))
        }))
        .with(identity_section(&context, &identity))
        .with(part("events", "Events", &events, |section, list| {
            section.with(event_table(&context, list, &sources))
        }));
    let page = match &links {
        Ok(links) if items(links, "data").is_empty() => page,
        _ => page.with(part("links", "Accounts and users", &links, |section, list| {
            section.with(link_table(&context, list))
        })),
    };
    let page = page
        .with(part("consent", "Consent", &consent, |section, list| consents(section, list, &objections)))
        .with(part("deliveries", "Told to destinations", &sent, |section, list| {
            section.with(deliveries::table(&context, list)).folded()
        }));
    Ok(page.with(acts(&context, id, &objections)))
}

/// What people call it: the best of its identifiers.
fn title(identity: &Value, id: &str) -> String {
    let ids = items(identity, "identifiers");
    let of_type = |wanted: &str| ids.iter().find(|id| text(id, "type") == wanted);
    let best = ["user_id", "group_id", "email"].into_iter().find_map(of_type).or(ids.first());
    best.map_or_else(|| id.to_owned(), |best| text(best, "id").to_owned())
}

fn lead(metadata: &Result<Value, Refusal>) -> Cell {
    let metadata = metadata.as_ref().map(|answer| answer["metadata"].clone()).unwrap_or_default();
    Cell::Many(vec![
        "since".into(),
        time(&metadata, "created_at"),
        "seen last".into(),
        time(&metadata, "updated_at"),
    ])
}

/// Names of sources by id; none for those who may not see them.
pub(super) fn names(sources: &Result<Value, Refusal>) -> HashMap<String, String> {
    let all = sources.as_ref().map(|sources| items(sources, "data")).unwrap_or_default();
    all.iter().map(|source| (text(source, "id").to_owned(), text(source, "name").to_owned())).collect()
}

/// The name of a source, or else its id.
pub(super) fn source(value: &Value, sources: &HashMap<String, String>) -> Cell {
    match text(value, "source_id") {
        "" => Cell::Muted("–".to_owned()),
        id => sources.get(id).map_or_else(|| Cell::Code(id.to_owned()), |name| Cell::from(name.as_str())),
    }
}

fn traits_of(list: &Value) -> impl Iterator<Item = (&String, &Value)> {
    list.get("traits").and_then(Value::as_object).into_iter().flatten()
}

fn trait_table(list: &Value, sources: &HashMap<String, String>) -> Table {
    let rows = traits_of(list).map(|(name, told)| {
        vec![Cell::from(name.as_str()), any(&told["value"]), source(told, sources), time(told, "updated_at")]
    });
    Table::new("Traits", &["Trait", "Value", "Source", "Of"]).empty("No traits.").rows(rows)
}

fn why(context: &Cx, key: &str) -> Cell {
    let place = ["profiles", context.named("collection"), context.named("profile"), "explain", key];
    Cell::link("Why", context.page(&place, &[]))
}

fn computed_table(context: &Cx, list: &Value) -> Table {
    let rows = traits_of(list).map(|(name, told)| {
        let link = Cell::link(name, context.page(&["traits", name], &[]));
        vec![link, any(&told["value"]), time(told, "updated_at"), why(context, name)]
    });
    Table::new("Computed traits", &["Trait", "Value", "Since", ""]).empty("None.").rows(rows)
}

fn audience_table(context: &Cx, list: &Value) -> Table {
    let rows = items(list, "data").iter().map(|audience| {
        let key = text(audience, "key");
        let link = Cell::link(key, context.page(&["audiences", key], &[]));
        vec![link, time(audience, "entered_at"), Cell::from(text(audience, "purpose")), why(context, key)]
    });
    Table::new("Audiences", &["Audience", "Since", "Purpose", ""]).empty("In none.").rows(rows)
}

fn identity_section(context: &Cx, identity: &Value) -> Section {
    let section = Section::new("identity", "Identity").with(graph::draw(identity));
    let section = section.with(identifier_table(context, identity));
    let merges = items(identity, "merges");
    let section = if merges.is_empty() { section } else { section.with(merge_table(context, merges)) };
    let refusals = items(identity, "refusals");
    if refusals.is_empty() {
        return section;
    }
    let rows = refusals.iter().map(|refusal| {
        vec![
            super::profiles::identifier(refusal),
            Cell::Code(text(refusal, "rule").to_owned()),
            number(refusal, "occurrences"),
            time(refusal, "last_at"),
        ]
    });
    let table = Table::new("Refused identifiers", &["Refused identifier", "Rule", "Times", "Last"]);
    section.with(table.rows(rows))
}

fn identifier_table(context: &Cx, identity: &Value) -> Table {
    let rows = items(identity, "identifiers").iter().enumerate().map(|(no, id)| {
        let named = [("type", text(id, "type")), ("id", text(id, "id"))];
        let body = json!({"delete_external_ids": [HashMap::from(named)]});
        let path = path(context, &["external_ids", "delete"]);
        let delete = Form::new(context, &format!("delete-id-{no}"), "POST", &path, "Delete")
            .field(Field::raw("body", body.to_string()))
            .asks(Ask::Try, "The identifier is taken away from the profile; nothing else is.")
            .small();
        vec![
            Cell::Code(text(id, "type").to_owned()),
            Cell::from(text(id, "id")),
            time(id, "created_at"),
            time(id, "last_seen_at"),
            delete.into(),
        ]
    });
    Table::new("Identifiers", &["Type", "Identifier", "Since", "Seen last", ""]).rows(rows)
}

fn merge_table(context: &Cx, merges: &[Value]) -> Table {
    let rows = merges.iter().enumerate().map(|(no, merge)| {
        let id = text(merge, "id");
        let undone = text(merge, "undone_at");
        let undo = if undone.is_empty() {
            let undo = Form::new(
                context,
                &format!("undo-{no}"),
                "POST",
                &["identity", "merges", id, "undo"],
                "Undo",
            )
            .asks(
                Ask::Try,
                "The merge is taken back: both sides are as if it had never been, and stay apart.",
            )
            .small();
            Cell::from(undo)
        } else {
            Cell::Many(vec!["undone".into(), time(merge, "undone_at")])
        };
        let how = if is_true(merge, "manual") {
            Cell::from("by an operator")
        } else {
            Cell::Many(items(merge, "matched").iter().map(super::profiles::identifier).collect())
        };
        vec![time(merge, "at"), Cell::Code(text(merge, "absorbed").to_owned()), how, undo]
    });
    Table::new("Merges", &["Merged", "Absorbed profile", "Matched by", ""]).rows(rows)
}

fn event_table(context: &Cx, list: &Value, sources: &HashMap<String, String>) -> Table {
    let rows = items(list, "data").iter().map(|event| {
        let what = event.get("properties").or_else(|| event.get("traits")).cloned().unwrap_or_default();
        let name = match text(event, "event") {
            "" => text(event, "type"),
            name => name,
        };
        vec![
            time(event, "timestamp"),
            Cell::from(name),
            Cell::Badge("plain", text(event, "type").to_owned()),
            source(event, sources),
            any(&what),
            Cell::More("raw".to_owned(), Box::new(Cell::Pre(format!("{event:#}")))),
        ]
    });
    Table::new("Events", &["When", "Event", "Type", "Source", "With", ""])
        .empty("No events that are kept.")
        .rows(rows)
        .next(next(list).map(|cursor| context.here_with("events", cursor)))
}

fn link_table(context: &Cx, list: &Value) -> Table {
    let rows = items(list, "data").iter().map(|link| {
        let id = text(link, "profile_id");
        let place = ["profiles", text(link, "to_collection"), &format!("profile_id:{id}")];
        vec![Cell::link(id, context.page(&place, &[])), identifiers(link), time(link, "created_at")]
    });
    Table::new("Accounts and users", &["Profile", "Identifiers", "Since"]).rows(rows)
}

fn consents(section: Section, list: &Value, objections: &Result<Value, Refusal>) -> Section {
    let rows = items(list, "categories").iter().map(|category| {
        let word = if is_true(category, "consented") { ("good", "consents") } else { ("plain", "does not") };
        let evidence = category.get("evidence").filter(|evidence| !evidence.is_null());
        let evidence = evidence.map_or_else(|| Cell::Muted("nothing was said".to_owned()), any);
        vec![Cell::from(text(category, "id")), Cell::Badge(word.0, word.1.to_owned()), evidence]
    });
    let table =
        Table::new("Consent", &["Category", "", "By"]).empty("Nobody is asked for consent here.").rows(rows);
    let section = section.with(table);
    match objections {
        Ok(objections) if is_true(objections, "objects") => {
            section.with(Notice::plain("The person objects to automated decisions."))
        }
        _ => section,
    }
}

/// What can be done: each is tried or asked about first.
fn acts(context: &Cx, id: &str, objections: &Result<Value, Refusal>) -> Section {
    let regulation = |word: &'static str, button: &str, says: &str| {
        let body = json!({"regulation_type": word, "subject_type": "profile_id", "subject_ids": [id]});
        Form::new(context, &word.to_lowercase(), "POST", &["regulations"], button)
            .field(Field::raw("body", body.to_string()))
            .asks(Ask::Confirm, says)
            .back(context.page(&["privacy"], &[]))
            .small()
    };
    let objects = objections.as_ref().is_ok_and(|objections| is_true(objections, "objects"));
    let (rest, button) = if objects {
        (&["objections", "lift"] as &[&str], "Lift the objection")
    } else {
        (&["objections"] as &[&str], "Note an objection")
    };
    let object = Form::new(context, "object", "POST", &path(context, rest), button)
        .asks(Ask::Try, "Who objects to automated decisions leaves the audiences that decide about people.")
        .small();
    let merge = Form::new(context, "merge", "POST", &["identity", "merges"], "Merge")
        .field(
            Field::list("profiles", "Merge these profiles", format!("profile_id:{id}, "))
                .hint("As type:value, such as user_id:ada."),
        )
        .asks(Ask::Try, "One profile is made of them; it can be taken back.");
    let export = Link::file(
        "Everything about this person, as a file",
        context.through(&path(context, &["export"]), &[]),
    );
    Section::new("acts", "Do something about it")
        .with(Content::Links(vec![export]))
        .with(Content::Line(vec![
            regulation("SUPPRESS_ONLY", "Suppress", "Nothing new is taken of this person.").into(),
            regulation("DELETE_INTERNAL", "Erase", "Everything about this person is erased here, and does not come back.").into(),
            regulation(
                "SUPPRESS_WITH_DELETE",
                "Erase, suppress and tell destinations",
                "Everything about this person is erased here, nothing new is taken, and destinations are told to delete, too.",
            )
            .into(),
            object.into(),
        ]))
        .with(merge)
        .folded()
        .stays()
}

/// Why the profile is in an audience, or has a value, and why not.
pub(super) async fn explain(context: Cx) -> Result<Page, Refusal> {
    let key = context.named("key");
    let told = read(&context, &["explain", key], &[]).await?;
    let place = ["profiles", context.named("collection"), context.named("profile")];
    let segment = if text(&told, "kind") == "audience" { "audiences" } else { "traits" };
    let verdict = match told.get("member").and_then(Value::as_bool) {
        Some(true) => Cell::Badge("good", "is a member".to_owned()),
        Some(false) => Cell::Badge("plain", "is no member".to_owned()),
        None => Cell::Many(vec!["has the value".into(), Cell::Code(plain(&told["value"]))]),
    };
    let facts = vec![
        ("Now".to_owned(), verdict),
        ("Since".to_owned(), time(&told, "since")),
        ("Counted".to_owned(), state(text(&told, "status"))),
        ("Changes by itself".to_owned(), changes(&told["changes"])),
        ("Looked at".to_owned(), time(&told, "at")),
    ];
    let mut page = Page::new(format!("Why {key}"))
        .back("The profile", context.page(&place, &[]))
        .lead(Cell::link(key, context.page(&[segment, key], &[])))
        .with(Section::new("verdict", "").with(Content::Facts(facts)));
    if told.get("reason").is_some_and(|reason| !reason.is_null()) {
        page = page.with(Section::new("reason", "Conditions").with(Content::Reason(told["reason"].clone())));
    }
    let to_do: Vec<String> = items(&told, "would_have_to_change").iter().map(plain).collect();
    if !to_do.is_empty() {
        let notice = Notice { items: to_do, ..Notice::plain("For the opposite:") };
        page = page.with(Section::new("opposite", "What would have to change").with(notice));
    }
    Ok(page)
}

fn changes(changes: &Value) -> Cell {
    let at = |name: &str| changes.get(name).is_some_and(|at| !at.is_null());
    if at("at") {
        Cell::Many(vec![time(changes, "at"), "to".into(), Cell::Code(plain(&changes["to"]))])
    } else if at("not_before") {
        Cell::Many(vec!["not before".into(), time(changes, "not_before")])
    } else {
        Cell::from("not by the passage of time")
    }
}
