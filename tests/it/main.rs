//! Tests through the front door: HTTP in, rows out, on a real Postgres.

#[cfg(test)]
mod accounts;
#[cfg(test)]
mod accounts_oracle;
#[cfg(test)]
mod acts;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod audiences;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod authorisation;
#[cfg(test)]
mod automated;
#[cfg(test)]
mod backup;
#[cfg(test)]
mod batches;
#[cfg(test)]
mod browser;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod config;
#[cfg(test)]
mod consent;
#[cfg(test)]
mod console;
#[cfg(test)]
mod crowded;
#[cfg(test)]
mod definitions;
#[cfg(test)]
mod destinations;
#[cfg(test)]
mod destinations_all;
#[cfg(test)]
mod destinations_batches;
#[cfg(test)]
mod destinations_changed;
#[cfg(test)]
mod destinations_hostile;
#[cfg(test)]
mod destinations_kept;
#[cfg(test)]
mod destinations_killed;
#[cfg(test)]
mod destinations_linger;
#[cfg(test)]
mod destinations_listed;
#[cfg(test)]
mod destinations_recovery;
#[cfg(test)]
mod destinations_secrets;
#[cfg(test)]
mod destinations_tls;
#[cfg(test)]
mod destinations_under_way;
#[cfg(test)]
mod destinations_unmerge;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod docs_commands;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod egress;
#[cfg(test)]
mod egress_hostile;
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod export;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hostile_json;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod identity_settings;
#[cfg(test)]
mod import;
#[cfg(test)]
mod import_space;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod links;
#[cfg(test)]
mod lists;
#[cfg(test)]
mod log;
#[cfg(test)]
mod management;
#[cfg(test)]
mod masking;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod ops;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod poisoning;
#[cfg(test)]
mod presets;
#[cfg(test)]
mod preview;
#[cfg(test)]
mod profiles;
#[cfg(test)]
mod profiles_sync;
#[cfg(test)]
mod profiles_sync_events;
#[cfg(test)]
mod profiles_sync_history;
#[cfg(test)]
mod queries;
#[cfg(test)]
mod rates;
#[cfg(test)]
mod read_cache;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod rebuild;
#[cfg(test)]
mod rebuild_numbers;
#[cfg(test)]
mod rebuild_settings;
#[cfg(test)]
mod refused_bodies;
#[cfg(test)]
mod regulations;
#[cfg(test)]
mod relative_dates;
#[cfg(test)]
mod reliability;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod scrub;
#[cfg(test)]
mod search;
#[cfg(test)]
mod seen;
#[cfg(test)]
mod segments;
#[cfg(test)]
mod sensitive;
#[cfg(test)]
mod server;
#[cfg(test)]
mod source_keys;
#[cfg(test)]
mod statements;
#[cfg(test)]
mod tail;
#[cfg(test)]
mod telemetry;
#[cfg(test)]
mod terms;
#[cfg(test)]
mod threats;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod tracking;
#[cfg(test)]
mod tracking_bodies;
#[cfg(test)]
mod unmerge;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod verify;
#[cfg(test)]
mod wall;
#[cfg(test)]
mod wholes;
