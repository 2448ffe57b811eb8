//! What identity resolution refuses, and which values it refuses for good.

use uuid::Uuid;

use super::{Manage, Result};
use crate::domain::identifier::normalise;
use crate::domain::{Collection, IdKey, SpaceNo, Timestamp};
use crate::store::{identity_problems, quarantine};

pub use crate::store::identity_problems::{Problem as IdentityProblem, RuleCount};
pub use crate::store::quarantine::Quarantined;

/// Whose identifiers have a type (I12b).
fn collection_of(id_type: &str) -> Collection {
    if id_type == "group_id" { Collection::Accounts } else { Collection::Users }
}

impl Manage {
    /// What identity resolution refuses in a space, the most frequent first, behind (occurrences, key); each with the time
    /// since when it is in quarantine.
    pub async fn list_identity_problems(
        &self,
        space: SpaceNo,
        after: Option<(i64, Uuid)>,
        limit: usize,
    ) -> Result<Vec<(IdentityProblem, Option<Timestamp>)>> {
        let rows = identity_problems::list_problems(&self.door(space), space, after, limit as i64).await?;
        let key = |p: &IdentityProblem| IdKey::of(collection_of(&p.id_type), &p.id_type, &p.value);
        let keys: Vec<IdKey> = rows.iter().map(key).collect();
        let known = quarantine::find_suspects(&self.door(space), space, &keys).await?;
        let at = |key: IdKey| known.iter().find(|(of, _)| *of == key).and_then(|(_, row)| row.quarantined_at);
        Ok(rows.into_iter().zip(keys).map(|(row, key)| (row, at(key))).collect())
    }

    /// What each rule has refused in a space, the one that refuses most first.
    pub async fn count_identity_problems(&self, space: SpaceNo) -> Result<Vec<RuleCount>> {
        Ok(identity_problems::list_rules(&self.door(space), space).await?)
    }

    /// The values in quarantine, the newest first, behind (time, key).
    pub async fn list_quarantined(
        &self,
        space: SpaceNo,
        after: Option<(Timestamp, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Quarantined>> {
        Ok(quarantine::list_quarantined(&self.door(space), space, after, limit as i64).await?)
    }

    /// Whose a value in quarantine would be, and the value normalised; none when it is not in quarantine.
    pub async fn find_quarantined(
        &self,
        space: SpaceNo,
        id_type: &str,
        value: &str,
    ) -> Result<Option<(Collection, String)>> {
        let settings = self.identity_settings(space).await?;
        let Some(known) = settings.types.into_iter().find(|t| t.name == id_type) else { return Ok(None) };
        let (collection, value) = (collection_of(id_type), normalise(value, known.case_insensitive));
        let key = IdKey::of(collection, id_type, &value);
        let found = quarantine::find_suspects(&self.door(space), space, &[key]).await?;
        let is_in = found.iter().any(|(_, row)| row.quarantined_at.is_some());
        Ok(is_in.then_some((collection, value)))
    }
}
