//! What has been seen of events and traits, and which names of a query have not.

use super::{QueryError, Reader};
use crate::domain::{Collection, SpaceNo, trait_names};
use crate::engine::Plan;
use crate::engine::query::Known;
use crate::store::definitions::{self, Definition};
use crate::store::schema::{self, SeenKind};

pub use crate::domain::seen::Seen;
pub use crate::engine::query::QueryError as Remark;

/// Event names that are remembered of a space at most: with so many there may be others.
const NAMES_MAX: usize = 1_000;

impl Reader {
    /// All event names that have been seen, with what has been seen of them.
    pub async fn list_seen_events(&self, space: SpaceNo) -> Result<Vec<(String, Seen)>, QueryError> {
        Ok(schema::list_seen(&self.door(space), space, SeenKind::Event, None).await?)
    }

    /// What has been seen of the events of one name.
    pub async fn find_seen_event(&self, space: SpaceNo, name: &str) -> Result<Option<Seen>, QueryError> {
        // U+0000 is in no name and not in Postgres' texts either.
        let name = name.replace('\0', "");
        let found = schema::list_seen(&self.door(space), space, SeenKind::Event, Some(&name)).await?.pop();
        Ok(found.map(|(_, seen)| seen))
    }

    /// What has been seen of the traits of a collection.
    pub async fn find_seen_traits(&self, space: SpaceNo, collection: Collection) -> Result<Seen, QueryError> {
        let kind = match collection {
            Collection::Users => SeenKind::UserTraits,
            Collection::Accounts => SeenKind::AccountTraits,
        };
        let found = schema::list_seen(&self.door(space), space, kind, None).await?.pop();
        Ok(found.map(|(_, seen)| seen).unwrap_or_default())
    }

    /// A word about each name of a query that has not been seen. Never a reason to refuse: events may be about to come.
    pub async fn remarks(&self, space: SpaceNo, plan: &Plan) -> Result<Vec<Remark>, QueryError> {
        let names = schema::list_names(&self.door(space), space, SeenKind::Event).await?;
        let has_more_events = names.len() >= NAMES_MAX;
        let mut known = Known { has_more_events, ..Known::default() };
        for name in names {
            known.events.insert(name, None);
        }
        for event in plan.events() {
            let Some(seen) = self.find_seen_event(space, event).await? else { continue };
            let properties = seen.fields.known.into_keys().filter(|path| !path.contains('.')).collect();
            known.events.insert(event.to_owned(), Some(properties).filter(|_| !seen.fields.is_cut));
        }
        let definitions = definitions::list_definitions(&self.door(space), space, None, None).await?;
        known.traits = self.known_traits(space, plan.collection(), &definitions).await?;
        if !plan.traits_of_users().is_empty() {
            known.traits_of_users = self.known_traits(space, Collection::Users, &definitions).await?;
        }
        Ok(plan.unseen(&known))
    }

    /// Traits of a collection, by canonical name, computed traits and audiences included; nothing when there may be more.
    async fn known_traits(
        &self,
        space: SpaceNo,
        collection: Collection,
        definitions: &[Definition],
    ) -> Result<Option<Vec<String>>, QueryError> {
        let traits = self.find_seen_traits(space, collection).await?;
        if traits.fields.is_cut {
            return Ok(None);
        }
        let canonical = |name: &String| trait_names::canonical(name).into_owned();
        let mut names: Vec<String> = traits.fields.known.keys().map(canonical).collect();
        let of_it = definitions.iter().filter(|definition| definition.collection == collection);
        names.extend(of_it.map(|definition| definition.key.clone()));
        Ok(Some(names))
    }
}
