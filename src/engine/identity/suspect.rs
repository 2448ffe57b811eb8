//! Values that are refused to one profile after the other: after so many of them a value says nothing about who somebody
//! is, and is put into quarantine.
//!
//! Refusals are counted in log order, each profile once, as the number it had then. So the same log puts the same values
//! into quarantine at the same events.

use crate::domain::{ProfileNo, Timestamp};

/// What is known of a value that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suspicion {
    /// Profiles it was refused to, in the order it happened; fewer than the threshold.
    Counting(Vec<ProfileNo>),
    /// It is never taken and never matched, since then.
    Quarantined(Timestamp),
    /// An operator has let it out: it is not counted any more.
    Exempt,
}

impl Default for Suspicion {
    fn default() -> Self {
        Self::Counting(Vec::new())
    }
}

impl Suspicion {
    /// Whether the value is in quarantine.
    pub const fn is_quarantined(&self) -> bool {
        matches!(self, Self::Quarantined(_))
    }

    /// Notes that the value was refused to a profile. At `threshold` profiles it is in quarantine; 0 is no threshold, and
    /// then nobody counts. Says whether anything has changed.
    pub fn refused(&mut self, to: ProfileNo, threshold: usize, at: Timestamp) -> bool {
        let Self::Counting(profiles) = self else { return false };
        if threshold == 0 || profiles.contains(&to) {
            return false;
        }
        profiles.push(to);
        if profiles.len() >= threshold {
            *self = Self::Quarantined(at);
        }
        true
    }

    /// Lets the value out of quarantine for good. Says whether it was there.
    pub fn lift(&mut self) -> bool {
        let was = self.is_quarantined();
        if was {
            *self = Self::Exempt;
        }
        was
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_counts_once_and_an_exempt_value_not_at_all() {
        let (mut value, at) = (Suspicion::default(), Timestamp::from_millis(7));
        assert!(value.refused(ProfileNo(1), 2, at) && !value.refused(ProfileNo(1), 2, at));
        assert!(!value.refused(ProfileNo(2), 0, at) && !value.is_quarantined() && !value.lift());
        assert!(value.refused(ProfileNo(2), 2, at));
        assert_eq!(value, Suspicion::Quarantined(at));
        assert!(!value.refused(ProfileNo(3), 2, at) && value.lift() && !value.lift());
        assert!(!value.refused(ProfileNo(4), 1, at) && !value.is_quarantined());
    }
}
