//! The engine as the service drives it, against the naive evaluator: random definitions over random traces of events,
//! deliveries, clock steps and merges.
//!
//! Events come in the order of their reception, so they are late, shuffled and ahead of their time; some are delivered
//! twice; a profile may be stored, tidied or merged with another one between any two of them. An outcome is decided
//! again only after an event of its profile and when its due time has come, as the processor does, and has to be right
//! at every instant.
//!
//! `PERSONAS_TRACES=100000` sets the number of traces, `PERSONAS_TRACES_SEED` repeats a run.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;

use personas::domain::{Timestamp, Value};
use personas::engine::{Kind, LeafStates};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError, TestError, TestRunner};

use crate::harness::*;
use crate::naive::*;
use crate::oracle::*;

/// Traces of an ordinary run.
const TRACES: u32 = 1_000;
/// Nothing changes by itself later than that: dates lie at most 30 s and windows reach at most 11 s behind the start.
const END: i64 = START + 45_000;

#[derive(Debug, Clone)]
enum Definition {
    Audience(Query),
    Value(Scalar),
}

impl Definition {
    fn text(&self) -> String {
        match self {
            Self::Audience(query) => query.text(),
            Self::Value(scalar) => scalar.text(),
        }
    }

    /// The value as JSON, straight from the events.
    fn naive(&self, world: &World, now: i64) -> String {
        match self {
            Self::Audience(query) => query.holds(world, now).to_string(),
            Self::Value(scalar) => scalar.value(world, now).json(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Audience(_) => Kind::Audience,
            Self::Value(_) => Kind::ComputedTrait,
        }
    }
}

/// What happens around one event.
#[derive(Debug, Clone)]
struct Step {
    /// Which profile it belongs to, until they are merged.
    second: bool,
    /// It comes a second time.
    twice: bool,
    stored: bool,
    tidied: bool,
}

#[derive(Debug, Clone)]
struct Trace {
    definition: Definition,
    world: World,
    steps: Vec<Step>,
    /// Before which event the second profile becomes one with the first.
    merged_at: usize,
}

fn definition() -> impl Strategy<Value = Definition> {
    let value = scalar(reducer()).prop_filter_map("the naive average is a binary fraction", |scalar| {
        let average = matches!(scalar, Scalar::Event { reducer: Reducer::Average, .. });
        (!average).then_some(Definition::Value(scalar))
    });
    prop_oneof![2 => query().prop_map(Definition::Audience), 1 => value]
}

fn trace() -> impl Strategy<Value = Trace> {
    let step =
        (any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let step = step.prop_map(|(second, twice, stored, tidied)| Step { second, twice, stored, tidied });
    (definition(), world(), prop::collection::vec(step, 16), 0..20_usize).prop_map(
        |(definition, mut world, steps, merged_at)| {
            world.events.sort_by_key(|event| event.received_at);
            Trace { definition, world, steps, merged_at }
        },
    )
}

/// A profile in service.
struct Live<'t> {
    definition: &'t Definition,
    space: Space,
    /// What it has had.
    world: World,
    value: String,
    due: Option<i64>,
}

impl<'t> Live<'t> {
    fn new(trace: &'t Trace) -> Self {
        let world = World { events: Vec::new(), ..trace.world.clone() };
        let space = with_traits(space(&trace.definition.text(), trace.definition.kind()), &world);
        let mut live = Self { definition: &trace.definition, space, world, value: String::new(), due: None };
        live.decide(START);
        live
    }

    fn decide(&mut self, now: i64) {
        let evaluation = self.space.at(now);
        self.value = evaluation.value.to_json();
        self.due = evaluation.changes_at.map(Timestamp::millis);
        assert!(self.due.is_none_or(|due| due > now), "due at {:?} in {now}", self.due);
    }

    fn check(&self, now: i64) -> Result<(), TestCaseError> {
        let expected = self.definition.naive(&self.world, now);
        prop_assert_eq!(&self.value, &expected, "{} at {}", self.definition.text(), now - START);
        Ok(())
    }

    /// Lets time pass and looks at every instant at which anything could happen.
    fn pass(&mut self, from: i64, to: i64) -> Result<(), TestCaseError> {
        let steps = (from - START).div_euclid(STEP)..=(to - START).div_euclid(STEP);
        let instants = steps.flat_map(|i| [START + i * STEP, START + i * STEP + 1]);
        for now in instants.filter(|at| *at > from && *at <= to) {
            while let Some(due) = self.due.filter(|due| *due <= now) {
                self.decide(due);
            }
            self.check(now)?;
        }
        Ok(())
    }

    fn take(&mut self, event: &RawEvent, step: &Step, now: i64) -> Result<(), TestCaseError> {
        self.world.events.push(event.clone());
        self.space.fold(&engine_events(std::slice::from_ref(event)));
        self.decide(now);
        self.check(now)?;
        if step.tidied {
            let program = &self.space.program;
            program.compact(&mut self.space.profile.states, Timestamp::from_millis(now));
        }
        if step.stored {
            let bytes = stored(&self.space.profile.states);
            self.space.profile.states = LeafStates::stored(bytes.into());
        }
        if step.tidied || step.stored {
            self.decide(now);
            self.check(now)?;
        }
        Ok(())
    }

    fn absorb(&mut self, other: &Self, now: i64) -> Result<(), TestCaseError> {
        self.space.profile.states.merge(&other.space.profile.states);
        self.world.events.extend(other.world.events.iter().cloned());
        self.decide(now);
        self.check(now)
    }
}

fn run(trace: &Trace) -> Result<(), TestCaseError> {
    let (mut first, mut second) = (Live::new(trace), Some(Live::new(trace)));
    first.check(START)?;
    let (mut now, mut seen) = (START, BTreeSet::new());
    for (i, (event, step)) in trace.world.events.iter().zip(&trace.steps).enumerate() {
        for live in [Some(&mut first), second.as_mut()].into_iter().flatten() {
            live.pass(now, event.received_at)?;
        }
        now = event.received_at;
        if i >= trace.merged_at
            && let Some(absorbed) = second.take()
        {
            first.absorb(&absorbed, now)?;
        }
        for _ in 0..=usize::from(step.twice) {
            // A message counts once; that is the processor's part.
            if seen.insert(&event.id) {
                let of_second = second.as_mut().filter(|_| step.second);
                of_second.unwrap_or(&mut first).take(event, step, now)?;
            }
        }
    }
    for live in [Some(&mut first), second.as_mut()].into_iter().flatten() {
        live.pass(now, END)?;
    }
    // All at once, in another order, it would be the same.
    let mut again = Live::new(trace);
    let mut events = first.world.events.clone();
    events.reverse();
    again.space.fold(&engine_events(&events));
    let at_end = |live: &Live<'_>| (live.space.at(END).value, live.space.at(END).changes_at);
    let expected: Value = at_end(&first).0;
    prop_assert_eq!(at_end(&again).0, expected, "{} refolded", trace.definition.text());
    Ok(())
}

#[test]
fn every_outcome_is_right_at_every_instant_of_a_trace() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let cases = number("PERSONAS_TRACES").map_or(TRACES, |n| n as u32);
    let seed = number("PERSONAS_TRACES_SEED").unwrap_or_else(|| RandomState::new().hash_one(0) >> 16);
    let config = ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    writeln!(std::io::stdout(), "{cases} traces, PERSONAS_TRACES_SEED={seed}").expect("output");
    match TestRunner::new(config).run(&trace(), |trace| run(&trace)) {
        Ok(()) => {}
        Err(TestError::Fail(reason, trace)) => {
            panic!("PERSONAS_TRACES_SEED={seed}\n{reason}\n{}\n{trace:#?}", trace.definition.text())
        }
        Err(other) => panic!("PERSONAS_TRACES_SEED={seed}: {other}"),
    }
}
