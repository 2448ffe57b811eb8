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
}

impl Meters {
    fn with<T>(&self, space: SpaceNo, use_it: impl FnOnce(&mut Meter) -> T) -> T {
        use_it(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(space).or_default())
    }

    /// Takes note of a count of the database; an older one changes nothing. `released` were on their way and are in it now, or
    /// will never be.
    pub fn note(&self, space: SpaceNo, month: Month, used: Option<u64>, released: u64) {
        self.with(space, |meter| {
            meter.reserved = meter.reserved.saturating_sub(released);
            meter.turn(month);
            if let Some(used) = used.filter(|_| month == meter.month) {
                meter.used = meter.used.max(used);
            }
        });
    }

    /// Takes note of how many profiles there are.
    pub fn note_profiles(&self, space: SpaceNo, profiles: u64) {
        self.with(space, |meter| meter.profiles = profiles);
    }

    /// Makes room for so many events; false, and nothing is changed, when they would go over the limit.
    pub fn reserve(&self, space: SpaceNo, month: Month, events: u64, limit: u64) -> bool {
        self.with(space, |meter| {
            meter.turn(month);
            let is_room = meter.used.saturating_add(meter.reserved).saturating_add(events) <= limit;
            if is_room {
                meter.reserved += events;
            }
            is_room
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
        assert!(meters.reserve(space, march, 6, 10) && !meters.reserve(space, march, 5, 10));
        meters.note(space, march, Some(6), 6);
        assert!(meters.reserve(space, march, 4, 10));
        meters.note(space, march, None, 4);
        assert_eq!(meters.usage(space, march).events, 6, "what failed is not there");
        meters.note(space, march, Some(5), 0);
        assert_eq!(meters.usage(space, march).events, 6, "an older count");
        assert!(meters.reserve(space, month("2024-04-01"), 10, 10), "a new month");
    }
}
