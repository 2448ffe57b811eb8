//! The query language and the state engine, through their public interface.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod docs;
mod errors;
mod explain;
mod format;
mod funnels;
mod harness;
mod held_for;
mod laws;
mod marks;
mod naive;
mod naive_funnel;
mod naive_items;
mod naive_reduce;
mod oracle;
mod program;
mod relative;
mod simulated;
mod simulated_space;
mod traces;
mod vectors;
