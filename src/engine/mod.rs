//! The pure core: identity, the query language, incremental state and its evaluation.
//!
//! Nothing in here does I/O, reads a clock or draws a random number: time is an argument, so the same log
//! always gives the same profiles.
//!
//! A definition's text becomes a [`query::Plan`], a tree of conditions over *leaves*. A [`state::LeafSpec`] says
//! which events a leaf counts and how; a [`state::LeafState`] is what one profile has of it, a commutative monoid.
//! A [`Program`] holds all plans of a space, folds each event into the leaves that name it, and tells which
//! definitions to evaluate again.

mod bucket;
pub mod condition;
pub mod consent;
pub mod evaluate;
pub mod explain;
pub mod fql;
pub mod guard;
pub mod identity;
pub mod keep_out;
pub mod meters;
mod packed;
mod pointers;
pub mod profile;
mod profile_view;
pub mod program;
pub mod query;
mod scan;
pub mod search;
pub mod seats;
pub mod state;
pub mod traits;

pub use evaluate::{Evaluation, Users, View};
pub use profile_view::{ProfileView, SeatView};
pub use program::{Computation, Definition, Dirty, Program, ProgramError};
pub use query::{Kind, KnownSource, Limits, Plan, QueryError, Sources, compile, compile_for, format};
pub use seats::{Seat, Seats, Tally};
pub use state::{ByProperty, FieldValue, Flags, LeafSpec, LeafState, LeafStates, Scope, Target};
