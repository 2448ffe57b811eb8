//! The door for people who are suppressed or were erased: nothing new is taken of the first, and of the others nothing that
//! happened before (privacy duties P3, P4).
//!
//! A device may be many people's: what has another identifier besides is not refused for a device's, and what has nothing
//! else is.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use super::identity::{Settings, extract};
use crate::domain::regulation::{IdHash, is_of_device};
use crate::domain::{Parts, SpaceNo, Timestamp};

/// What an identifier is kept out of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rule {
    /// Nothing new is taken; of a device until then.
    pub suppressed: Option<Option<Timestamp>>,
    /// Nothing that happened before that is taken.
    pub erased_at: Option<Timestamp>,
}

/// Why an event is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its person is suppressed.
    Suppressed,
    /// It happened before its person was erased.
    Erased,
}

impl Reason {
    /// Its code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Suppressed => "suppressed",
            Self::Erased => "erased",
        }
    }
}

/// Who is kept out of a space.
#[derive(Debug)]
pub struct KeepOut {
    /// By which identifiers are read.
    pub settings: Settings,
    /// Under which they are hashed.
    pub secret: Vec<u8>,
    /// Who.
    pub rules: HashMap<IdHash, Rule>,
}

impl KeepOut {
    /// Why an event that happened at a time is not stored; none where it is.
    pub fn judge(&self, event: &Parts<'_>, happened_at: Timestamp, now: Timestamp) -> Option<Reason> {
        if self.rules.is_empty() {
            return None;
        }
        let ids = extract(event, &self.settings);
        let judged = |rule: &Rule| {
            let is_suppressed = rule.suppressed.is_some_and(|until| until.is_none_or(|until| now < until));
            let is_erased = rule.erased_at.is_some_and(|at| happened_at < at);
            if is_suppressed { Some(Reason::Suppressed) } else { is_erased.then_some(Reason::Erased) }
        };
        let mut of_device = None;
        let mut others = false;
        for candidate in &ids.users {
            let rule = self.rules.get(&IdHash::of(&self.secret, candidate.key));
            let reason = rule.and_then(judged);
            let known = self.settings.by_no(candidate.type_no);
            if known.is_some_and(|known| is_of_device(&known.name)) {
                of_device = of_device.or(reason);
            } else if reason.is_some() {
                return reason;
            } else {
                others = true;
            }
        }
        of_device.filter(|_| !others)
    }
}

type BySpace = HashMap<SpaceNo, Arc<KeepOut>>;

/// Who is kept out of all spaces; clones share it.
#[derive(Debug, Clone, Default)]
pub struct KeepOuts(Arc<ArcSwap<BySpace>>);

impl KeepOuts {
    /// Who is kept out of a space; none where nobody is.
    pub fn of(&self, space: SpaceNo) -> Option<Arc<KeepOut>> {
        self.0.load().get(&space).cloned()
    }

    /// Puts these in the place of what is known of their spaces.
    pub fn replace(&self, new: Vec<(SpaceNo, KeepOut)>) {
        let new: Vec<(SpaceNo, Arc<KeepOut>)> =
            new.into_iter().map(|(space, keep)| (space, Arc::new(keep))).collect();
        self.0.rcu(|known| {
            let mut all: BySpace = (**known).clone();
            all.extend(new.iter().cloned());
            all
        });
    }
}
