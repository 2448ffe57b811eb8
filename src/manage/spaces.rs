//! Spaces, the sources that send into them, and the tokens that may look into and change them.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{Manage, ManageError, Result};
use crate::domain::{Patch, SpaceNo, Timestamp};
use crate::store::StoreError;
use crate::store::registry::{self, NewSource, Scope, Source, Space, Token};
use crate::store::spaces;

pub use crate::store::registry::visible_prefix;

/// Longest name for people, in characters.
const NAME_CHARS_MAX: usize = 255;

/// A source with what may be shown of its write keys.
#[derive(Debug, Clone)]
pub struct SourceView {
    /// The source.
    pub source: Source,
    /// Its live write keys.
    pub keys: Vec<registry::KeyView>,
}

/// A token with when it was last used.
#[derive(Debug, Clone)]
pub struct TokenView {
    /// The token.
    pub token: Token,
    /// When it was last used, to half a minute.
    pub last_used_at: Option<Timestamp>,
}

/// Fastest rate that can be set for a source, in events a second; what is faster needs no limit.
const RATE_MAX: i64 = 1_000_000;

/// What is to be changed of a source; what is not named stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct SourceChange {
    /// Whether it may send.
    pub enabled: Option<bool>,
    /// Events it may send a process in a second; none is no limit.
    pub events_per_second_max: Patch<i64>,
}

/// Checks what clients want to call a space.
pub fn check_space_key(key: &str) -> Result<()> {
    let mut bytes = key.bytes();
    let starts_well = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let goes_on_well = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if starts_well && goes_on_well && key.len() <= 100 {
        return Ok(());
    }
    let message =
        "the id of a space is 1 to 100 letters, digits, `-`, `_` or `.`, and starts with a letter or digit";
    Err(ManageError::invalid("id", message))
}

/// A name for people: trimmed, not empty, not too long, no control characters.
pub(super) fn check_name(name: &str) -> Result<&str> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        let message = format!("a name has 1 to {NAME_CHARS_MAX} characters and no control characters");
        return Err(ManageError::invalid("name", message));
    }
    Ok(name)
}

fn check_rate(rate: i64) -> Result<u32> {
    let read = u32::try_from(rate).ok().filter(|_| (1..=RATE_MAX).contains(&rate));
    read.ok_or_else(|| {
        let message = format!("a source may send 1 to {RATE_MAX} events a second, or null for no limit");
        ManageError::invalid("events_per_second_max", message)
    })
}

impl Manage {
    /// Makes a space. Without a name it is called by its id.
    pub async fn create_space(&self, key: &str, name: Option<&str>) -> Result<Space> {
        check_space_key(key)?;
        let name = check_name(name.unwrap_or(key))?;
        let made = spaces::insert_space(&self.pool, key, name, self.clock.now()).await;
        let space = made.map_err(|error| match error {
            StoreError::Exists => ManageError::Exists { what: "space", name: key.to_owned() },
            error => error.into(),
        })?;
        self.registry.reload().await?;
        Ok(space)
    }

    /// All spaces, or the one a token is limited to, in order of their ids.
    pub fn list_spaces(&self, only: Option<SpaceNo>) -> Vec<Space> {
        let snapshot = self.registry.snapshot();
        let visible = snapshot.spaces.values().filter(|s| only.is_none_or(|no| s.no == no));
        let mut spaces: Vec<Space> = visible.map(|space| Space::clone(space)).collect();
        spaces.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        spaces
    }

    /// Makes a source; the second is its write key, which nobody will see again.
    pub async fn create_source(
        &self,
        space: SpaceNo,
        name: &str,
        events_per_second_max: Option<i64>,
    ) -> Result<(Source, String)> {
        let (name, key) = (check_name(name)?, self.secret("wk"));
        let rate = events_per_second_max.map(check_rate).transpose()?;
        let (id, now) = (self.ids.uuid(), self.clock.now());
        let new = NewSource { id, name, events_per_second_max: rate, write_key: &key };
        let source = registry::insert_source(&self.pool, space, &new, now).await?;
        self.registry.reload().await?;
        Ok((source, key))
    }

    /// All sources of a space, in the order they were made.
    pub async fn list_sources(&self, space: SpaceNo) -> Result<Vec<SourceView>> {
        let mut keys: HashMap<_, Vec<_>> = HashMap::new();
        for key in registry::list_write_keys(&self.pool, space).await? {
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
        registry::add_write_key(&self.pool, space, source.no, &key, self.clock.now()).await?;
        self.registry.reload().await?;
        Ok(key)
    }

    /// Takes a write key out of use for ever. This process knows at once, others within a second.
    pub async fn revoke_write_key(&self, space: SpaceNo, id: Uuid, prefix: &str) -> Result<()> {
        let source = self.find_source(space, id)?;
        let now = self.clock.now();
        if !registry::revoke_write_key(&self.pool, space, source.no, prefix, now).await? {
            return Err(ManageError::not_found("write key", prefix.chars().take(60).collect::<String>()));
        }
        self.registry.reload().await?;
        Ok(())
    }

    fn find_source(&self, space: SpaceNo, id: Uuid) -> Result<Source> {
        let snapshot = self.registry.snapshot();
        let found = snapshot.sources.values().find(|s| s.space == space && s.id == id).cloned();
        found.ok_or_else(|| ManageError::not_found("source", crate::domain::ids::public_id("src", id)))
    }

    /// Switches a source on or off, or changes its rate. This process knows at once, others within a second.
    pub async fn change_source(&self, space: SpaceNo, id: Uuid, change: SourceChange) -> Result<Source> {
        let missing = || ManageError::not_found("source", crate::domain::ids::public_id("src", id));
        let SourceChange { enabled, events_per_second_max: rate } = change;
        if enabled.is_none() && rate.is_keep() {
            let message = "name what is to be changed: enabled or events_per_second_max";
            return Err(ManageError::invalid("enabled", message));
        }
        let rate = rate.try_map(check_rate)?;
        if !registry::update_source(&self.pool, space, id, enabled, rate).await? {
            return Err(missing());
        }
        self.registry.reload().await?;
        self.find_source(space, id)
    }

    /// Makes a token for one space; the second is its secret, which nobody will see again.
    pub async fn create_token(
        &self,
        space: SpaceNo,
        name: &str,
        scopes: &[String],
    ) -> Result<(Token, String)> {
        let name = check_name(name)?.to_owned();
        let secret = self.secret("tok");
        let token = Token {
            space: Some(space),
            id: self.ids.uuid(),
            name,
            prefix: registry::visible_prefix(&secret),
            scopes: read_scopes(scopes)?,
            created_at: self.clock.now(),
            expires_at: None,
        };
        registry::insert_token(&self.pool, &token, &secret).await?;
        self.registry.reload().await?;
        Ok((token, secret))
    }

    /// All live tokens of a space, oldest first.
    pub async fn list_tokens(&self, space: SpaceNo) -> Result<Vec<TokenView>> {
        let used: HashMap<Uuid, Timestamp> =
            registry::list_token_uses(&self.pool, space).await?.into_iter().collect();
        let snapshot = self.registry.snapshot();
        let of_space = snapshot.tokens.values().filter(|t| t.space == Some(space));
        let view = |token: &Arc<Token>| TokenView {
            last_used_at: used.get(&token.id).copied(),
            token: Token::clone(token),
        };
        let mut tokens: Vec<TokenView> = of_space.map(view).collect();
        tokens.sort_unstable_by_key(|t| (t.token.created_at, t.token.id));
        Ok(tokens)
    }

    /// Takes a token out of use for ever.
    pub async fn revoke_token(&self, space: SpaceNo, id: Uuid) -> Result<()> {
        if !registry::revoke_token(&self.pool, space, id, self.clock.now()).await? {
            return Err(ManageError::not_found("token", crate::domain::ids::public_id("tok", id)));
        }
        Ok(self.registry.reload().await?)
    }
}

/// The scopes in words; each once, at least one.
fn read_scopes(words: &[String]) -> Result<Vec<Scope>> {
    let mut scopes = Vec::new();
    for word in words {
        let scope = Scope::parse(word).ok_or_else(|| {
            let shown: String = word.chars().take(40).collect();
            ManageError::invalid(
                "scopes",
                format!("there is no scope `{shown}`; there are read, write and admin"),
            )
        })?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    if scopes.is_empty() {
        return Err(ManageError::invalid("scopes", "name at least one of the scopes read, write and admin"));
    }
    scopes.sort_unstable();
    Ok(scopes)
}
