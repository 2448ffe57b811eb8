//! Which traits the profiles of a space can be searched by.

use std::collections::HashSet;

use super::{Manage, ManageError, Result};
use crate::domain::SpaceNo;
use crate::domain::trait_names::canonical;
use crate::store::search::{self, TraitRow};

/// Searchable traits of a space at most: each is written with every profile that has it.
const TRAITS_MAX: usize = 20;
/// Longest trait name, in characters (decision R4).
const NAME_CHARS_MAX: usize = 255;

/// The searchable traits of a space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchSettings {
    /// Their names, as they were given.
    pub traits: Vec<String>,
    /// Those that are still being filled in over the profiles there are.
    pub filling: Vec<String>,
}

impl SearchSettings {
    fn of(rows: &[TraitRow]) -> Self {
        let live = || rows.iter().filter(|row| !row.removed);
        Self {
            filling: live().filter(|row| row.filled.is_some()).map(|row| row.name.clone()).collect(),
            traits: live().map(|row| row.name.clone()).collect(),
        }
    }
}

impl Manage {
    /// The searchable traits of a space.
    pub async fn search_settings(&self, space: SpaceNo) -> Result<SearchSettings> {
        Ok(SearchSettings::of(&search::list_traits(&self.door(space), space).await?))
    }

    /// Makes these traits the searchable ones, and no others. New ones are filled in from now on.
    pub async fn change_search_settings(&self, space: SpaceNo, traits: &[String]) -> Result<SearchSettings> {
        check(traits)?;
        let door = self.door(space);
        let change =
            search::change_traits(&door, space, |present| Ok::<_, ManageError>(plan(traits, present)));
        Ok(SearchSettings::of(&self.reconfigure(space, change).await?))
    }
}

/// Which traits go, by number, and which come.
fn plan(wanted: &[String], present: &[TraitRow]) -> (Vec<i16>, Vec<(i16, String)>) {
    let live = || present.iter().filter(|row| !row.removed);
    let is_wanted = |row: &&TraitRow| wanted.iter().any(|name| canonical(name) == canonical(&row.name));
    let gone = live().filter(|row| !is_wanted(row)).map(|row| row.no).collect();
    let is_new = |name: &&String| !live().any(|row| canonical(&row.name) == canonical(name));
    // A number is given anew when nothing is left of the trait that had it.
    let free = (1..).filter(|no| !present.iter().any(|row| row.no == *no));
    (gone, free.zip(wanted.iter().filter(is_new).cloned()).collect())
}

fn check(traits: &[String]) -> Result<()> {
    if traits.len() > TRAITS_MAX {
        let message = format!("there are {} of them; there can be {TRAITS_MAX}", traits.len());
        return Err(ManageError::invalid("traits", message));
    }
    let mut named = HashSet::new();
    for (place, name) in traits.iter().enumerate() {
        let at = format!("traits[{place}]");
        let is_right = !name.is_empty()
            && name.chars().count() <= NAME_CHARS_MAX
            && !name.contains('\0')
            && !name.starts_with('$');
        if !is_right {
            let message = format!(
                "the name of a trait has 1 to {NAME_CHARS_MAX} characters, and no `$` at its beginning"
            );
            return Err(ManageError::invalid(at, message));
        }
        if !named.insert(canonical(name)) {
            return Err(ManageError::invalid(at, format!("the trait {name:?} is named twice")));
        }
    }
    Ok(())
}
