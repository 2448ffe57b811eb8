//! Calendar months in UTC, by which usage is counted.

use std::fmt;

use chrono::{Datelike, NaiveDate};

use super::Timestamp;

/// A month; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Month(NaiveDate);

impl Month {
    /// The month of an instant.
    pub fn of(at: Timestamp) -> Self {
        Self::of_day(at.to_utc().date_naive())
    }

    /// The month of a day.
    pub fn of_day(day: NaiveDate) -> Self {
        Self(day.with_day(1).unwrap_or(day))
    }

    /// Its first day.
    pub const fn first_day(self) -> NaiveDate {
        self.0
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ends_with_its_last_millisecond() {
        let of = |text: &str| Month::of(Timestamp::parse(text).unwrap()).to_string();
        assert_eq!(of("2024-02-29T23:59:59.999Z"), "2024-02");
        assert_eq!(of("2024-03-01T00:00:00Z"), "2024-03");
    }
}
