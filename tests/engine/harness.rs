//! Events, profiles and shorthands for the tests of the engine.

use std::borrow::Cow;
use std::collections::BTreeMap;

use personas::domain::{ComputationNo, EventType, Facts, LeafNo, Offset, SourceNo, Timestamp, Value};
use personas::engine::{
    Definition, Dirty, Evaluation, Kind, KnownSource, LeafState, LeafStates, Limits, Plan, Program,
    QueryError, Sources, View, compile,
};

pub(crate) const SECOND: i64 = 1_000;
pub(crate) const HOUR: i64 = 3_600 * SECOND;
pub(crate) const DAY: i64 = 24 * HOUR;

/// The instant "now" of most tests: 2024-06-01.
pub(crate) const NOW: i64 = 1_717_200_000_000;

/// An owned event.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) call: EventType,
    pub(crate) name: String,
    pub(crate) at: i64,
    pub(crate) received_at: i64,
    pub(crate) offset: u64,
    pub(crate) message_id: String,
    pub(crate) source: i32,
    pub(crate) properties: String,
    pub(crate) context: String,
}

/// A track event received when it happened.
pub(crate) fn event(name: &str, at: i64, properties: &str) -> Event {
    Event {
        call: EventType::Track,
        name: name.to_owned(),
        at,
        received_at: at,
        offset: 1,
        message_id: format!("m{at}"),
        source: 1,
        properties: properties.to_owned(),
        context: String::new(),
    }
}

impl Event {
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            event_type: self.call,
            name: &self.name,
            timestamp: Timestamp::from_millis(self.at),
            received_at: Timestamp::from_millis(self.received_at),
            offset: Offset(self.offset),
            message_id: &self.message_id,
            source: SourceNo(self.source),
            properties: &self.properties,
            context: &self.context,
        }
    }
}

/// What a profile has: states and traits.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Profile {
    pub(crate) states: LeafStates,
    pub(crate) traits: BTreeMap<String, Value>,
}

impl View for Profile {
    fn profile_id(&self) -> uuid::Uuid {
        uuid::Uuid::from_u128(1)
    }

    fn leaf(&self, leaf: LeafNo) -> Option<Cow<'_, LeafState>> {
        self.states.get(leaf)
    }

    fn trait_value(&self, name: &str) -> Option<Cow<'_, Value>> {
        self.traits.get(name).map(Cow::Borrowed)
    }
}

/// The stored form of states.
pub(crate) fn stored(states: &LeafStates) -> Vec<u8> {
    let mut out = Vec::new();
    states.write(&mut out).expect("bytes");
    out
}

/// One definition as a program, and a profile.
pub(crate) struct Space {
    pub(crate) program: Program,
    pub(crate) profile: Profile,
}

impl Space {
    pub(crate) fn new(query: &str, kind: Kind) -> Self {
        Self::of(compiled(query, kind))
    }

    pub(crate) fn of(mut plan: Plan) -> Self {
        plan.check_sources(&sources()).expect("known sources");
        plan.bind_sources(&sources());
        Self::of_bound(plan)
    }

    /// Of a plan whose sources are known.
    pub(crate) fn of_bound(plan: Plan) -> Self {
        let definition = Definition { no: ComputationNo(1), key: "tested".to_owned(), serving: true, plan };
        let mut next = 10;
        let program = Program::build(vec![definition], &mut |_| {
            next += 1;
            LeafNo(next)
        })
        .expect("no references");
        Self { program, profile: Profile::default() }
    }

    pub(crate) fn with_trait(mut self, name: &str, json: &str) -> Self {
        self.profile.traits.insert(name.to_owned(), Value::from_json(json));
        self
    }

    pub(crate) fn fold(&mut self, events: &[Event]) {
        for event in events {
            self.program.fold(&mut self.profile.states, &event.facts(), &mut Dirty::default());
        }
    }

    pub(crate) fn at(&self, now: i64) -> Evaluation {
        self.program.computations()[0].plan.evaluate(&self.profile, Timestamp::from_millis(now))
    }
}

/// The sources of the tests: `web` is 1, `app` 2, and two are called `twice`.
pub(crate) fn sources() -> Sources {
    let known = |(no, name): (i32, &str)| KnownSource {
        no: SourceNo(no),
        id: format!("src_{no}"),
        name: name.to_owned(),
    };
    Sources::new([(1, "web"), (2, "app"), (4, "twice"), (3, "twice")].map(known).to_vec())
}

/// Compiles a query that must be right.
pub(crate) fn compiled(query: &str, kind: Kind) -> Plan {
    compile(query, kind, Limits::default()).unwrap_or_else(|errors| panic!("{query}\n{errors:#?}"))
}

/// The errors of a query that must be wrong.
pub(crate) fn refused(query: &str, kind: Kind) -> Vec<QueryError> {
    compile(query, kind, Limits::default()).err().unwrap_or_else(|| panic!("accepted: {query}"))
}

/// Whether the audience holds at [`NOW`] for a profile with these events.
pub(crate) fn holds(query: &str, events: &[Event]) -> bool {
    let mut space = Space::new(query, Kind::Audience);
    space.fold(events);
    truth(&space.at(NOW))
}

/// Whether the audience holds at [`NOW`] for a profile with one trait.
pub(crate) fn holds_for_trait(query: &str, name: &str, json: &str) -> bool {
    truth(&Space::new(query, Kind::Audience).with_trait(name, json).at(NOW))
}

/// The computed trait at [`NOW`], as JSON.
pub(crate) fn value(query: &str, events: &[Event]) -> String {
    let mut space = Space::new(query, Kind::ComputedTrait);
    space.fold(events);
    space.at(NOW).value.to_json()
}

pub(crate) fn truth(evaluation: &Evaluation) -> bool {
    match evaluation.value {
        Value::Bool(truth) => truth,
        ref other => panic!("an audience is {other:?}"),
    }
}
