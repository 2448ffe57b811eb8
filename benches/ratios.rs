//! What must not grow: the cost of an event with definitions that do not name it, and with the events a profile had before.
//!
//! Prints ratios, and fails when one is more than it may be: `cargo bench --bench ratios`. Every figure is the least of
//! several runs in turn, so that what else the machine does matters little.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops when it is wrong"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use personas::domain::{
    Collection, ComputationNo, EventType, Facts, LeafNo, Offset, ProfileNo, SourceNo, Timestamp,
};
use personas::engine::profile::{Outcome, OutcomeValue, Profile};
use personas::engine::{Definition, Dirty, Kind, Limits, ProfileView, Program, compile};

const START: i64 = 1_717_200_000_000;
const MINUTE: i64 = 60_000;
const RUNS: usize = 5;

/// Definitions that all ask for the event, and others that do not.
fn program(of_it: usize, others: usize) -> Program {
    let query = |n: usize, name: &str| match n % 5 {
        0 => format!("event('{name}').count() >= {}", 2 + n),
        1 => format!("event('{name}').within(30 days).count() >= {}", 2 + n),
        2 => format!("event('{name}').within(90 days).sum(property('total')) >= {}", 10 + n),
        3 => format!("event('{name}').where(property('coupon') = 'c{n}').within(90 days).count() >= 1"),
        _ => format!("event('{name}').unique(property('sku')).count() >= {}", 5 + n),
    };
    let own = (0..of_it).map(|n| query(n, "Order Completed"));
    let texts: Vec<String> = own.chain((0..others).map(|n| query(n, &format!("Event {}", n / 5)))).collect();
    let definitions = (1..).zip(texts).map(|(no, text)| Definition {
        no: ComputationNo(no),
        key: format!("key_{no}"),
        serving: true,
        plan: compile(&text, Kind::Audience, Limits::default()).expect("query"),
    });
    let mut numbers = std::collections::BTreeMap::new();
    Program::build(definitions.collect(), &mut |spec| {
        let next = LeafNo(numbers.len() as u32 + 1);
        *numbers.entry(spec.canonical()).or_insert(next)
    })
    .expect("program")
}

/// A profile in service: read, folded into, evaluated and written with every event.
struct Served {
    program: Program,
    row: bytes::Bytes,
    events: u64,
}

impl Served {
    fn new(program: Program) -> Self {
        let profile = Profile::new(ProfileNo(1), Collection::Users, Offset(1), Timestamp::from_millis(START));
        Self { program, row: profile.encode().expect("row").into(), events: 0 }
    }

    fn event(&mut self) {
        self.events += 1;
        let at = Timestamp::from_millis(START + self.events as i64 * MINUTE);
        let id = format!("018f3c2e-7d1a-7c3b-9f00-{:012x}", self.events);
        let properties = format!(
            "{{\"total\":{}.5,\"coupon\":\"c{}\",\"sku\":\"s{}\"}}",
            self.events % 90,
            self.events % 7,
            self.events % 50
        );
        let facts = Facts {
            event_type: EventType::Track,
            name: "Order Completed",
            timestamp: at,
            received_at: at,
            offset: Offset(self.events),
            message_id: &id,
            source: SourceNo(1),
            properties: &properties,
            context: "",
        };
        let mut profile = Profile::decode_own(&self.row).expect("profile");
        let mut dirty = Dirty::default();
        self.program.fold(&mut profile.leaves, &facts, &mut dirty);
        while let Some(place) = dirty.pop() {
            let Some(definition) = self.program.computations().get(place) else { continue };
            let view = ProfileView {
                profile: &profile,
                leaves: &profile.leaves,
                tally: None,
                answers: |_: &str| None,
            };
            let evaluation = definition.plan.evaluate(&view, at);
            profile.set_due(definition.no, evaluation.changes_at);
            let value = OutcomeValue::Member(evaluation.value == true.into());
            profile.set_outcome(Outcome { computation: definition.no, value, since: at });
        }
        if self.events.is_multiple_of(500) {
            self.program.compact(&mut profile.leaves, at);
        }
        self.row = profile.encode().expect("row").into();
    }

    /// Time an event takes, over so many.
    fn time(&mut self, events: u32) -> Duration {
        let began = Instant::now();
        (0..events).for_each(|_| self.event());
        began.elapsed() / events
    }
}

fn least(runs: &[Duration]) -> Duration {
    runs.iter().min().copied().unwrap_or_default()
}

/// 1,000 definitions of which 5 name the event, against those 5 alone.
fn definitions() -> bool {
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (mut alone, mut among) = (Served::new(program(5, 0)), Served::new(program(5, 995)));
        alone.time(1_000);
        among.time(1_000);
        few.push(alone.time(10_000));
        many.push(among.time(10_000));
    }
    let (few, many) = (least(&few), least(&many));
    report("an event with 1,000 definitions of which 5 name it ÷ with those 5", many, few, 1.2)
}

/// The last events of a profile that had a million, against its first thousands; and what it weighs.
fn million() -> bool {
    let mut served = Served::new(program(5, 0));
    served.time(2_000);
    let first = least(&[(); RUNS].map(|()| served.time(2_000)));
    while served.events < 1_000_000 - 2_000 * RUNS as u64 {
        served.time(2_000);
    }
    let last = least(&[(); RUNS].map(|()| served.time(2_000)));
    let kib = served.row.len() as f64 / 1024.0;
    let is_small = kib <= 64.0;
    println!("a profile with {} events takes {kib:.1} KiB, at most 64: {}", served.events, word(is_small));
    report("its last event ÷ its first thousands", last, first, 1.5) && is_small
}

fn report(what: &str, candidate: Duration, reference: Duration, most: f64) -> bool {
    let ratio = candidate.as_secs_f64() / reference.as_secs_f64();
    let is_met = ratio <= most;
    println!("{what}: {candidate:?} ÷ {reference:?} = {ratio:.2}, at most {most}: {}", word(is_met));
    is_met
}

const fn word(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}

fn main() -> ExitCode {
    let met = [definitions(), million()];
    if met.into_iter().all(|met| met) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
