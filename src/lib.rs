//! Personas: customer profiles and live audiences from Segment-protocol events.
//!
//! Modules are rooms and data walks through them in one direction:
//! `domain` knows nothing; `engine` and `store` know `domain`; `ingest`, `process`, `query`, `deliver` and `manage` know
//! those three and never each other; `http` turns requests into calls of them; `console` is a client of `http`; `app` is the
//! only place that knows everything. `tests/it/architecture.rs` enforces it.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod deliver;
pub mod disk;
pub mod domain;
pub mod embedded;
pub mod engine;
pub mod history;
pub mod http;
pub mod ingest;
pub mod manage;
pub mod process;
pub mod progress;
pub mod query;
pub mod read_cache;
pub mod store;
pub mod telemetry;
