//! A space's plan: what was agreed with whoever it belongs to, what may be done in it now, and what is coming.

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

/// Days from the end of a plan to its purge, unless something else was agreed.
pub const EXPORT_DAYS: u16 = 30;
const DAY_MS: i64 = 86_400_000;
/// So long before its term ends, or before it is purged, a space is warned.
const WARN_MS: i64 = 14 * DAY_MS;
/// From this share of a limit on a space is warned, in percent.
const WARN_PERCENT: u64 = 80;

/// How much a space may have; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanLimits {
    /// Events taken in a calendar month (UTC).
    pub events_per_month: Option<u64>,
    /// Events each process of the service takes in a second, of all sources together.
    pub events_per_second: Option<u32>,
    /// Profiles, users and accounts.
    pub profiles: Option<u64>,
    /// Audiences.
    pub audiences: Option<u64>,
    /// Computed traits.
    pub computed_traits: Option<u64>,
}

impl PlanLimits {
    /// Those that are looked at when events come; `None` when there are none.
    pub const fn of_events(&self) -> Option<EventLimits> {
        let Self { events_per_month, events_per_second, profiles, .. } = *self;
        if events_per_month.is_none() && events_per_second.is_none() && profiles.is_none() {
            return None;
        }
        Some(EventLimits { events_per_month, events_per_second, profiles })
    }
}

/// Limits that are looked at when events come, of [`PlanLimits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventLimits {
    /// Events taken in a calendar month (UTC).
    pub events_per_month: Option<u64>,
    /// Events each process of the service takes in a second.
    pub events_per_second: Option<u32>,
    /// Profiles, users and accounts.
    pub profiles: Option<u64>,
}

/// How much a space has, as far as events are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Events taken in this month.
    pub events: u64,
    /// Profiles.
    pub profiles: u64,
}

/// The plan of a space: its state and its term, from `starts_at` on and before `ends_at`; its limits; what becomes of it at
/// its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How things stand.
    pub state: PlanState,
    /// Why it was suspended or ended, for people.
    pub reason: Option<String>,
    /// The first instant of the term; `None`: since ever.
    pub starts_at: Option<Timestamp>,
    /// The first instant after the term; `None`: without end.
    pub ends_at: Option<Timestamp>,
    /// When its state became [`PlanState::Ended`].
    pub ended_at: Option<Timestamp>,
    /// Days from its end to its purge, in which everything can be taken out.
    pub export_days: u16,
    /// An earlier instant of the purge that was asked for.
    pub purge_asked_at: Option<Timestamp>,
    /// After its end events are still written to the log; there are no profiles of them.
    pub collects: bool,
    /// How much it may have.
    pub limits: PlanLimits,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            state: PlanState::default(),
            reason: None,
            starts_at: None,
            ends_at: None,
            ended_at: None,
            export_days: EXPORT_DAYS,
            purge_asked_at: None,
            collects: false,
            limits: PlanLimits::default(),
        }
    }
}

/// What may be done in a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Everything.
    Open,
    /// Reading; it is held.
    Suspended,
    /// Reading: it has ended, and what it has can be taken out until it is purged.
    Export,
    /// Nothing but asking how it stands: the time to take things out is over.
    Closed,
}

impl Plan {
    /// The first instant at which it is over; `None` while it has no end.
    fn end(&self) -> Option<Timestamp> {
        match self.state {
            PlanState::Ended => self.ended_at.or(self.ends_at),
            // What is held ends with its term, too.
            PlanState::Trial | PlanState::Active | PlanState::Suspended => self.ends_at,
        }
    }

    /// Whether it has ended by `now`.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.state == PlanState::Ended || self.end().is_some_and(|end| now >= end)
    }

    /// When what it has can no longer be taken out; `None` while it has no end.
    pub fn export_ends_at(&self) -> Option<Timestamp> {
        Some(self.end()?.plus_millis(i64::from(self.export_days) * DAY_MS))
    }

    /// When it is purged; `None` while it has no end, and while plain events are collected for it.
    pub fn purge_at(&self) -> Option<Timestamp> {
        let asked = self.purge_asked_at.filter(|_| self.state == PlanState::Ended);
        let due = self.export_ends_at().filter(|_| !self.collects);
        asked.into_iter().chain(due).min()
    }

    /// Whether it is to be purged by `now`.
    pub fn is_purge_due(&self, now: Timestamp) -> bool {
        self.stage(now) == Stage::Closed && self.purge_at().is_some_and(|at| now >= at)
    }

    /// What may be done at `now`.
    pub fn stage(&self, now: Timestamp) -> Stage {
        if self.is_over(now) {
            let is_closed = self.export_ends_at().is_some_and(|end| now >= end)
                || self.purge_at().is_some_and(|at| now >= at);
            return if is_closed { Stage::Closed } else { Stage::Export };
        }
        if self.state == PlanState::Suspended { Stage::Suspended } else { Stage::Open }
    }

    /// Whether profiles are made of its events at `now`. After its end they are kept for later, if they are taken at all.
    pub fn has_profiles(&self, now: Timestamp) -> bool {
        !(self.collects && self.is_over(now))
    }

    /// Why the space takes no events at `now`; `None` when it takes them.
    pub fn lock(&self, now: Timestamp) -> Option<Lock> {
        if self.state == PlanState::Suspended {
            return Some(Lock::Suspended);
        }
        if let Some(start) = self.starts_at.filter(|start| now < *start && self.state != PlanState::Ended) {
            return Some(Lock::NotBegun(start));
        }
        let is_purged = self.purge_at().is_some_and(|at| now >= at);
        match self.ends_at {
            _ if self.collects && !is_purged => None,
            _ if self.state == PlanState::Ended => Some(Lock::Ended),
            Some(end) if now >= end => Some(Lock::Over(end)),
            _ => None,
        }
    }

    /// Whether there is anything that could be coming: an end, or a limit that is looked at when events come.
    pub const fn may_warn(&self) -> bool {
        self.ends_at.is_some() || self.ended_at.is_some() || self.limits.of_events().is_some()
    }

    /// What is coming that somebody should know of, as headers say it.
    pub fn warnings(&self, usage: Usage, now: Timestamp) -> Vec<String> {
        let mut all: Vec<String> = self.warning_of_term(now).into_iter().collect();
        let counted = [
            ("events_per_month", usage.events, self.limits.events_per_month),
            ("profiles", usage.profiles, self.limits.profiles),
        ];
        for (what, used, limit) in counted {
            if let Some(limit) =
                limit.filter(|limit| used.saturating_mul(100) >= limit.saturating_mul(WARN_PERCENT))
            {
                all.push(format!("{what}; used={used}; limit={limit}"));
            }
        }
        all
    }

    fn warning_of_term(&self, now: Timestamp) -> Option<String> {
        let is_soon = |at: &Timestamp| now.plus_millis(WARN_MS) >= *at;
        if self.is_over(now) {
            return Some(format!("purge; at={}", self.purge_at().filter(is_soon)?));
        }
        Some(format!("term_ends; at={}", self.ends_at.filter(is_soon)?))
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

    #[test]
    fn after_its_end_a_plan_is_read_out_then_closed() {
        let day = |days: i64| at(days * DAY_MS);
        let over = Plan { ends_at: Some(day(1)), export_days: 2, ..Plan::default() };
        let ended =
            Plan { state: PlanState::Ended, ended_at: Some(day(1)), export_days: 2, ..Plan::default() };
        for plan in [&over, &ended] {
            assert_eq!(plan.stage(day(1)), Stage::Export);
            assert_eq!(plan.stage(day(3).plus_millis(-1)), Stage::Export);
            assert_eq!((plan.stage(day(3)), plan.purge_at()), (Stage::Closed, Some(day(3))));
        }
        assert_eq!(over.stage(day(1).plus_millis(-1)), Stage::Open);
        let asked = Plan { purge_asked_at: Some(day(2)), ..ended.clone() };
        assert_eq!((asked.stage(day(2)), asked.purge_at()), (Stage::Closed, Some(day(2))));
        let collecting = Plan { collects: true, ..ended };
        assert_eq!((collecting.lock(day(9)), collecting.purge_at()), (None, None));
        assert_eq!((collecting.stage(day(9)), collecting.has_profiles(day(9))), (Stage::Closed, false));
    }

    #[test]
    fn warnings_come_ahead() {
        let limits = PlanLimits { events_per_month: Some(10), profiles: Some(5), ..PlanLimits::default() };
        let plan = Plan { ends_at: Some(at(WARN_MS + 1)), limits, ..Plan::default() };
        assert_eq!(plan.warnings(Usage { events: 7, profiles: 3 }, at(0)), Vec::<String>::new());
        let all = plan.warnings(Usage { events: 8, profiles: 4 }, at(1));
        assert_eq!(all[0], "term_ends; at=1970-01-15T00:00:00.001Z");
        assert_eq!(all[1..], ["events_per_month; used=8; limit=10", "profiles; used=4; limit=5"]);
    }
}
