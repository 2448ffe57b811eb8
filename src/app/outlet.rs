//! The way out: what destinations are opened with, and the workers that send to them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sqlx::postgres::PgConnectOptions;

use super::Tasks;
use crate::clock::{Clock, IdMaker};
use crate::config::{self, Config};
use crate::deliver;
use crate::deliver::guard::{self, Guard, SystemLookup};
use crate::deliver::http::Transport;
use crate::deliver::opener::Opener;
use crate::deliver::reach::Reach;
use crate::deliver::secrets::Keys;
use crate::manage::Tools;

/// Time for a request to a destination that does not say otherwise.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The key of destinations' secrets, in the data folder of the private Postgres.
const KEY_FILE: &str = "secret.key";

/// What destinations are opened with: the key of their secrets, and the way out.
pub(super) fn opener(
    config: &Config,
    is_private: bool,
    clock: &Clock,
    ids: &IdMaker,
) -> anyhow::Result<Opener> {
    let keys = keys(config, is_private, ids)?;
    let config::Egress { ports, allow_networks, allow_hosts, folder } = config.egress.clone();
    let guard = Arc::new(Guard::new(&guard::Settings { ports, allow_networks, allow_hosts }));
    let reach = Reach {
        guard: Arc::clone(&guard),
        lookup: Arc::new(SystemLookup),
        folder,
        timeout: DELIVERY_TIMEOUT,
    };
    let transport = Transport::new(guard, Arc::new(SystemLookup), DELIVERY_TIMEOUT, clock.clone())
        .context("the system's certificates")?;
    Ok(Opener { keys, transport, reach, clock: clock.clone() })
}

fn keys(config: &Config, is_private: bool, ids: &IdMaker) -> anyhow::Result<Keys> {
    let config::Deliver { secret_key, secret_key_file, secret_keys_old, secret_keys_old_files, .. } =
        &config.deliver;
    let mut keys = match (secret_key, secret_key_file) {
        (Some(key), _) => Keys::new(key.expose()),
        (None, Some(file)) => Keys::from_file(file, None)?,
        // As private as the database beside it.
        (None, None) if is_private => Keys::from_file(&config.embedded.data_dir.join(KEY_FILE), Some(ids))?,
        (None, None) => Keys::default(),
    };
    for key in secret_keys_old {
        keys.add_old(key.expose());
    }
    for file in secret_keys_old_files {
        keys.add_old_file(file)?;
    }
    Ok(keys)
}

/// Starts the workers; `exclusive` where no other process uses the database.
pub(super) fn start(
    tasks: &Tasks,
    config: &Config,
    (connect_options, exclusive): (PgConnectOptions, bool),
    Tools { clock, ids, opener }: Tools,
) {
    let (config, shutdown) = (config.deliver.clone(), tasks.working.clone());
    let context = deliver::Context { connect_options, clock, ids, config, opener, shutdown, exclusive };
    tasks.work("delivery", async move { Ok(deliver::run(context).await?) });
}
