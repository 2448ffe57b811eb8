//! How long a definition takes to compile, an event to fold, a profile to evaluate.
#![expect(clippy::expect_used, reason = "a benchmark stops when its set-up is wrong")]

use std::borrow::Cow;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use personas::domain::{ComputationNo, EventType, Facts, LeafNo, Offset, SourceNo, Timestamp, Value};
use personas::engine::{Definition, Dirty, Kind, LeafState, LeafStates, Limits, Program, View, compile};

const NOW: i64 = 1_717_200_000_000;

const QUERIES: [(&str, Kind); 5] = [
    (
        "event('Order Completed').where(property('total') >= 100 AND context('page.path').contains('shop')).count() >= 2",
        Kind::Audience,
    ),
    ("event('Order Completed').within(30 days).count() >= 3 OR trait('plan') = 'pro'", Kind::Audience),
    ("event('Order Completed').sum(property('total'))", Kind::ComputedTrait),
    ("event('Order Completed').within(90 days).avg(property('total'))", Kind::ComputedTrait),
    ("event('Order Completed').last(property('shipping.city'))", Kind::ComputedTrait),
];

const PROPERTIES: &str = r#"{"order_id":"50314b8e9bcf000000000000","affiliation":"Web","currency":"EUR","coupon":null,
"products":[{"product_id":"507f1f77bcf86cd799439011","sku":"45790-32","name":"Monopoly: 3rd Edition","price":19,"quantity":1},
{"product_id":"505bd76785ebb509fc183733","sku":"46493-32","name":"Uno Card Game","price":3,"quantity":2}],
"shipping":{"city":"Lyon","zip":"69001","method":"standard"},"total":127.50,"revenue":125.00,"tax":2.50}"#;

const CONTEXT: &str = r#"{"ip":"8.8.8.8","locale":"fr-FR","userAgent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)",
"library":{"name":"analytics.js","version":"2.11.1"},"page":{"path":"/shop/checkout","referrer":"","title":"Checkout"}}"#;

fn program() -> Program {
    let definitions = (1..).zip(QUERIES).map(|(no, (query, kind))| Definition {
        no: ComputationNo(no),
        key: format!("key_{no}"),
        serving: true,
        plan: compile(query, kind, Limits::default()).expect("query"),
    });
    let mut leaves = 0;
    Program::build(definitions.collect(), &mut |_| {
        leaves += 1;
        LeafNo(leaves)
    })
    .expect("program")
}

fn facts(name: &str, at: i64) -> Facts<'_> {
    Facts {
        event_type: EventType::Track,
        name,
        timestamp: Timestamp::from_millis(at),
        received_at: Timestamp::from_millis(at),
        offset: Offset(1),
        message_id: "018f3c2e-7d1a-7c3b-9f00-1234567890ab",
        source: SourceNo(1),
        properties: PROPERTIES,
        context: CONTEXT,
    }
}

struct Profile(LeafStates);

impl View for Profile {
    fn profile_id(&self) -> uuid::Uuid {
        uuid::Uuid::nil()
    }

    fn leaf(&self, leaf: LeafNo) -> Option<Cow<'_, LeafState>> {
        self.0.get(leaf)
    }

    fn trait_value(&self, _: &str) -> Option<Cow<'_, Value>> {
        Some(Cow::Owned(Value::from("free")))
    }
}

fn engine(criterion: &mut Criterion) {
    criterion.bench_function("compile one definition", |b| {
        b.iter(|| compile(black_box(QUERIES[0].0), Kind::Audience, Limits::default()));
    });

    let program = program();
    let mut states = LeafStates::default();
    for day in 0..60 {
        program.fold(&mut states, &facts("Order Completed", NOW - day * 86_400_000), &mut Dirty::default());
    }
    criterion.bench_function("fold an event into five leaves", |b| {
        let (mut states, mut at, mut dirty) = (states.clone(), NOW, Dirty::default());
        b.iter(|| {
            at += 60_000;
            program.fold(&mut states, black_box(&facts("Order Completed", at)), &mut dirty)
        });
    });
    criterion.bench_function("fold an event that no leaf counts", |b| {
        let (mut states, mut dirty) = (states.clone(), Dirty::default());
        b.iter(|| program.fold(&mut states, black_box(&facts("Something Else", NOW)), &mut dirty));
    });
    let profile = Profile(states);
    criterion.bench_function("evaluate five definitions over sixty events", |b| {
        b.iter(|| {
            for computation in program.computations() {
                black_box(computation.plan.evaluate(&profile, Timestamp::from_millis(NOW)));
            }
        });
    });
    let mut bytes = Vec::new();
    profile.0.write(&mut bytes).expect("bytes");
    let bytes = Bytes::from(bytes);
    criterion.bench_function("fold an event into the stored states of a profile", |b| {
        let (mut at, mut dirty, mut out) = (NOW, Dirty::default(), Vec::new());
        b.iter(|| {
            at += 60_000;
            let mut states = LeafStates::stored(bytes.clone());
            program.fold(&mut states, black_box(&facts("Order Completed", at)), &mut dirty);
            out.clear();
            states.write(&mut out)
        });
    });
}

criterion_group!(benches, engine);
criterion_main!(benches);
