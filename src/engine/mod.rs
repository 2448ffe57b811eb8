//! The pure core: identity, the query language, incremental state and its evaluation.
//!
//! Nothing in here does I/O, reads a clock or draws a random number: time is an argument, so the same log
//! always gives the same profiles.

pub mod identity;
