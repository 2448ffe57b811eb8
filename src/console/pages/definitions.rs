//! Lists of audiences and computed traits.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use serde_json::Value;

use super::Cx;
use super::overview::{changed, course};
use crate::console::client::Refusal;
use crate::console::show::{items, next, number, state, text, whole};
use crate::console::view::{Cell, Content, Link, Page, Section, Table};

/// Definitions of one page.
const SHOWN: &str = "50";
/// Questions to the API at the same time.
const AT_ONCE: usize = 4;

/// What an audience and a computed trait have not in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// Segment of pages.
    pub part: &'static str,
    /// Segment of the API.
    pub api: &'static str,
    pub one: &'static str,
    pub many: &'static str,
}

pub(super) const AUDIENCES: Kind =
    Kind { part: "audiences", api: "audiences", one: "audience", many: "Audiences" };
pub(super) const TRAITS: Kind =
    Kind { part: "traits", api: "computed-traits", one: "computed trait", many: "Computed traits" };

/// All audiences.
pub(super) async fn audiences(context: Cx) -> Result<Page, Refusal> {
    list(context, AUDIENCES).await
}

/// All computed traits.
pub(super) async fn traits(context: Cx) -> Result<Page, Refusal> {
    list(context, TRAITS).await
}

async fn list(context: Cx, kind: Kind) -> Result<Page, Refusal> {
    let mut query = vec![("limit", SHOWN)];
    query.extend(context.asked("cursor").map(|cursor| ("cursor", cursor)));
    let (path, no_query) = ([kind.api], []);
    let (listed, pipeline) =
        tokio::join!(context.read(&path, &query), context.read(&["pipeline"], &no_query));
    let listed = listed?;
    let definitions = items(&listed, "data");
    let fresh = pipeline
        .as_ref()
        .map_or("", |p| if whole(p, "lag_events") == 0 { "up to date" } else { "catching up" });
    let drawings =
        if kind.api == AUDIENCES.api { drawings(&context, definitions).await } else { HashMap::new() };
    let rows = definitions.iter().map(|definition| row(&context, kind, definition, fresh, &drawings));
    let columns: &[&str] = if kind.api == AUDIENCES.api {
        &["Key", "Name", "Status", "Members", "Last day", "Freshness", "Changed"]
    } else {
        &["Key", "Name", "Status", "Profiles with a value", "Freshness", "Changed"]
    };
    let empty = format!("There is no {} yet.", kind.one);
    let table = Table::new(kind.many, columns).empty(&empty).rows(rows);
    let more = next(&listed).map(|cursor| context.here_with("cursor", cursor));
    let new = Link::new(format!("New {}", kind.one), context.page(&[kind.part, "new-one"], &[]));
    Ok(Page::new(kind.many)
        .every(5)
        .with(Section::new("list", "").with(Content::Links(vec![new])).with(table.next(more))))
}

async fn drawings(context: &Cx, definitions: &[Value]) -> HashMap<String, Cell> {
    let now = context.console.0.settings.clock.now();
    let each = definitions.iter().map(|definition| {
        let (context, key, size) =
            (Arc::clone(context), text(definition, "key").to_owned(), whole(definition, "size"));
        async move {
            let course = course(&context, &key, size, now).await;
            Some((course.key, Cell::from(course.drawing?)))
        }
    });
    let each: Vec<_> = each.collect();
    let all = futures_util::stream::iter(each).buffer_unordered(AT_ONCE);
    all.filter_map(std::future::ready).collect().await
}

fn row(
    context: &Cx,
    kind: Kind,
    definition: &Value,
    fresh: &str,
    drawings: &HashMap<String, Cell>,
) -> Vec<Cell> {
    let key = text(definition, "key");
    let mut row = vec![
        Cell::link(key, context.page(&[kind.part, key], &[])),
        Cell::from(text(definition, "name")),
        state(text(definition, "status")),
        number(definition, "size"),
    ];
    if kind.api == AUDIENCES.api {
        row.push(match drawings.get(key) {
            Some(Cell::Svg(svg)) => Cell::Svg(svg.clone()),
            _ => Cell::Muted(String::new()),
        });
    }
    row.extend([Cell::Muted(fresh.to_owned()), changed(definition)]);
    row
}
