//! Operators' acts: what they do to the working set, and what is noted of it in the audit log.
//!
//! An act names profiles by identifiers and is applied where it stands in the log, so the same log gives the same
//! profiles, operators included. What it would break is refused, and the refusal is noted. Acts that need more than the
//! profiles they name are done by [`super::surgery`].

use super::apply::{self, Ground, Incoming, catch_up, look_again};
use super::catalog::Catalog;
use super::objections;
use super::updates;
use super::work::{Output, Work};
use crate::domain::act::{
    Effect, IdentifierEffect, LIST_TRAIT, Named, ProfileEffect, Signed, TransitionEffect,
};
use crate::domain::ids::public_id;
use crate::domain::update::Update;
use crate::domain::{Act, Collection, IdKey, ProfileNo, Timestamp};
use crate::engine::identity::resolve::Held;
use crate::engine::identity::{Apart, Candidate, Extracted, Graph};
use crate::engine::profile::Pointer;
use crate::engine::traits::Write;
use crate::store::audit::AuditEntry;
use crate::store::identity::Merge;

/// The identifiers an act is about, so that their owners are brought into work.
pub(super) fn identifiers(body: &str, catalog: &Catalog) -> Extracted {
    let mut ids = Extracted::default();
    let Ok(act) = serde_json::from_str::<Act>(body) else { return ids };
    for (collection, named) in act.identifiers() {
        let Some(known) = catalog.settings.by_name(&named.id_type) else { continue };
        let candidate = Candidate { type_no: known.no, key: named.key(collection), value: named.id };
        match collection {
            Collection::Accounts if matches!(act, Act::Unlink { .. }) => ids.accounts.push(candidate),
            _ => ids.users.push(candidate),
        }
    }
    ids
}

/// What stands in the outputs already when an act begins.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    transitions: usize,
}

impl Mark {
    pub(super) const fn of(out: &Output) -> Self {
        Self { transitions: out.transitions.len() }
    }
}

/// An act being applied.
pub(super) struct Acting<'a> {
    pub event: &'a Incoming<'a>,
    pub ground: &'a Ground<'a>,
    pub signed: Signed,
    mark: Mark,
}

/// What is done or why it is not.
pub(super) type Done = std::result::Result<Effect, String>;

impl<'a> Acting<'a> {
    /// Reads an act; `None` when it is one of a later version of this program.
    pub(super) fn begin(work: &Work, event: &'a Incoming<'a>, ground: &'a Ground<'a>) -> Option<Self> {
        let signed: Signed = serde_json::from_str(event.record.body).ok()?;
        Some(Self { event, ground, signed, mark: Mark::of(&work.out) })
    }

    /// Notes what became of it.
    pub(super) fn end(self, work: &mut Work, done: Done) {
        let mut effect = done.unwrap_or_else(|why| Effect { refused: Some(why), ..Effect::default() });
        let catalog = self.ground.catalog;
        for transition in work.out.transitions.get(self.mark.transitions..).unwrap_or_default() {
            let mut keys =
                catalog.meta.values().filter(|m| m.serving && m.definition == transition.definition);
            let (Some(meta), Some(id)) = (keys.next(), id_of(work, transition.profile)) else { continue };
            effect.transitions.push(TransitionEffect {
                audience: meta.key.clone(),
                profile_id: id,
                transition: if transition.entered { "entered" } else { "left" }.to_owned(),
            });
        }
        effect.transitions.sort_by(|a, b| (&a.audience, &a.profile_id).cmp(&(&b.audience, &b.profile_id)));
        let Signed { act, by } = self.signed;
        work.out.audit.push(AuditEntry {
            offset: self.event.offset,
            at: self.event.record.received_at,
            action: act.name().to_owned(),
            actor: by,
            act: told(&act),
            effect,
        });
    }

    pub(super) const fn catalog(&self) -> &'a Catalog {
        self.ground.catalog
    }

    pub(super) const fn received_at(&self) -> Timestamp {
        self.event.record.received_at
    }

    /// Lets happen what was due on a profile, and notes that the act is about it.
    pub(super) fn touch(&self, work: &mut Work, no: ProfileNo) -> Timestamp {
        let at = catch_up(work, no, self.received_at(), self.ground);
        if let Some(entry) = work.entries.get_mut(&no) {
            let pointer = Pointer { offset: self.event.offset, at: self.received_at() };
            entry.profile.note_act(pointer);
            entry.touched = true;
        }
        at
    }
}

/// The live user that has an identifier.
pub(super) fn owner(work: &Work, named: &Named) -> std::result::Result<ProfileNo, String> {
    let owner = work.owner(named.key(Collection::Users));
    owner.ok_or_else(|| format!("nobody has the identifier {}:{}", named.id_type, named.id))
}

/// The users of two identifiers, which are to be two.
fn pair(work: &Work, ids: &[Named; 2]) -> std::result::Result<[ProfileNo; 2], String> {
    let pair = [owner(work, &ids[0])?, owner(work, &ids[1])?];
    if pair[0] == pair[1] { Err("both identifiers are of one profile".to_owned()) } else { Ok(pair) }
}

/// An act as the audit log shows it: by public ids, and of long lists only how long they are.
fn told(act: &Act) -> serde_json::Value {
    let mut told = serde_json::to_value(act).unwrap_or_default();
    match (act, told.as_object_mut()) {
        (Act::ChangeList { list, ids, .. }, Some(fields)) => {
            let list = list.strip_prefix(LIST_TRAIT).unwrap_or(list);
            fields.insert("list".into(), list.into());
            fields.insert("ids".into(), ids.len().into());
        }
        (Act::UndoMerge { merge, .. }, Some(fields)) => {
            fields.insert("merge".into(), public_id("mrg", *merge).into());
        }
        _ => {}
    }
    told
}

/// Public id of a profile in work, by a number it has or was absorbed with.
pub(super) fn id_of(work: &Work, no: ProfileNo) -> Option<String> {
    Some(public_id("prf", work.entries.get(&work.live(no))?.profile.id))
}

pub(super) fn profile_effect(work: &Work, no: ProfileNo, change: &str) -> Option<ProfileEffect> {
    Some(ProfileEffect { profile_id: id_of(work, no)?, change: change.to_owned() })
}

/// Applies an act that needs no more than the profiles it names.
pub(super) fn apply(work: &mut Work, event: &Incoming<'_>, ground: &Ground<'_>) {
    let Some(acting) = Acting::begin(work, event, ground) else { return };
    let done = match acting.signed.act.clone() {
        Act::DeleteIdentifier { collection, id_type, value } => {
            delete_identifier(work, &acting, collection, &Named { id_type, id: value })
        }
        Act::MoveIdentifier { identifier, to } => move_identifier(work, &acting, &identifier, &to),
        Act::ChangeList { list, listed, .. } => {
            change_list(work, &acting, &list, listed);
            Ok(Effect::default())
        }
        Act::MergeProfiles { ids, force } => merge_profiles(work, &acting, &ids, force),
        Act::LiftQuarantine { .. } => lift_quarantine(work, &acting),
        Act::BlockMerge { ids } => block_merge(work, &acting, &ids, true),
        Act::AllowMerge { ids } => block_merge(work, &acting, &ids, false),
        Act::Object { user } | Act::LiftObjections { user, .. } => objections::apply(work, &acting, &user),
        // In a chunk of its own, always.
        Act::UndoMerge { .. } | Act::Unlink { .. } | Act::Erase { .. } => {
            Err("the act stands between events".to_owned())
        }
    };
    acting.end(work, done);
}

/// Puts the profiles it names onto a list, or takes them off it.
fn change_list(work: &mut Work, acting: &Acting<'_>, list: &str, listed: bool) {
    let record = acting.event.record;
    let write = Write {
        at: record.received_at,
        message_id: record.message_id.to_owned(),
        source: record.source,
        public: false,
    };
    for named in &acting.event.ids.users {
        let Some(no) = work.owner(named.key) else { continue };
        let at = acting.touch(work, no);
        let Some(entry) = work.entries.get_mut(&no) else { continue };
        entry.profile.traits.update(|traits| {
            traits.apply(&write, [(list.to_owned(), list_value(listed))]);
            traits.tidy();
        });
        acting.catalog().program.mark_trait(list, &mut entry.dirty);
        look_again(work, no, at, acting.ground);
    }
}

/// What the trait of a list says of who is on it, or is no more.
pub(super) const fn list_value(listed: bool) -> &'static str {
    if listed { "true" } else { "null" }
}

/// Takes an identifier away from its profile, unless it is the last one.
fn delete_identifier(work: &mut Work, acting: &Acting<'_>, collection: Collection, gone: &Named) -> Done {
    let key = gone.key(collection);
    let nobody = || format!("nobody has the identifier {}:{}", gone.id_type, gone.id);
    let no = work.owner(key).ok_or_else(nobody)?;
    let at = acting.touch(work, no);
    take_away(work, no, key, gone, acting.catalog())?;
    let removed = || Update::IdentifierRemoved { id_type: gone.id_type.clone(), id: gone.id.clone() };
    updates::note(work, no, removed, acting.event, acting.catalog());
    work.owners.insert(key, None);
    let before = work.out.identifiers.len();
    work.out.identifiers.retain(|new| new.key != key);
    if work.out.identifiers.len() == before {
        work.out.deleted_identifiers.push(key);
    }
    look_again(work, no, at, acting.ground);
    Ok(Effect {
        profiles: profile_effect(work, no, "changed").into_iter().collect(),
        identifiers: vec![IdentifierEffect { identifier: gone.clone(), from: id_of(work, no), to: None }],
        ..Effect::default()
    })
}

/// Takes an identifier out of what a profile holds.
fn take_away(
    work: &mut Work,
    no: ProfileNo,
    key: IdKey,
    gone: &Named,
    catalog: &Catalog,
) -> std::result::Result<Held, String> {
    let type_no = catalog.settings.by_name(&gone.id_type).map(|known| known.no);
    let entry = work.entries.get_mut(&no).ok_or_else(|| format!("no profile has {key:?}"))?;
    let is_it = |held: &Held| Some(held.type_no) == type_no && held.value == gone.id;
    let identifiers = &entry.profile.owned.get().identifiers;
    let Some(held) = identifiers.iter().find(|held| is_it(held)).cloned() else {
        return Err("the profile has no such identifier".to_owned());
    };
    if identifiers.len() < 2 {
        return Err("it is the last identifier of its profile".to_owned());
    }
    let is_known = |held: &Held| catalog.known_types.contains(&held.type_no);
    entry.profile.is_known = entry.profile.owned.update(|owned| {
        owned.identifiers.retain(|held| !is_it(held));
        owned.identifiers.iter().any(is_known)
    });
    entry.touched = true;
    catalog.program.mark_all(&mut entry.dirty);
    Ok(held)
}

/// Gives an identifier to another profile, unless it is the last one of its own or the other one may not have it.
fn move_identifier(work: &mut Work, acting: &Acting<'_>, moved: &Named, to: &Named) -> Done {
    let (catalog, received_at) = (acting.catalog(), acting.received_at());
    let (from, to) = (owner(work, moved)?, owner(work, to)?);
    if from == to {
        return Err("the profile has the identifier already".to_owned());
    }
    may_take(work, &[to], Some(moved), received_at, catalog)?;
    let key = moved.key(Collection::Users);
    let at = acting.touch(work, from);
    let mut held = take_away(work, from, key, moved, catalog)?;
    let at = at.max(acting.touch(work, to));
    held.first_seen = received_at;
    held.brought_by = to;
    acting.event.record.message_id.clone_into(&mut held.message_id);
    if let Some(entry) = work.entries.get_mut(&to) {
        entry.profile.is_known |= catalog.known_types.contains(&held.type_no);
        entry.profile.owned.update(|owned| owned.identifiers.push(held));
        entry.touched = true;
        catalog.program.mark_all(&mut entry.dirty);
    }
    let (id_type, id) = (|| moved.id_type.clone(), || moved.id.clone());
    let removed = || Update::IdentifierRemoved { id_type: id_type(), id: id() };
    updates::note(work, from, removed, acting.event, catalog);
    let added = || Update::IdentifierAdded { id_type: id_type(), id: id() };
    updates::note(work, to, added, acting.event, catalog);
    work.owners.insert(key, Some(to));
    match work.out.identifiers.iter_mut().find(|new| new.key == key) {
        Some(new) => new.profile = to,
        None => {
            work.out.corrections.repointed.insert(key, to);
        }
    }
    for no in [from, to] {
        look_again(work, no, at, acting.ground);
    }
    let identifier = moved.clone();
    Ok(Effect {
        profiles: [from, to].iter().filter_map(|no| profile_effect(work, *no, "changed")).collect(),
        identifiers: vec![IdentifierEffect { identifier, from: id_of(work, from), to: id_of(work, to) }],
        ..Effect::default()
    })
}

/// Whether one profile may have what these have together, and one identifier more.
fn may_take(
    work: &Work,
    profiles: &[ProfileNo],
    more: Option<&Named>,
    at: Timestamp,
    catalog: &Catalog,
) -> std::result::Result<(), String> {
    let settings = &catalog.settings;
    let owned = || profiles.iter().filter_map(|no| work.profile(*no));
    let all = owned().flat_map(|owned| &owned.identifiers).count() + usize::from(more.is_some());
    if all > settings.identifiers_max as usize {
        return Err(format!(
            "the profile would have {all} identifiers; at most {} are allowed",
            settings.identifiers_max
        ));
    }
    for id_type in settings.types() {
        let since = id_type.frequency.window_ms().map(|window| at.plus_millis(-window));
        let counts =
            |held: &&Held| held.type_no == id_type.no && since.is_none_or(|since| held.first_seen > since);
        let held = owned().flat_map(|owned| &owned.identifiers).filter(counts).count();
        let more = usize::from(more.is_some_and(|more| more.id_type == id_type.name));
        let is_worse = more > 0 || profiles.len() > 1;
        if is_worse && held + more > id_type.limit as usize {
            return Err(format!(
                "the profile would have {} identifiers of type {}; its limit is {}",
                held + more,
                id_type.name,
                id_type.limit
            ));
        }
    }
    Ok(())
}

/// Makes one profile of several users.
fn merge_profiles(work: &mut Work, acting: &Acting<'_>, ids: &[Named], force: bool) -> Done {
    let owners: std::result::Result<Vec<ProfileNo>, String> =
        ids.iter().map(|named| owner(work, named)).collect();
    let mut owners = owners?;
    owners.sort_unstable();
    owners.dedup();
    let Some((survivor, absorbed)) = owners.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Err("the identifiers are of one profile already".to_owned());
    };
    let (catalog, received_at) = (acting.catalog(), acting.received_at());
    if !force {
        may_take(work, &owners, None, received_at, catalog)?;
        let merges: usize =
            owners.iter().filter_map(|no| work.profile(*no)).map(|owned| owned.merges as usize).sum();
        if merges + absorbed.len() > catalog.settings.merges_max as usize {
            return Err(format!("a profile takes at most {} merges", catalog.settings.merges_max));
        }
    }
    let at = apply::catch_up_all(work, &owners, received_at, acting.ground);
    for no in &owners {
        acting.touch(work, *no);
    }
    let profiles = absorbed.iter().filter_map(|no| profile_effect(work, *no, "absorbed"));
    let mut profiles: Vec<ProfileEffect> = profiles.collect();
    let identifiers = absorbed.iter().flat_map(|no| taken_over(work, *no, *survivor, catalog)).collect();
    let mut joining = Vec::new();
    for other in absorbed {
        joining.extend(updates::joining(work, *survivor, *other, catalog));
        work.absorb(*survivor, *other, catalog);
        work.out.merges.push(Merge {
            id: apply::merge_id(acting.ground.space, acting.event.offset, *other, received_at),
            offset: acting.event.offset,
            survivor: *survivor,
            absorbed: *other,
            at: received_at,
            message_id: acting.event.record.message_id.to_owned(),
            matched: serde_json::Value::Array(Vec::new()),
            manual: true,
            undone_at: None,
        });
    }
    updates::joined(work, *survivor, joining, acting.event, catalog);
    look_again(work, *survivor, at, acting.ground);
    profiles.extend(profile_effect(work, *survivor, "changed"));
    Ok(Effect { profiles, identifiers, ..Effect::default() })
}

/// All identifiers of a profile that goes over into another one.
fn taken_over(work: &Work, from: ProfileNo, to: ProfileNo, catalog: &Catalog) -> Vec<IdentifierEffect> {
    let held = work.profile(from).into_iter().flat_map(|owned| &owned.identifiers);
    let effect = |held: &Held| IdentifierEffect {
        identifier: Named { id_type: apply::type_name(held.type_no, catalog), id: held.value.clone() },
        from: id_of(work, from),
        to: id_of(work, to),
    };
    held.map(effect).collect()
}

/// Lets a value out of quarantine. Nothing of a profile changes, and nobody may have it.
fn lift_quarantine(work: &mut Work, acting: &Acting<'_>) -> Done {
    for named in &acting.event.ids.users {
        let name = apply::type_name(named.type_no, acting.catalog());
        if !work.suspects.lift(named, &name) {
            return Err(format!("{name}:{} is not in quarantine", named.value));
        }
    }
    Ok(Effect::default())
}

/// Keeps two users apart whatever events say, or does so no longer.
fn block_merge(work: &mut Work, acting: &Acting<'_>, ids: &[Named; 2], blocked: bool) -> Done {
    let pair = pair(work, ids)?;
    let mut lifted = false;
    for (no, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
        acting.touch(work, no);
        let numbers = work.entries.get(&other).map(|entry| entry.profile.numbers()).unwrap_or_default();
        let Some(entry) = work.entries.get_mut(&no) else { continue };
        lifted |= entry.profile.owned.update(|owned| {
            let before = owned.apart.len();
            owned.apart.retain(|apart| !numbers.contains(&apart.other));
            let lifted = owned.apart.len() < before;
            if blocked {
                owned.apart.push(Apart { own: no, other, keys: Vec::new() });
            }
            lifted
        });
    }
    if !blocked && !lifted {
        return Err("nothing keeps these profiles apart".to_owned());
    }
    let profiles = pair.iter().filter_map(|no| profile_effect(work, *no, "changed"));
    Ok(Effect { profiles: profiles.collect(), ..Effect::default() })
}
