//! Audiences and computed traits: made, changed, deleted; never without being checked against all others.

use uuid::Uuid;

use super::graph::Graph;
use super::spaces::check_name;
use super::{Manage, ManageError, Result};
use crate::domain::act::LIST_TRAIT;
use crate::domain::gate::Gates;
use crate::domain::ids::public_id;
use crate::domain::trait_names::is_hidden;
use crate::domain::{Collection, ComputationNo, Patch, SpaceNo};
use crate::engine::{self, KnownSource, Plan, Sources, compile_for};
use crate::store::StoreError;
use crate::store::definitions::{self, Edit, NewDefinition};

pub use crate::store::definitions::{Definition, Kind, Options, Version};

/// Longest description, in characters.
const DESCRIPTION_CHARS_MAX: usize = 2_000;
/// Keys that are words of the API's paths.
const RESERVED_KEYS: [&str; 2] = ["preview", "sizes"];

/// A definition to be made.
#[derive(Debug, Clone)]
pub struct Create {
    /// Name on the profile.
    pub key: String,
    /// For people; the key when not given.
    pub name: Option<String>,
    /// For people.
    pub description: String,
    /// What it is used for.
    pub purpose: Option<String>,
    /// `users` or `accounts`.
    pub collection: String,
    /// Query text; `None` for a list, whose members are told one by one.
    pub query: Option<String>,
    /// Options.
    pub options: Options,
    /// Whether to start at once.
    pub enabled: bool,
}

/// A copy to be made of a definition.
#[derive(Debug, Default)]
pub struct Copy {
    /// Its own name on the profile.
    pub key: String,
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Whether to start at once; so it does when nothing is said.
    pub enabled: Option<bool>,
}

/// What is to be changed; `None` leaves as is.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// On or off.
    pub enabled: Option<bool>,
    /// `users` or `accounts`; cannot be changed.
    pub collection: Option<String>,
    /// Query text.
    pub query: Option<String>,
    /// Count profiles that have only anonymous identifiers.
    pub include_anonymous: Option<bool>,
    /// Count events received before the version was made.
    pub include_history: Option<bool>,
    /// What it is used for.
    pub purpose: Patch<String>,
    /// The category of consent it is about.
    pub consent_category: Patch<String>,
    /// Whether what follows from membership is decided by a person.
    pub requires_human_review: Option<bool>,
}

/// Who refers to a definition, and to whom it refers.
#[derive(Debug, Clone, Default)]
pub struct References {
    /// Definitions it reads.
    pub refers_to: Vec<(Kind, String)>,
    /// Definitions that read it.
    pub referenced_by: Vec<(Kind, String)>,
}

/// What clients call a definition of that kind.
pub const fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Audience => "audience",
        Kind::ComputedTrait => "computed trait",
    }
}

impl Manage {
    /// Makes a definition.
    pub async fn create_definition(&self, space: SpaceNo, kind: Kind, new: &Create) -> Result<Definition> {
        let _editing = self.editing.lock().await;
        let (name, _) = self.check_new(space, kind, new).await?;
        let gates = self.gated(space, &new.options.gates).await?;
        let options = Options { gates, retention: self.retention(space).await?, ..new.options.clone() };
        let id = self.ids.uuid();
        let query = new.query.clone().unwrap_or_else(|| query_of_list(id));
        let row = NewDefinition {
            id,
            kind,
            collection: check_collection(&new.collection)?,
            key: &new.key,
            name,
            description: &new.description,
            enabled: new.enabled,
            query: &query,
            options,
            purpose: new.purpose.as_deref(),
        };
        let door = self.door(space);
        let insert = definitions::insert_definition(&door, space, &row, self.clock.now());
        match self.reconfigure(space, insert).await {
            Err(StoreError::Exists) => return Err(taken(&new.key)),
            made => made?,
        }
        self.find_definition(space, kind, &new.key).await
    }

    /// Checks a definition as if it were made: its name, and what it would be made of. Nothing is made.
    pub async fn check_new<'n>(
        &self,
        space: SpaceNo,
        kind: Kind,
        new: &'n Create,
    ) -> Result<(&'n str, Plan)> {
        check_key(&new.key)?;
        let collection = check_collection(&new.collection)?;
        let name = check_name(new.name.as_deref().unwrap_or(&new.key))?;
        check_description(&new.description)?;
        check_purpose(new.purpose.as_deref())?;
        let gates = self.check_gates(space, kind, collection, &new.options.gates).await?;
        let plan = match (&new.query, kind) {
            (Some(query), _) => self.compile_gated(space, collection, (query, &gates), kind)?,
            (None, _) if collection == Collection::Accounts => {
                let message =
                    "a list is one of users; make an audience of `accounts` with a query over a trait";
                return Err(ManageError::invalid("definition.list", message));
            }
            (None, Kind::Audience) => self.compile(collection, &query_of_list(Uuid::nil()), kind)?,
            (None, Kind::ComputedTrait) => {
                return Err(ManageError::invalid("definition.list", "only audiences can be lists"));
            }
        };
        let others = definitions::list_definitions(&self.door(space), space, None, None).await?;
        if others.iter().any(|d| d.key == new.key) {
            return Err(taken(&new.key));
        }
        let most = self.limits.definitions;
        if others.len() >= most {
            return Err(ManageError::TooMany { what: "audiences and computed traits", most });
        }
        self.check_plan_has_room(space, kind, &others)?;
        check_references(&others, &plan)?;
        self.check_circles(&others, &new.key, &plan)?;
        Ok((name, plan.with_retention(&self.retention(space).await?)))
    }

    /// Whether the plan of the space lets it have one more of a kind.
    fn check_plan_has_room(&self, space: SpaceNo, kind: Kind, others: &[Definition]) -> Result<()> {
        let snapshot = self.registry.snapshot();
        let limits = snapshot.space(space).map(|space| space.plan.limits).unwrap_or_default();
        let (what, most) = match kind {
            Kind::Audience => ("audiences, as its plan says,", limits.audiences),
            Kind::ComputedTrait => ("computed traits, as its plan says,", limits.computed_traits),
        };
        let most = most.and_then(|most| usize::try_from(most).ok());
        match most.filter(|most| others.iter().filter(|d| d.kind == kind).count() >= *most) {
            Some(most) => Err(ManageError::TooMany { what, most }),
            None => Ok(()),
        }
    }

    /// Makes another definition of the newest version of one. What is `None` is taken over.
    pub async fn clone_definition(
        &self,
        space: SpaceNo,
        kind: Kind,
        key: &str,
        copy: &Copy,
    ) -> Result<Definition> {
        let of = self.find_definition(space, kind, key).await?;
        if of.is_list() {
            let message = "a list has no query to copy; make another list and upload the members";
            return Err(ManageError::invalid("key", message));
        }
        let new = Create {
            key: copy.key.clone(),
            name: Some(copy.name.clone().unwrap_or(of.name)),
            description: copy.description.clone().unwrap_or(of.description),
            purpose: of.purpose,
            collection: of.collection.as_str().to_owned(),
            query: Some(of.latest.query),
            options: of.latest.options,
            enabled: copy.enabled.unwrap_or(true),
        };
        self.create_definition(space, kind, &new).await
    }

    /// A definition by its key.
    pub async fn find_definition(&self, space: SpaceNo, kind: Kind, key: &str) -> Result<Definition> {
        let found = definitions::list_definitions(&self.door(space), space, Some(kind), Some(&[key])).await?;
        found.into_iter().next().ok_or_else(|| ManageError::not_found(noun(kind), shown(key)))
    }

    /// All definitions of a kind, in order of their keys.
    pub async fn list_definitions(&self, space: SpaceNo, kind: Kind) -> Result<Vec<Definition>> {
        Ok(definitions::list_definitions(&self.door(space), space, Some(kind), None).await?)
    }

    /// Changes a definition. Another query or other options make a new version, and so does switching it on again:
    /// nobody has counted for it in the meantime.
    pub async fn change_definition(
        &self,
        space: SpaceNo,
        kind: Kind,
        key: &str,
        change: &Change,
    ) -> Result<Definition> {
        let _editing = self.editing.lock().await;
        let (present, query, options) = self.check_change(space, kind, key, change).await?;
        let name = change.name.as_deref().map(check_name).transpose()?;
        let query = query.as_str();
        let is_new = query != present.latest.query || options != present.latest.options;
        let is_resumed = change.enabled == Some(true) && !present.enabled;
        let purpose = match &change.purpose {
            Patch::Keep => Patch::Keep,
            Patch::Clear => Patch::Clear,
            Patch::Set(purpose) => Patch::Set(purpose.as_str()),
        };
        let edit = Edit {
            name,
            description: change.description.as_deref(),
            purpose,
            enabled: change.enabled,
            version: (is_new || is_resumed).then_some((query, &options)),
        };
        let door = self.door(space);
        let update = definitions::update_definition(&door, space, present.no, &edit, self.clock.now());
        self.reconfigure(space, update).await?;
        self.find_definition(space, kind, key).await
    }

    /// Checks a change as if it were carried out: the definition as it is, and the query and options it would have.
    async fn check_change(
        &self,
        space: SpaceNo,
        kind: Kind,
        key: &str,
        change: &Change,
    ) -> Result<(Definition, String, Options)> {
        change.name.as_deref().map_or(Ok(""), check_name)?;
        change.description.as_deref().map_or(Ok(()), check_description)?;
        let collection = change.collection.as_deref().map(check_collection).transpose()?;
        let present = self.find_definition(space, kind, key).await?;
        if collection.is_some_and(|collection| collection != present.collection) {
            let is = present.collection.as_str();
            let message = format!("the type of a definition cannot be changed, and this one's is `{is}`");
            return Err(ManageError::invalid("definition.type", message));
        }
        let compile = |query| self.compile_in(space, present.collection, query, kind);
        let plan = change.query.as_deref().map(compile).transpose()?;
        if let Patch::Set(purpose) = &change.purpose {
            check_purpose(Some(purpose))?;
        }
        let known = &present.latest.options.gates;
        let gates = Gates {
            consent_category: change.consent_category.clone().over(known.consent_category.clone()),
            requires_human_review: change.requires_human_review.unwrap_or(known.requires_human_review),
            ..Gates::default()
        };
        let gates = self.check_gates(space, kind, present.collection, &gates).await?;
        if present.is_list() && (change.query.is_some() || change.include_history.is_some()) {
            let message = "a list has no query; its members are uploaded to …/members";
            return Err(ManageError::invalid("definition", message));
        }
        if let Some(plan) = &plan {
            let others = definitions::list_definitions(&self.door(space), space, None, None).await?;
            check_references(&others, plan)?;
            self.check_circles(&others, key, plan)?;
        }
        let query = change.query.as_ref().unwrap_or(&present.latest.query).clone();
        let options = Options {
            include_anonymous: change.include_anonymous.unwrap_or(present.latest.options.include_anonymous),
            include_history: change.include_history.unwrap_or(present.latest.options.include_history),
            gates,
            retention: self.retention(space).await?,
        };
        Ok((present, query, options))
    }

    /// What a definition would be made of, with nothing made.
    pub async fn compile_definition(
        &self,
        space: SpaceNo,
        kind: Kind,
        collection: &str,
        query: &str,
    ) -> Result<Plan> {
        let plan = self.compile_in(space, check_collection(collection)?, query, kind)?;
        if !plan.traits().is_empty() {
            check_references(
                &definitions::list_definitions(&self.door(space), space, None, None).await?,
                &plan,
            )?;
        }
        Ok(plan)
    }

    /// What a change would make of a definition, with nothing changed: the plan, its options, and the version whose
    /// answers it would replace.
    pub async fn compile_change(
        &self,
        space: SpaceNo,
        kind: Kind,
        key: &str,
        change: &Change,
    ) -> Result<(Plan, Options, Option<ComputationNo>)> {
        let (present, query, options) = self.check_change(space, kind, key, change).await?;
        let plan = if present.is_list() {
            self.compile(present.collection, &options.gates.apply(&query), kind)?
        } else {
            self.compile_gated(space, present.collection, (&query, &options.gates), kind)?
        };
        let plan = plan.with_retention(&options.retention);
        Ok((plan, options, present.serving.map(|version| version.no)))
    }

    /// Deletes a definition, unless another one refers to it.
    pub async fn delete_definition(&self, space: SpaceNo, kind: Kind, key: &str) -> Result<()> {
        let _editing = self.editing.lock().await;
        let definition = self.find_definition(space, kind, key).await?;
        let all = definitions::list_definitions(&self.door(space), space, None, None).await?;
        let by = self.graph(&all).referrers(key);
        if !by.is_empty() {
            return Err(ManageError::Referenced { key: key.to_owned(), by });
        }
        let door = self.door(space);
        let delete = definitions::delete_definition(&door, space, definition.no, self.clock.now());
        Ok(self.reconfigure(space, delete).await?)
    }

    /// All versions of a definition, newest first.
    pub async fn list_versions(&self, space: SpaceNo, kind: Kind, key: &str) -> Result<Vec<Version>> {
        let definition = self.find_definition(space, kind, key).await?;
        Ok(definitions::list_versions(&self.door(space), space, definition.no).await?)
    }

    /// Who refers to a definition, and to whom it refers.
    pub async fn references(&self, space: SpaceNo, kind: Kind, key: &str) -> Result<References> {
        self.find_definition(space, kind, key).await?;
        let all = definitions::list_definitions(&self.door(space), space, None, None).await?;
        let graph = self.graph(&all);
        let with_kinds = |keys: Vec<String>| {
            let kind_of = |key: &String| all.iter().find(|d| d.key == *key).map(|d| d.kind);
            keys.into_iter().filter_map(|key| Some((kind_of(&key)?, key))).collect()
        };
        Ok(References {
            refers_to: with_kinds(graph.references(key)),
            referenced_by: with_kinds(graph.referrers(key)),
        })
    }

    /// Compiles a query whose sources must be those of the space.
    pub(super) fn compile_in(
        &self,
        space: SpaceNo,
        collection: Collection,
        query: &str,
        kind: Kind,
    ) -> Result<Plan> {
        let mut plan = self.compile(collection, query, kind)?;
        if let Some(name) = plan.traits().iter().find(|name| is_hidden(name)) {
            let message = format!("the service keeps the trait {name} for itself; name a list by its key");
            return Err(ManageError::invalid("definition.query", message));
        }
        self.bind_sources(space, &mut plan)?;
        Ok(plan)
    }

    pub(super) fn bind_sources(&self, space: SpaceNo, plan: &mut Plan) -> Result<()> {
        if plan.names_sources() {
            let snapshot = self.registry.snapshot();
            let of_space = snapshot.sources.values().filter(|s| s.space == space);
            let known =
                of_space.map(|s| KnownSource { no: s.no, id: public_id("src", s.id), name: s.name.clone() });
            let sources = Sources::new(known.collect());
            plan.check_sources(&sources).map_err(ManageError::Query)?;
            plan.bind_sources(&sources);
        }
        Ok(())
    }

    fn compile(&self, collection: Collection, query: &str, kind: Kind) -> Result<Plan> {
        compile_for(collection, query, engine_kind(kind), self.limits.query).map_err(ManageError::Query)
    }

    /// What all definitions read: the newest version of each, and the one that answers until that is complete.
    fn graph(&self, definitions: &[Definition]) -> Graph {
        let mut graph = Graph::default();
        for definition in definitions {
            graph.add(&definition.key, &[]);
            for version in std::iter::once(&definition.latest).chain(&definition.serving) {
                // What does not compile any more (an older release took it) refers to nothing.
                if let Ok(plan) = self.compile(definition.collection, &version.query, definition.kind) {
                    graph.add(&definition.key, plan.traits());
                }
            }
        }
        graph
    }

    fn check_circles(&self, others: &[Definition], key: &str, plan: &Plan) -> Result<()> {
        let mut graph = self.graph(others);
        graph.add(key, plan.traits());
        graph.circle_through(key).map_or(Ok(()), |circle| Err(ManageError::Cycle(circle)))
    }
}

pub(super) const fn engine_kind(kind: Kind) -> engine::Kind {
    match kind {
        Kind::Audience => engine::Kind::Audience,
        Kind::ComputedTrait => engine::Kind::ComputedTrait,
    }
}

/// R5: `[a-z][a-z0-9_]{0,254}`.
fn check_key(key: &str) -> Result<()> {
    let is_word = key.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if !is_word || !key.starts_with(|c: char| c.is_ascii_lowercase()) || key.len() > 255 {
        let message = "a key is 1 to 255 lower-case letters, digits and `_`, and starts with a letter";
        return Err(ManageError::invalid("key", message));
    }
    if RESERVED_KEYS.contains(&key) {
        return Err(ManageError::invalid("key", format!("`{key}` is a word of the API; choose another key")));
    }
    Ok(())
}

/// Who is on a list is kept in a trait of its own; being on it is having that.
fn query_of_list(id: Uuid) -> String {
    format!("trait('{}') = true", trait_of_list(id))
}

/// The trait that keeps who is on a list.
pub fn trait_of_list(id: Uuid) -> String {
    format!("{LIST_TRAIT}{}", id.simple())
}

fn taken(key: &str) -> ManageError {
    ManageError::Exists { what: "the key", name: key.to_owned() }
}

fn check_collection(collection: &str) -> Result<Collection> {
    let unknown = || ManageError::invalid("definition.type", "the type is `users` or `accounts`");
    Collection::parse(collection).ok_or_else(unknown)
}

/// Who is asked for an audience or a computed trait has to be one of those it is about.
fn check_references(others: &[Definition], plan: &Plan) -> Result<()> {
    let of = |key: &str| others.iter().find(|other| other.key == key).map(|other| other.collection);
    plan.check_references(of).map_err(ManageError::Query)
}

fn check_description(description: &str) -> Result<()> {
    if description.chars().count() > DESCRIPTION_CHARS_MAX || description.contains('\0') {
        let message =
            format!("a description has at most {DESCRIPTION_CHARS_MAX} characters, none of them U+0000");
        return Err(ManageError::invalid("description", message));
    }
    Ok(())
}

fn check_purpose(purpose: Option<&str>) -> Result<()> {
    let is_text = |purpose: &str| purpose.chars().count() <= DESCRIPTION_CHARS_MAX && !purpose.contains('\0');
    if purpose.is_none_or(is_text) {
        return Ok(());
    }
    let message = format!("a purpose has at most {DESCRIPTION_CHARS_MAX} characters, none of them U+0000");
    Err(ManageError::invalid("purpose", message))
}

fn shown(key: &str) -> String {
    key.chars().take(255).collect()
}
