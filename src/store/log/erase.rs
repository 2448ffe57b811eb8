//! Taking what somebody said out of the log: the events of who is erased stay as places, so that all offsets and all that
//! is counted by them stay right, and say nothing any more.
//!
//! Of an event that was an account's, too, stays what makes the account what it is: that it is named, the traits of a `group`
//! call, and the message id by which the newest of two is told. Chunks are rewritten under the lock that keeps segments from being made, and the segments that cover them
//! are forgotten by the same transaction.

use serde_json::value::RawValue;
use sqlx::PgConnection;

use super::codec::{FORMAT, Record, Records};
use super::numbers::Fate;
use super::{Chunk, HistoryChunk};
use crate::domain::act::Signed;
use crate::domain::{Act, Collection, EventType, IdKey, Offset, SpaceNo, json};
use crate::store::corrections::{Reattributed, reattribute};
use crate::store::{Result, StoreError};

/// Fast and small, as chunks are when they come in.
const COMPRESSION_LEVEL: i32 = 1;

/// What becomes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It stays as it is.
    Keep,
    /// It says nothing any more.
    Erase,
}

/// A chunk as it is to be.
#[derive(Debug)]
pub struct Rewritten {
    chunk: Reattributed,
    body: Vec<u8>,
    /// Records that were erased.
    pub erased: u64,
}

/// Up to which place of the log identifiers are those of somebody who is erased.
pub type Erased = hashbrown::HashMap<IdKey, Offset>;

/// Goes through a chunk: what `cut` says is erased; of acts up to that place, whoever has one of the `keys` is left out. None
/// where nothing changes.
pub fn rewrite(
    history: &HistoryChunk,
    keys: &Erased,
    mut cut: impl FnMut(&Record<'_>, Offset, Fate) -> Cut,
) -> Result<Option<Rewritten>> {
    let Chunk { end_offset, day, .. } = history.chunk;
    let content = history.chunk.content()?;
    let fates = Fate::decode_all(&history.numbers)?;
    let mut out = vec![FORMAT];
    let (mut numbers, mut erased) = (Vec::with_capacity(history.numbers.len()), 0);
    let mut offset = history.chunk.first_offset();
    for (record, fate) in Records::new(&content)?.zip(fates) {
        let record = record?;
        let fate = if record.act {
            if let Some(without) = without(&record, offset, keys) {
                without.as_record(&record).encode(&mut out);
                erased += 1;
            } else {
                record.encode(&mut out);
            }
            fate
        } else if cut(&record, offset, fate) == Cut::Erase {
            erased += 1;
            erase(&record, offset, fate, &mut out)
        } else {
            record.encode(&mut out);
            fate
        };
        fate.encode(&mut numbers);
        offset.0 += 1;
    }
    if erased == 0 {
        return Ok(None);
    }
    let body = zstd::bulk::compress(&out, COMPRESSION_LEVEL)
        .map_err(|error| StoreError::Damaged(format!("a chunk could not be rewritten: {error}")))?;
    Ok(Some(Rewritten { chunk: Reattributed { end_offset, day, numbers }, body, erased }))
}

/// Writes what is left of an event, and says whose that is.
fn erase(record: &Record<'_>, offset: Offset, fate: Fate, out: &mut Vec<u8>) -> Fate {
    let message_id = format!("erased-{offset}");
    let place = Record::place(record.event_type, record.source, &message_id, record.received_at);
    let nothing = Record { clamped: record.clamped, timestamp: record.timestamp, ..place };
    let Fate::Attributed { account: Some(account), .. } = fate else {
        nothing.encode(out);
        return Fate::Nobodys;
    };
    let is_group = record.event_type == EventType::Group;
    let context = account_of(record.context);
    let kept = Record {
        unprofiled: false,
        // By these it is told which of two traits stands.
        public: record.public,
        message_id: record.message_id,
        group_id: record.group_id,
        body: if is_group { record.traits().unwrap_or_default() } else { "" },
        context: &context,
        ..nothing
    };
    kept.encode(out);
    Fate::Attributed { user: None, account: Some(account) }
}

/// Of a context, what names an account.
fn account_of(context: &str) -> String {
    let [group, ids] = json::pick(context, ["groupId", "externalIds"]);
    let mut kept: Vec<String> = Vec::new();
    if let Some(group) = group {
        kept.push(format!("\"groupId\":{group}"));
    }
    let ids: Vec<&RawValue> = ids.and_then(|ids| serde_json::from_str(ids).ok()).unwrap_or_default();
    let of_accounts: Vec<&str> = ids
        .iter()
        .map(|id| id.get())
        .filter(|id| json::get(id, "collection") == Some("\"accounts\""))
        .collect();
    if !of_accounts.is_empty() {
        kept.push(format!("\"externalIds\":[{}]", of_accounts.join(",")));
    }
    if kept.is_empty() { String::new() } else { format!("{{{}}}", kept.join(",")) }
}

/// What is left of an act that names somebody who is erased.
enum Without {
    /// The others it is about.
    Others(String),
    /// Nobody.
    Nothing,
}

impl Without {
    fn as_record<'a>(&'a self, record: &Record<'a>) -> Record<'a> {
        match self {
            Self::Others(body) => Record { body, ..*record },
            Self::Nothing => Record { act: false, erased: true, unprofiled: true, body: "", ..*record },
        }
    }
}

fn without(record: &Record<'_>, offset: Offset, keys: &Erased) -> Option<Without> {
    let Signed { act, by } = serde_json::from_str(record.body).ok()?;
    let is_erased = |key: IdKey| keys.get(&key).is_some_and(|until| offset <= *until);
    if !act.identifiers().iter().any(|(collection, named)| is_erased(named.key(*collection))) {
        return None;
    }
    let Act::ChangeList { list, ids, listed } = act else { return Some(Without::Nothing) };
    let is_other = |(id_type, id): &(String, String)| !is_erased(IdKey::of(Collection::Users, id_type, id));
    let act = Act::ChangeList { list, ids: ids.into_iter().filter(is_other).collect(), listed };
    Some(Without::Others(serde_json::to_string(&Signed { act, by }).unwrap_or_default()))
}

/// Puts chunks in the place of what they were, and forgets the segments that say what they said.
pub async fn replace(tx: &mut PgConnection, space: SpaceNo, chunks: &[Rewritten]) -> Result<()> {
    sqlx::query(
        "-- store::log::erase::replace
         UPDATE event_chunk c SET body = n.body
         FROM unnest($2::bigint[], $3::date[], $4::bytea[]) AS n (end_offset, day, body)
         WHERE c.space_id = $1 AND c.end_offset = n.end_offset AND c.day = n.day",
    )
    .bind(space.0)
    .bind(chunks.iter().map(|c| c.chunk.end_offset.0 as i64).collect::<Vec<_>>())
    .bind(chunks.iter().map(|c| c.chunk.day).collect::<Vec<_>>())
    .bind(chunks.iter().map(|c| c.body.as_slice()).collect::<Vec<_>>())
    .execute(&mut *tx)
    .await?;
    let numbers: Vec<Reattributed> = chunks.iter().map(|c| c.chunk.clone()).collect();
    reattribute(tx, space, &numbers).await
}
