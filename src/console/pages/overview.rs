//! How the space is: what comes in, how fresh it is, which audiences there are and which move.

use std::sync::Arc;

use futures_util::StreamExt;
use serde_json::Value;

use super::{Cx, part};
use crate::console::chart;
use crate::console::client::Refusal;
use crate::console::show::{grouped, items, number, state, text, time, whole};
use crate::console::view::{Cell, Content, Notice, Page, Section, Svg, Table, Tile};
use crate::domain::Timestamp;

const DAY_MS: i64 = 86_400_000;
/// Audiences in a list of the largest or the fastest.
const SHOWN: usize = 8;
/// Audiences whose course is looked at: those that changed last.
const LOOKED_AT: usize = 24;
/// Questions to the API at the same time.
const AT_ONCE: usize = 4;
/// Refused events are counted up to there.
const REFUSED_MAX: i64 = 1_000;

/// The page.
pub(super) async fn page(context: Cx) -> Result<Page, Refusal> {
    let (pipeline, sizes, destinations, usage) = tokio::join!(
        context.read(&["pipeline"], &[]),
        context.read(&["audiences", "sizes"], &[]),
        context.read(&["destinations"], &[("limit", "1000")]),
        context.read(&["usage"], &[]),
    );
    let now = context.console.0.settings.clock.now();
    let pipeline = pipeline?;
    let mut tiles = flow_tiles(&context, &pipeline, now);
    tiles.push(refused_tile(&pipeline));
    tiles.extend(destinations.as_ref().ok().map(delivery_tile));
    if let Ok(usage) = &usage {
        tiles.push(tile(
            "Events this month",
            grouped(whole(usage, "events")),
            text(usage, "month").to_owned(),
        ));
    }
    let mut page =
        Page::new("Overview").every(2).with(Section::new("numbers", "").with(Content::Tiles(tiles)));
    if whole(&pipeline, "log_end_offset") == 0 {
        page = page.with(first_steps(&context));
    }
    let backfills = items(&pipeline, "backfills");
    if !backfills.is_empty() {
        page = page.with(backfill_section(backfills));
    }
    let courses = match &sizes {
        Ok(sizes) => courses(&context, sizes, now).await,
        Err(_) => Vec::new(),
    };
    Ok(page
        .with(part("largest", "Largest audiences", &sizes, |section, sizes| {
            section.with(largest(&context, sizes, &courses))
        }))
        .with(fastest(&context, &courses)))
}

fn tile(label: &str, value: String, note: String) -> Tile {
    Tile { label: label.to_owned(), value, note, drawing: None }
}

/// What comes in, and how far it is processed.
fn flow_tiles(context: &Cx, pipeline: &Value, now: Timestamp) -> Vec<Tile> {
    let end = whole(pipeline, "log_end_offset").unsigned_abs();
    let pulse = context.console.0.pulses.note(context.space(), now, end);
    let rate = pulse.rate.map_or_else(
        || "–".to_owned(),
        |rate| {
            if (0.05..10.0).contains(&rate) { format!("{rate:.1}") } else { grouped(rate.round() as i64) }
        },
    );
    let profiles = &pipeline["profiles"];
    let lag_ms = whole(pipeline, "lag_ms");
    let fresh = if whole(pipeline, "lag_events") == 0 {
        "up to date".to_owned()
    } else {
        format!("{:.1} s behind", lag_ms as f64 / 1e3)
    };
    vec![
        Tile {
            drawing: chart::spark(&pulse.course, "events per second over the last minutes"),
            ..tile("Events per second", rate, String::new())
        },
        tile("Freshness", fresh, String::new()),
        tile(
            "Events waiting",
            grouped(whole(pipeline, "lag_events")),
            format!("of {} in the log", grouped(whole(pipeline, "log_end_offset"))),
        ),
        tile(
            "Profiles",
            grouped(whole(profiles, "users")),
            format!(
                "{} accounts, {} merges",
                grouped(whole(profiles, "accounts")),
                grouped(whole(profiles, "merges"))
            ),
        ),
    ]
}

fn refused_tile(pipeline: &Value) -> Tile {
    let count = whole(pipeline, "rejected_last_hour");
    let more = if count >= REFUSED_MAX { " or more" } else { "" };
    tile("Refused events", format!("{}{more}", grouped(count)), "in the last hour".to_owned())
}

fn delivery_tile(destinations: &Value) -> Tile {
    let sum = |name: &str| -> i64 {
        items(destinations, "data").iter().map(|destination| whole(&destination["deliveries"], name)).sum()
    };
    let waiting = sum("queued") + sum("in_flight");
    tile(
        "Deliveries waiting",
        grouped(waiting),
        format!("{} sent, {} given up", grouped(sum("succeeded")), grouped(sum("dead"))),
    )
}

fn first_steps(context: &Cx) -> Section {
    Section::new("first", "Nothing has come in yet")
        .with(Notice::plain(
            "Send a first event with a write key of a source (Settings), as any Segment SDK would:",
        ))
        .with(Content::Pre(
            "curl -u WRITE_KEY: HOST/v1/track -d '{\"userId\":\"ada\",\"event\":\"Signed Up\"}'".to_owned(),
        ))
        .with(Content::Line(vec![
            Cell::link("Sources and write keys", context.page(&["settings"], &[])),
            Cell::link("Watch what comes in", context.page(&["live"], &[])),
        ]))
}

fn backfill_section(backfills: &[Value]) -> Section {
    let rows = backfills.iter().map(|backfill| {
        vec![
            Cell::from(text(backfill, "key")),
            state(text(backfill, "status")),
            number(backfill, "version"),
            number(backfill, "walked"),
        ]
    });
    let table =
        Table::new("Definitions being computed", &["Definition", "Status", "Version", "Profiles done"]);
    Section::new("backfills", "Being computed over history").with(table.rows(rows))
}

/// The course of one audience over the last day.
pub(super) struct Course {
    pub key: String,
    pub size: i64,
    /// Change within the day.
    pub change: i64,
    pub drawing: Option<Svg>,
}

/// The day of each audience that changed last.
async fn courses(context: &Cx, sizes: &Value, now: Timestamp) -> Vec<Course> {
    let mut changed: Vec<&Value> = items(sizes, "data").iter().collect();
    changed.sort_by(|a, b| text(b, "changed_at").cmp(text(a, "changed_at")));
    let mut largest = items(sizes, "data").iter().collect::<Vec<_>>();
    largest.sort_by_key(|audience| -whole(audience, "size"));
    let looked_at = largest.into_iter().take(SHOWN).chain(changed.into_iter().take(LOOKED_AT));
    let mut keys: Vec<(String, i64)> =
        looked_at.map(|a| (text(a, "key").to_owned(), whole(a, "size"))).collect();
    keys.sort_unstable();
    keys.dedup();
    let each = keys.into_iter().map(|(key, size)| {
        let context = Arc::clone(context);
        async move { course(&context, &key, size, now).await }
    });
    futures_util::stream::iter(each).buffer_unordered(AT_ONCE).collect().await
}

/// The last day of one audience, by the hour.
pub(super) async fn course(context: &Cx, key: &str, size: i64, now: Timestamp) -> Course {
    let from = now.plus_millis(-DAY_MS).to_string();
    let query = [("from", from.as_str()), ("step", "hour")];
    let history = context.read(&["audiences", key, "size", "history"], &query).await.unwrap_or_default();
    let points: Vec<i64> = items(&history, "data").iter().map(|point| whole(point, "size")).collect();
    let drawn: Vec<f64> = points.iter().map(|size| *size as f64).collect();
    let says = format!("size over the last day, now {size}");
    Course {
        key: key.to_owned(),
        size,
        change: size - points.first().copied().unwrap_or(size),
        drawing: chart::spark(&drawn, &says),
    }
}

fn row(context: &Cx, course: &Course) -> Vec<Cell> {
    let sign = if course.change > 0 { "+" } else { "" };
    vec![
        Cell::link(&course.key, context.page(&["audiences", &course.key], &[])),
        Cell::Number(grouped(course.size)),
        Cell::Number(format!("{sign}{}", grouped(course.change))),
        course.drawing.clone().map_or_else(|| Cell::Muted(String::new()), Cell::from),
    ]
}

const COLUMNS: [&str; 4] = ["Audience", "Members", "In 24 hours", "Last day"];

fn largest(context: &Cx, sizes: &Value, courses: &[Course]) -> Content {
    let mut all: Vec<&Course> = courses.iter().collect();
    all.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.key.cmp(&b.key)));
    let empty = if items(sizes, "data").is_empty() { "There are no audiences yet." } else { "None." };
    let rows = all.into_iter().take(SHOWN).map(|course| row(context, course));
    Table::new("Largest audiences", &COLUMNS).empty(empty).rows(rows).into()
}

fn fastest(context: &Cx, courses: &[Course]) -> Section {
    let mut all: Vec<&Course> = courses.iter().filter(|course| course.change != 0).collect();
    all.sort_by(|a, b| b.change.abs().cmp(&a.change.abs()).then_with(|| a.key.cmp(&b.key)));
    let rows = all.into_iter().take(SHOWN).map(|course| row(context, course));
    let table = Table::new("Fastest audiences", &COLUMNS).empty("No audience has changed within 24 hours.");
    Section::new("fastest", "Moving fastest").with(table.rows(rows))
}

/// When something changed last, for lists of definitions.
pub(super) fn changed(value: &Value) -> Cell {
    time(value, "updated_at")
}
