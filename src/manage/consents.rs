//! What people are asked to consent to, as operators decide it: categories, and the destinations that are mapped to them.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::definitions::{Definition, Kind, Options};
use super::gates::renew;
use super::identity_settings::shown;
use super::spaces::check_name;
use super::{Manage, ManageError, Result};
use crate::domain::ids::public_id;
use crate::domain::{DestinationNo, SpaceNo};
use crate::store::consents::{self, Wanted};
use crate::store::definitions::list_definitions_in;
use crate::store::{StoreError, destinations, processor};

pub use crate::store::consents::Category;

/// Categories of a space at most.
const CATEGORIES_MAX: usize = 100;
/// Longest id of a category, in characters.
const ID_CHARS_MAX: usize = 34;

/// A category to be made, or what is to be changed of one.
#[derive(Debug, Clone, Default)]
pub struct CategoryChange {
    /// For people.
    pub name: Option<String>,
    /// Destinations that are to be mapped to it, and no others.
    pub destinations: Option<Vec<Uuid>>,
}

impl Manage {
    /// The categories of a space in order of their ids.
    pub async fn list_consent_categories(&self, space: SpaceNo) -> Result<Vec<Category>> {
        Ok(consents::list_categories(&self.door(space), space).await?)
    }

    /// One of them.
    pub async fn find_consent_category(&self, space: SpaceNo, id: &str) -> Result<Category> {
        let found = self.list_consent_categories(space).await?.into_iter().find(|category| category.id == id);
        found.ok_or_else(|| missing(id))
    }

    /// Makes a category. What was said of it before, in events that came already, counts.
    pub async fn create_consent_category(
        &self,
        space: SpaceNo,
        id: &str,
        new: CategoryChange,
    ) -> Result<Category> {
        check_id(id)?;
        let name = new.name.as_deref().map(check_name).transpose()?;
        if self.list_consent_categories(space).await?.len() >= CATEGORIES_MAX {
            return Err(ManageError::TooMany { what: "categories of consent", most: CATEGORIES_MAX });
        }
        let mapped = self.mapped(space, new.destinations.as_deref()).await?;
        let wanted = Wanted { id, name, destinations: mapped.as_deref() };
        let door = self.door(space);
        let insert = consents::insert_category(&door, space, wanted, self.clock.now());
        match self.reconfigure(space, insert).await {
            Err(StoreError::Exists) => {
                return Err(ManageError::Exists { what: "the category", name: shown(id) });
            }
            done => done?,
        }
        self.find_consent_category(space, id).await
    }

    /// Changes a category. A destination that is mapped to it no more is sent the present state of everybody it was told
    /// nothing of.
    pub async fn change_consent_category(
        &self,
        space: SpaceNo,
        id: &str,
        change: CategoryChange,
    ) -> Result<Category> {
        let name = change.name.as_deref().map(check_name).transpose()?;
        let mapped = self.mapped(space, change.destinations.as_deref()).await?;
        let wanted = Wanted { id, name, destinations: mapped.as_deref() };
        let door = self.door(space);
        let update = consents::update_category(&door, space, wanted, self.clock.now());
        if !self.reconfigure(space, update).await? {
            return Err(missing(id));
        }
        self.find_consent_category(space, id).await
    }

    /// Whether audiences leave out who does not consent to their category.
    pub async fn consent_settings(&self, space: SpaceNo) -> Result<bool> {
        Ok(consents::read_membership(&self.door(space), space).await?)
    }

    /// Sets whether they do: the audiences it is about are computed anew, and answer as before until that is done.
    pub async fn change_consent_settings(&self, space: SpaceNo, membership: bool) -> Result<()> {
        let _editing = self.editing.lock().await;
        let now = self.clock.now();
        let write = async {
            let mut tx = self.door(space).begin().await?;
            // Its row lock keeps out who edits in another process: what is read from here on is what they have left.
            processor::bump_config(&mut tx, space).await?;
            consents::set_membership(&mut *tx, space, membership).await?;
            let options = |present: &Options| {
                let mut wanted = present.clone();
                wanted.gates.enforces_consent = membership && wanted.gates.consent_category.is_some();
                wanted
            };
            renew(&mut tx, space, Some(Kind::Audience), now, options).await?;
            tx.commit().await.map_err(StoreError::from)?;
            Ok(())
        };
        self.reconfigure(space, write).await
    }

    /// Removes a category, unless an audience is about it. What people have said of it stays with them.
    pub async fn delete_consent_category(&self, space: SpaceNo, id: &str) -> Result<()> {
        let is_about = |audience: &Definition| {
            std::iter::once(&audience.latest)
                .chain(&audience.serving)
                .any(|version| version.options.gates.consent_category.as_deref() == Some(id))
        };
        let now = self.clock.now();
        let delete = async {
            let mut tx = self.door(space).begin().await?;
            // Its row lock keeps out who makes an audience about it in another process.
            processor::bump_config(&mut tx, space).await?;
            let audiences = list_definitions_in(&mut tx, space, Some(Kind::Audience), None).await?;
            let by: Vec<String> = audiences.iter().filter(|a| is_about(a)).map(|a| a.key.clone()).collect();
            if !by.is_empty() {
                return Err(ManageError::Referenced { key: shown(id), by });
            }
            if !consents::delete_category(&mut tx, space, id, now).await? {
                return Err(missing(id));
            }
            tx.commit().await.map_err(StoreError::from)?;
            Ok(())
        };
        self.reconfigure(space, delete).await
    }

    /// The numbers of destinations.
    async fn mapped(&self, space: SpaceNo, ids: Option<&[Uuid]>) -> Result<Option<Vec<DestinationNo>>> {
        let Some(ids) = ids else { return Ok(None) };
        let known = destinations::list(&self.door(space), space).await?;
        let mut numbers = BTreeSet::new();
        for (place, id) in ids.iter().enumerate() {
            let found = known.iter().find(|destination| destination.id == *id);
            let missing = || {
                let message = format!("there is no destination {}", public_id("dst", *id));
                ManageError::invalid(format!("destinations[{place}]"), message)
            };
            numbers.insert(found.ok_or_else(missing)?.no.0);
        }
        Ok(Some(numbers.into_iter().map(DestinationNo).collect()))
    }
}

fn check_id(id: &str) -> Result<()> {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ':' | '/' | ' ');
    let is_id = !id.is_empty()
        && id.chars().count() <= ID_CHARS_MAX
        && id.chars().all(is_word)
        && id.trim() == id
        && !id.starts_with(|c: char| c.is_numeric());
    if is_id {
        return Ok(());
    }
    let message = format!(
        "the id of a category is the one events have in context.consent.categoryPreferences: 1 to {ID_CHARS_MAX} letters, \
         digits, spaces and `_`, `-`, `:`, `/`, not beginning with a digit"
    );
    Err(ManageError::invalid("id", message))
}

fn missing(id: &str) -> ManageError {
    ManageError::not_found("category", shown(id))
}
