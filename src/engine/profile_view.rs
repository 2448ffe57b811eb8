//! A stored profile as plans look at it.

use std::borrow::Cow;

use uuid::Uuid;

use super::evaluate::View;
use super::profile::{OutcomeValue, Profile};
use super::state::{LeafState, LeafStates};
use crate::domain::{ComputationNo, LeafNo, Timestamp, Value};

/// A profile, whose states may be others than those it keeps itself.
#[derive(Debug, Clone, Copy)]
pub struct ProfileView<'a, A> {
    /// Traits and outcomes.
    pub profile: &'a Profile,
    /// States by leaf.
    pub leaves: &'a LeafStates,
    /// Which version answers for the key of an audience or computed trait.
    pub answers: A,
}

impl<A: Fn(&str) -> Option<ComputationNo>> View for ProfileView<'_, A> {
    fn profile_id(&self) -> Uuid {
        self.profile.id
    }

    fn leaf(&self, leaf: LeafNo) -> Option<Cow<'_, LeafState>> {
        self.leaves.get(leaf)
    }

    fn computed_since(&self, name: &str) -> Option<Option<Timestamp>> {
        let no = (self.answers)(name)?;
        let outcome = self.profile.outcome(no).filter(|outcome| outcome.value != OutcomeValue::Value(None));
        Some(outcome.map(|outcome| outcome.since))
    }

    fn trait_value(&self, name: &str) -> Option<Cow<'_, Value>> {
        if let Some(no) = (self.answers)(name) {
            return match self.profile.outcome(no)?.value {
                OutcomeValue::Member(is_member) => Some(Cow::Owned(Value::Bool(is_member))),
                OutcomeValue::Value(json) => Some(Cow::Owned(Value::from_json(json.as_deref()?))),
            };
        }
        Some(Cow::Owned(Value::from_json(self.profile.traits.get().get(name)?)))
    }
}
