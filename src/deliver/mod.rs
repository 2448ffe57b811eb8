//! Destinations: what has changed goes to where it is used, at least once, in order per profile, and with proof.
//!
//! Nothing here decides what is told: the processor writes that down in its own transaction, and workers send it, in the
//! way the [`kind`] of a destination says.

pub mod choice;
pub mod guard;
pub mod http;
pub mod kind;
pub mod kinds;
pub mod payload;
pub mod reach;
