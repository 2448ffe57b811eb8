//! Profiles by the value of a trait.

use std::sync::Arc;

use super::{Kind, Person, QueryError, Reader};
use crate::domain::trait_names::canonical;
use crate::domain::{Collection, ProfileNo, SpaceNo};
use crate::engine::profile::Profile;
use crate::engine::search::{hash_of, is_value};
use crate::store::{StoreError, people, search};

/// Whether profiles can be searched by a trait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Searchability {
    /// They can.
    Yes {
        /// The trait's number.
        no: i16,
        /// All profiles are found, not only those that have been filled in so far.
        complete: bool,
    },
    /// The trait is not one of the settings.
    No,
    /// It is what a definition says.
    Computed(Kind),
}

/// A value that is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The name of the trait.
    pub name: &'a str,
    /// Its number.
    pub no: i16,
    /// The text.
    pub value: &'a str,
}

impl Reader {
    /// Whether the profiles of a space can be searched by a trait.
    pub async fn searchability(&self, space: SpaceNo, name: &str) -> Result<Searchability, QueryError> {
        let directory = self.directory(space, None).await?;
        if let Some(serving) = directory.serving.values().find(|serving| serving.key == name) {
            return Ok(Searchability::Computed(serving.kind));
        }
        let rows = search::list_traits(&self.door(space), space).await?;
        let found = rows.into_iter().find(|row| !row.removed && canonical(&row.name) == canonical(name));
        Ok(found.map_or(Searchability::No, |row| Searchability::Yes {
            no: row.no,
            complete: row.filled.is_none(),
        }))
    }

    /// A page of live profiles whose trait has that value, the oldest first.
    pub async fn list_by_trait(
        &self,
        space: SpaceNo,
        collection: Collection,
        wanted: Wanted<'_>,
        mut after: ProfileNo,
        limit: usize,
    ) -> Result<Vec<Person>, QueryError> {
        let directory = self.directory(space, None).await?;
        let key = (wanted.no, hash_of(collection, wanted.value));
        let mut tx = people::begin(&self.door(space)).await?;
        let mut page = Vec::new();
        loop {
            let found = search::list_candidates(&mut *tx, space, key, after, limit as i64).await?;
            let is_last = found.len() < limit;
            after = found.last().map_or(after, |(no, _)| *no);
            for state in found.into_iter().filter_map(|(_, state)| state) {
                let profile = Profile::decode(&state)?;
                let is_it =
                    profile.traits.get().get(wanted.name).is_some_and(|json| is_value(json, wanted.value));
                if is_it && profile.collection == collection {
                    page.push(Person { profile, directory: Arc::clone(&directory) });
                }
            }
            if is_last || page.len() >= limit {
                page.truncate(limit);
                tx.commit().await.map_err(StoreError::from)?;
                return Ok(page);
            }
        }
    }
}
