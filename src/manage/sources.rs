//! The sources that send events into a space, and their write keys.

use std::collections::HashMap;

use uuid::Uuid;

use super::plans::read_instant;
use super::spaces::check_name;
use super::{Manage, ManageError, Result};
use crate::domain::origin::{AllowedOrigin, ORIGINS_MAX};
use crate::domain::{Patch, SpaceNo};
use crate::store::registry::Source;
use crate::store::sources::{self, KeyFate, KeyView, NewSource, SourceUpdate};

pub use crate::store::registry::visible_prefix;

/// A source with what may be shown of its write keys.
#[derive(Debug, Clone)]
pub struct SourceView {
    /// The source.
    pub source: Source,
    /// Its write keys that have not been revoked.
    pub keys: Vec<KeyView>,
}

/// Fastest rate that can be set for a source, in events a second; what is faster needs no limit.
const RATE_MAX: i64 = 1_000_000;

/// What is to be changed of a source; what is not named stays as it is.
#[derive(Debug, Clone, Default)]
pub struct SourceChange {
    /// Whether it may send.
    pub enabled: Option<bool>,
    /// Events it may send a process in a second; none is no limit.
    pub events_per_second_max: Patch<i64>,
    /// Pages it takes events from; none is any.
    pub allowed_origins: Patch<Vec<String>>,
    /// Whether its write key is known to anybody, as those of pages and apps are.
    pub is_public: Option<bool>,
}

fn check_rate(rate: i64) -> Result<u32> {
    let read = u32::try_from(rate).ok().filter(|_| (1..=RATE_MAX).contains(&rate));
    read.ok_or_else(|| {
        let message = format!("a source may send 1 to {RATE_MAX} events a second, or null for no limit");
        ManageError::invalid("events_per_second_max", message)
    })
}

impl Manage {
    /// Makes a source; the second is its write key, which nobody will see again.
    pub async fn create_source(
        &self,
        space: SpaceNo,
        name: &str,
        is_public: bool,
        events_per_second_max: Option<i64>,
        allowed_origins: Option<Vec<String>>,
    ) -> Result<(Source, String)> {
        let (name, key) = (check_name(name)?, self.secret("wk"));
        let rate = events_per_second_max.map(check_rate).transpose()?;
        let origins = allowed_origins.as_deref().map(read_origins).transpose()?;
        let (id, now) = (self.ids.uuid(), self.clock.now());
        let allowed_origins = origins.as_deref();
        let new =
            NewSource { id, name, events_per_second_max: rate, allowed_origins, is_public, write_key: &key };
        let source = sources::insert_source(&self.door(space), space, &new, now).await?;
        self.registry.reload().await?;
        Ok((source, key))
    }

    /// All sources of a space, in the order they were made.
    pub async fn list_sources(&self, space: SpaceNo) -> Result<Vec<SourceView>> {
        let mut keys: HashMap<_, Vec<_>> = HashMap::new();
        for key in sources::list_write_keys(&self.door(space), space).await? {
            keys.entry(key.source).or_default().push(key);
        }
        let snapshot = self.registry.snapshot();
        let of_space = snapshot.sources.values().filter(|s| s.space == space).cloned();
        let view = |source: Source| SourceView { keys: keys.remove(&source.no).unwrap_or_default(), source };
        let mut sources: Vec<SourceView> = of_space.map(view).collect();
        sources.sort_unstable_by_key(|s| s.source.no);
        Ok(sources)
    }

    /// Makes another write key for a source, so that clients can change over before the old one is revoked. Nobody will see
    /// it again.
    pub async fn create_write_key(&self, space: SpaceNo, id: Uuid) -> Result<String> {
        let (source, key) = (self.find_source(space, id)?, self.secret("wk"));
        sources::add_write_key(&self.door(space), space, source.no, &key, self.clock.now()).await?;
        self.registry.reload().await?;
        Ok(key)
    }

    /// Takes a write key out of use for ever. This process knows at once, others within a second.
    pub async fn revoke_write_key(&self, space: SpaceNo, id: Uuid, prefix: &str) -> Result<()> {
        self.decide_write_key(space, id, prefix, KeyFate::Revoked(self.clock.now())).await
    }

    async fn decide_write_key(&self, space: SpaceNo, id: Uuid, prefix: &str, fate: KeyFate) -> Result<()> {
        let source = self.find_source(space, id)?;
        if !sources::decide_write_key(&self.door(space), space, source.no, prefix, fate).await? {
            return Err(ManageError::not_found("write key", prefix.chars().take(60).collect::<String>()));
        }
        Ok(self.registry.reload().await?)
    }

    fn find_source(&self, space: SpaceNo, id: Uuid) -> Result<Source> {
        let snapshot = self.registry.snapshot();
        let found = snapshot.sources.values().find(|s| s.space == space && s.id == id).cloned();
        found.ok_or_else(|| ManageError::not_found("source", crate::domain::ids::public_id("src", id)))
    }

    /// Switches a source on or off, or changes its rate or its pages. This process knows at once, others within a second.
    pub async fn change_source(&self, space: SpaceNo, id: Uuid, change: SourceChange) -> Result<Source> {
        let missing = || ManageError::not_found("source", crate::domain::ids::public_id("src", id));
        let SourceChange { enabled, events_per_second_max: rate, allowed_origins: origins, is_public } =
            change;
        if enabled.is_none() && is_public.is_none() && rate.is_keep() && origins.is_keep() {
            let message =
                "name what is to be changed: enabled, events_per_second_max, allowed_origins or public";
            return Err(ManageError::invalid("enabled", message));
        }
        let update = SourceUpdate {
            enabled,
            events_per_second_max: rate.try_map(check_rate)?,
            allowed_origins: origins.try_map(|texts| read_origins(&texts))?,
            is_public,
        };
        if !sources::update_source(&self.door(space), space, id, update).await? {
            return Err(missing());
        }
        self.registry.reload().await?;
        self.find_source(space, id)
    }

    /// Lets a write key work until an instant, or without end. This process knows at once, others within a second.
    pub async fn expire_write_key(
        &self,
        space: SpaceNo,
        id: Uuid,
        prefix: &str,
        expires_at: Patch<String>,
    ) -> Result<()> {
        let expires_at = match expires_at {
            Patch::Keep => {
                let message = "say when it stops working, such as 2024-03-01T12:00:00Z, or null for never";
                return Err(ManageError::invalid("expires_at", message));
            }
            Patch::Clear => None,
            Patch::Set(text) => Some(read_instant("expires_at", &text)?),
        };
        self.decide_write_key(space, id, prefix, KeyFate::Expires(expires_at)).await
    }
}

fn read_origins(texts: &[String]) -> Result<Vec<AllowedOrigin>> {
    if texts.len() > ORIGINS_MAX {
        let message = format!("there are {} of them; there can be {ORIGINS_MAX}", texts.len());
        return Err(ManageError::invalid("allowed_origins", message));
    }
    let read = |(place, text): (usize, &String)| {
        AllowedOrigin::parse(text).ok_or_else(|| {
            let message = "send scheme and host, such as https://shop.example, https://*.shop.example or \
                           http://localhost:3000";
            ManageError::invalid(format!("allowed_origins[{place}]"), message)
        })
    };
    texts.iter().enumerate().map(read).collect()
}
