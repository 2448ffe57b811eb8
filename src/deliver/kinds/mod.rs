//! The kinds of destinations, one module each.

pub mod file;
pub mod http;
pub mod postgres;
