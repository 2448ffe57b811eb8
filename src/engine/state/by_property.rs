//! Leaves that need no more of an event than some of its properties, each given by itself: as columns hold them.

use crate::domain::{Facts, Timestamp};

use super::event_name::EventName;
use super::field::FieldValue;
use super::leaf::{LeafSpec, Reducer};
use super::leaf_state::LeafState;

const HOUR: i64 = 3_600_000;

/// A leaf that reads properties one by one and nothing else of its events. It folds an event as the leaf does.
#[derive(Debug)]
pub struct ByProperty {
    spec: LeafSpec,
    /// Of each field the outermost key of the property it reads, if it reads any.
    keys: Vec<Option<String>>,
    slots: Vec<usize>,
}

impl ByProperty {
    /// The leaf, if it is one.
    pub fn of(spec: &LeafSpec) -> Option<Self> {
        // Columns do not say which account an event names.
        if spec.event == EventName::TraitWrites || spec.scope.is_shared() {
            return None;
        }
        let keys = spec.fields.iter().map(|field| field.property_key().map(|key| key.map(str::to_owned)));
        Some(Self {
            keys: keys.collect::<Option<_>>()?,
            slots: (0..spec.fields.len()).collect(),
            spec: spec.clone(),
        })
    }

    /// The leaf.
    pub const fn spec(&self) -> &LeafSpec {
        &self.spec
    }

    /// Of each of its fields the property it reads, if it reads any.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = Option<&str>> {
        self.keys.iter().map(Option::as_deref)
    }

    /// Whether it makes a difference what an event's message id is.
    pub const fn reads_message_ids(&self) -> bool {
        matches!(self.spec.reducer, Reducer::First(_) | Reducer::Last(_) | Reducer::Rows(_))
    }

    /// Reads the fields of an event of its name into `values`, of the properties in the order of
    /// [`ByProperty::keys`]; says whether it counts.
    pub fn read<'a>(
        &self,
        facts: &Facts<'a>,
        properties: impl Iterator<Item = Option<&'a str>>,
        values: &mut Vec<FieldValue<'a>>,
    ) -> bool {
        values.clear();
        values
            .extend(self.spec.fields.iter().zip(properties).map(|(field, raw)| field.read_head(raw, facts)));
        self.spec.selects(facts, values, &self.slots)
    }

    /// Folds an event that counts and whose fields are read.
    pub fn fold(&self, state: &mut LeafState, facts: &Facts<'_>, values: &[FieldValue<'_>]) {
        self.spec.fold_selected(state, facts, values, &self.slots);
    }
}

impl LeafSpec {
    /// Events before this instant make no difference to any reading at `now` or later. Of a rolling window whole hours,
    /// as [`LeafState::compact`] drops them.
    pub fn counts_from(&self, now: Timestamp) -> Option<Timestamp> {
        let keeps_longer = self.moving_filter.is_some()
            || self.session.is_some()
            || matches!(self.reducer, Reducer::Rows(_));
        let rolling = self.window.filter(|_| !keeps_longer).map(|window| {
            let oldest = now.millis().saturating_sub(window.oldest);
            Timestamp::from_millis(oldest.saturating_sub(oldest.rem_euclid(HOUR)))
        });
        rolling.max(self.between.map(|(from, _)| from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::state::{Read, Window};
    use proptest::prelude::*;

    fn count(window: Window) -> LeafSpec {
        LeafSpec {
            scope: crate::engine::Scope::Own,
            event: EventName::Exact("E".into()),
            fields: Vec::new(),
            filter: super::super::leaf::Filter::Constant(true),
            moving_filter: None,
            reducer: Reducer::Count,
            window: Some(window),
            between: None,
            session: None,
            enough: None,
            since: None,
        }
    }

    proptest! {
        /// Leaving out what does not count any more changes no reading from then on.
        #[test]
        fn nobody_misses_what_is_left_out(
            times in proptest::collection::vec(0_i64..400_000_000, 0..40),
            (newest, width) in (0_i64..80_000_000, 0_i64..80_000_000),
            (now, later) in (0_i64..400_000_000, 0_i64..100_000_000),
        ) {
            let spec = count(Window { newest, oldest: newest + width });
            let now = Timestamp::from_millis(now);
            let from = spec.counts_from(now).unwrap();
            let fold = |times: &mut dyn Iterator<Item = &i64>| {
                let mut state = LeafState::default();
                for at in times {
                    spec.fold(&mut state, &Facts { timestamp: Timestamp::from_millis(*at), ..event() });
                }
                state
            };
            let (all, some) = (fold(&mut times.iter()), fold(&mut times.iter().filter(|at| **at >= from.millis())));
            for at in [now, now.plus_millis(later)] {
                prop_assert_eq!(all.read(Read::Count, spec.window, at), some.read(Read::Count, spec.window, at));
            }
        }
    }

    fn event() -> Facts<'static> {
        Facts {
            event_type: crate::domain::EventType::Track,
            name: "E",
            timestamp: Timestamp::EPOCH,
            received_at: Timestamp::from_millis(400_000_000),
            offset: crate::domain::Offset(1),
            message_id: "m",
            source: crate::domain::SourceNo(1),
            properties: "",
            context: "",
        }
    }
}
