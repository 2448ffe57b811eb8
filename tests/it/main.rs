//! Tests through the front door: HTTP in, rows out, on a real Postgres.
