//! What operators do to profiles: what it would do, and what it did.

use uuid::Uuid;

use super::{Manage, Result};
use crate::domain::act::Effect;
use crate::domain::{Act, Offset, SpaceNo};
use crate::process;
use crate::store::{audit, identity};

pub use crate::store::audit::AuditEntry;
pub use crate::store::identity::Merge;

impl Manage {
    /// What an act would do to the space as it stands now. Nothing is changed.
    pub async fn try_act(&self, space: SpaceNo, act: &Act) -> Result<Effect> {
        Ok(process::try_act(&self.door(space), space, act, self.clock.now(), self.limits.query).await?)
    }

    /// What the act at a place of the log did; none while it is not done yet.
    pub async fn find_act(&self, space: SpaceNo, offset: Offset) -> Result<Option<AuditEntry>> {
        Ok(audit::find(&self.door(space), space, offset).await?)
    }

    /// A merge, also one that was taken back.
    pub async fn find_merge(&self, space: SpaceNo, id: Uuid) -> Result<Option<Merge>> {
        Ok(identity::find_merge(&self.door(space), space, id).await?)
    }
}
