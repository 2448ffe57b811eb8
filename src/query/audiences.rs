//! Audiences and computed traits as they are polled: sizes, members, values, transitions.

use std::sync::Arc;

use hashbrown::HashMap;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::coalesce::Ask;
use super::{QueryError, Reader};
use crate::domain::{ComputationNo, ProfileNo, SpaceNo, Timestamp};
use crate::engine::profile::{OutcomeValue, Profile};
use crate::store::definitions::{self, Definition, Kind};
use crate::store::memberships::{self, Member, Transition};
use crate::store::{StoreError, profiles, walled};

/// Profiles read at a time for a page of values.
const READ_AT_A_TIME: i64 = 1_000;

/// A profile's value of a computed trait.
#[derive(Debug, Clone)]
pub struct ValueRow {
    /// Live number.
    pub no: ProfileNo,
    /// Public id.
    pub id: Uuid,
    /// JSON text.
    pub json: String,
    /// Since when.
    pub since: Timestamp,
}

/// The size of an audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// Its key.
    pub key: String,
    /// Members.
    pub size: i64,
    /// When that last changed.
    pub changed_at: Timestamp,
}

/// Definitions by kind and key.
#[derive(Debug, Clone)]
pub(super) struct Definitions(pub(super) PgPool);

impl Ask for Definitions {
    type Key = (Kind, String);
    type Answer = Definition;

    async fn ask(
        &self,
        space: SpaceNo,
        keys: &[(Kind, String)],
    ) -> Result<HashMap<(Kind, String), Definition>, StoreError> {
        let wanted: Vec<&str> = keys.iter().map(|(_, key)| key.as_str()).collect();
        let found =
            definitions::list_definitions(&walled(&self.0, space), space, None, Some(&wanted)).await?;
        Ok(found.into_iter().map(|of| ((of.kind, of.key.clone()), of)).collect())
    }
}

/// The sizes of all audiences of a space.
#[derive(Debug, Clone)]
pub(super) struct Sizes(pub(super) PgPool);

impl Ask for Sizes {
    type Key = ();
    type Answer = Arc<[Size]>;

    async fn ask(&self, space: SpaceNo, _all: &[()]) -> Result<HashMap<(), Arc<[Size]>>, StoreError> {
        let rows = definitions::list_sizes(&walled(&self.0, space), space).await?;
        let sizes = rows.into_iter().map(|(key, size, changed_at)| Size { key, size, changed_at });
        Ok(HashMap::from_iter([((), sizes.collect())]))
    }
}

impl Reader {
    /// A definition by its key.
    pub async fn find_definition(
        &self,
        space: SpaceNo,
        kind: Kind,
        key: &str,
    ) -> Result<Option<Definition>, QueryError> {
        self.asks.definitions.find(space, (kind, key.to_owned())).await
    }

    /// Sizes of all audiences that have a complete version, by key.
    pub async fn list_sizes(&self, space: SpaceNo) -> Result<Arc<[Size]>, QueryError> {
        Ok(self.asks.sizes.find(space, ()).await?.unwrap_or_default())
    }

    /// A page of an audience's members.
    pub async fn list_members(
        &self,
        space: SpaceNo,
        computation: ComputationNo,
        after: ProfileNo,
        limit: i64,
    ) -> Result<Vec<Member>, QueryError> {
        Ok(memberships::list_members(&self.door(space), space, computation, after, limit).await?)
    }

    /// A page of an audience's transitions, newest first.
    pub async fn list_transitions(
        &self,
        space: SpaceNo,
        definition: i32,
        before: i64,
        limit: i64,
    ) -> Result<Vec<(Transition, Uuid)>, QueryError> {
        Ok(memberships::list_transitions(&self.door(space), space, definition, before, limit).await?)
    }

    /// A page of the values of a computed trait, by profile number; profiles without one are left out.
    pub async fn list_values(
        &self,
        space: SpaceNo,
        computation: ComputationNo,
        after: ProfileNo,
        limit: usize,
    ) -> Result<Vec<ValueRow>, QueryError> {
        let (mut rows, mut after) = (Vec::new(), after);
        // Nothing serves yet, so nobody has a value.
        while computation.0 != 0 && rows.len() < limit {
            let page = profiles::list_states(&self.door(space), space, after, READ_AT_A_TIME).await?;
            let Some(last) = page.last() else { break };
            after = last.0;
            for (no, state) in page {
                let profile = Profile::decode(&state)?;
                let Some(outcome) = profile.outcome(computation) else { continue };
                if let OutcomeValue::Value(Some(json)) = &outcome.value {
                    rows.push(ValueRow { no, id: profile.id, json: json.clone(), since: outcome.since });
                }
            }
        }
        rows.truncate(limit);
        Ok(rows)
    }
}
