//! A space with its log, its lease and two processes, simulated step by step: what is committed is what each entry of the log
//! does once, in order, whoever was frozen, killed or replaced between any two steps.
//!
//! The engine is the real one: resolver, leaves, evaluation. Around it stand models of what Postgres gives: a log, rows that
//! change together or not at all, and a lease that lives by one clock. A process takes the lease, computes a batch on top of
//! what it has in memory, computes the next one while that is written, and commits `where epoch = … and processed = …`. Dice
//! decide who does what next, so any step may be the last one of a process, or come long after its lease is over.
//!
//! `SIMULATED_RUNS=1000000` sets the number of runs; `SIMULATED_SEED` with `SIMULATED_RUNS=1` repeats one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Instant;

use personas::domain::{
    ComputationNo, EventType, Facts, LeafNo, Offset, Parts, ProfileNo, SourceNo, Timestamp, Value,
};
use personas::engine::identity::resolve::Held;
use personas::engine::identity::{Candidate, IdType, Settings, extract};
use personas::engine::{Definition, Dirty, Kind, LeafState, LeafStates, Program, View};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::{SECOND, compiled};
use crate::simulated_space::{Person, Space, Transition, by_profile};

/// Runs of an ordinary test run. A fence that is missing is found by the first few hundred.
const RUNS: u64 = 100_000;
/// Tests that share the runs, so that they go on side by side.
const SHARES: u64 = 4;
/// Message ids are bits of a number.
pub(crate) const MESSAGES: u64 = 8;
/// Steps of a run before it comes to rest.
const STEPS: u64 = 30;
const LEASE: i64 = 4 * SECOND;
pub(crate) const AUDIENCES: [(&str, &str); 3] = [
    ("often", "event('A').count() >= 2"),
    ("lately", "event('A').within(6 seconds).count() >= 1"),
    ("quiet", "event('*').within(3 seconds).count() <= 1"),
];
const IDS: usize = 7;

/// An entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) message: u64,
    pub(crate) received_at: i64,
}

/// What a message says; the same whenever it is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) name: &'static str,
    pub(crate) at: i64,
    pub(crate) ids: [usize; 2],
}

/// What does not change between runs.
pub(crate) struct World {
    pub(crate) program: Program,
    /// Nothing is refused; limits of one and two.
    pub(crate) settings: [Settings; 2],
    /// The identifiers of an event that carries these two.
    candidates: Vec<Vec<Candidate>>,
    texts: Vec<String>,
}

impl World {
    pub(crate) fn get() -> &'static Self {
        static WORLD: OnceLock<World> = OnceLock::new();
        WORLD.get_or_init(|| {
            let definition = |(no, (key, query)): (usize, &(&str, &str))| Definition {
                no: ComputationNo(no as u32 + 1),
                key: (*key).to_owned(),
                serving: true,
                plan: compiled(query, Kind::Audience),
            };
            let definitions = AUDIENCES.iter().enumerate().map(definition).collect();
            let mut known = BTreeMap::new();
            let program = Program::build(definitions, &mut |leaf| {
                let next = LeafNo(known.len() as u32 + 1);
                *known.entry(leaf.canonical()).or_insert(next)
            });
            let limited = |limit: fn(u32) -> u32| {
                let mut types = IdType::defaults();
                for id_type in &mut types {
                    id_type.limit = limit(id_type.limit);
                }
                types
            };
            let wide = Settings::new(limited(|_| 100), 100, 1_000).expect("settings");
            let narrow = Settings::new(limited(|limit| limit.min(2)), 2, 4).expect("settings");
            let candidates = (0..IDS * IDS).map(|n| candidates([n / IDS, n % IDS], &wide)).collect();
            let texts = (0..MESSAGES).map(|n| format!("m{n:03}")).collect();
            Self { program: program.expect("program"), settings: [wide, narrow], candidates, texts }
        })
    }

    pub(crate) fn candidates(&self, ids: [usize; 2]) -> &[Candidate] {
        &self.candidates[ids[0] * IDS + ids[1]]
    }

    pub(crate) fn text(&self, message: u64) -> &str {
        &self.texts[message as usize]
    }

    pub(crate) fn facts<'a>(&'a self, said: &'a Said, entry: Entry, offset: usize) -> Facts<'a> {
        Facts {
            event_type: EventType::Track,
            name: said.name,
            timestamp: Timestamp::from_millis(said.at),
            received_at: Timestamp::from_millis(entry.received_at),
            offset: Offset(offset as u64 + 1),
            message_id: self.text(entry.message),
            source: SourceNo(1),
            properties: r#"{"x":1}"#,
            context: "",
        }
    }
}

/// The first three are users, the others devices.
fn candidates(ids: [usize; 2], settings: &Settings) -> Vec<Candidate> {
    let users: Vec<String> = ids.iter().filter(|id| **id < 3).map(|id| format!("u{id}")).collect();
    let devices: Vec<String> = ids.iter().filter(|id| **id >= 3).map(|id| format!("a{id}")).collect();
    let parts = Parts {
        event_type: EventType::Track,
        user_id: users.first().map_or("", String::as_str),
        anonymous_id: devices.first().map_or("", String::as_str),
        group_id: "",
        body: "",
        context: "",
    };
    extract(&parts, settings).users
}

impl View for Person {
    fn profile_id(&self) -> uuid::Uuid {
        uuid::Uuid::from_u128(1)
    }

    fn leaf(&self, leaf: LeafNo) -> Option<Cow<'_, LeafState>> {
        self.states.get(leaf)
    }

    fn trait_value(&self, _: &str) -> Option<Cow<'_, Value>> {
        None
    }
}

/// What is durable, and changes by one commit or not at all.
#[derive(Debug, Clone)]
struct Database {
    log: Vec<Entry>,
    epoch: u64,
    lease_until: i64,
    space: Space,
    /// Who entered and left, as it was told: each commit adds what it has made happen.
    told: Vec<Transition>,
}

/// Something computed that is not committed yet: where it begins, how much had been told by then, and what is there after it.
#[derive(Debug, Clone)]
struct Prepared {
    from: usize,
    told: usize,
    space: Space,
}

/// What a process has in memory.
#[derive(Debug, Clone, Default)]
struct Process {
    /// With the epoch it got.
    epoch: Option<u64>,
    /// What it believes to be committed.
    space: Space,
    /// Computed, being written.
    under_way: Option<Prepared>,
    /// Computed on top of that.
    next: Option<Prepared>,
}

/// A fault of the model itself: each has to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// Commits ask for the position and not for the epoch.
    Epoch,
    /// Nor for the position.
    Fences,
    /// What was computed on top of something that was rolled back is written all the same.
    Ahead,
    /// Messages that come again count again.
    Duplicates,
}

struct Run {
    dice: StdRng,
    broken: Broken,
    narrow: bool,
    now: i64,
    said: Vec<Said>,
    database: Database,
    processes: [Process; 2],
    /// Sent, and not acknowledged: sent again.
    unknown: Vec<u64>,
    sent: u64,
    /// Acknowledged by a commit that the client heard of.
    acknowledged: Vec<u64>,
}

impl Run {
    fn new(seed: u64, broken: Broken) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let said = (0..MESSAGES)
            .map(|_| Said {
                name: ["A", "A", "B"][dice.random_range(0..3)],
                at: dice.random_range(0..20) * 500,
                ids: [dice.random_range(0..IDS), dice.random_range(0..IDS)],
            })
            .collect();
        let narrow = dice.random_range(0..2) == 1;
        let database =
            Database { log: Vec::new(), epoch: 0, lease_until: 0, space: Space::default(), told: Vec::new() };
        Self {
            dice,
            broken,
            narrow,
            now: 1,
            said,
            database,
            processes: Default::default(),
            unknown: Vec::new(),
            sent: 0,
            acknowledged: Vec::new(),
        }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice.random_range(0..sides)
    }

    fn settings(&self) -> &'static Settings {
        &World::get().settings[usize::from(self.narrow)]
    }

    /// A client sends some messages, new ones and some that it knows nothing of; the answer may be lost.
    fn send(&mut self) {
        let mut batch = Vec::new();
        for _ in 0..=self.roll(3) {
            let again = self.roll(3) == 0;
            match self.unknown.pop() {
                Some(message) if again => batch.push(message),
                other => {
                    self.unknown.extend(other);
                    if self.sent < MESSAGES {
                        batch.push(self.sent);
                        self.sent += 1;
                    }
                }
            }
        }
        let (stored, heard) = (self.roll(8) > 0, self.roll(4) > 0);
        if stored {
            let received_at = self.now;
            self.database.log.extend(batch.iter().map(|message| Entry { message: *message, received_at }));
        }
        if stored && heard {
            self.acknowledged.extend(batch);
        } else {
            self.unknown.extend(batch);
        }
    }

    fn take_lease(&mut self, who: usize) {
        if self.database.lease_until < self.now {
            self.database.epoch += 1;
            self.database.lease_until = self.now + LEASE;
            let (epoch, space) = (Some(self.database.epoch), self.database.space.clone());
            self.processes[who] = Process { epoch, space, ..Process::default() };
        }
    }

    /// Reads the log behind what is computed already and applies some of it; or lets happen what is due.
    fn compute(&mut self, who: usize) {
        let process = &self.processes[who];
        if process.epoch.is_none() || process.next.is_some() {
            return;
        }
        let base = process.under_way.as_ref().map_or(&process.space, |prepared| &prepared.space);
        let (from, told, mut space) = (base.processed, base.transitions.len(), base.clone());
        let waiting = self.database.log.len().saturating_sub(from);
        let settings = self.settings();
        if waiting > 0 {
            let count = 1 + self.roll(waiting as u64) as usize;
            for offset in from..from + count {
                let entry = self.database.log[offset];
                if self.broken == Broken::Duplicates {
                    space.seen = 0;
                }
                space.apply(offset, entry, &self.said[entry.message as usize], settings);
            }
        } else {
            // Timers never overtake events that are in the log.
            space.fire_all(self.now);
        }
        if self.roll(3) == 0 {
            space.store();
        }
        let slot = &mut self.processes[who];
        let place = if slot.under_way.is_none() { &mut slot.under_way } else { &mut slot.next };
        *place = Some(Prepared { from, told, space });
    }

    /// Writes what is under way. Of a process that dies at this moment, nobody knows whether it did.
    fn commit(&mut self, who: usize) -> Result<(), String> {
        let Some(prepared) = self.processes[who].under_way.take() else { return Ok(()) };
        let Prepared { from, told, space } = prepared;
        let is_unfenced = self.broken == Broken::Fences;
        let epoch_fits =
            self.processes[who].epoch == Some(self.database.epoch) || self.broken == Broken::Epoch;
        let position_fits = from == self.database.space.processed;
        // Now and then Postgres rolls back for a reason of its own.
        if self.roll(10) == 0 || !(is_unfenced || (epoch_fits && position_fits)) {
            let process = &mut self.processes[who];
            if self.broken == Broken::Ahead {
                process.under_way = process.next.take().map(|next| Prepared { from, ..next });
            } else {
                *process = Process::default();
            }
            return Ok(());
        }
        if space.processed < self.database.space.processed {
            return Err("the position went back".to_owned());
        }
        self.database.told.extend_from_slice(&space.transitions[told..]);
        self.database.space = space.clone();
        self.database.lease_until = self.now + LEASE;
        self.database.space.check()?;
        let process = &mut self.processes[who];
        process.space = space;
        process.under_way = process.next.take();
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let who = self.roll(2) as usize;
        match self.roll(16) {
            0..=2 => self.send(),
            3 | 4 => self.take_lease(who),
            5..=8 => self.compute(who),
            9..=12 => return self.commit(who),
            13 => self.processes[who] = Process::default(),
            14 => self.now += 1 + self.roll(2_000) as i64,
            // Whoever has the lease is frozen, as long as any lease.
            _ => self.now += self.roll(2 * LEASE as u64) as i64,
        }
        Ok(())
    }

    fn run(mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step()?;
        }
        // Whatever is unknown is sent until it is acknowledged, and one process that nobody disturbs does the rest.
        let received_at = self.now;
        self.database.log.extend(self.unknown.iter().map(|message| Entry { message: *message, received_at }));
        self.now += 60 * SECOND;
        self.take_lease(0);
        while self.database.space.processed < self.database.log.len() {
            self.compute(0);
            self.commit(0)?;
            if self.processes[0].epoch.is_none() {
                self.now += 2 * LEASE;
                self.take_lease(0);
            }
        }
        let mut found = self.database.space.clone();
        if by_profile(&self.database.told) != by_profile(&found.transitions) {
            return Err(format!("told {:?}, and not {:?}", self.database.told, found.transitions));
        }
        found.fire_all(self.now);
        let mut expected = Space::default();
        for (offset, entry) in self.database.log.iter().enumerate() {
            expected.apply(offset, *entry, &self.said[entry.message as usize], self.settings());
        }
        expected.fire_all(self.now);
        expected.check()?;
        expected.check_transitions()?;
        if found.seen != (1 << self.sent) - 1 {
            return Err(format!("of {} messages {:b} count", self.sent, found.seen));
        }
        found.same_as(&expected)?;
        if !self.narrow {
            self.count_by_hand(&found)?;
        }
        Ok(())
    }

    /// Where nothing is refused, people are what hangs together, and each message counts once for one of them.
    fn count_by_hand(&self, space: &Space) -> Result<(), String> {
        let mut of: Vec<usize> = (0..IDS).collect();
        for said in &self.said[..self.sent as usize] {
            // Of two values of one type, an event carries the first.
            let [one, other] = said.ids;
            if (one < 3) != (other < 3) {
                let (keep, gone) = (of[one], of[other]);
                of.iter_mut().filter(|to| **to == gone).for_each(|to| *to = keep);
            }
        }
        let mut counts = BTreeMap::<usize, u64>::new();
        for said in &self.said[..self.sent as usize] {
            *counts.entry(of[said.ids[0]]).or_default() += u64::from(said.name == "A");
        }
        let often = counts.values().filter(|count| **count >= 2).count() as i64;
        if space.people.len() != counts.len() || space.sizes[0] != often {
            return Err(format!(
                "{} people, {} often; by hand {counts:?}",
                space.people.len(),
                space.sizes[0]
            ));
        }
        Ok(())
    }
}

/// The first seed of so many at which something is wrong, and what.
fn first_wrong(seeds: impl Iterator<Item = u64>, broken: Broken) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| Run::new(seed, broken).run().err().map(|wrong| (seed, wrong)))
}

/// A share of the runs. With a seed that is asked for, the first share alone makes them.
#[expect(clippy::print_stdout, reason = "the seed is what a run is repeated by")]
fn runs_of_share(share: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let asked = number("SIMULATED_SEED");
    let runs = number("SIMULATED_RUNS").unwrap_or(RUNS);
    let runs = match (asked, share) {
        (None, _) => runs.div_ceil(SHARES),
        (Some(_), 0) => runs,
        (Some(_), _) => return,
    };
    let seed = asked.unwrap_or_else(|| rand::rng().random_range(0..1 << 40));
    println!("{runs} runs, SIMULATED_SEED={seed}");
    let began = Instant::now();
    if let Some((seed, wrong)) = first_wrong(seed..seed + runs, Broken::Nothing) {
        panic!("SIMULATED_SEED={seed} SIMULATED_RUNS=1: {wrong}");
    }
    println!("{:.0} runs a second", runs as f64 / began.elapsed().as_secs_f64());
}

#[test]
fn whoever_is_killed_frozen_or_replaced_each_entry_counts_once_and_in_order() {
    runs_of_share(0);
}

#[test]
fn and_so_it_is_in_a_second_share_of_the_runs() {
    runs_of_share(1);
}

#[test]
fn and_so_it_is_in_a_third_share_of_the_runs() {
    runs_of_share(2);
}

#[test]
fn and_so_it_is_in_a_fourth_share_of_the_runs() {
    runs_of_share(3);
}

#[test]
fn whatever_fence_is_missing_is_found() {
    for broken in [Broken::Epoch, Broken::Fences, Broken::Ahead, Broken::Duplicates] {
        let found = first_wrong(0..20_000, broken);
        assert!(found.is_some(), "{broken:?} is not found");
    }
}

/// Facts folded into a person; which definitions they feed.
pub(crate) fn fold(person: &mut Person, facts: &Facts<'_>) -> Vec<usize> {
    let mut dirty = Dirty::default();
    World::get().program.fold(&mut person.states, facts, &mut dirty);
    std::iter::from_fn(|| dirty.pop()).collect()
}

/// An identifier as it is held.
pub(crate) fn held(candidate: &Candidate, at: i64, message: &str, no: ProfileNo) -> Held {
    Held {
        type_no: candidate.type_no,
        value: candidate.value.clone(),
        first_seen: Timestamp::from_millis(at),
        source: SourceNo(1),
        message_id: message.to_owned(),
        brought_by: no,
    }
}

/// The stored form, read back.
pub(crate) fn stored(states: &LeafStates) -> LeafStates {
    LeafStates::stored(crate::harness::stored(states).into())
}
