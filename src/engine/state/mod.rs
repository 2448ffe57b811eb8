//! Incremental state: what one profile has of each leaf.
//!
//! A [`LeafState`] is a commutative monoid. `LeafState::default()` is its neutral element, folding an event is
//! merging the state of that one event, and a profile merge is [`LeafState::merge`]: any order and any split of
//! the same events gives the same state, down to its bytes. A backfill is the same fold over history.

mod aggregate;
mod event_name;
mod events;
mod instants;
mod leaf;
mod leaf_state;
mod newest;
mod spans;
mod states;
mod sum;
mod timeline;

pub use event_name::EventName;
pub use events::EXACT_ITEMS;
pub use leaf::{Cast, Field, FieldValue, Filter, FilterOperand, LeafSpec, Reducer, SourceName};
pub use leaf_state::{Flags, LeafState, Read, Reading};
pub use spans::HOURLY_SPANS;
pub use states::LeafStates;
pub use timeline::Window;

pub use aggregate::{DISTINCT_BYTES, DISTINCT_VALUES};
