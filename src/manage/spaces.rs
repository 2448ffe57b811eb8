//! Spaces.

use super::{Manage, ManageError, Result};
use crate::domain::SpaceNo;
use crate::store::StoreError;
use crate::store::registry::Space;
use crate::store::spaces;

/// Longest name for people, in characters.
const NAME_CHARS_MAX: usize = 255;

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
}
