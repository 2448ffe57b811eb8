//! A space's plan: what was agreed with whoever it belongs to, and whether it may take in events now.

use std::fmt;

use super::Timestamp;

/// How things stand with a space. `Trial` and `Active` take events, the others do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlanState {
    /// Trying it out.
    Trial,
    /// In use: what a new space is.
    #[default]
    Active,
    /// Held, for example until a bill is paid.
    Suspended,
    /// Over.
    Ended,
}

impl PlanState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Trial, Self::Active, Self::Suspended, Self::Ended];

    /// The word of the API and of the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Ended => "ended",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// The plan of a space: its state and its term, from `starts_at` on and before `ends_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    /// How things stand.
    pub state: PlanState,
    /// The first instant of the term; `None`: since ever.
    pub starts_at: Option<Timestamp>,
    /// The first instant after the term; `None`: without end.
    pub ends_at: Option<Timestamp>,
}

impl Plan {
    /// Why the space takes no events at `now`; `None` when it takes them.
    pub fn lock(&self, now: Timestamp) -> Option<Lock> {
        match *self {
            Self { state: PlanState::Suspended, .. } => Some(Lock::Suspended),
            Self { state: PlanState::Ended, .. } => Some(Lock::Ended),
            Self { starts_at: Some(start), .. } if now < start => Some(Lock::NotBegun(start)),
            Self { ends_at: Some(end), .. } if now >= end => Some(Lock::Over(end)),
            _ => None,
        }
    }
}

/// Why a space takes no events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Its plan is suspended.
    Suspended,
    /// Its plan has ended.
    Ended,
    /// Its term begins at that instant.
    NotBegun(Timestamp),
    /// Its term ended at that instant.
    Over(Timestamp),
}

impl fmt::Display for Lock {
    /// A whole sentence about the space.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suspended => f.write_str("the space is suspended"),
            Self::Ended => f.write_str("the plan of the space has ended"),
            Self::NotBegun(at) => write!(f, "the term of the space begins at {at}"),
            Self::Over(at) => write!(f, "the term of the space ended at {at}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_term_includes_its_start_and_not_its_end() {
        let plan = Plan { starts_at: Some(at(10)), ends_at: Some(at(20)), ..Plan::default() };
        assert_eq!(plan.lock(at(9)), Some(Lock::NotBegun(at(10))));
        assert_eq!(plan.lock(at(10)), None);
        assert_eq!(plan.lock(at(19)), None);
        assert_eq!(plan.lock(at(20)), Some(Lock::Over(at(20))));
        assert_eq!(Plan::default().lock(at(i64::MAX)), None, "without end");
    }

    #[test]
    fn the_state_comes_before_the_term() {
        for (state, lock) in [
            (PlanState::Trial, None),
            (PlanState::Active, None),
            (PlanState::Suspended, Some(Lock::Suspended)),
            (PlanState::Ended, Some(Lock::Ended)),
        ] {
            assert_eq!(Plan { state, ..Plan::default() }.lock(at(0)), lock);
            assert_eq!(PlanState::parse(state.as_str()), Some(state));
        }
        let both = Plan { state: PlanState::Suspended, ends_at: Some(at(1)), ..Plan::default() };
        assert_eq!(both.lock(at(2)), Some(Lock::Suspended));
        assert_eq!(PlanState::parse("paused"), None);
    }
}
