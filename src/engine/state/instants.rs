//! Sets of instants: for which values of now a condition on one event holds.
//!
//! A relative date comparator holds in one interval of now, so AND, OR and NOT over such comparators hold in finitely
//! many. [`Instants`] has one form for each set, so equal filters give equal spans, however they are written.

use crate::domain::Timestamp;
use crate::engine::condition::Logic;

/// An interval of now: from `enter` until before `leave`.
///
/// The unit is a millisecond, or an hour where spans are kept by the hour. Ordered by [`Span::turn`], so that those
/// about which nothing more will happen come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) enter: i64,
    /// [`Span::NEVER`] when it never ends.
    pub(super) leave: i64,
}

impl Span {
    pub(super) const NEVER: i64 = i64::MAX;

    /// Whether it never ends.
    pub(super) const fn stays(self) -> bool {
        self.leave == Self::NEVER
    }

    /// The last instant at which anything happens: it leaves, or enters for ever.
    pub(super) const fn turn(self) -> i64 {
        if self.stays() { self.enter } else { self.leave }
    }

    pub(super) const fn contains(self, now: i64) -> bool {
        self.enter <= now && now < self.leave
    }
}

impl Ord for Span {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.turn(), self.leave, self.enter).cmp(&(other.turn(), other.leave, other.enter))
    }
}

impl PartialOrd for Span {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A set of instants: disjoint intervals in order that do not touch each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instants(Vec<Span>);

impl Instants {
    /// No instant, or every one.
    pub(super) fn constant(all: bool) -> Self {
        if all { Self::between(i64::MIN, Span::NEVER) } else { Self(Vec::new()) }
    }

    /// From the first instant until before the second.
    pub(super) fn between(enter: i64, leave: i64) -> Self {
        Self(if enter < leave { vec![Span { enter, leave }] } else { Vec::new() })
    }

    /// When the whole holds, given when each condition does.
    pub(super) fn of<'a, C>(logic: &'a Logic<C>, condition: &impl Fn(&'a C) -> Self) -> Self {
        match logic {
            Logic::Constant(value) => Self::constant(*value),
            Logic::And(parts) => {
                parts.iter().fold(Self::constant(true), |all, part| all.and(&Self::of(part, condition)))
            }
            Logic::Or(parts) => Self::any(parts.iter().map(|part| Self::of(part, condition))),
            Logic::Not(part) => Self::of(part, condition).not(),
            Logic::Is(this) => condition(this),
        }
    }

    /// What at least one of them has, by De Morgan.
    pub(super) fn any(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::constant(true), |none, one| none.and(&one.not())).not()
    }

    /// Whether it has `now`, and the first later instant at which that changes.
    pub(super) fn at(&self, now: Timestamp) -> (bool, Option<Timestamp>) {
        let now = now.millis();
        let changes = self.0.iter().flat_map(|span| [span.enter, span.leave]);
        let next = changes.filter(|at| *at > now && *at < Span::NEVER).min();
        (self.0.iter().any(|span| span.contains(now)), next.map(Timestamp::from_millis))
    }

    /// What both have.
    pub(super) fn and(&self, other: &Self) -> Self {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(a), Some(b)) = (ours.peek(), theirs.peek()) {
            let (enter, leave) = (a.enter.max(b.enter), a.leave.min(b.leave));
            if enter < leave {
                both.push(Span { enter, leave });
            }
            if a.leave <= b.leave {
                ours.next()
            } else {
                theirs.next()
            };
        }
        Self(both)
    }

    /// What it has not.
    fn not(&self) -> Self {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut enter = i64::MIN;
        for span in &self.0 {
            if enter < span.enter {
                gaps.push(Span { enter, leave: span.enter });
            }
            enter = span.leave;
        }
        if enter < Span::NEVER {
            gaps.push(Span { enter, leave: Span::NEVER });
        }
        Self(gaps)
    }

    /// Without the intervals that are over at `now`.
    pub(super) fn after(mut self, now: Timestamp) -> Self {
        self.0.retain(|span| span.leave > now.millis());
        self
    }

    /// Its intervals, in order.
    pub(super) fn spans(&self) -> &[Span] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The set of the instants of 0..8 whose bit is set.
    fn set(bits: u8) -> Instants {
        let bit = |i: i64| if (0..8).contains(&i) { bits >> i & 1 == 1 } else { false };
        let starts = (0..8).filter(|&i| bit(i) && !bit(i - 1));
        let span = |enter| Span { enter, leave: (enter..9).find(|&i| !bit(i)).unwrap_or(8) };
        Instants(starts.map(span).collect())
    }

    fn has(instants: &Instants, now: i64) -> bool {
        instants.0.iter().any(|span| span.contains(now))
    }

    #[test]
    fn the_algebra_is_that_of_sets_and_each_set_has_one_form() {
        for a in 0..=255_u8 {
            for b in [0, 1, 0b1000_0001, 0b0101_0110, 0b1111_1111, 0b0011_1100, a, !a] {
                let is = |bits: u8| Logic::Is(bits);
                let of = |logic: Logic<u8>| {
                    let instants = Instants::of(&logic, &|bits| set(*bits));
                    assert!(instants.0.windows(2).all(|pair| pair[0].leave < pair[1].enter), "{instants:?}");
                    instants
                };
                assert_eq!(of(Logic::And(vec![is(a), is(b)])), set(a & b));
                assert_eq!(of(Logic::Or(vec![is(a), is(b)])), set(a | b));
                let not = of(Logic::Not(Box::new(is(a))));
                assert!((-1..9).all(|now| has(&not, now) != has(&set(a), now)), "{a:b}");
                assert_eq!(of(Logic::Not(Box::new(Logic::Not(Box::new(is(a)))))), set(a));
            }
        }
        assert_eq!(Instants::constant(false).not(), Instants::constant(true));
        assert_eq!(Instants::constant(true).not(), Instants::constant(false));
        assert_eq!(Instants::between(3, 3), Instants::constant(false));
    }
}
