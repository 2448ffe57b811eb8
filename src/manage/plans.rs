//! A space's plan, as the server's owner changes it.

use super::{Manage, ManageError, Result};
use crate::domain::{Patch, Plan, PlanState, SpaceNo, Timestamp};
use crate::store::spaces;

/// First instant that is too late for a term: 10000-01-01T00:00:00Z, which RFC 3339 cannot write.
const TERM_END: Timestamp = Timestamp::from_millis(253_402_300_800_000);

/// What is to be changed of a plan; no state leaves it as it is.
#[derive(Debug, Clone, Default)]
pub struct PlanChange {
    /// A word of [`PlanState`].
    pub state: Option<String>,
    /// Beginning of the term, as a timestamp.
    pub starts_at: Patch<String>,
    /// End of the term, as a timestamp.
    pub ends_at: Patch<String>,
}

impl Manage {
    /// Changes the plan of a space. This process knows at once, others within a second.
    pub async fn change_plan(&self, space: SpaceNo, change: PlanChange) -> Result<Plan> {
        let changed = spaces::update_plan(&self.pool, space, |present| change.apply(present)).await?;
        self.registry.reload().await?;
        Ok(changed)
    }
}

impl PlanChange {
    fn apply(self, present: Plan) -> Result<Plan> {
        let Self { state, starts_at, ends_at } = self;
        if state.is_none() && starts_at.is_keep() && ends_at.is_keep() {
            let message = "name what is to be changed: state, starts_at or ends_at";
            return Err(ManageError::invalid("plan", message));
        }
        let changed = Plan {
            state: state.as_deref().map_or(Ok(present.state), read_state)?,
            starts_at: starts_at
                .try_map(|text| read_instant("plan.starts_at", &text))?
                .over(present.starts_at),
            ends_at: ends_at.try_map(|text| read_instant("plan.ends_at", &text))?.over(present.ends_at),
        };
        match (changed.starts_at, changed.ends_at) {
            (Some(start), Some(end)) if start >= end => {
                let message =
                    format!("the term would begin at {start} and end at {end}; it ends after it begins");
                Err(ManageError::invalid("plan.ends_at", message))
            }
            _ => Ok(changed),
        }
    }
}

fn read_state(word: &str) -> Result<PlanState> {
    PlanState::parse(word).ok_or_else(|| {
        let shown: String = word.chars().take(40).collect();
        let message = format!("there is no state `{shown}`; there are trial, active, suspended and ended");
        ManageError::invalid("plan.state", message)
    })
}

/// An instant as it was sent in a field.
pub(super) fn read_instant(field: &'static str, text: &str) -> Result<Timestamp> {
    let read = Timestamp::parse(text).filter(|at| (Timestamp::EPOCH..TERM_END).contains(at));
    let message = "send a timestamp such as 2024-03-01T12:00:00Z, or null for none";
    read.ok_or_else(|| ManageError::invalid(field, message))
}
