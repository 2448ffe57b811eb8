//! What an update of a profile becomes in the tables of history (personas.md 10.1): the graph of ids, external ids, traits.
//! `seq` is the place in the log of what did it, 0 where that is not known. Pure.

use heck::ToKebabCase;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::cells::{Cell, Line};
use super::names::name;
use crate::deliver::kind::Item;
use crate::domain::Timestamp;

/// Every table of history has these.
const COMMON: &str = "seq bigint not null, received_at timestamptz not null, uuid_ts timestamptz not null default now(), \
    \"timestamp\" timestamptz not null";
const TRIGGER: &str = "triggering_event_id text, triggering_event_type text, triggering_event_name text, \
    triggering_event_source_id text, triggering_event_source_name text, triggering_event_source_slug text";

/// The tables, with their columns.
pub(super) fn tables() -> [(&'static str, String); 3] {
    [
        (
            "id_graph_updates",
            format!(
                "segment_id text, canonical_segment_id text, triggering_event_id text, triggering_event_type text, \
                 {COMMON}, primary key (segment_id, canonical_segment_id, triggering_event_id)"
            ),
        ),
        (
            "external_id_mapping_updates",
            format!(
                "id text primary key, segment_id text, external_id_hash text, external_id_type text, \
                 external_id_value text, \"__operation\" text, {TRIGGER}, {COMMON}"
            ),
        ),
        (
            "profile_traits_updates",
            format!(
                "id text primary key, segment_id text, {TRIGGER}, {COMMON}, traits jsonb, _columns text[]"
            ),
        ),
    ]
}

/// Whether a column of the table of traits is one of a trait.
pub(super) fn is_trait_column(name: &str) -> bool {
    !TAKEN.contains(&name) && name != "_columns"
}

/// Names of columns that no trait has in its table and in the view over it.
const TAKEN: [&str; 15] = [
    "canonical",
    "id",
    "segment_id",
    "merged_to",
    "triggering_event_id",
    "triggering_event_type",
    "triggering_event_name",
    "triggering_event_source_id",
    "triggering_event_source_name",
    "triggering_event_source_slug",
    "seq",
    "received_at",
    "uuid_ts",
    "timestamp",
    "traits",
];

/// What did it, as the tables say it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trigger {
    pub(super) id: String,
    pub(super) kind: Option<String>,
    pub(super) seq: u64,
    pub(super) received_at: Timestamp,
    pub(super) at: Timestamp,
    more: Vec<(&'static str, String)>,
}

impl Trigger {
    fn of(item: &Item) -> Self {
        let by = item.event.pointer("/context/personas/triggering_event");
        let text = |key: &str| by.and_then(|by| by.get(key)).and_then(Value::as_str).map(str::to_owned);
        let time = |key: &str| text(key).and_then(|text| Timestamp::parse(&text)).unwrap_or(item.at);
        let more = [
            ("triggering_event_name", text("name")),
            ("triggering_event_source_id", text("source_id")),
            ("triggering_event_source_slug", text("source_name").map(|name| name.to_kebab_case())),
            ("triggering_event_source_name", text("source_name")),
        ];
        Self {
            id: text("id").unwrap_or_default(),
            kind: text("type"),
            seq: by.and_then(|by| by.get("offset")).and_then(Value::as_u64).unwrap_or_default(),
            received_at: time("received_at"),
            at: time("timestamp"),
            more: more.into_iter().filter_map(|(column, text)| Some((column, text?))).collect(),
        }
    }

    fn cells(&self, id: &str, segment_id: &str) -> Vec<Cell> {
        let mut cells = vec![Cell::text("id", id), Cell::text("segment_id", segment_id)];
        cells.push(Cell::text("triggering_event_id", &self.id));
        cells.extend(self.kind.as_ref().map(|kind| Cell::text("triggering_event_type", kind)));
        cells.extend(self.more.iter().map(|(column, text)| Cell::text(column, text)));
        cells.extend(self.times());
        cells
    }

    fn times(&self) -> [Cell; 3] {
        [
            Cell::number("seq", self.seq),
            Cell::time("received_at", self.received_at),
            Cell::time("timestamp", self.at),
        ]
    }
}

/// A profile has become part of another one, and all that was part of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Joined {
    pub(super) profile: String,
    pub(super) canonical: String,
    pub(super) by: Trigger,
}

/// What an update asks for: a row, or something that goes by what is there already.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asked {
    Line(Line),
    Joined(Joined),
}

/// What a change asks for, where it is an update of a profile.
pub(super) fn asked(item: &Item) -> Option<Asked> {
    let text = |pointer: &str| item.event.pointer(pointer).and_then(Value::as_str);
    let word = text("/context/personas/update")?;
    let (by, profile) = (Trigger::of(item), text("/context/personas/segment_id")?);
    Some(match word {
        "created" | "separated" => Asked::Line(own(profile, &by)),
        "merged" => {
            let merged = text("/properties/merged_profile_id")?.to_owned();
            Asked::Joined(Joined { profile: merged, canonical: profile.to_owned(), by })
        }
        "identifier_added" | "identifier_removed" => {
            let operation = if word == "identifier_added" { "CREATED" } else { "REMOVED" };
            let (id_type, value) = (text("/properties/type")?, text("/properties/id")?);
            Asked::Line(external_id(profile, (id_type, value), operation, &by))
        }
        _ => Asked::Line(traits(item, profile, word == "traits", &by)),
    })
}

/// A profile is its own.
fn own(profile: &str, by: &Trigger) -> Line {
    let mut cells = vec![
        Cell::text("segment_id", profile),
        Cell::text("canonical_segment_id", profile),
        Cell::text("triggering_event_id", &by.id),
    ];
    cells.extend(by.kind.as_ref().map(|kind| Cell::text("triggering_event_type", kind)));
    cells.extend(by.times());
    // What a full sync says of who has made it is what is left of that.
    Line { is_guess: by.kind.is_none(), ..Line::new("id_graph_updates", cells) }
}

fn external_id(profile: &str, (id_type, value): (&str, &str), operation: &str, by: &Trigger) -> Line {
    let hash = hex::encode(Sha256::digest(format!("{id_type}:{value}")));
    let id = hash_of(&[profile, &hash, operation, &by.id]);
    let mut cells = by.cells(&id, profile);
    cells.push(Cell::text("external_id_hash", &hash));
    cells.push(Cell::text("external_id_type", id_type));
    cells.push(Cell::text("external_id_value", value));
    cells.push(Cell::text("__operation", operation));
    Line::new("external_id_mapping_updates", cells)
}

/// A row of traits: one column for each, and all of them as JSON. Of what was sent along, such as an e-mail address, nothing is
/// said.
fn traits(item: &Item, profile: &str, is_own: bool, by: &Trigger) -> Line {
    let changed = item.event.pointer("/context/personas/changed_traits").and_then(Value::as_array);
    let changed = |name: &&String| changed.is_some_and(|all| all.iter().any(|one| one == name.as_str()));
    let all = item.event.get("traits").and_then(Value::as_object).into_iter().flatten();
    let traits: Map<String, Value> =
        all.filter(|(name, _)| changed(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
    // What an event says itself goes before what the merge it made has brought: of one place in the log, the larger id.
    let kind = if is_own { "t" } else { "m" };
    let mut id = hash_of(&[profile, &by.id, &by.seq.to_string()]);
    id.insert_str(0, kind);
    let mut cells = by.cells(&id, profile);
    cells.push(Cell::json("traits", Value::Object(traits.clone())));
    let mut columns: Vec<String> = Vec::new();
    for (trait_name, value) in &traits {
        let column = name(&[trait_name], |name| TAKEN.contains(&name) || name == "_columns");
        if columns.contains(&column) {
            // One trait under two spellings: the other one is in the JSON.
            continue;
        }
        if !value.is_null() {
            cells.push(Cell::of(&column, trait_name, value));
        }
        columns.push(column);
    }
    // Before those that may be too many.
    cells.insert(0, Cell::texts("_columns", columns));
    Line::new("profile_traits_updates", cells)
}

fn hash_of(parts: &[&str]) -> String {
    hex::encode(Sha256::digest(parts.join("\n"))).chars().take(32).collect()
}

/// Which profiles are part of `$1`.
pub(super) fn parts(schema: &str) -> String {
    format!(
        "select c.segment_id from ( \
             select distinct segment_id from \"{schema}\".id_graph_updates where canonical_segment_id = $1::text) c \
         where $1::text = (select u.canonical_segment_id from \"{schema}\".id_graph_updates u \
             where u.segment_id = c.segment_id order by u.seq desc limit 1)"
    )
}

/// Puts into the graph that `$1` is part of `$2`, and so is all that was part of `$1`. `$3` and `$4` are what did it, `$5` its
/// place, `$6` and `$7` when.
pub(super) fn join(schema: &str) -> String {
    format!(
        "insert into \"{schema}\".id_graph_updates (segment_id, canonical_segment_id, triggering_event_id, \
         triggering_event_type, seq, received_at, \"timestamp\") \
         select part.segment_id, $2::text, $3::text, $4::text, $5::bigint, $6::timestamptz, $7::timestamptz \
         from (select $1::text as segment_id union {}) part on conflict do nothing",
        parts(schema)
    )
}

/// The views over the tables, by name; `columns` are those of traits.
pub(super) fn views(schema: &str, columns: &[String]) -> [(&'static str, String); 3] {
    let graph = format!(
        "create or replace view \"{schema}\".id_graph as \
         select distinct on (segment_id) segment_id, canonical_segment_id, \"timestamp\" \
         from \"{schema}\".id_graph_updates order by segment_id, seq desc"
    );
    let mapping = format!(
        "create or replace view \"{schema}\".external_id_mapping as \
         select canonical_segment_id, external_id_type, external_id_value, external_id_hash, \"timestamp\" from ( \
             select distinct on (u.external_id_type, u.external_id_hash) u.*, \
                 coalesce(g.canonical_segment_id, u.segment_id) as canonical_segment_id \
             from \"{schema}\".external_id_mapping_updates u \
             left join \"{schema}\".id_graph g on g.segment_id = u.segment_id \
             order by u.external_id_type, u.external_id_hash, u.seq desc, u.\"__operation\" \
         ) newest where \"__operation\" = 'CREATED'"
    );
    let traits: Vec<String> = columns
        .iter()
        .map(|column| {
            let text = column.replace('\'', "''");
            format!(
                ", (array_agg(u.\"{column}\" order by u.seq desc, u.id desc) \
                 filter (where '{text}' = any (u._columns)))[1] as \"{column}\""
            )
        })
        .collect();
    let profiles = format!(
        "create or replace view \"{schema}\".profile_traits as \
         select g.segment_id, nullif(g.canonical_segment_id, g.segment_id) as merged_to{} \
         from \"{schema}\".id_graph g \
         left join (select coalesce(c.canonical_segment_id, t.segment_id) as canonical, t.* \
             from \"{schema}\".profile_traits_updates t left join \"{schema}\".id_graph c on c.segment_id = t.segment_id \
         ) u on u.canonical = g.segment_id \
         group by g.segment_id, g.canonical_segment_id",
        traits.concat()
    );
    [("id_graph", graph), ("external_id_mapping", mapping), ("profile_traits", profiles)]
}
