//! Regulations: who is to be forgotten, who is not to be heard of again, and how far that is (privacy duties P1, P3, P5).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use uuid::Uuid;

use super::{Manage, ManageError, Result};
use crate::domain::act::Actor;
use crate::domain::id_type::IdType;
use crate::domain::identifier::normalise;
use crate::domain::ids::{parse_public_id, public_id};
use crate::domain::regulation::{IdHash, RegulationType, SECRET_BYTES, is_of_device};
use crate::domain::{Act, Collection, IdKey, Offset, SpaceNo, Timestamp};
use crate::engine::profile::Profile;
use crate::store::regulations::{self, NewRegulation, Wanted, journal, people, suppression};
use crate::store::{StoreError, identity_settings, profiles};

pub use crate::store::regulations::suppression::Suppressed;
pub use crate::store::regulations::{Regulation, Stream};

/// People one regulation may name.
pub const SUBJECTS_MAX: usize = 5_000;
/// Days that identifiers of devices stay suppressed where nothing else is said.
pub const DEVICE_DAYS: i32 = 30;
/// Most days of that.
const DEVICE_DAYS_MAX: i32 = 3_650;
/// People one act erases: it is one transaction.
const PEOPLE_AN_ACT: usize = 50;
/// The word for people who are named by public ids.
const BY_PROFILE: &str = "profile_id";
/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct RegulationWish {
    /// Segment's word.
    pub kind: String,
    /// `USER_ID`, or another type of identifier, or `profile_id`.
    pub subject_type: String,
    /// Who.
    pub subject_ids: Vec<String>,
    /// How many days identifiers of devices stay suppressed.
    pub device_days: Option<i32>,
}

/// A regulation as it is shown.
#[derive(Debug, Clone)]
pub struct Progress {
    /// What was asked for, and how far it is here.
    pub regulation: Regulation,
    /// How far it is at destinations.
    pub streams: Vec<Stream>,
}

/// Identifiers of spaces by their hashes.
#[derive(Debug, Default)]
pub struct KnownIds(HashMap<SpaceNo, HashMap<IdHash, IdKey>>);

/// People as they are found, by type and hash.
struct Named {
    key: IdKey,
    /// All that is to be suppressed of them.
    all: Vec<(String, IdKey)>,
}

impl Manage {
    /// Takes a regulation down. What is suppressed is so from now on in this process, in others within a second. Returns it,
    /// and the acts that have to be written into the log.
    pub async fn regulate(
        &self,
        space: SpaceNo,
        wish: RegulationWish,
        by: Actor,
    ) -> Result<(Progress, Vec<Act>)> {
        let kind = RegulationType::parse(&wish.kind).ok_or_else(|| {
            let known: Vec<&str> = RegulationType::ALL.iter().map(|kind| kind.word()).collect();
            ManageError::invalid("regulation_type", format!("it must be one of {}", known.join(", ")))
        })?;
        let device_days = wish.device_days.unwrap_or(DEVICE_DAYS);
        if !(0..=DEVICE_DAYS_MAX).contains(&device_days) {
            return Err(ManageError::invalid("device_days", format!("it must be 0 to {DEVICE_DAYS_MAX}")));
        }
        if wish.subject_ids.is_empty() || wish.subject_ids.len() > SUBJECTS_MAX {
            let message = format!("it names {} people; 1 to {SUBJECTS_MAX} can be", wish.subject_ids.len());
            return Err(ManageError::invalid("subject_ids", message));
        }
        let types = identity_settings::read_settings(&self.door(space), space).await?.types;
        let subject_type = wish.subject_type.to_lowercase();
        let named = if subject_type == BY_PROFILE {
            self.by_profile(space, &types, &wish.subject_ids).await?
        } else {
            let id_type = types.iter().find(|known| known.name == subject_type).ok_or_else(|| {
                let message = format!(
                    "{subject_type:?} is no type of identifier of this space; write USER_ID, another type, or profile_id"
                );
                ManageError::invalid("subject_type", message)
            })?;
            self.by_identifier(space, &types, id_type, &wish.subject_ids).await?
        };
        let (id, at) = (self.ids.uuid(), self.clock.now());
        let new = NewRegulation { id, kind, subject_type, device_days, by, at };
        self.write_regulation(space, &new, &named).await?;
        self.registry.reload_keep_outs().await?;
        let progress = self.find_regulation(space, id).await?;
        let progress =
            progress.ok_or_else(|| StoreError::Damaged("a regulation was not written".to_owned()))?;
        let count = if kind.erases() { named.len() } else { 0 };
        let acts = (0..count).step_by(PEOPLE_AN_ACT).map(|first| Act::Erase {
            regulation: id,
            first: first as i32,
            count: PEOPLE_AN_ACT.min(count - first) as i32,
        });
        Ok((progress, acts.collect()))
    }

    async fn write_regulation(&self, space: SpaceNo, new: &NewRegulation, named: &[Named]) -> Result<()> {
        let mut tx = self.door(space).begin().await?;
        let secret = suppression::secret(&mut tx, space, &self.ids.bytes::<SECRET_BYTES>()).await?;
        regulations::insert(&mut tx, space, new).await?;
        let hash = |key: IdKey| IdHash::of(&secret, key);
        let keys: Vec<(IdKey, IdHash)> = named.iter().map(|named| (named.key, hash(named.key))).collect();
        people::insert(&mut tx, space, new.id, (&keys, new.kind.erases())).await?;
        if new.kind.erases() {
            // From now on, nothing is taken that happened before.
            let of = |(no, named): (usize, &Named)| {
                named.all.iter().map(move |(_, key)| (no as i32, hash(*key))).collect::<Vec<_>>()
            };
            let hashes: Vec<(i32, IdHash)> = named.iter().enumerate().flat_map(of).collect();
            journal::insert(&mut tx, space, (new.id, &hashes), (Offset(0), new.at)).await?;
        }
        if new.kind.suppresses() {
            let until = new.at.plus_millis(i64::from(new.device_days) * DAY_MS);
            let rows = named.iter().enumerate().flat_map(|(no, named)| {
                named.all.iter().map(move |(id_type, key)| Suppressed {
                    hash: hash(*key),
                    id_type: id_type.clone(),
                    regulation: new.id,
                    no: no as i32,
                    // Who is named by it is meant, whatever it is.
                    expires_at: (*key != named.key && is_of_device(id_type)).then_some(until),
                    created_at: new.at,
                })
            });
            suppression::insert(&mut tx, space, &rows.collect::<Vec<_>>()).await?;
        } else if new.kind == RegulationType::Unsuppress {
            let hashes: Vec<IdHash> = named.iter().flat_map(|n| &n.all).map(|(_, key)| hash(*key)).collect();
            suppression::delete(&mut tx, space, &hashes).await?;
        }
        Ok(tx.commit().await.map_err(StoreError::from)?)
    }

    async fn by_identifier(
        &self,
        space: SpaceNo,
        types: &[IdType],
        id_type: &IdType,
        ids: &[String],
    ) -> Result<Vec<Named>> {
        let folds = id_type.case_insensitive;
        let mut keys = Vec::with_capacity(ids.len());
        for (place, id) in ids.iter().enumerate() {
            let value = normalise(id, folds);
            if value.is_empty() || value.contains('\0') {
                return Err(ManageError::invalid(format!("subject_ids[{place}]"), "it is empty or no text"));
            }
            keys.push(IdKey::of(Collection::Users, &id_type.name, &value));
        }
        let found =
            profiles::find_by_keys(&self.door(space), space, &keys, std::time::Duration::ZERO).await?;
        let mut named = Vec::with_capacity(keys.len());
        for key in keys {
            let mut all = vec![(id_type.name.clone(), key)];
            if let Some(profile) = found.iter().find(|found| found.key == key) {
                all.extend(identifiers(&profile.state, types)?);
            }
            named.push(Named { key, all });
        }
        Ok(named)
    }

    async fn by_profile(&self, space: SpaceNo, types: &[IdType], ids: &[String]) -> Result<Vec<Named>> {
        let mut wanted = Vec::with_capacity(ids.len());
        for (place, id) in ids.iter().enumerate() {
            wanted.push(parse_public_id("prf", id).ok_or_else(|| {
                ManageError::invalid(format!("subject_ids[{place}]"), "it is no id of a profile: prf_…")
            })?);
        }
        let found = profiles::find_by_ids(&self.door(space), space, &wanted).await?;
        let mut named = Vec::with_capacity(wanted.len());
        for (place, id) in wanted.iter().enumerate() {
            let missing = || {
                let message = format!("there is no user {}", public_id("prf", *id));
                ManageError::invalid(format!("subject_ids[{place}]"), message)
            };
            let (_, _, state) = found.iter().find(|(known, ..)| known == id).ok_or_else(missing)?;
            let all = identifiers(state, types)?;
            let (_, key) = all.first().ok_or_else(missing)?;
            named.push(Named { key: *key, all });
        }
        Ok(named)
    }

    /// A regulation, and how far it is.
    pub async fn find_regulation(&self, space: SpaceNo, id: Uuid) -> Result<Option<Progress>> {
        let wanted = Wanted { id: Some(id), limit: 1, ..Wanted::default() };
        Ok(self.list_regulations_of(space, &wanted).await?.pop())
    }

    /// A page of regulations, newest first: of one type, done or not.
    pub async fn list_regulations(
        &self,
        space: SpaceNo,
        (kind, finished): (Option<RegulationType>, Option<bool>),
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Progress>> {
        self.list_regulations_of(space, &Wanted { kind, finished, before, id: None, limit: limit as i64 })
            .await
    }

    async fn list_regulations_of(&self, space: SpaceNo, wanted: &Wanted) -> Result<Vec<Progress>> {
        let all = regulations::list(&self.door(space), space, wanted).await?;
        let ids: Vec<Uuid> = all.iter().map(|regulation| regulation.id).collect();
        let streams = regulations::list_streams(&self.door(space), space, &ids).await?;
        let progress = |regulation: Regulation| {
            let of = streams.iter().filter(|(id, _)| *id == regulation.id);
            Progress { streams: of.map(|(_, stream)| stream.clone()).collect(), regulation }
        };
        Ok(all.into_iter().map(progress).collect())
    }

    /// Puts what the journal says of somebody into a database that was restored and does not know it. Whether that was so.
    /// `known` are the identifiers of spaces, read when they are needed first.
    pub async fn put_back(&self, entry: &journal::Entry, known: &mut KnownIds) -> Result<bool> {
        let mut tx = self.pool.begin().await.map_err(StoreError::from)?;
        let Some((space, false)) = journal::find(&mut tx, entry).await? else { return Ok(false) };
        let mut keys: Vec<IdKey> = Vec::new();
        if entry.erased_at.is_some() {
            let ids = match known.0.entry(space) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let secret = hex::decode(&entry.secret).unwrap_or_default();
                    let all = journal::list_keys(&mut *tx, space).await?.into_iter();
                    unknown.insert(all.map(|key| (IdHash::of(&secret, key), key)).collect())
                }
            };
            let hashes = entry.erased.iter().filter_map(|hash| IdHash::from_hex(hash));
            keys.extend(hashes.filter_map(|hash| ids.get(&hash).copied()));
        }
        journal::put_back(&mut tx, space, entry, &keys).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(true)
    }

    /// Whether somebody waits to be erased whom a processor will erase. A space that only collects events has none: its profiles
    /// are not answered for, and who waits there is erased when they are again.
    pub async fn has_waiting_erasures(&self) -> Result<bool> {
        let (snapshot, now) = (self.registry.snapshot(), self.clock.now());
        let is_processed =
            |no: &SpaceNo| snapshot.space(*no).is_none_or(|space| space.plan.has_profiles(now));
        Ok(journal::list_waiting(&self.pool).await?.iter().any(is_processed))
    }

    /// A page of what is suppressed: hashes, in their order.
    pub async fn list_suppressions(
        &self,
        space: SpaceNo,
        after: Option<IdHash>,
        limit: usize,
    ) -> Result<Vec<Suppressed>> {
        Ok(suppression::list(&self.door(space), space, (after, limit as i64), None).await?)
    }

    /// Whether an identifier is suppressed at this moment.
    pub async fn find_suppression(
        &self,
        space: SpaceNo,
        id_type: &str,
        id: &str,
    ) -> Result<Option<Suppressed>> {
        let types = identity_settings::read_settings(&self.door(space), space).await?.types;
        let known = types.iter().find(|known| known.name == id_type);
        let folds = known.is_some_and(|known| known.case_insensitive);
        let Some(secret) = suppression::find_secret(&self.door(space), space).await? else { return Ok(None) };
        let hash = IdHash::of(&secret, IdKey::of(Collection::Users, id_type, &normalise(id, folds)));
        let found = suppression::list(&self.door(space), space, (None, 1), Some(hash)).await?.pop();
        let now: Timestamp = self.clock.now();
        Ok(found.filter(|found| found.expires_at.is_none_or(|end| now < end)))
    }
}

/// All identifiers of an encoded profile.
fn identifiers(state: &bytes::Bytes, types: &[IdType]) -> Result<Vec<(String, IdKey)>> {
    let profile = Profile::decode(state).map_err(|e| StoreError::Damaged(format!("a profile: {e}")))?;
    let held = profile.owned.get().identifiers.iter();
    let known = held.filter_map(|held| {
        let id_type = types.iter().find(|known| known.no == held.type_no)?;
        Some((id_type.name.clone(), IdKey::of(Collection::Users, &id_type.name, &held.value)))
    });
    Ok(known.collect())
}
