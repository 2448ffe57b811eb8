//! A stored profile as plans look at it.

use std::borrow::Cow;

use uuid::Uuid;

use super::evaluate::{Users, View};
use super::profile::{OutcomeValue, Profile};
use super::seats::Tally;
use super::state::{LeafState, LeafStates};
use crate::domain::{ComputationNo, LeafNo, Timestamp, Value};

/// A profile, whose states may be others than those it keeps itself.
#[derive(Debug, Clone, Copy)]
pub struct ProfileView<'a, A> {
    /// Traits and outcomes.
    pub profile: &'a Profile,
    /// States by leaf.
    pub leaves: &'a LeafStates,
    /// Of an account: what the definition that is evaluated knows of its users.
    pub tally: Option<&'a Tally>,
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

    fn users(&self, quantifier: usize) -> Users {
        self.tally.map_or_else(Users::default, |tally| Users {
            holding: tally.holding(quantifier),
            all: tally.all(),
        })
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

/// A user as a member of an account: with the events that count for that account.
#[derive(Debug, Clone, Copy)]
pub struct SeatView<'a, A> {
    /// The user, with the states of events that name no account.
    pub user: ProfileView<'a, A>,
    /// States of events that name this account.
    pub named: Option<&'a LeafStates>,
}

impl<A: Fn(&str) -> Option<ComputationNo>> View for SeatView<'_, A> {
    fn profile_id(&self) -> Uuid {
        self.user.profile_id()
    }

    fn leaf(&self, leaf: LeafNo) -> Option<Cow<'_, LeafState>> {
        let own = self.user.leaf(leaf);
        match (own, self.named.and_then(|named| named.get(leaf))) {
            (Some(own), Some(named)) => {
                let mut both = own.into_owned();
                both.merge(named.into_owned());
                Some(Cow::Owned(both))
            }
            (own, named) => own.or(named),
        }
    }

    fn computed_since(&self, name: &str) -> Option<Option<Timestamp>> {
        self.user.computed_since(name)
    }

    fn trait_value(&self, name: &str) -> Option<Cow<'_, Value>> {
        self.user.trait_value(name)
    }
}
