//! How much spaces have taken, as this process knows it: what the door asks before it takes more.
//!
//! The database counts exactly; here is the newest count that was heard of, from an append of this process or from a look
//! at what others did, and what requests of this process are about to add. So one process never goes over a limit, and
//! several go over it by no more than they take between two looks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::SpaceNo;
use crate::domain::month::Month;
use crate::domain::plan::Usage;

/// Whether a space takes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It does, and the room is taken.
    Taken,
    /// Not while others are on their way to the log: what becomes of them is known in a moment.
    Unsure,
    /// Not in this month.
    Full,
}

/// The handle; clones share what is known.
#[derive(Debug, Clone, Default)]
pub struct Meters(Arc<Mutex<HashMap<SpaceNo, Meter>>>);

#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    month: Month,
    used: u64,
    /// On their way to the log.
    reserved: u64,
    profiles: u64,
}

impl Meter {
    fn turn(&mut self, month: Month) {
        if month > self.month {
            *self = Self { month, used: 0, ..*self };
        }
    }

    fn note(&mut self, month: Month, used: u64) {
        self.turn(month);
        if month == self.month {
            self.used = self.used.max(used);
        }
    }
}

impl Meters {
    fn with<T>(&self, space: SpaceNo, use_it: impl FnOnce(&mut Meter) -> T) -> T {
        use_it(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(space).or_default())
    }

    /// Takes note of a count of the database; an older one changes nothing.
    pub fn note(&self, space: SpaceNo, month: Month, used: u64) {
        self.with(space, |meter| meter.note(month, used));
    }

    /// So many that were on their way are so no more: they are in the count that the append came to, or will never be. The month
    /// is the one they were counted in, whatever month it is by now.
    pub fn settle(&self, space: SpaceNo, counted: Option<(Month, u64)>, released: u64) {
        self.with(space, |meter| {
            meter.reserved = meter.reserved.saturating_sub(released);
            if let Some((month, used)) = counted {
                meter.note(month, used);
            }
        });
    }

    /// Takes note of how many profiles there are.
    pub fn note_profiles(&self, space: SpaceNo, profiles: u64) {
        self.with(space, |meter| meter.profiles = profiles);
    }

    /// Makes room for so many events, or changes nothing where they could go over the limit. Only what the database has counted
    /// says that a space is full: a look may have counted what is still noted as on its way.
    pub fn reserve(&self, space: SpaceNo, month: Month, events: u64, limit: u64) -> Room {
        self.with(space, |meter| {
            meter.turn(month);
            let counted = meter.used.saturating_add(events);
            if counted > limit {
                return Room::Full;
            }
            if counted.saturating_add(meter.reserved) > limit {
                return Room::Unsure;
            }
            meter.reserved += events;
            Room::Taken
        })
    }

    /// What a space has in a month.
    pub fn usage(&self, space: SpaceNo, month: Month) -> Usage {
        self.with(space, |meter| {
            meter.turn(month);
            Usage { events: meter.used, profiles: meter.profiles }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn what_is_on_its_way_counts_once() {
        let (meters, space) = (Meters::default(), SpaceNo(1));
        let month = |text| Month::of(Timestamp::parse(text).unwrap());
        let march = month("2024-03-31");
        assert_eq!(meters.reserve(space, march, 6, 10), Room::Taken);
        assert_eq!(meters.reserve(space, march, 5, 10), Room::Unsure);
        // A look counts what was appended a moment before the append says so.
        meters.note(space, march, 6);
        assert_eq!(meters.reserve(space, march, 4, 10), Room::Unsure);
        meters.settle(space, Some((march, 6)), 6);
        assert_eq!(meters.reserve(space, march, 5, 10), Room::Full);
        assert_eq!(meters.reserve(space, march, 4, 10), Room::Taken);
        meters.settle(space, None, 4);
        assert_eq!(meters.usage(space, march).events, 6, "what failed is not there");
        meters.note(space, march, 5);
        assert_eq!(meters.usage(space, march).events, 6, "an older count");
        let april = month("2024-04-01");
        assert_eq!(meters.reserve(space, april, 10, 10), Room::Taken, "a new month");
        meters.settle(space, Some((march, 9)), 10);
        assert_eq!(meters.usage(space, april).events, 0, "a count of the month before");
    }
}
