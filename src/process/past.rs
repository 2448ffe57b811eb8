//! The past of some profiles: their events, read back from the log in its order, and folded again.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgPool;

use super::accounts;
use super::acts::list_value;
use super::apply::{Ground, Incoming, is_absent, note_link, set_traits};
use super::consent;
use super::evaluate::spill;
use super::objections;
use super::work::Work;
use crate::domain::{Act, EventType, Offset, ProfileNo, SpaceNo, Timestamp};
use crate::engine::identity::Graph;
use crate::engine::profile::{Pointer, Profile, decode_pointers};
use crate::engine::traits::Write;
use crate::store::log::HistoryChunk;
use crate::store::log::codec::{Record, Records};
use crate::store::log::numbers::Fate;
use crate::store::{Result, StoreError, corrections, processor, timeline};

/// Events asked for at a time.
const EVENTS_AT_A_TIME: usize = 500;
/// Chunks read at a time: what they take is bounded, also where each holds one event that is wanted.
const CHUNKS_AT_A_TIME: usize = 16;

const EARLIEST: Timestamp = Timestamp::from_millis(i64::MIN);
const LATEST: Timestamp = Timestamp::from_millis(i64::MAX);

/// The places of all events of a profile, and of the acts about it, in order.
pub(super) async fn offsets_of(
    connection: &mut PgConnection,
    space: SpaceNo,
    profile: &Profile,
) -> Result<Vec<Offset>> {
    let pages = timeline::list_pages(connection, space, &profile.numbers(), EARLIEST, LATEST).await?;
    let mut offsets: Vec<Offset> = profile.pointers().iter().map(|pointer| pointer.offset).collect();
    for page in pages {
        let damaged = || StoreError::Damaged(format!("pointers of profile {} cannot be read", profile.no));
        offsets.extend(decode_pointers(&page).ok_or_else(damaged)?.iter().map(|pointer| pointer.offset));
    }
    offsets.sort_unstable();
    offsets.dedup();
    Ok(offsets)
}

/// Keeps a processor's lease while it reads for long.
pub(super) struct Keep {
    pub pool: PgPool,
    pub epoch: i64,
    pub lease: Duration,
}

/// Reads events of the log, in its order. `offsets` are in order; those that are kept no longer are left out.
pub(super) struct Past<'a> {
    pub space: SpaceNo,
    pub offsets: &'a [Offset],
    /// None where nothing is to be kept: a dry run.
    pub keep: Option<&'a Keep>,
}

/// The chunk an event stands in, for whoever writes to whom it belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub offset: Offset,
    /// Of the events in its chunk, which one it is.
    pub index: usize,
    pub chunk: &'a corrections::Reattributed,
}

impl Past<'_> {
    /// Hands every event to `take`, with its place and to whom it belongs.
    pub(super) async fn read(
        &self,
        connection: &mut PgConnection,
        mut take: impl FnMut(&Record<'_>, Place<'_>, Fate) -> Result<()> + Send,
    ) -> Result<()> {
        let mut rest = self.offsets;
        while !rest.is_empty() {
            if let Some(Keep { pool, epoch, lease }) = self.keep {
                processor::extend_lease(pool, self.space, *epoch, *lease).await?;
            }
            let asked = rest.get(..EVENTS_AT_A_TIME).unwrap_or(rest);
            let chunks =
                corrections::read_containing(&mut *connection, self.space, asked, CHUNKS_AT_A_TIME).await?;
            let is_cut = chunks.len() == CHUNKS_AT_A_TIME;
            let last = chunks.last().filter(|_| is_cut).map(|history| history.chunk.end_offset);
            let done = last.map_or(asked.len(), |last| asked.partition_point(|offset| *offset <= last));
            for history in chunks {
                take_chunk(history, asked, &mut take)?;
                tokio::task::yield_now().await;
            }
            rest = rest.get(done..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Hands over what is asked for of a chunk.
fn take_chunk(
    history: HistoryChunk,
    offsets: &[Offset],
    take: &mut impl FnMut(&Record<'_>, Place<'_>, Fate) -> Result<()>,
) -> Result<()> {
    let content = history.chunk.content()?;
    let fates = Fate::decode_all(&history.numbers)?;
    let (end_offset, day) = (history.chunk.end_offset, history.chunk.day);
    let first = history.chunk.first_offset();
    let chunk = corrections::Reattributed { end_offset, day, numbers: history.numbers };
    for (index, (record, fate)) in Records::new(&content)?.zip(fates).enumerate() {
        let (record, offset) = (record?, Offset(first.0 + index as u64));
        if offsets.binary_search(&offset).is_ok() {
            take(&record, Place { offset, index, chunk: &chunk }, fate)?;
        }
    }
    Ok(())
}

/// Folds an event of the past into a user that is made anew. Its accounts are left alone: they are made anew when all their
/// users are.
pub(super) fn fold_again(
    work: &mut Work,
    user: ProfileNo,
    account: Option<ProfileNo>,
    event: &Incoming<'_>,
    ground: &Ground<'_>,
) {
    let record = event.record;
    let Some(entry) = work.entries.get_mut(&user) else { return };
    let pointer = Pointer { offset: event.offset, at: record.timestamp };
    entry.profile.note_event(pointer, record.received_at, !is_absent(record));
    match (record.event_type, account) {
        (EventType::Identify, _) => set_traits(work, ground.space, user, event, ground.catalog),
        (EventType::Group, Some(account)) => {
            note_link(work, user, account, record);
        }
        _ => {}
    }
    if let Some(entry) = work.entries.get_mut(&user) {
        // What of it cannot be used was told when the event came.
        let _told = consent::set(entry, record, ground.catalog);
        accounts::fold_user(entry, account, &record.facts(event.offset), ground.catalog);
        work.out.pages.extend(spill(entry, ground.catalog));
    }
}

/// Applies to a user that is made anew what an act of the past has left on it.
pub(super) fn act_again(work: &mut Work, user: ProfileNo, event: &Incoming<'_>) {
    let record = event.record;
    let account = event.ids.accounts.first().and_then(|account| work.owner(account.key));
    let Some(entry) = work.entries.get_mut(&user) else { return };
    entry.profile.note_act(Pointer { offset: event.offset, at: record.received_at });
    match serde_json::from_str(record.body) {
        Ok(Act::ChangeList { list, listed, .. }) => {
            let (at, message_id) = (record.received_at, record.message_id.to_owned());
            let write = Write { at, message_id, source: record.source, public: false };
            entry.profile.traits.update(|traits| {
                traits.apply(&write, [(list, list_value(listed))]);
                traits.tidy();
            });
        }
        Ok(act @ (Act::Object { .. } | Act::LiftObjections { .. })) => objections::set(entry, record, &act),
        Ok(Act::Unlink { .. }) => {
            let Some(gone) = account else { return };
            entry.profile.kin.update(|kin| kin.accounts.retain(|no| *no != gone));
            work.out.links.retain(|link| link.user != user || link.account != gone);
        }
        _ => {}
    }
}
