//! Where definitions are written: a form that works by itself, and a script that helps (`assets/builder.js`).

use serde_json::Value;

use super::Cx;
use super::definitions::{AUDIENCES, Kind, TRAITS};
use crate::console::assets;
use crate::console::client::Refusal;
use crate::console::form::{Ask, Field, Form};
use crate::console::show::{is_true, text};
use crate::console::view::{Builder, Content, Notice, Page, Section};

const OF: [(&str, &str); 2] = [("users", "users"), ("accounts", "accounts")];

/// A new audience.
pub(super) async fn new_audience(context: Cx) -> Result<Page, Refusal> {
    Ok(new(&context, AUDIENCES))
}

/// A new computed trait.
pub(super) async fn new_trait(context: Cx) -> Result<Page, Refusal> {
    Ok(new(&context, TRAITS))
}

/// An audience to edit.
pub(super) async fn edit_audience(context: Cx) -> Result<Page, Refusal> {
    edit(context, AUDIENCES).await
}

/// A computed trait to edit.
pub(super) async fn edit_trait(context: Cx) -> Result<Page, Refusal> {
    edit(context, TRAITS).await
}

const HOW: &str =
    "Ctrl+Space shows what fits where the cursor is. The button first says who would come and go.";

fn new(context: &Cx, kind: Kind) -> Page {
    let form = Form::new(context, "definition", "POST", &[kind.api], "Make it")
        .field(
            Field::text("key", "Key", "")
                .required()
                .hint("Small letters, digits and _: what the API and destinations call it."),
        )
        .field(Field::text("name", "Name", context.asked("name").unwrap_or_default()))
        .field(
            Field::area("definition.query", "Query", context.asked("query").unwrap_or_default())
                .required()
                .hint(HOW),
        )
        .field(Field::choice("definition.type", "About", "users", &OF));
    let form = options(form, kind, &Value::Null)
        .asks(Ask::Try, format!("A new {} is made and computed over all history.", kind.one))
        .back(context.page(&[kind.part, ":key"], &[]));
    Page::new(format!("New {}", kind.one))
        .back(kind.many, context.page(&[kind.part], &[]))
        .script(assets::builder())
        .with(section(context, kind, form))
}

async fn edit(context: Cx, kind: Kind) -> Result<Page, Refusal> {
    let key = context.named("key");
    let definition = context.read(&[kind.api, key], &[]).await?;
    let back = context.page(&[kind.part, key], &[]);
    let page = Page::new(format!("Edit {key}")).back(key, back.clone()).script(assets::builder());
    let what = &definition["definition"];
    let form = Form::new(&context, "definition", "PATCH", &[kind.api, key], "Save")
        .field(Field::text("name", "Name", text(&definition, "name")).kept())
        .field(Field::text("description", "Description", text(&definition, "description")).kept());
    if is_true(what, "list") {
        let note = Notice::plain("Its members are uploaded: there is no query to edit.");
        let form = form.asks(Ask::Confirm, "The words about it change.").back(back);
        return Ok(page.with(Section::new("builder", "").with(note).with(form)));
    }
    let form = form.field(Field::area("definition.query", "Query", text(what, "query")).required().hint(HOW));
    let form = options(form, kind, &definition["options"])
        .asks(Ask::Try, "A new version is made; the old one serves until it is complete.")
        .back(back);
    Ok(page.with(section(&context, kind, form)))
}

fn options(form: Form, kind: Kind, options: &Value) -> Form {
    let history = options.is_null() || is_true(options, "include_historical_data");
    let form = form
        .field(Field::check("options.include_historical_data", "Count history, too", history))
        .field(Field::check(
            "options.include_anonymous",
            "Count profiles with only anonymous identifiers",
            is_true(options, "include_anonymous"),
        ));
    if kind.api != AUDIENCES.api {
        return form;
    }
    form.field(Field::check(
        "options.requires_human_review",
        "A person decides what follows from membership",
        is_true(options, "requires_human_review"),
    ))
}

fn section(context: &Cx, kind: Kind, form: Form) -> Section {
    let all = [("limit", "1000")];
    let builder = Builder {
        form,
        makes: kind.part,
        preview: context.through(&[kind.api, "preview"], &[]),
        format: context.through(&["queries", "format"], &[]),
        events: context.through(&["schema", "events"], &all),
        properties: context.through(&["schema", "events", ":name", "properties"], &all),
        traits: context.through(&["schema", "traits"], &all),
        audiences: context.through(&["audiences"], &all),
        computed: context.through(&["computed-traits"], &all),
        profile: context.page(&["profiles", "users", "profile_id::id"], &[]),
    };
    Section::new("builder", "").with(Content::Builder(Box::new(builder))).stays()
}
