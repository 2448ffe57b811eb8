//! Evaluating a profile's definitions: new outcomes, and the members, sizes, transitions and due times that follow.

use super::accounts;
use super::catalog::{Catalog, Meta};
use super::outbox::Change;
use super::work::{Entry, Output, Work};
use crate::domain::delivery::Subject;
use crate::domain::{Collection, ComputationNo, ProfileNo, Timestamp, Value};
use crate::engine::ProfileView;
use crate::engine::profile::{Outcome, OutcomeValue, Profile, encode_pointers};
use crate::store::definitions::Kind;
use crate::store::memberships::{MembershipChange, Transition};
use crate::store::timeline::PointerPage;

/// Profile numbers a walk in progress has still to come to: versions that do not serve yet are left alone on them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waiting {
    pub users: Numbers,
    pub accounts: Numbers,
}

/// The numbers after one, up to another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Numbers {
    pub after: ProfileNo,
    pub until: ProfileNo,
}

impl Waiting {
    fn has(self, profile: &Profile) -> bool {
        let numbers = match profile.collection {
            Collection::Users => self.users,
            Collection::Accounts => self.accounts,
        };
        profile.no > numbers.after && profile.no <= numbers.until
    }
}

/// Forgets what can never matter again at `now` or later. Once in so many events is enough.
pub(super) fn tidy(profile: &mut Profile, catalog: &Catalog, now: Timestamp) {
    catalog.program.compact(&mut profile.leaves, now);
    if !profile.seats.get().is_empty() {
        profile.seats.update(|seats| seats.for_each_states(|states| catalog.program.compact(states, now)));
    }
    profile.retain_versions(|no| catalog.keeps(no), |no| catalog.meta.contains_key(&no));
}

/// Takes out the pointers that no longer fit the row of a profile, and tidies it when there were any.
pub(super) fn spill(entry: &mut Entry, catalog: &Catalog) -> Option<PointerPage> {
    let pointers = entry.profile.spill()?;
    let times = || pointers.iter().map(|p| p.at);
    let page = PointerPage {
        profile: entry.profile.no,
        first_offset: pointers.first()?.offset,
        min_at: times().min()?,
        max_at: times().max()?,
        pointers: encode_pointers(&pointers),
    };
    // What was due by its newest event has happened, what is due later has not: it still reads its states as of then.
    let at = entry.profile.last_event_at;
    tidy(&mut entry.profile, catalog, at);
    Some(page)
}

/// Evaluates everything marked in the working set.
pub(super) fn evaluate_all(work: &mut Work, catalog: &Catalog, now: Timestamp, waiting: Waiting) {
    let mut out = std::mem::take(&mut work.out);
    for entry in work.in_order() {
        // Never before an event that is in its states.
        let now = now.max(entry.profile.last_event_at);
        evaluate(entry, &mut out, catalog, now, waiting);
    }
    work.out = out;
    accounts::settle(work, catalog, now, waiting);
}

/// Lets happen what was due on a profile by `until`, instant by instant: it may enter and leave again before that.
pub(super) fn fire(
    entry: &mut Entry,
    out: &mut Output,
    catalog: &Catalog,
    until: Timestamp,
    waiting: Waiting,
) {
    while let Some(at) = entry.profile.due_at().filter(|at| *at <= until) {
        entry.touched = true;
        for no in entry.profile.take_due(at) {
            catalog.program.mark(no, &mut entry.dirty);
        }
        evaluate(entry, out, catalog, at, waiting);
    }
}

/// Evaluates what is marked on one profile.
pub(super) fn evaluate(
    entry: &mut Entry,
    out: &mut Output,
    catalog: &Catalog,
    now: Timestamp,
    waiting: Waiting,
) {
    if entry.dirty.is_empty() && entry.absorbed.is_empty() {
        return;
    }
    entry.touched = true;
    if !entry.absorbed.is_empty() {
        settle_frozen(entry, out, catalog, now);
    }
    while let Some(place) = entry.dirty.pop() {
        let Some(computation) = catalog.program.computations().get(place) else { continue };
        let Some(meta) = catalog.meta.get(&computation.no) else { continue };
        if meta.walking && waiting.has(&entry.profile) {
            continue;
        }
        match (entry.profile.collection, computation.plan.collection()) {
            (Collection::Users, Collection::Accounts) => {
                if !computation.plan.quantifiers().is_empty() {
                    let due = accounts::ask(entry, &mut out.recounts, computation, catalog, now);
                    entry.profile.set_due(computation.no, due);
                }
                continue;
            }
            (one, other) if one != other => continue,
            _ => {}
        }
        let is_account = entry.profile.collection == Collection::Accounts;
        let view = ProfileView {
            profile: &entry.profile,
            leaves: &entry.profile.leaves,
            tally: if is_account { entry.profile.seats.get().tally(computation.no) } else { None },
            answers: |key: &str| catalog.answers.get(key).copied(),
        };
        let (value, changes_at) = if is_account || entry.profile.is_known || meta.include_anonymous {
            let evaluation = computation.plan.evaluate(&view, now);
            (evaluation.value, evaluation.changes_at)
        } else {
            (Value::Null, None)
        };
        entry.profile.set_due(computation.no, changes_at);
        let changed = match meta.kind {
            Kind::Audience => {
                let is_member = value == Value::Bool(true);
                decide_member(entry, out, &Deciding { no: computation.no, meta, catalog, now }, is_member)
            }
            Kind::ComputedTrait => {
                decide_value(entry, out, &Deciding { no: computation.no, meta, catalog, now }, &value)
            }
        };
        if changed && catalog.answers.get(&meta.key) == Some(&computation.no) {
            catalog.program.mark_trait(&meta.key, &mut entry.dirty);
        }
    }
    settle_absorbed(entry, out, catalog, now);
}

/// Which version is decided, and when.
struct Deciding<'a> {
    no: ComputationNo,
    meta: &'a Meta,
    catalog: &'a Catalog,
    now: Timestamp,
}

impl Deciding<'_> {
    /// What the version that answers now says, while this one is still being walked.
    fn previous(&self, profile: &Profile) -> Option<Outcome> {
        let answering = self.catalog.answers.get(&self.meta.key).filter(|no| **no != self.no)?;
        profile.outcome(*answering)
    }
}

/// Membership before: the profile's own, or that of one it absorbed. A merge tells only the net change (A18).
fn decide_member(entry: &mut Entry, out: &mut Output, deciding: &Deciding<'_>, is_member: bool) -> bool {
    let Deciding { no, meta, now, .. } = *deciding;
    let own = entry.profile.outcome(no);
    if entry.absorbed.is_empty() && own.as_ref().is_some_and(|o| o.value == OutcomeValue::Member(is_member)) {
        return false;
    }
    let absorbed = take_absorbed(entry, no);
    let is_in = |o: &Outcome| o.value == OutcomeValue::Member(true);
    let own_in = own.as_ref().is_some_and(is_in);
    let own_before = own.clone();
    let ins: Vec<Timestamp> =
        own.iter().chain(absorbed.iter().map(|(_, o)| o)).filter(|o| is_in(o)).map(|o| o.since).collect();
    for (profile, _) in absorbed.iter().filter(|(_, o)| is_in(o)) {
        let (profile, was_member) = (*profile, true);
        out.memberships.push(MembershipChange { computation: no, profile, was_member, entered_at: None });
    }
    add_size(out, no, i64::from(is_member) - ins.len() as i64, now);
    let was_member = !ins.is_empty();
    // A new version takes over since when its predecessor had (or had lost) the member.
    let known =
        own.or(absorbed.first().map(|(_, o)| o.clone())).or_else(|| deciding.previous(&entry.profile));
    if !is_member && known.is_none() {
        return false;
    }
    let since = match known {
        _ if is_member && was_member => ins.into_iter().min().unwrap_or(now),
        Some(known) if !was_member && is_in(&known) == is_member => known.since,
        _ => now,
    };
    let outcome = Outcome { computation: no, value: OutcomeValue::Member(is_member), since };
    if own_before.as_ref() != Some(&outcome) && (is_member || own_in) {
        let (profile, entered_at) = (entry.profile.no, is_member.then_some(since));
        out.memberships.push(MembershipChange { computation: no, profile, was_member: own_in, entered_at });
    }
    entry.profile.set_outcome(outcome);
    if meta.serving && is_member != was_member {
        let (definition, profile) = (meta.definition, entry.profile.no);
        // Numbered when the transaction is written, in the order of time.
        out.transitions.push(Transition { definition, no: 0, profile, entered: is_member, at: now });
    }
    is_member != own_in
}

fn decide_value(entry: &mut Entry, out: &mut Output, deciding: &Deciding<'_>, value: &Value) -> bool {
    let Deciding { no, meta, catalog, now } = *deciding;
    let json = (!value.is_null()).then(|| value.to_json());
    let own = entry.profile.outcome(no);
    let has = |o: &Outcome| matches!(o.value, OutcomeValue::Value(Some(_)));
    let absorbed = take_absorbed(entry, no);
    let before = own.iter().chain(absorbed.iter().map(|(_, o)| o)).filter(|o| has(o)).count();
    add_size(out, no, i64::from(json.is_some()) - before as i64, now);
    let value = OutcomeValue::Value(json);
    match own {
        Some(own) if own.value == value => false,
        None if value == OutcomeValue::Value(None) => false,
        _ => {
            let definition = meta.definition;
            if meta.serving && catalog.wanted.wants(Subject::ComputedTrait, definition) {
                let value = match &value {
                    OutcomeValue::Value(Some(json)) => json.clone(),
                    _ => "null".to_owned(),
                };
                let of = (Subject::ComputedTrait, definition);
                out.changes.push(Change::new(entry.profile.no, of, value, now).by(out.cause));
            }
            entry.profile.set_outcome(Outcome { computation: no, value, since: now });
            true
        }
    }
}

/// Takes a profile that is no more out of everything it is counted in.
pub(super) fn leave_all(profile: &Profile, out: &mut Output, catalog: &Catalog, now: Timestamp) {
    for outcome in profile.outcomes().filter(|outcome| catalog.counts(outcome.computation)) {
        let (computation, profile) = (outcome.computation, profile.no);
        match outcome.value {
            OutcomeValue::Member(true) => {
                out.memberships.push(MembershipChange {
                    computation,
                    profile,
                    was_member: true,
                    entered_at: None,
                });
                add_size(out, computation, -1, now);
            }
            OutcomeValue::Value(Some(_)) => add_size(out, computation, -1, now),
            OutcomeValue::Member(false) | OutcomeValue::Value(None) => {}
        }
    }
}

fn add_size(out: &mut Output, no: ComputationNo, delta: i64, now: Timestamp) {
    if delta != 0 {
        let size = out.sizes.entry((no, now.millis().div_euclid(60_000))).or_insert((0, now));
        *size = (size.0 + delta, size.1.max(now));
    }
}

fn take_absorbed(entry: &mut Entry, no: ComputationNo) -> Vec<(ProfileNo, Outcome)> {
    if entry.absorbed.is_empty() {
        return Vec::new();
    }
    let (taken, rest) =
        std::mem::take(&mut entry.absorbed).into_iter().partition(|(_, o)| o.computation == no);
    entry.absorbed = rest;
    taken
}

/// What a merge brings of versions that answer and are evaluated no more, as those that are switched off: before anything
/// that refers to them is looked at.
fn settle_frozen(entry: &mut Entry, out: &mut Output, catalog: &Catalog, now: Timestamp) {
    let is_frozen =
        |(_, outcome): &(ProfileNo, Outcome)| catalog.program.place(outcome.computation).is_none();
    let (frozen, rest): (Vec<_>, Vec<_>) =
        std::mem::take(&mut entry.absorbed).into_iter().partition(is_frozen);
    if !frozen.is_empty() {
        for (key, no) in &catalog.answers {
            if frozen.iter().any(|(_, outcome)| outcome.computation == *no) {
                catalog.program.mark_trait(key, &mut entry.dirty);
            }
        }
        entry.absorbed = frozen;
        settle_absorbed(entry, out, catalog, now);
    }
    entry.absorbed = rest;
}

/// Members of versions that are not evaluated (any more, or not here yet) go over to the survivor.
fn settle_absorbed(entry: &mut Entry, out: &mut Output, catalog: &Catalog, now: Timestamp) {
    for (profile, outcome) in std::mem::take(&mut entry.absorbed) {
        let no = outcome.computation;
        if !catalog.keeps(no) {
            continue;
        }
        let own_in = entry.profile.outcome(no).is_some_and(|o| o.value == OutcomeValue::Member(true));
        match outcome.value {
            OutcomeValue::Member(true) => {
                let change =
                    MembershipChange { computation: no, profile, was_member: true, entered_at: None };
                out.memberships.push(change);
                if own_in {
                    add_size(out, no, -1, now);
                } else {
                    let (profile, was_member) = (entry.profile.no, false);
                    let entered_at = Some(outcome.since);
                    out.memberships.push(MembershipChange {
                        computation: no,
                        profile,
                        was_member,
                        entered_at,
                    });
                    entry.profile.set_outcome(outcome);
                }
            }
            OutcomeValue::Member(false) if entry.profile.outcome(no).is_none() => {
                entry.profile.set_outcome(outcome);
            }
            OutcomeValue::Value(Some(_)) => {
                let has =
                    matches!(entry.profile.outcome(no).map(|o| o.value), Some(OutcomeValue::Value(Some(_))));
                if has && catalog.counts(no) {
                    add_size(out, no, -1, now);
                } else if !has {
                    entry.profile.set_outcome(outcome);
                }
            }
            OutcomeValue::Member(false) | OutcomeValue::Value(None) => {}
        }
    }
}
