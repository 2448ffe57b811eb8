//! The words of the field as types. Pure data: no I/O, no clock, and no other module of ours.

pub mod act;
pub mod delivery;
pub mod event;
pub mod gate;
pub mod id_type;
pub mod identifier;
pub mod ids;
pub mod intake;
pub mod json;
pub mod message_id;
pub mod number;
pub mod patch;
pub mod path;
pub mod plan;
pub mod retention;
pub mod seen;
pub mod sensitive;
pub mod time;
pub mod trait_names;
pub mod value;
pub mod varint;

pub use act::Act;
pub use event::{EventType, Facts};
pub use identifier::{Collection, IdKey};
pub use ids::{ComputationNo, DestinationNo, LeafNo, Offset, ProfileNo, SourceNo, SpaceNo};
pub use intake::IntakeLimits;
pub use number::Number;
pub use patch::Patch;
pub use path::Path;
pub use plan::{Lock, Plan, PlanState};
pub use time::Timestamp;
pub use value::Value;
