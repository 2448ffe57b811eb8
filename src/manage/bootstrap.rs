//! What has to be there before anybody can do anything: a space, a source with a write key, the owner's token.
//!
//! Every step is taken only when its result is missing, so that a start that was cut off is finished by the next one,
//! and several processes may start at once.

use super::spaces::check_space_key;
use super::{Manage, ManageError, Result};
use crate::domain::Scope;
use crate::store::registry::{self, Space, Token, hash_secret};
use crate::store::sources::{self, NewSource};
use crate::store::{StoreError, tokens};

/// What the first start is told.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Id of the first space.
    pub space: String,
    /// A write key that has to exist; without one, a random one is made with the first source.
    pub write_key: Option<String>,
    /// An owner's token that has to exist; without one, a random one is made once.
    pub token: Option<String>,
}

/// What was made and nobody will be shown again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// The first space, when it was made by this start.
    pub space: Option<String>,
    /// A random write key.
    pub write_key: Option<String>,
    /// A random owner's token.
    pub token: Option<String>,
}

/// Shortest secret taken from the configuration: any, because fixed ones are for trying things out. Those we make
/// have 256 random bits.
const SECRET_CHARS_MIN: usize = 1;

impl Manage {
    /// Makes what is missing.
    pub async fn bootstrap(&self, wanted: &Wanted) -> Result<Made> {
        check_secret("PERSONAS_BOOTSTRAP_WRITE_KEY", wanted.write_key.as_deref())?;
        check_secret("PERSONAS_BOOTSTRAP_TOKEN", wanted.token.as_deref())?;
        let mut made = Made::default();
        if let Some(space) = self.bootstrap_space(wanted, &mut made).await? {
            made.write_key = self.bootstrap_key(&space, wanted.write_key.as_deref()).await?;
        }
        made.token = self.bootstrap_token(wanted.token.as_deref()).await?;
        self.registry.reload().await?;
        Ok(made)
    }

    /// The space to work in; none when there are others and nobody asks for this one.
    async fn bootstrap_space(&self, wanted: &Wanted, made: &mut Made) -> Result<Option<Space>> {
        check_space_key(&wanted.space)?;
        let snapshot = self.registry.snapshot();
        let known = snapshot.spaces.get(&wanted.space).map(|space| Space::clone(space));
        if known.is_some() || !(snapshot.spaces.is_empty() || wanted.write_key.is_some()) {
            return Ok(known);
        }
        match self.create_space(&wanted.space, None).await {
            Ok(space) => {
                made.space = Some(space.key.clone());
                Ok(Some(space))
            }
            // Another process was faster.
            Err(ManageError::Exists { .. }) => {
                self.registry.reload().await?;
                Ok(self.registry.snapshot().spaces.get(&wanted.space).map(|space| Space::clone(space)))
            }
            Err(error) => Err(error),
        }
    }

    async fn bootstrap_key(&self, space: &Space, fixed: Option<&str>) -> Result<Option<String>> {
        let snapshot = self.registry.snapshot();
        let first = snapshot.sources.values().filter(|s| s.space == space.no).min_by_key(|s| s.no);
        let Some(key) = fixed else {
            return match first {
                Some(_) => Ok(None),
                None => Ok(Some(self.create_source(space.no, "default", false, None, None).await?.1)),
            };
        };
        if snapshot.write_keys.contains_key(&hash_secret(key)) {
            return Ok(None);
        }
        let now = self.clock.now();
        let added = if let Some(source) = first {
            sources::add_write_key(&self.door(space.no), space.no, source.no, key, now).await
        } else {
            let id = self.ids.uuid();
            let (name, write_key) = ("default", key);
            let new = NewSource {
                id,
                name,
                events_per_second_max: None,
                allowed_origins: None,
                is_public: false,
                write_key,
            };
            sources::insert_source(&self.door(space.no), space.no, &new, now).await.map(drop)
        };
        tolerate_known("PERSONAS_BOOTSTRAP_WRITE_KEY", added)?;
        Ok(None)
    }

    async fn bootstrap_token(&self, fixed: Option<&str>) -> Result<Option<String>> {
        let snapshot = self.registry.snapshot();
        let is_there = match fixed {
            Some(secret) => snapshot.tokens.contains_key(&hash_secret(secret)),
            None => snapshot.tokens.values().any(|t| t.space.is_none()),
        };
        if is_there {
            return Ok(None);
        }
        let secret = fixed.map_or_else(|| self.secret("tok"), str::to_owned);
        let token = Token {
            space: None,
            id: self.ids.uuid(),
            name: "owner".to_owned(),
            prefix: registry::visible_prefix(&secret),
            scopes: Scope::ALL.to_vec(),
            created_at: self.clock.now(),
            expires_at: None,
        };
        tolerate_known("PERSONAS_BOOTSTRAP_TOKEN", tokens::insert_token(&self.pool, &token, &secret).await)?;
        Ok(fixed.is_none().then_some(secret))
    }
}

fn check_secret(field: &'static str, secret: Option<&str>) -> Result<()> {
    match secret {
        Some(secret) if secret.chars().count() < SECRET_CHARS_MIN || secret.contains(char::is_whitespace) => {
            let message =
                format!("{field} must have at least {SECRET_CHARS_MIN} characters and no white space");
            Err(ManageError::invalid(field, message))
        }
        _ => Ok(()),
    }
}

/// A secret that is there already was added by another process a moment ago, or revoked: neither is undone.
fn tolerate_known(variable: &'static str, added: crate::store::Result<()>) -> Result<()> {
    match added {
        Err(StoreError::Exists) => {
            tracing::warn!(
                "{variable} names a secret that is known already; if it was revoked, it stays revoked"
            );
            Ok(())
        }
        added => Ok(added?),
    }
}
