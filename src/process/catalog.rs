//! What a processor computes with: a space's identity settings and its definitions, compiled together.
//!
//! Loaded whenever the space's configuration version has changed, always between two batches: so a new version's log
//! position is simply where the processor stands.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use sqlx::PgConnection;

use super::outbox::Wanted;
use super::search::Search;
use crate::domain::ids::public_id;
use crate::domain::regulation::IdHash;
use crate::domain::{Collection, ComputationNo, LeafNo, Offset, ProfileNo, SpaceNo};
use crate::engine::identity::{Extracted, Settings, TypeNo};
use crate::engine::{self, Definition, KnownSource, LeafSpec, Limits, Plan, Program, Sources};
use crate::store::computations::{self, Computation, LeafRow};
use crate::store::definitions::Kind;
use crate::store::destinations::syncs;
use crate::store::regulations::{journal, suppression};
use crate::store::{Result, StoreError, identity, processor, sources};

/// Identifier types that make a profile a known one (decisions A13).
const KNOWN_TYPES: [&str; 4] = ["user_id", "email", "android.idfa", "ios.idfa"];

/// A version of a definition, as the processor needs it.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    pub definition: i32,
    pub kind: Kind,
    pub key: String,
    pub include_anonymous: bool,
    /// It answers for its key; its transitions are told.
    pub serving: bool,
    /// A walk over all profiles is going on.
    pub walking: bool,
}

/// The walk over all profiles that brings versions up to date with history.
#[derive(Debug, Clone)]
pub(super) struct WalkPlan {
    pub computations: Vec<ComputationNo>,
    /// Leaves that history has to be folded into, with the position it ends at.
    pub leaves: Vec<(LeafNo, Offset)>,
    /// Profiles up to here are done.
    pub walked: ProfileNo,
    /// Some of them are of accounts: those are evaluated when all users are done.
    pub of_accounts: bool,
}

/// Settings and program of a space.
#[derive(Debug)]
pub(super) struct Catalog {
    pub version: i64,
    pub settings: Settings,
    pub known_types: Vec<TypeNo>,
    pub program: Program,
    pub meta: HashMap<ComputationNo, Meta>,
    /// Which version answers a reference to a key.
    pub answers: HashMap<String, ComputationNo>,
    pub walk: Option<WalkPlan>,
    pub search: Search,
    pub wanted: Wanted,
    /// Identifiers that were erased: of what stands in the log before that, they are nobody's.
    pub erased: Erased,
    /// Versions of definitions that are switched off: their members are frozen, not forgotten.
    frozen: HashSet<ComputationNo>,
    /// Versions that answered before, whose values destinations have still to be told the end of.
    replaced: HashSet<ComputationNo>,
}

impl Catalog {
    /// Whether a profile's outcome of this version still means anything.
    pub(super) fn keeps(&self, no: ComputationNo) -> bool {
        self.counts(no) || self.replaced.contains(&no)
    }

    /// Whether it is part of the size of anything.
    pub(super) fn counts(&self, no: ComputationNo) -> bool {
        self.meta.contains_key(&no) || self.frozen.contains(&no)
    }

    /// Versions of definitions that are switched off.
    pub(super) const fn frozen(&self) -> &HashSet<ComputationNo> {
        &self.frozen
    }

    /// Loads everything, starts what is pending (unless a walk is going on) and forgets what nobody needs. Part of a
    /// fenced transaction.
    pub(super) async fn load(
        tx: &mut PgConnection,
        space: SpaceNo,
        version: i64,
        position: Offset,
        limits: Limits,
    ) -> Result<Self> {
        let (mut active, broken) = compile_all(tx, space, limits).await?;
        for (row, why) in broken {
            tracing::error!(%space, key = row.key, why, "definition {} of space {space} does not compile", row.key);
            computations::fail(tx, space, row.no, &why).await?;
        }
        computations::clear_abandoned(tx, space).await?;
        if !active.iter().any(|a| a.row.walking) {
            // Leaves whose walk was given up hold a part of history: nobody may take them for whole, so they go, and
            // whoever needs the same begins anew under another number.
            computations::delete_unready_leaves(tx, space).await?;
        }
        start_pending(tx, space, &mut active, position).await?;
        active.retain(|a| a.row.from.is_some());
        let leaves = intern_leaves(tx, space, &mut active, position).await?;
        Self::complete(tx, space, version, &active, &leaves).await
    }

    /// Reads what a processor computes with at this moment and changes nothing, so that nobody waits for who only wants to
    /// know. Definitions that are not begun yet are not in it.
    pub(super) async fn read(
        tx: &mut PgConnection,
        space: SpaceNo,
        version: i64,
        limits: Limits,
    ) -> Result<Self> {
        let (mut active, _) = compile_all(tx, space, limits).await?;
        active.retain(|a| a.row.from.is_some());
        count_from_their_start(&mut active);
        let leaves = Interned::from(computations::list_leaves(tx, space).await?);
        active.retain(|a| a.plan.leaves().all(|(_, spec)| leaves.numbers.contains_key(&spec.canonical())));
        Self::complete(tx, space, version, &active, &leaves).await
    }

    async fn complete(
        tx: &mut PgConnection,
        space: SpaceNo,
        version: i64,
        active: &[Active],
        leaves: &Interned,
    ) -> Result<Self> {
        let settings = load_settings(tx, space).await?;
        let frozen = computations::list_frozen(tx, space).await?;
        let mut catalog = Self::assemble(version, settings, active, leaves, frozen)?;
        catalog.search = Search::load(tx, space).await?;
        catalog.replaced = syncs::list_replaced(tx, space).await?.into_iter().collect();
        catalog.wanted = Wanted::load(tx, space, &catalog).await?;
        catalog.erased = Erased::load(tx, space).await?;
        Ok(catalog)
    }

    fn assemble(
        version: i64,
        settings: Settings,
        active: &[Active],
        leaves: &Interned,
        frozen: Vec<(ComputationNo, String)>,
    ) -> Result<Self> {
        let live = active.iter().filter(|a| a.row.status == "live").map(|a| a.row.key.clone());
        let served: HashSet<String> = live.chain(frozen.iter().map(|(_, key)| key.clone())).collect();
        let mut answers: HashMap<String, ComputationNo> =
            frozen.iter().map(|(no, key)| (key.clone(), *no)).collect();
        let (mut meta, mut definitions) = (HashMap::new(), Vec::new());
        let mut walking: Vec<&Active> = Vec::new();
        for a in active {
            let serving = a.row.status == "live";
            let answers_now = serving || !served.contains(&a.row.key);
            if answers_now {
                answers.insert(a.row.key.clone(), a.row.no);
            }
            if a.row.walking {
                walking.push(a);
            }
            meta.insert(
                a.row.no,
                Meta {
                    definition: a.row.definition,
                    kind: a.row.kind,
                    key: a.row.key.clone(),
                    include_anonymous: a.row.options.include_anonymous,
                    serving,
                    walking: a.row.walking && !serving,
                },
            );
            definitions.push(Definition {
                no: a.row.no,
                key: a.row.key.clone(),
                serving: answers_now,
                plan: a.plan.clone(),
            });
        }
        let walk = walking.iter().map(|a| a.row.walked).min().map(|walked| WalkPlan {
            computations: walking.iter().map(|a| a.row.no).collect(),
            leaves: leaves.unready.clone(),
            walked,
            of_accounts: walking.iter().any(|a| a.row.collection == Collection::Accounts),
        });
        let program = Program::build(definitions, &mut |spec| leaves.number(spec))
            .map_err(|e| StoreError::Damaged(format!("definitions do not go together: {e}")))?;
        let known_types = KNOWN_TYPES.iter().filter_map(|name| Some(settings.by_name(name)?.no)).collect();
        let frozen = frozen.into_iter().map(|(no, _)| no).collect();
        Ok(Self {
            version,
            settings,
            known_types,
            program,
            meta,
            answers,
            walk,
            search: Search::default(),
            wanted: Wanted::default(),
            erased: Erased::default(),
            frozen,
            replaced: HashSet::new(),
        })
    }

    /// Serving versions that refer to one of these keys: they are walked again after a swap.
    pub(super) fn referring_to(&self, keys: &[String]) -> Vec<ComputationNo> {
        let refers = |d: &&Definition| d.plan.traits().iter().any(|name| keys.contains(name));
        let serving = |d: &&Definition| self.meta.get(&d.no).is_some_and(|m| m.serving);
        self.program.computations().iter().filter(refers).filter(serving).map(|d| d.no).collect()
    }

    /// Whether a trait name is taken by a definition (decisions R5).
    pub(super) fn is_reserved(&self, name: &str) -> bool {
        self.answers.contains_key(name)
    }
}

/// The journal of erasures, as far as the log is gone through behind where the processor stands: in a rebuild, all of it.
#[derive(Debug, Default)]
pub(super) struct Erased {
    secret: Vec<u8>,
    until: HashMap<IdHash, Offset>,
    last: Offset,
}

impl Erased {
    async fn load(tx: &mut PgConnection, space: SpaceNo) -> Result<Self> {
        let Some(secret) = suppression::find_secret(&mut *tx, space).await? else {
            return Ok(Self::default());
        };
        let position =
            processor::status(&mut *tx, space).await?.map_or(Offset(0), |standing| standing.processed);
        let until: HashMap<IdHash, Offset> = journal::list(tx, space, position).await?.into_iter().collect();
        let last = until.values().copied().max().unwrap_or_default();
        Ok(Self { secret, until, last })
    }

    /// Leaves out identifiers of somebody who was erased behind this place of the log.
    pub(super) fn leave_out(&self, ids: &mut Extracted, offset: Offset) {
        if offset <= self.last {
            ids.users.retain(|candidate| {
                let hash = IdHash::of(&self.secret, candidate.key);
                self.until.get(&hash).is_none_or(|until| offset > *until)
            });
        }
    }
}

struct Active {
    row: Computation,
    plan: Plan,
}

async fn load_settings(tx: &mut PgConnection, space: SpaceNo) -> Result<Settings> {
    let row = identity::get_settings(tx, space).await?;
    let mut settings =
        Settings::new(row.types, row.merges_max.max(0) as u32, row.identifiers_max.max(1) as u32)
            .map_err(|e| StoreError::Damaged(e.to_string()))?;
    settings.add_unknown_types = row.add_unknown_types;
    settings.quarantine_threshold = row.quarantine_threshold.max(0) as u32;
    Ok(settings)
}

/// Compiles every active version; those that do not compile (any more) come with the reason, and the others go on.
async fn compile_all(
    tx: &mut PgConnection,
    space: SpaceNo,
    limits: Limits,
) -> Result<(Vec<Active>, Vec<(Computation, String)>)> {
    let (mut active, mut broken) = (Vec::new(), Vec::new());
    for row in computations::list_active(tx, space).await? {
        let kind = match row.kind {
            Kind::Audience => engine::Kind::Audience,
            Kind::ComputedTrait => engine::Kind::ComputedTrait,
        };
        match engine::compile_for(row.collection, &row.query, kind, limits.for_gates()) {
            Ok(plan) => {
                let plan = plan.with_retention(&row.options.retention);
                active.push(Active { row, plan });
            }
            Err(errors) => {
                let why = errors.first().map_or_else(String::new, |e| e.message.clone());
                broken.push((row, why));
            }
        }
    }
    if active.iter().any(|a| a.plan.names_sources()) {
        let known = sources::list_source_names(tx, space).await?.into_iter();
        let sources = known.map(|(no, id, name)| KnownSource { no, id: public_id("src", id), name });
        let sources = Sources::new(sources.collect());
        for a in &mut active {
            a.plan.bind_sources(&sources);
        }
    }
    Ok((active, broken))
}

/// Fixes the log position of pending versions and begins their walk; while one is going on they wait.
async fn start_pending(
    tx: &mut PgConnection,
    space: SpaceNo,
    active: &mut [Active],
    position: Offset,
) -> Result<()> {
    if active.iter().any(|a| a.row.walking) {
        return Ok(());
    }
    let pending: Vec<ComputationNo> =
        active.iter().filter(|a| a.row.from.is_none()).map(|a| a.row.no).collect();
    if pending.is_empty() {
        return Ok(());
    }
    computations::start(tx, space, &pending, position).await?;
    for a in active.iter_mut().filter(|a| a.row.from.is_none()) {
        a.row.from = Some(position);
        a.row.status = "backfilling".into();
        a.row.walking = true;
        a.row.walked = ProfileNo(0);
    }
    Ok(())
}

struct Interned {
    numbers: HashMap<String, LeafNo>,
    unready: Vec<(LeafNo, Offset)>,
}

impl Interned {
    fn number(&self, spec: &LeafSpec) -> LeafNo {
        // Every leaf of every plan was numbered before; 0 is no leaf's number.
        self.numbers.get(&spec.canonical()).copied().unwrap_or_default()
    }
}

impl From<Vec<LeafRow>> for Interned {
    fn from(rows: Vec<LeafRow>) -> Self {
        let unready = rows.iter().filter(|leaf| !leaf.ready).map(|leaf| (leaf.no, leaf.from)).collect();
        let numbers = rows.into_iter().map(|leaf| (leaf.canonical, leaf.no)).collect();
        Self { numbers, unready }
    }
}

/// Versions without history count events from where they began.
fn count_from_their_start(active: &mut [Active]) {
    for a in active.iter_mut().filter(|a| !a.row.options.include_history) {
        if let Some(from) = a.row.from {
            a.plan = a.plan.clone().with_events_since(from);
        }
    }
}

/// Numbers the leaves of all plans: known ones keep theirs, new ones start at `position`, unused ones go.
async fn intern_leaves(
    tx: &mut PgConnection,
    space: SpaceNo,
    active: &mut [Active],
    position: Offset,
) -> Result<Interned> {
    count_from_their_start(active);
    // A leaf that counts only from its own position on has no history to fold.
    let leaves = active.iter().flat_map(|a| a.plan.leaves());
    let needed: BTreeMap<String, bool> =
        leaves.map(|(_, spec)| (spec.canonical(), spec.since.is_some())).collect();
    let known = computations::list_leaves(tx, space).await?;
    let (known, unused): (Vec<LeafRow>, Vec<LeafRow>) =
        known.into_iter().partition(|leaf| needed.contains_key(&leaf.canonical));
    let unused: Vec<LeafNo> = unused.iter().map(|leaf| leaf.no).collect();
    if !unused.is_empty() {
        computations::delete_leaves(tx, space, &unused).await?;
    }
    let mut interned = Interned::from(known);
    // Nothing to fold where the log is empty.
    let new: Vec<(String, bool)> = needed
        .into_iter()
        .filter(|(canonical, _)| !interned.numbers.contains_key(canonical))
        .map(|(canonical, ready)| (canonical, ready || position.0 == 0))
        .collect();
    if !new.is_empty() {
        let numbers = computations::insert_leaves(tx, space, &new, position).await?;
        for ((canonical, ready), no) in new.into_iter().zip(numbers) {
            interned.numbers.insert(canonical, no);
            if !ready {
                interned.unready.push((no, position));
            }
        }
    }
    Ok(interned)
}
