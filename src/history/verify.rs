//! Verification: profiles are made again from the log by the engine that made them, and compared with what is stored:
//! custom traits, computed traits, memberships, sizes and counters.
//!
//! What is compared belongs to one snapshot of the database; the log up to its position is read afterwards, at leisure.
//! Outcomes are computed for an instant at which nothing was due that has not happened, so every difference is a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hashbrown::HashMap;
use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::members::{Brought, Members};
use crate::domain::act::LIST_TRAIT;
use crate::domain::ids::public_id;
use crate::domain::trait_names::{OBJECTIONS, is_hidden};
use crate::domain::{
    Collection, ComputationNo, EventType, LeafNo, Offset, ProfileNo, SpaceNo, Timestamp, Value,
};
use crate::domain::{json, trait_names};
use crate::engine::consent;
use crate::engine::profile::{Outcome, OutcomeValue, Profile};
use crate::engine::traits::{NAME_CHARS_MAX, TRAITS_MAX, Traits, Write};
use crate::engine::{
    self, Definition, Dirty, KnownSource, LeafStates, Limits, ProfileView, Program, Sources, Target,
};
use crate::store::definitions::Kind;
use crate::store::log::codec::{Record, Records};
use crate::store::log::numbers::Fate;
use crate::store::{
    Result, StoreError, audiences, computations, log, processor, profiles, sources, verify, walled,
};

/// Profiles one pass makes again: bounds the memory it takes.
const PASS_PROFILES: i64 = 100_000;
/// Chunks read at a time.
const READ_CHUNKS: i64 = 16;
/// Differences that are told one by one.
const TOLD: usize = 100;

/// What is to be verified, and how.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// Whose profiles.
    pub space: SpaceNo,
    /// About so many profiles, another choice each time; `None` is all, and the counters with them.
    pub sample: Option<u64>,
    /// Instant of the verification.
    pub now: Timestamp,
    /// What definitions may use.
    pub limits: Limits,
    /// Pauses so many times as long as it works, to be in nobody's way.
    pub idle_factor: u32,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Profiles compared.
    pub profiles: u64,
    /// Traits, outcomes, memberships and counters compared.
    pub values: u64,
    /// Profiles left out: something of them was just about to happen, or their first events are kept no longer.
    pub skipped: u64,
    /// Differences.
    pub mismatches: u64,
    /// The first of them, in words.
    pub told: Vec<String>,
}

impl Report {
    fn compare<T: PartialEq + std::fmt::Debug>(
        &mut self,
        stored: &T,
        right: &T,
        what: impl FnOnce() -> String,
    ) {
        self.values += 1;
        if stored != right {
            self.mismatches += 1;
            if self.told.len() < TOLD {
                self.told.push(format!("{}: stored is {stored:?}, the log says {right:?}", what()));
            }
        }
    }
}

/// The definitions that answer, compiled as the processor compiles them.
struct Judge {
    program: Program,
    rows: HashMap<ComputationNo, computations::Computation>,
    answers: HashMap<String, ComputationNo>,
    /// Names that are or were keys of definitions: what was sent under them did not always count.
    reserved: BTreeSet<String>,
}

/// What is compared with one profile, besides what the log makes of it.
struct Beside<'a> {
    /// The instant its outcomes are computed for.
    at: Timestamp,
    memberships: &'a BTreeMap<ComputationNo, Timestamp>,
    who: String,
}

/// What the log makes of one profile.
#[derive(Default)]
struct Again {
    leaves: LeafStates,
    traits: Traits,
    /// Of an account.
    brought: Brought,
}

impl Task {
    /// Compares pass by pass.
    pub async fn run(self, pool: &PgPool) -> Result<Report> {
        let mut report = Report::default();
        let mut after = ProfileNo(0);
        loop {
            let mut tx = audiences::begin_snapshot(&walled(pool, self.space)).await?;
            let Some(standing) = processor::status(&mut *tx, self.space).await? else { break };
            let judge = Judge::load(&mut tx, self.space, self.limits).await?;
            if after.0 == 0 && self.sample.is_none() {
                counters(&mut tx, self.space, &standing, &judge, &mut report).await?;
            }
            let (stored, last) = self.choose(&mut tx, after, &standing).await?;
            let numbers: Vec<ProfileNo> = stored.keys().copied().collect();
            let memberships = verify::list_memberships(&mut tx, self.space, &numbers).await?;
            let mut members = Members::default();
            if judge.program.has_accounts() {
                members = Members::load(&mut tx, self.space, &stored, self.sample.is_some()).await?;
            }
            let absorbed: HashMap<ProfileNo, ProfileNo> =
                profiles::list_absorbed(&mut *tx, self.space).await?.into_iter().collect();
            tx.commit().await?;
            let mut again: BTreeMap<ProfileNo, Again> =
                stored.keys().map(|no| (*no, Again::default())).collect();
            let (end, remade) = (standing.processed, (&mut again, &mut members));
            let start = self.read_log(pool, end, &judge, &absorbed, remade).await?;
            let mut rows = memberships.into_iter().peekable();
            for (no, profile) in stored {
                let mut of_it = BTreeMap::new();
                while let Some((_, computation, at)) = rows.next_if(|(of, ..)| *of <= no) {
                    of_it.insert(computation, at);
                }
                let again = again.remove(&no).unwrap_or_default();
                if profile.first_offset < start {
                    // Its first events are kept no longer.
                    report.skipped += 1;
                    continue;
                }
                let beside = (&of_it, &members, start);
                self.compare(&profile, again, &judge, beside, &mut report);
            }
            let Some(last) = last else { break };
            after = last;
        }
        Ok(report)
    }

    /// The next profiles, and the number of the last that was looked at.
    async fn choose(
        &self,
        tx: &mut PgConnection,
        after: ProfileNo,
        standing: &processor::Status,
    ) -> Result<(BTreeMap<ProfileNo, Profile>, Option<ProfileNo>)> {
        let all = (standing.users + standing.accounts).max(1).unsigned_abs();
        let share = self.sample.map_or(1.0, |sample| sample as f64 / all as f64);
        let is_chosen = |no: ProfileNo| {
            let draw = xxh3_64_with_seed(
                &no.0.to_le_bytes(),
                standing.processed.0 ^ self.now.millis().unsigned_abs(),
            );
            (draw as f64) < share * u64::MAX as f64
        };
        let (mut chosen, mut last) = (BTreeMap::new(), after);
        while (chosen.len() as i64) < PASS_PROFILES {
            let page = profiles::list_states(&mut *tx, self.space, last, PASS_PROFILES / 50).await?;
            let Some((end, _)) = page.last() else { return Ok((chosen, None)) };
            last = *end;
            for (no, state) in page.into_iter().filter(|(no, _)| is_chosen(*no)) {
                let damaged = |e| StoreError::Damaged(format!("profile {no} of space {}: {e}", self.space));
                chosen.insert(no, Profile::decode(&state).map_err(damaged)?);
            }
        }
        Ok((chosen, Some(last)))
    }

    /// Folds the log up to `end`; the offset of its first event that is still kept.
    async fn read_log(
        &self,
        pool: &PgPool,
        end: Offset,
        judge: &Judge,
        absorbed: &HashMap<ProfileNo, ProfileNo>,
        (again, members): (&mut BTreeMap<ProfileNo, Again>, &mut Members),
    ) -> Result<Offset> {
        let (mut position, mut start) = (Offset(0), None);
        while position < end && !again.is_empty() {
            let began = std::time::Instant::now();
            let chunks = log::read_history(pool, self.space, position, end, None, READ_CHUNKS).await?;
            let Some(last) = chunks.last() else { break };
            let before = std::mem::replace(&mut position, last.chunk.end_offset);
            start = start.or_else(|| chunks.first().map(|first| first.chunk.first_offset()));
            for history in &chunks {
                let content = history.chunk.content()?;
                let mut offset = history.chunk.first_offset();
                for (record, fate) in Records::new(&content)?.zip(Fate::decode_all(&history.numbers)?) {
                    let record = record?;
                    // Chunks are joined meanwhile: one may reach beyond what is to be read now.
                    let is_new = before < offset && offset <= end;
                    if let Fate::Attributed { user, account } = fate
                        && is_new
                    {
                        let live = |no: ProfileNo| absorbed.get(&no).copied().unwrap_or(no);
                        if let Some(again) = user.and_then(|no| again.get_mut(&live(no))) {
                            again.fold(&record, offset, Collection::Users, judge);
                        }
                        if let Some(user) = user {
                            members.fold(live(user), account, &record, offset, &judge.program);
                        }
                        if let Some(again) = account.and_then(|no| again.get_mut(&live(no))) {
                            again.fold(&record, offset, Collection::Accounts, judge);
                        }
                    }
                    offset.0 += 1;
                }
                tokio::task::yield_now().await;
            }
            if self.idle_factor > 0 {
                let pause: Duration = began.elapsed() * self.idle_factor;
                tokio::time::sleep(pause).await;
            }
        }
        Ok(start.unwrap_or_default())
    }

    fn compare(
        &self,
        stored: &Profile,
        mut again: Again,
        judge: &Judge,
        (memberships, members, start): (&BTreeMap<ComputationNo, Timestamp>, &Members, Offset),
        report: &mut Report,
    ) {
        // An account's outcomes hang on its users, too.
        let asks = stored.collection == Collection::Accounts && judge.program.has_accounts();
        let of_users = if asks { members.times(stored.no, start) } else { Some((None, Timestamp::EPOCH)) };
        let Some((due_users, last_of_users)) = of_users else {
            report.skipped += 1;
            return;
        };
        let last_event = stored.last_event_at.max(last_of_users);
        // Until something is due the outcomes stand; what is due by now may not have happened yet.
        let due = [stored.due_at(), due_users].into_iter().flatten().min().map(|at| at.plus_millis(-1));
        let at = due.map_or(self.now, |due| due.min(self.now));
        if at < last_event && due.is_some_and(|due| due < last_event) {
            report.skipped += 1;
            return;
        }
        report.profiles += 1;
        let (who, at) = (public_id("prf", stored.id), at.max(last_event));
        compare_traits(stored, &again.traits, judge, &who, report);
        if asks {
            let (program, answers) = (&judge.program, &judge.answers);
            again.brought = members.bring(stored.no, program, answers, (&mut again.leaves, at));
        }
        judge.compare_outcomes(stored, again, &Beside { at, memberships, who }, report);
    }
}

impl Again {
    fn fold(&mut self, record: &Record<'_>, offset: Offset, collection: Collection, judge: &Judge) {
        let writes = match collection {
            Collection::Users => EventType::Identify,
            Collection::Accounts => EventType::Group,
        };
        if record.event_type == writes {
            let write = Write {
                at: record.timestamp,
                message_id: record.message_id.to_owned(),
                source: record.source,
                public: record.public,
            };
            let mut values: Vec<(String, &str)> = Vec::new();
            for (name, value) in json::entries(record.traits().unwrap_or_default()) {
                if !name.is_empty() && !is_hidden(&name) && name.chars().count() <= NAME_CHARS_MAX {
                    values.retain(|(known, _)| *known != name);
                    values.push((name.into_owned(), value));
                }
            }
            self.traits.apply(&write, values);
        }
        if collection == Collection::Users
            && let Some(stated) = consent::stated(record.context)
        {
            let at = record.timestamp;
            let write =
                Write { at, message_id: record.message_id.to_owned(), source: record.source, public: false };
            consent::note(&mut self.traits, &write, &stated);
        }
        let (facts, unused) = (record.facts(offset), &mut Dirty::default());
        match collection {
            Collection::Users => judge.program.fold(&mut self.leaves, &facts, unused),
            // What its users bring is pooled when all of it has been read.
            Collection::Accounts if record.event_type == EventType::Group => {
                judge.program.fold_into(Target::Account, &mut self.leaves, &facts, unused)
            }
            Collection::Accounts => false,
        };
    }
}

/// Whether a trait is set by operators' acts and not by events.
fn is_of_acts(name: &str) -> bool {
    name.starts_with(LIST_TRAIT) || name.starts_with(OBJECTIONS)
}

fn compare_traits(stored: &Profile, again: &Traits, judge: &Judge, who: &str, report: &mut Report) {
    let stored = stored.traits.get();
    if stored.len() >= TRAITS_MAX {
        // Which ones found room depends on more than the writes.
        return;
    }
    let names: BTreeSet<String> = stored
        .iter()
        .chain(again.iter())
        .map(|(name, ..)| trait_names::canonical(name).into_owned())
        .filter(|name| !judge.reserved.contains(name) && !is_of_acts(name))
        .collect();
    for name in names {
        report.compare(&stored.get(&name), &again.get(&name), || format!("trait {name:?} of {who}"));
    }
}

impl Judge {
    async fn load(tx: &mut PgConnection, space: SpaceNo, limits: Limits) -> Result<Self> {
        let known = sources::list_source_names(tx, space).await?.into_iter();
        let sources = known.map(|(no, id, name)| KnownSource { no, id: public_id("src", id), name });
        let sources = Sources::new(sources.collect());
        let (mut rows, mut definitions) = (HashMap::new(), Vec::new());
        let (mut answers, mut numbers) = (HashMap::new(), BTreeMap::new());
        for row in computations::list_active(tx, space).await? {
            // Others are being computed: nobody relies on them yet.
            if row.status != "live" {
                continue;
            }
            let kind = match row.kind {
                Kind::Audience => engine::Kind::Audience,
                Kind::ComputedTrait => engine::Kind::ComputedTrait,
            };
            let Ok(mut plan) = engine::compile_for(row.collection, &row.query, kind, limits.for_gates())
            else {
                continue;
            };
            plan.bind_sources(&sources);
            plan = plan.with_retention(&row.options.retention);
            if !row.options.include_history
                && let Some(from) = row.from
            {
                plan = plan.with_events_since(from);
            }
            answers.insert(row.key.clone(), row.no);
            definitions.push(Definition { no: row.no, key: row.key.clone(), serving: true, plan });
            rows.insert(row.no, row);
        }
        let frozen = computations::list_frozen(tx, space).await?;
        answers.extend(frozen.into_iter().map(|(no, key)| (key, no)));
        let program = Program::build(definitions, &mut |spec| {
            let next = LeafNo(numbers.len() as u32 + 1);
            *numbers.entry(spec.canonical()).or_insert(next)
        })
        .map_err(|e| StoreError::Damaged(format!("definitions do not go together: {e}")))?;
        let reserved = verify::list_keys_ever(tx, space).await?.into_iter().collect();
        Ok(Self { program, rows, answers, reserved })
    }

    fn compare_outcomes(&self, stored: &Profile, again: Again, beside: &Beside<'_>, report: &mut Report) {
        let Beside { at, memberships, who } = beside;
        let at = *at;
        // Of what is computed here only the outcomes are taken from what is stored: in order, each after it was made again.
        let mut profile = stored.clone();
        profile.traits.update(|traits| {
            // Lists and objections are operators' acts: those are taken as they are.
            let listed = std::mem::replace(traits, again.traits);
            for (name, json, write) in listed.iter().filter(|(name, ..)| is_of_acts(name)) {
                traits.apply(write, [(name.to_owned(), json)]);
            }
        });
        for definition in self.program.computations() {
            let Some(row) = self.rows.get(&definition.no) else { continue };
            if row.collection != stored.collection {
                continue;
            }
            let answers = |key: &str| self.answers.get(key).copied();
            let tally = again.brought.tallies.get(&definition.no);
            let view = ProfileView { profile: &profile, leaves: &again.leaves, tally, answers };
            let is_account = stored.collection == Collection::Accounts;
            let is_counted = is_account || stored.is_known || row.options.include_anonymous;
            let value = if is_counted { definition.plan.evaluate(&view, at).value } else { Value::Null };
            let said = stored.outcome(definition.no);
            let since = said.as_ref().map(|outcome| outcome.since);
            let right = match row.kind {
                Kind::Audience => OutcomeValue::Member(value == Value::Bool(true)),
                Kind::ComputedTrait => OutcomeValue::Value((!value.is_null()).then(|| value.to_json())),
            };
            // Never having been a member, or having had a value, needs no words.
            let silent = match row.kind {
                Kind::Audience => OutcomeValue::Member(false),
                Kind::ComputedTrait => OutcomeValue::Value(None),
            };
            let key = &row.key;
            if !row.walking {
                let said = said.map_or(silent, |outcome| outcome.value);
                report.compare(&said, &right, || format!("{key} of {who}"));
            }
            if row.kind == Kind::Audience {
                let is_member =
                    stored.outcome(definition.no).filter(|o| o.value == OutcomeValue::Member(true));
                let entered = is_member.map(|outcome| outcome.since);
                report.compare(&memberships.get(&definition.no).copied(), &entered, || {
                    format!("since when {who} is listed as a member of {key}")
                });
            }
            let since = since.unwrap_or(at);
            profile.set_outcome(Outcome { computation: definition.no, value: right, since });
        }
    }
}

/// Sizes and numbers of profiles, counted anew.
async fn counters(
    tx: &mut PgConnection,
    space: SpaceNo,
    standing: &processor::Status,
    judge: &Judge,
    report: &mut Report,
) -> Result<()> {
    for (no, stored, members) in verify::count_members(tx, space).await? {
        let Some(row) = judge.rows.get(&no).filter(|row| row.kind == Kind::Audience) else { continue };
        report.compare(&stored, &members, || format!("the size of {}", row.key));
    }
    let [users, accounts] = verify::count_profiles(tx, space).await?;
    report.compare(&standing.users, &users, || "the number of users".to_owned());
    report.compare(&standing.accounts, &accounts, || "the number of accounts".to_owned());
    Ok(())
}
