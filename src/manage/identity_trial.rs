//! Dry runs of identity settings: what they would mean for the profiles there are.

use std::collections::HashSet;

use uuid::Uuid;

use super::identity_settings::{IdentitySettings, Proposal, SettingsChange, propose};
use super::{Manage, ManageError, Result};
use crate::domain::id_type::{IdType, TypeNo};
use crate::domain::{IdKey, ProfileNo, SpaceNo, Timestamp};
use crate::engine::identity::Settings;
use crate::engine::profile::Profile;
use crate::store::identity_trials::{self as store, WithinWindow};
use crate::store::{StoreError, profiles};

pub use crate::store::identity_trials::{Excess, Kind};

/// Profiles, and blocked values, a dry run shows.
const SAMPLE: usize = 10;
/// Profiles looked at, at a time.
const PROFILES: usize = 1_000;
/// Identifiers looked at, at a time.
const IDENTIFIERS: i64 = 10_000;

/// What settings would mean for the profiles there are.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The settings as they would be.
    pub settings: IdentitySettings,
    /// Profiles that break them.
    pub profiles: i64,
    /// Some of those, the worst first.
    pub sample: Vec<Excess>,
    /// Identifiers profiles have that would be blocked.
    pub blocked: Blocked,
}

/// Identifiers profiles have that would be blocked and are not now.
#[derive(Debug, Clone, Default)]
pub struct Blocked {
    /// How many.
    pub ids: u64,
    /// Profiles that have one.
    pub profiles: usize,
    /// Some of them: type, value, whose.
    pub sample: Vec<(TypeNo, String, Uuid)>,
}

impl Manage {
    /// Says what a change would mean, and changes nothing.
    pub async fn try_identity_settings(&self, space: SpaceNo, change: &SettingsChange) -> Result<Trial> {
        let Proposal { present, wanted: settings } = propose(&self.door(space), space, change).await?;
        let windowed = self.above_within_windows(space, &settings).await?;
        let (profiles, sample) =
            store::find_excess(&self.door(space), space, &settings, &windowed, SAMPLE as i64).await?;
        let blocked = self.newly_blocked(space, &present, &settings).await?;
        Ok(Trial { settings, profiles, sample, blocked })
    }

    /// Profiles with too many values of a type that has a window, as of now: values leave it, so each that may be one is
    /// looked at.
    async fn above_within_windows(
        &self,
        space: SpaceNo,
        settings: &IdentitySettings,
    ) -> Result<Vec<WithinWindow>> {
        let windowed: Vec<&IdType> =
            settings.types.iter().filter(|t| t.frequency.window_ms().is_some()).collect();
        if windowed.is_empty() {
            return Ok(Vec::new());
        }
        let (now, mut above) = (self.clock.now(), Vec::new());
        let candidates = store::list_above(&self.door(space), space, &windowed).await?;
        for numbers in candidates.chunks(PROFILES) {
            for (no, _, state) in profiles::find_by_numbers(&self.door(space), space, numbers).await? {
                let damaged = |e| StoreError::Damaged(format!("profile {no} of space {space}: {e}"));
                let profile = Profile::decode(&state).map_err(damaged)?;
                above.extend(windowed.iter().filter_map(|t| excess_of(&profile, t, now)));
            }
        }
        Ok(above)
    }

    /// Identifiers that would be blocked and are not now.
    async fn newly_blocked(
        &self,
        space: SpaceNo,
        present: &IdentitySettings,
        wanted: &IdentitySettings,
    ) -> Result<Blocked> {
        let lists = |t: &IdType| (t.blocked_exact.clone(), t.blocked_patterns.clone());
        let changed = |t: &&IdType| present.types.iter().any(|p| p.no == t.no && lists(p) != lists(t));
        let types: Vec<TypeNo> = wanted.types.iter().filter(changed).map(|t| t.no).collect();
        let mut found = Blocked::default();
        if types.is_empty() {
            return Ok(found);
        }
        let compile = |settings: &IdentitySettings| {
            Settings::new(settings.types.clone(), 0, 0)
                .map_err(|e| ManageError::from(StoreError::Damaged(e.to_string())))
        };
        let (before, after) = (compile(present)?, compile(wanted)?);
        let (mut owners, mut sample, mut key) = (HashSet::new(), Vec::new(), IdKey(0));
        loop {
            let held = store::list_held(&self.door(space), space, &types, key, IDENTIFIERS).await?;
            let Some(last) = held.last().map(|h| h.key) else { break };
            key = last;
            for held in held {
                let is_new = after.is_blocked(held.type_no, &held.value)
                    && !before.is_blocked(held.type_no, &held.value);
                if is_new {
                    found.ids += 1;
                    owners.insert(held.owner);
                    if sample.len() < SAMPLE {
                        sample.push(held);
                    }
                }
            }
        }
        found.profiles = owners.len();
        let numbers: Vec<ProfileNo> = sample.iter().map(|h| h.owner).collect();
        let ids = profiles::list_ids(&self.door(space), space, &numbers).await?;
        let id = |no| ids.iter().find(|(of, _)| *of == no).map(|(_, id)| *id);
        found.sample = sample.into_iter().filter_map(|h| Some((h.type_no, h.value, id(h.owner)?))).collect();
        Ok(found)
    }
}

fn excess_of(profile: &Profile, id_type: &IdType, now: Timestamp) -> Option<WithinWindow> {
    let from = now.plus_millis(-id_type.frequency.window_ms()?);
    let counts =
        profile.owned.get().identifiers.iter().filter(|h| h.type_no == id_type.no && h.first_seen > from);
    let (values, limit) = (counts.count() as i64, i64::from(id_type.limit));
    (values > limit).then_some(WithinWindow { profile: profile.no, type_no: id_type.no, values, limit })
}
