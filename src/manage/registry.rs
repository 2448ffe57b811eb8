//! Who may do what: the snapshot of spaces, sources, keys and tokens that every request is checked against.
//!
//! A check is a hash and a look-up in memory. Changes made by this process are seen at once, those of others within a
//! second; and a key or token that is not known is looked for once more before it is refused, because the next
//! process may have made it a moment ago. Such second looks are shared and at most five a second, whatever is tried.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use sqlx::postgres::PgPool;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::month::Month;
use crate::domain::origin::AllowedOrigin;
use crate::domain::plan::EventLimits;
use crate::domain::{Lock, Plan, SourceNo, SpaceNo, Timestamp};
use crate::engine::guard::Guards;
use crate::engine::identity::Settings;
use crate::engine::keep_out::{KeepOut, KeepOuts, Rule};
use crate::engine::meters::Meters;
use crate::store;
use crate::store::registry::{self, SecretHash, WriteKey, hash_secret};
use crate::store::regulations::suppression::{self, Blocked};
use crate::store::{identity_settings, sensitive, usage, walled};

pub use crate::domain::{Role, Scope};
pub use crate::store::registry::{Registry as Snapshot, Space, Token};

/// How often changes of other processes are looked for.
const POLL: Duration = Duration::from_millis(500);
/// Shortest time between two second looks.
const SECOND_LOOK: Duration = Duration::from_millis(200);
/// How often it is written down which keys and tokens were used.
const TOUCH_EVERY: u32 = 60;

/// What a write key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOf {
    /// Whose log.
    pub space: SpaceNo,
    /// Which source.
    pub source: SourceNo,
    /// Whether the source may send.
    pub enabled: bool,
    /// Events the source may send a process in a second; `None` is no limit.
    pub events_per_second_max: Option<u32>,
    /// Pages the source takes events from; `None` is any.
    pub allowed_origins: Option<Arc<[AllowedOrigin]>>,
    /// Whether anybody may know the key, so that less weight is given to what it sends.
    pub is_public: bool,
    /// What the plan of the space limits; `None` is nothing.
    pub limits: Option<EventLimits>,
    /// Whether something could be coming that its senders are told of.
    pub may_warn: bool,
    /// Why the space takes no events now, if it takes none.
    pub lock: Option<Lock>,
}

async fn load_guards(pool: &PgPool, guards: &Guards) -> store::Result<()> {
    for (space, error) in guards.replace(sensitive::load_all(pool).await?) {
        tracing::error!(%space, %error, "the settings for sensitive data of space {space} cannot be used: {error}");
    }
    Ok(())
}

/// Who is kept out of spaces, read anew where something of it has changed. Returns the versions it is as of.
async fn load_keep_outs(
    pool: &PgPool,
    known: &HashMap<SpaceNo, (i64, i64)>,
) -> store::Result<(HashMap<SpaceNo, (i64, i64)>, Vec<(SpaceNo, KeepOut)>)> {
    let versions = suppression::list_versions(pool).await?;
    let versions: HashMap<SpaceNo, (i64, i64)> =
        versions.into_iter().map(|(space, secret, config)| (space, (secret, config))).collect();
    let mut new = Vec::new();
    for (space, version) in &versions {
        if known.get(space) == Some(version) {
            continue;
        }
        let row = identity_settings::read_settings(&walled(pool, *space), *space).await?;
        let settings =
            Settings::new(row.types, 0, 0).map_err(|error| store::StoreError::Damaged(error.to_string()))?;
        let secret = suppression::find_secret(pool, *space).await?.unwrap_or_default();
        let blocked = suppression::list_blocked(pool, *space).await?.into_iter();
        let rules =
            blocked.map(|(hash, Blocked { suppressed, erased_at })| (hash, Rule { suppressed, erased_at }));
        new.push((*space, KeepOut { settings, secret, rules: rules.collect() }));
    }
    Ok((versions, new))
}

/// Looks how much spaces with limits have; asks for nothing where there are none.
async fn load_meters(
    pool: &PgPool,
    meters: &Meters,
    snapshot: &Snapshot,
    now: Timestamp,
) -> store::Result<()> {
    let limited = snapshot.spaces.values().filter(|space| space.plan.limits.of_events().is_some());
    let limited: Vec<SpaceNo> = limited.map(|space| space.no).collect();
    if limited.is_empty() {
        return Ok(());
    }
    let month = Month::of(now);
    for (space, events, profiles) in usage::list_usage(pool, &limited, month).await? {
        meters.note(space, month, events);
        meters.note_profiles(space, profiles);
    }
    Ok(())
}

/// The handle; clones share the snapshot.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    clock: Clock,
    snapshot: ArcSwap<Snapshot>,
    guards: Guards,
    keep_outs: KeepOuts,
    /// As of which versions those are. Held while they are read anew, so that the newest is put in place last.
    kept_out: tokio::sync::Mutex<HashMap<SpaceNo, (i64, i64)>>,
    meters: Meters,
    version: tokio::sync::watch::Sender<i64>,
    /// When the database was last asked for a newer version.
    looked: tokio::sync::Mutex<Instant>,
    used: Mutex<HashSet<SecretHash>>,
}

impl Registry {
    /// Reads the snapshot for the first time.
    pub async fn load(pool: PgPool, clock: Clock) -> store::Result<Self> {
        let snapshot = registry::load(&pool).await?;
        let guards = Guards::default();
        load_guards(&pool, &guards).await?;
        let keep_outs = KeepOuts::default();
        let (versions, new) = load_keep_outs(&pool, &HashMap::new()).await?;
        keep_outs.replace(new);
        let meters = Meters::default();
        load_meters(&pool, &meters, &snapshot, clock.now()).await?;
        Ok(Self(Arc::new(Shared {
            guards,
            keep_outs,
            kept_out: tokio::sync::Mutex::new(versions),
            meters,
            pool,
            clock,
            version: tokio::sync::watch::Sender::new(snapshot.version),
            snapshot: ArcSwap::from_pointee(snapshot),
            looked: tokio::sync::Mutex::new(Instant::now()),
            used: Mutex::default(),
        })))
    }

    /// The present snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    /// What spaces do about sensitive data, as fresh as the snapshot.
    pub fn guards(&self) -> Guards {
        self.0.guards.clone()
    }

    /// Who is kept out of spaces: changes of this process count at once, those of others within a second.
    pub fn keep_outs(&self) -> KeepOuts {
        self.0.keep_outs.clone()
    }

    /// Reads who is kept out, where that has changed.
    pub async fn reload_keep_outs(&self) -> store::Result<()> {
        let mut known = self.0.kept_out.lock().await;
        let (versions, new) = load_keep_outs(&self.0.pool, &known).await?;
        if !new.is_empty() {
            self.0.keep_outs.replace(new);
        }
        *known = versions;
        Ok(())
    }

    /// How much spaces have taken. Of those with limits as others count, too, to a second.
    pub fn meters(&self) -> Meters {
        self.0.meters.clone()
    }

    /// Follows the version: a change means that spaces, sources or keys have changed.
    pub fn follow(&self) -> tokio::sync::watch::Receiver<i64> {
        self.0.version.subscribe()
    }

    /// Reads everything anew, after a change of our own.
    pub async fn reload(&self) -> store::Result<()> {
        let snapshot = registry::load(&self.0.pool).await?;
        let version = snapshot.version;
        load_guards(&self.0.pool, &self.0.guards).await?;
        load_meters(&self.0.pool, &self.0.meters, &snapshot, self.0.clock.now()).await?;
        // Of two reloads at once, the older one must not win.
        self.0.snapshot.rcu(|present| {
            if present.version > version { Arc::clone(present) } else { Arc::new(snapshot.clone()) }
        });
        self.0.version.send_if_modified(|known| {
            let newer = version > *known;
            *known = version.max(*known);
            newer
        });
        Ok(())
    }

    /// What a write key stands for; `None` for an unknown, revoked or expired one.
    pub async fn find_key(&self, key: &str) -> store::Result<Option<KeyOf>> {
        let hash = hash_secret(key);
        if let Some(found) = self.key_of(&hash) {
            self.touch(hash);
            return Ok(Some(found));
        }
        self.look_again().await?;
        Ok(self.key_of(&hash))
    }

    fn key_of(&self, hash: &SecretHash) -> Option<KeyOf> {
        let snapshot = self.0.snapshot.load();
        let &WriteKey { space, source, expires_at } = snapshot.write_keys.get(hash)?;
        let now = self.0.clock.now();
        if expires_at.is_some_and(|end| now >= end) {
            return None;
        }
        let sends = snapshot.sources.get(&(space, source));
        let enabled = sends.is_some_and(|s| s.enabled);
        let events_per_second_max = sends.and_then(|s| s.events_per_second_max);
        let allowed_origins = sends.and_then(|s| s.allowed_origins.clone());
        let is_public = sends.is_some_and(|s| s.is_public);
        let plan = snapshot.space(space).map(|s| &s.plan);
        let lock = plan.and_then(|plan| plan.lock(now));
        let limits = plan.and_then(|plan| plan.limits.of_events());
        let may_warn = plan.is_some_and(Plan::may_warn);
        Some(KeyOf {
            space,
            source,
            enabled,
            events_per_second_max,
            allowed_origins,
            is_public,
            limits,
            may_warn,
            lock,
        })
    }

    /// The access token with this secret; `None` for an unknown, revoked or expired one.
    pub async fn find_token(&self, secret: &str) -> store::Result<Option<Arc<Token>>> {
        let hash = hash_secret(secret);
        let find = || self.0.snapshot.load().tokens.get(&hash).cloned();
        let mut found = find();
        if found.is_none() {
            self.look_again().await?;
            found = find();
        }
        let now = self.0.clock.now();
        let live = found.filter(|token| token.expires_at.is_none_or(|end| now < end));
        if live.is_some() {
            self.touch(hash);
        }
        Ok(live)
    }

    /// The space clients call `key`.
    pub async fn find_space(&self, key: &str) -> store::Result<Option<Arc<Space>>> {
        let find = || self.0.snapshot.load().spaces.get(key).cloned();
        if let Some(space) = find() {
            return Ok(Some(space));
        }
        self.look_again().await?;
        Ok(find())
    }

    /// Makes sure that the snapshot is no older than this call. Everybody who asks at the same time shares one look.
    async fn look_again(&self) -> store::Result<()> {
        let asked = Instant::now();
        let mut looked = self.0.looked.lock().await;
        if *looked > asked {
            return Ok(());
        }
        tokio::time::sleep_until(*looked + SECOND_LOOK).await;
        *looked = Instant::now();
        self.reload_if_newer().await
    }

    async fn reload_if_newer(&self) -> store::Result<()> {
        let version = registry::version(&self.0.pool).await?;
        if version > self.0.snapshot.load().version { self.reload().await } else { Ok(()) }
    }

    fn touch(&self, hash: SecretHash) {
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        if !used.contains(&hash) {
            used.insert(hash);
        }
    }

    /// Keeps the snapshot fresh and writes down what was used, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = 0_u32;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => break,
            }
            if let Err(error) = self.reload_if_newer().await {
                tracing::warn!(%error, "could not look for changed keys and tokens: {error}");
            }
            if let Err(error) = self.reload_keep_outs().await {
                tracing::warn!(%error, "could not look for who is suppressed: {error}");
            }
            let snapshot = self.snapshot();
            if let Err(error) = load_meters(&self.0.pool, &self.0.meters, &snapshot, self.0.clock.now()).await
            {
                tracing::warn!(%error, "could not look how much others have taken: {error}");
            }
            count = count.wrapping_add(1);
            if count.is_multiple_of(TOUCH_EVERY) {
                self.write_used().await;
            }
        }
        self.write_used().await;
    }

    async fn write_used(&self) {
        let used = std::mem::take(&mut *self.0.used.lock().unwrap_or_else(PoisonError::into_inner));
        let used: Vec<SecretHash> = used.into_iter().collect();
        if used.is_empty() {
            return;
        }
        if let Err(error) = registry::touch_secrets(&self.0.pool, &used, self.0.clock.now()).await {
            tracing::warn!(%error, "could not write down which keys and tokens were used: {error}");
        }
    }
}
