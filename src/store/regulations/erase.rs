//! Erasing people: every row that is about them, and what they said in the log, in one transaction of the processor.
//!
//! What becomes of which table is said by [`data_map`](crate::store::data_map); a test holds it against the schema.

use std::collections::BTreeSet;

use hashbrown::{HashMap, HashSet};
use sqlx::PgConnection;
use uuid::Uuid;

use super::people::{self, Found};
use super::suppression::{self, Suppressed};
use super::{forward, journal};
use crate::domain::audit::{ERASED_ACT, ERASED_EFFECT};
use crate::domain::regulation::{IdHash, is_of_device};
use crate::domain::seen::Seen;
use crate::domain::{EventType, IdKey, Offset, ProfileNo, SpaceNo, Timestamp};
use crate::store::log::codec::Record;
use crate::store::log::erase::{Cut, Erased, replace, rewrite};
use crate::store::log::numbers::Fate;
use crate::store::schema::{self, SeenKind};
use crate::store::{Result, corrections, deliveries};

/// Chunks that are rewritten at a time.
const CHUNKS_AT_A_TIME: usize = 16;
/// Events asked for at a time.
const EVENTS_AT_A_TIME: usize = 500;

/// One who is erased.
#[derive(Debug, Clone)]
pub struct Person {
    /// Numbers in the regulation: one person may be named more than once.
    pub subjects: Vec<i32>,
    /// The profile,
    pub no: ProfileNo,
    /// its public id,
    pub profile_id: Uuid,
    /// and all numbers it has had.
    pub numbers: Vec<ProfileNo>,
    /// Its identifiers: type, value, and what it is found by.
    pub identifiers: Vec<(String, String, IdKey)>,
    /// Places of its events and of acts about it, in order.
    pub offsets: Vec<Offset>,
    /// What destinations are told of whom to delete: JSON.
    pub told: String,
}

/// What one act erases.
#[derive(Debug, Clone)]
pub struct Erasure {
    /// Why.
    pub regulation: Uuid,
    /// The place of the act: everything of them up to there is erased.
    pub until: Offset,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub people: Vec<Person>,
    /// Those that are nobody here: number, and what they would be found by.
    pub nobody: Vec<(i32, IdKey)>,
    /// Nothing new is taken of them.
    pub suppresses: bool,
    /// Destinations are told.
    pub forwards: bool,
    /// How long a device stays suppressed, in milliseconds.
    pub device_ms: i64,
}

impl Erasure {
    fn numbers(&self) -> Vec<i64> {
        self.people.iter().flat_map(|person| &person.numbers).map(|no| no.0 as i64).collect()
    }

    fn keys(&self) -> Vec<IdKey> {
        self.people.iter().flat_map(|person| &person.identifiers).map(|(.., key)| *key).collect()
    }

    /// A regular expression for JSON in which one of the values stands as a value: as text, with space around it or not, or as a
    /// number. Keys of the same name are none.
    fn pattern(&self) -> String {
        let values = self.people.iter().flat_map(|person| &person.identifiers).map(|(_, value, _)| value);
        let one = |value: &String| {
            let quoted = serde_json::to_string(value).unwrap_or_default();
            let inner = escaped(quoted.trim_matches('"'));
            let number = value.bytes().all(|b| b.is_ascii_digit()).then(|| format!("|{value}"));
            format!("\"\\s*{inner}\\s*\"{}", number.unwrap_or_default())
        };
        let all: Vec<String> = values.map(one).collect();
        format!("[:,\\[]\\s*({})\\s*[,}}\\]]", all.join("|"))
    }

    /// Erases the rows that are about them, and what they said. Before anything is added by the same transaction.
    pub async fn write(&self, tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
        if !self.people.is_empty() {
            self.erase_rows(tx, space).await?;
            self.erase_values(tx, space).await?;
        }
        let events = self.erase_events(tx, space).await?;
        self.note(tx, space, &events).await
    }

    /// Takes what waits or was told out of the queues of destinations, and tells them of the deletion. Late, because workers
    /// and the ends of queues are locked until the commit.
    pub async fn tell(&self, tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
        if self.people.is_empty() {
            return Ok(());
        }
        deliveries::part::erase(&mut *tx, space, &self.numbers()).await?;
        if self.forwards {
            forward::enqueue(&mut *tx, space, self.regulation, &self.people, self.at).await?;
        }
        Ok(())
    }

    async fn erase_rows(&self, tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
        let numbers = self.numbers();
        for sql in [
            "-- store::regulations::erase::erase_rows
             DELETE FROM profile WHERE space_id = $1 AND profile_no = ANY($2)",
            "-- store::regulations::erase::erase_rows
             DELETE FROM former_profile WHERE space_id = $1 AND profile_no = ANY($2)",
            "-- store::regulations::erase::erase_rows
             DELETE FROM profile_merge WHERE space_id = $1 AND (survivor_no = ANY($2) OR absorbed_no = ANY($2))",
            "-- store::regulations::erase::erase_rows
             DELETE FROM identity_refusal WHERE space_id = $1 AND profile_no = ANY($2)",
            "-- store::regulations::erase::erase_rows
             DELETE FROM account_link WHERE space_id = $1 AND user_no = ANY($2)",
            "-- store::regulations::erase::erase_rows
             DELETE FROM profile_event_page WHERE space_id = $1 AND profile_no = ANY($2)",
            "-- store::regulations::erase::erase_rows
             DELETE FROM profile_due WHERE space_id = $1 AND profile_no = ANY($2)",
            "-- store::regulations::erase::erase_rows
             DELETE FROM membership m USING computation c
             WHERE c.space_id = $1 AND m.space_id = $1 AND m.computation_no = c.computation_no AND m.profile_no = ANY($2)",
            "-- store::regulations::erase::erase_rows
             DELETE FROM transition WHERE space_id = $1 AND profile_no = ANY($2)",
            "-- store::regulations::erase::erase_rows
             DELETE FROM search_entry WHERE space_id = $1 AND profile_no = ANY($2)",
        ] {
            sqlx::query(sql).bind(space.0).bind(&numbers).execute(&mut *tx).await?;
        }
        let keys: Vec<Uuid> = self.keys().iter().map(|key| key.to_uuid()).collect();
        for sql in [
            "-- store::regulations::erase::erase_rows
             DELETE FROM external_id WHERE space_id = $1 AND id_key = ANY($2)",
            "-- store::regulations::erase::erase_rows
             DELETE FROM identity_suspect WHERE space_id = $1 AND id_key = ANY($2)",
        ] {
            sqlx::query(sql).bind(space.0).bind(&keys).execute(&mut *tx).await?;
        }
        Ok(())
    }

    /// What others have of their identifiers: refusals, and lists for operators.
    async fn erase_values(&self, tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
        let identifiers = || self.people.iter().flat_map(|person| &person.identifiers);
        let types: Vec<&str> = identifiers().map(|(id_type, ..)| id_type.as_str()).collect();
        let values: Vec<&str> = identifiers().map(|(_, value, _)| value.as_str()).collect();
        for sql in [
            "-- store::regulations::erase::erase_values
             DELETE FROM identity_refusal r USING unnest($2::text[], $3::text[]) AS g (type, value)
             WHERE r.space_id = $1 AND r.type = g.type AND r.value = g.value",
            "-- store::regulations::erase::erase_values
             DELETE FROM identity_problem p USING unnest($2::text[], $3::text[]) AS g (type, value)
             WHERE p.space_id = $1 AND p.type = g.type AND p.value = g.value",
        ] {
            sqlx::query(sql).bind(space.0).bind(&types).bind(&values).execute(&mut *tx).await?;
        }
        let sql = "-- store::regulations::erase::erase_values
             DELETE FROM rejected_event
             WHERE space_id = $1 AND (event ~* $2 OR message_id = ANY($3) OR message ILIKE ANY($4))";
        // Messages show values as Rust writes them.
        let shown: Vec<String> =
            values.iter().map(|value| format!("%{}%", liked(&format!("{value:?}")))).collect();
        let rejected = sqlx::query(sql).bind(space.0).bind(self.pattern()).bind(&values).bind(shown);
        rejected.execute(&mut *tx).await?;
        let sql = "-- store::regulations::erase::erase_values
             UPDATE audit_entry SET erased = true, act = $4::jsonb, effect = $5::jsonb || jsonb_build_object(
                     'events_moved', effect->'events_moved', 'events_gone', effect->'events_gone')
             WHERE space_id = $1 AND NOT erased
                 AND (act::text ~* $2 OR effect::text ~* $2 OR act::text LIKE ANY($3) OR effect::text LIKE ANY($3))";
        // Effects name profiles by their public ids, and nothing else looks like one.
        let ids = self.people.iter().map(|person| crate::domain::ids::public_id("prf", person.profile_id));
        let ids: Vec<String> = ids.map(|id| format!("%{}%", liked(&id))).collect();
        let audited = sqlx::query(sql).bind(space.0).bind(self.pattern()).bind(ids);
        audited.bind(ERASED_ACT).bind(ERASED_EFFECT).execute(tx).await?;
        Ok(())
    }

    /// Rewrites the chunks with their events. Returns how many there were of each.
    async fn erase_events(&self, tx: &mut PgConnection, space: SpaceNo) -> Result<Vec<u64>> {
        if self.people.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Erased = self.keys().into_iter().map(|key| (key, self.until)).collect();
        let owned = |person: &Person| person.numbers.iter().copied().collect::<HashSet<ProfileNo>>();
        let numbers: Vec<HashSet<ProfileNo>> = self.people.iter().map(owned).collect();
        let (mut events, mut seen) = (vec![0; self.people.len()], Known::load(&mut *tx, space).await?);
        let all: BTreeSet<Offset> =
            self.people.iter().flat_map(|person| person.offsets.iter().copied()).collect();
        let all: Vec<Offset> = all.into_iter().collect();
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let asked = rest.get(..EVENTS_AT_A_TIME).unwrap_or(rest);
            let chunks = corrections::read_containing(&mut *tx, space, asked, CHUNKS_AT_A_TIME).await?;
            let is_cut = chunks.len() == CHUNKS_AT_A_TIME;
            let last = chunks.last().filter(|_| is_cut).map(|history| history.chunk.end_offset);
            let done = last.map_or(asked.len(), |last| asked.partition_point(|offset| *offset <= last));
            let mut rewritten = Vec::new();
            for history in &chunks {
                let cut = rewrite(history, &keys, |record, _, fate| {
                    let Fate::Attributed { user: Some(user), .. } = fate else { return Cut::Keep };
                    let Some(place) = numbers.iter().position(|of| of.contains(&user)) else {
                        return Cut::Keep;
                    };
                    if let Some(events) = events.get_mut(place) {
                        *events += 1;
                    }
                    seen.forget(record);
                    Cut::Erase
                })?;
                rewritten.extend(cut);
            }
            if !rewritten.is_empty() {
                replace(&mut *tx, space, &rewritten).await?;
            }
            rest = rest.get(done..).unwrap_or_default();
        }
        seen.write(tx, space).await?;
        Ok(events)
    }

    /// Writes the journal, and that it is done.
    async fn note(&self, tx: &mut PgConnection, space: SpaceNo, events: &[u64]) -> Result<()> {
        let Some(secret) = suppression::find_secret(&mut *tx, space).await? else {
            return Ok(());
        };
        let secret = suppression::secret(&mut *tx, space, &secret).await?;
        let hash = |key: IdKey| IdHash::of(&secret, key);
        let mut found = Vec::new();
        let (mut hashes, mut suppressed) = (Vec::new(), Vec::new());
        for (person, events) in self.people.iter().zip(events) {
            let no = person.subjects.first().copied().unwrap_or_default();
            hashes.extend(person.identifiers.iter().map(|(.., key)| (no, hash(*key))));
            suppressed.extend(person.identifiers.iter().map(|(id_type, _, key)| Suppressed {
                hash: hash(*key),
                id_type: id_type.clone(),
                regulation: self.regulation,
                no,
                expires_at: is_of_device(id_type).then(|| self.at.plus_millis(self.device_ms)),
                created_at: self.at,
            }));
            for (place, subject) in person.subjects.iter().enumerate() {
                found.push(Found {
                    no: *subject,
                    profile_id: Some(person.profile_id),
                    events: if place == 0 { *events } else { 0 },
                    keys: person.identifiers.iter().map(|(.., key)| *key).collect(),
                });
            }
        }
        for (no, key) in &self.nobody {
            hashes.push((*no, hash(*key)));
            found.push(Found { no: *no, profile_id: None, events: 0, keys: vec![*key] });
        }
        journal::insert(&mut *tx, space, (self.regulation, &hashes), (self.until, self.at)).await?;
        if self.suppresses {
            // Not those of whom it was taken back while the act waited.
            let subjects: Vec<i32> = suppressed.iter().map(|row| row.no).collect();
            let still = suppression::list_still(&mut *tx, space, (self.regulation, &subjects)).await?;
            suppressed.retain(|row| still.contains(&row.no));
            suppression::insert(&mut *tx, space, &suppressed).await?;
        }
        people::set_erased(tx, space, self.regulation, &found, (self.until, self.at)).await
    }
}

/// Text as a regular expression of Postgres means it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\^$.|?*+()[]{}".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Text as `LIKE` means it.
fn liked(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// The values that have been seen of events and traits.
struct Known {
    seen: HashMap<(SeenKind, String), Seen>,
    changed: HashSet<(SeenKind, String)>,
}

impl Known {
    async fn load(tx: &mut PgConnection, space: SpaceNo) -> Result<Self> {
        let mut seen = HashMap::new();
        for kind in [SeenKind::Event, SeenKind::UserTraits, SeenKind::AccountTraits] {
            let rows = schema::list_seen(&mut *tx, space, kind, None).await?;
            seen.extend(rows.into_iter().map(|(name, seen)| ((kind, name), seen)));
        }
        Ok(Self { seen, changed: HashSet::new() })
    }

    /// Takes the values of an event out.
    fn forget(&mut self, record: &Record<'_>) {
        let (kind, name, body) = match record.event_type {
            EventType::Identify => (SeenKind::UserTraits, "", record.traits().unwrap_or_default()),
            // An account keeps its traits.
            EventType::Group | EventType::Alias => return,
            _ => (SeenKind::Event, record.name, record.body),
        };
        let key = (kind, name.to_owned());
        if self.seen.get_mut(&key).is_some_and(|seen| seen.forget(body)) {
            self.changed.insert(key);
        }
    }

    async fn write(&self, tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
        let changed =
            self.changed.iter().filter_map(|key| Some((key.0, key.1.as_str(), self.seen.get(key)?)));
        let rows: Vec<(SeenKind, &str, &Seen)> = changed.collect();
        if rows.is_empty() { Ok(()) } else { schema::replace_fields(tx, space, &rows).await }
    }
}
