//! What the space has of what its plan limits.

use serde_json::Value;

use super::{Cx, part};
use crate::console::client::Refusal;
use crate::console::show::{grouped, items, number, state, text, time, whole};
use crate::console::view::{Cell, Content, Page, Section, Table};

/// The page.
pub(super) async fn page(context: Cx) -> Result<Page, Refusal> {
    let (space, usage) = tokio::join!(context.read(&[], &[]), context.read(&["usage"], &[]));
    let space = space?;
    let plan = &space["plan"];
    let usage_part =
        part("usage", "This month", &usage, |section, usage| section.with(limits(usage, &plan["limits"])));
    let months = part("months", "Events by month", &usage, |section, usage| section.with(months(usage)));
    let facts = vec![
        ("State".to_owned(), state(text(plan, "state"))),
        ("Why".to_owned(), Cell::from(text(plan, "reason"))),
        ("From".to_owned(), time(plan, "starts_at")),
        ("Until".to_owned(), time(plan, "ends_at")),
        ("Export until".to_owned(), time(plan, "export_ends_at")),
    ];
    let plan = Section::new("plan", "Plan").with(Content::Facts(facts));
    Ok(Page::new("Usage").every(10).with(usage_part).with(months).with(plan))
}

fn limits(usage: &Value, limits: &Value) -> Table {
    let each = [
        ("Events this month", "events", "events_per_month"),
        ("Profiles", "profiles", "profiles"),
        ("Audiences", "audiences", "audiences"),
        ("Computed traits", "computed_traits", "computed_traits"),
    ];
    let rows = each.map(|(name, used, limit)| {
        let most = limits.get(limit).and_then(Value::as_i64);
        let share = most.filter(|most| *most > 0).map_or_else(
            || Cell::Muted("no limit".to_owned()),
            |most| {
                Cell::from(format!(
                    "{:.1} % of {}",
                    whole(usage, used) as f64 * 100.0 / most as f64,
                    grouped(most)
                ))
            },
        );
        vec![Cell::from(name), number(usage, used), share]
    });
    Table::new("Usage", &["What", "Used", "Of the limit"]).rows(rows)
}

fn months(usage: &Value) -> Table {
    let rows = items(usage, "months")
        .iter()
        .map(|month| vec![Cell::from(text(month, "month")), number(month, "events")]);
    Table::new("Events by month", &["Month (UTC)", "Events"]).rows(rows)
}
