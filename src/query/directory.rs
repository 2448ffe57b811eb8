//! What the numbers inside a profile mean: identifier types, serving definitions, sources. Cached per space and
//! reloaded whenever a profile was written under a newer configuration.

use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashMap;
use uuid::Uuid;

use crate::domain::{ComputationNo, SourceNo, SpaceNo};
use crate::engine::identity::{IdType, Settings};
use crate::store::definitions::{self, Kind, ServingVersion};
use crate::store::{Result, StoreError, Walled, identity, processor, sources};

/// A version that answers for its key.
#[derive(Debug)]
pub struct Serving {
    /// Audience or computed trait.
    pub kind: Kind,
    /// What it answers for.
    pub key: String,
    /// The place of the key among all of them, by name.
    pub place: usize,
    /// What it is used for.
    pub purpose: Option<String>,
    /// What follows from it is decided by a person.
    pub requires_human_review: bool,
}

/// A space's directory at one version of its configuration.
#[derive(Debug)]
pub struct Directory {
    /// The version.
    pub version: i64,
    /// Identity settings.
    pub settings: Settings,
    /// Which version of which definition answers.
    pub serving: HashMap<ComputationNo, Serving>,
    sources: HashMap<SourceNo, Uuid>,
}

impl Directory {
    /// The identifier type of that name.
    pub fn id_type(&self, name: &str) -> Option<&IdType> {
        self.settings.by_name(name)
    }

    /// Name of an identifier type.
    pub fn type_name(&self, no: i16) -> &str {
        self.settings.by_no(no).map_or("", |t| t.name.as_str())
    }

    /// Public id of a source.
    pub fn source_id(&self, no: SourceNo) -> Option<String> {
        Some(crate::domain::ids::public_id("src", *self.sources.get(&no)?))
    }
}

/// The directories of all spaces.
#[derive(Debug, Default)]
pub(super) struct Directories(RwLock<HashMap<SpaceNo, Arc<Directory>>>);

impl Directories {
    pub(super) async fn get(
        &self,
        door: &Walled,
        space: SpaceNo,
        version: Option<i64>,
    ) -> Result<Arc<Directory>> {
        let version = match version {
            Some(version) => version,
            None => processor::config_version(door, space).await?,
        };
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&space).cloned();
        if let Some(known) = known.filter(|d| d.version >= version) {
            return Ok(known);
        }
        let directory = Arc::new(load(door, space).await?);
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(space, Arc::clone(&directory));
        Ok(directory)
    }
}

async fn load(door: &Walled, space: SpaceNo) -> Result<Directory> {
    // Read first: what is read after it is at least as new.
    let version = processor::config_version(door, space).await?;
    let mut tx = door.begin().await?;
    let row = identity::get_settings(&mut tx, space).await?;
    tx.commit().await?;
    let settings = Settings::new(row.types, row.merges_max.max(0) as u32, row.identifiers_max.max(0) as u32)
        .map_err(|e| StoreError::Damaged(e.to_string()))?;
    let mut serving = definitions::list_serving(door, space).await?;
    serving.sort_by(|a, b| a.key.cmp(&b.key));
    let serving = serving.into_iter().enumerate();
    let sources = sources::list_sources(door, Some(space)).await?;
    Ok(Directory {
        version,
        settings,
        serving: serving
            .map(|(place, ServingVersion { no, kind, key, purpose, requires_human_review })| {
                (no, Serving { kind, key, place, purpose, requires_human_review })
            })
            .collect(),
        sources: sources.into_iter().map(|source| (source.no, source.id)).collect(),
    })
}
