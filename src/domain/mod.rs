//! The words of the field as types. Pure data: no I/O, no clock, and no other module of ours.

pub mod event;
pub mod ids;
pub mod time;

pub use event::{EventType, Facts};
pub use ids::{ComputationNo, LeafNo, Offset, ProfileNo, SourceNo, SpaceNo};
pub use time::Timestamp;
