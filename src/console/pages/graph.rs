//! Who a profile is, as a drawing: its identifiers on the left, the profiles it was merged of on the right.

use askama::Template;
use serde_json::Value;

use crate::console::show::{items, text};
use crate::console::view::Svg;

/// Identifiers and merges that are drawn; the tables have all.
const DRAWN_MAX: usize = 30;
const ROW: usize = 34;
const TOP: usize = 10;
/// Characters of a name that fit.
const NAME_CHARS: usize = 26;

#[derive(Debug, Template)]
#[template(path = "console/graph.html")]
struct Graph {
    height: usize,
    /// Where the profile itself is.
    middle: usize,
    name: String,
    identifiers: Vec<Node>,
    merges: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    y: usize,
    name: String,
    note: String,
    is_undone: bool,
}

impl Graph {
    /// The middle of a row.
    fn line(node: &Node) -> usize {
        node.y + 12
    }
}

/// The drawing of a profile's identity.
pub(super) fn draw(identity: &Value) -> Svg {
    let (ids, merged) = (items(identity, "identifiers"), items(identity, "merges"));
    let rows = ids.len().min(DRAWN_MAX).max(merged.len().min(DRAWN_MAX)).max(1);
    let height = rows * ROW + 2 * TOP;
    let y = |row: usize, of: usize| TOP + row * ROW + (rows - of.min(DRAWN_MAX)) * ROW / 2;
    let identifier = |(row, id): (usize, &Value)| Node {
        y: y(row, ids.len()),
        name: short(text(id, "id")),
        note: text(id, "type").to_owned(),
        is_undone: false,
    };
    let merge = |(row, merge): (usize, &Value)| Node {
        y: y(row, merged.len()),
        name: short(text(merge, "absorbed")),
        note: text(merge, "at").chars().take(10).collect(),
        is_undone: !text(merge, "undone_at").is_empty(),
    };
    let graph = Graph {
        height,
        middle: height / 2,
        name: short(text(identity, "profile_id")),
        identifiers: ids.iter().take(DRAWN_MAX).enumerate().map(identifier).collect(),
        merges: merged.iter().take(DRAWN_MAX).enumerate().map(merge).collect(),
    };
    Svg(graph.render().unwrap_or_default())
}

fn short(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS {
        return name.to_owned();
    }
    let kept: String = name.chars().take(NAME_CHARS - 1).collect();
    format!("{kept}…")
}
