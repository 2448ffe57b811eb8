//! Incremental state: what one profile has of each leaf.
//!
//! A [`LeafState`] is a commutative monoid. `LeafState::default()` is its neutral element, folding an event is
//! merging the state of that one event, and a profile merge is [`LeafState::merge`]: any order and any split of
//! the same events gives the same state, down to its bytes. A backfill is the same fold over history.

mod aggregate;
mod any_item;
mod blocks;
mod by_property;
mod by_time;
mod event_name;
mod events;
mod field;
pub(in crate::engine) mod filter;
mod instants;
mod leaf;
mod leaf_state;
mod newest;
mod rows;
mod scope;
mod sessions;
mod spans;
mod states;
mod stored_blocks;
mod sum;
mod timeline;

pub use any_item::AnyItem;
pub use by_property::ByProperty;
pub use event_name::EventName;
pub use events::EXACT_ITEMS;
pub use field::{Cast, Field, FieldValue, SourceName};
pub(in crate::engine) use leaf::writes_traits;
pub use leaf::{Filter, FilterOperand, LeafSpec, Reducer};
pub use leaf_state::{Flags, LeafState, Read, Reading};
pub use rows::{ROWS, ROWS_BYTES, Row, RowsState};
pub use scope::{Scope, Target};
pub use sessions::SESSION_CELLS;
pub use spans::HOURLY_SPANS;
pub use states::LeafStates;
pub use timeline::Window;

pub use aggregate::{DISTINCT_BYTES, DISTINCT_VALUES};
