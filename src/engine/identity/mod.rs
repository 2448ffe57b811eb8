//! Identity: which identifiers an event carries, and which profile it belongs to.
//!
//! Pure: the graph is reached through [`Graph`], time is the event's own, and the log's order decides. The same log
//! always gives the same graph (decisions I1).

pub mod extract;
pub mod resolve;
pub mod separate;
pub mod settings;
pub mod suspect;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod model;
#[cfg(test)]
mod separate_laws;
#[cfg(test)]
mod tests;

pub use extract::{Candidate, Extracted, extract};
pub use resolve::{Apart, Graph, Owned, Refusal, Resolution, Rule, resolve};
pub use settings::{BadPattern, Frequency, IdType, Settings, TypeNo, check_pattern};
pub use suspect::Suspicion;
