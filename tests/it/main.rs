//! Tests through the front door: HTTP in, rows out, on a real Postgres.

#[cfg(test)]
mod config;
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod telemetry;
