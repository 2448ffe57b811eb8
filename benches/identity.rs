//! How long it takes to find out whose an event is: its identifiers are read, and resolved on a graph in memory.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::HashMap;
use personas::domain::Parts;
use personas::domain::{Collection, EventType, IdKey, ProfileNo, SourceNo, Timestamp};
use personas::engine::identity::resolve::Held;
use personas::engine::identity::{Graph, IdType, Owned, Settings, extract, resolve};

const EVENTS: u64 = 10_000;

const PROPERTIES: &str = r#"{"order_id":"50314b8e9bcf000000000000","affiliation":"Web","currency":"EUR","coupon":null,
"products":[{"product_id":"507f1f77bcf86cd799439011","sku":"45790-32","name":"Monopoly: 3rd Edition","price":19,"quantity":1}],
"total":127.50,"revenue":125.00,"tax":2.50}"#;

const CONTEXT: &str = r#"{"ip":"8.8.8.8","locale":"fr-FR","userAgent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)",
"library":{"name":"analytics.js","version":"2.11.1"},"page":{"path":"/shop/checkout","referrer":"","title":"Checkout"}}"#;

#[derive(Default, Clone)]
struct People {
    owners: HashMap<IdKey, ProfileNo>,
    profiles: HashMap<ProfileNo, Owned>,
}

impl Graph for People {
    fn owner(&self, key: IdKey) -> Option<ProfileNo> {
        self.owners.get(&key).copied()
    }
    fn profile(&self, no: ProfileNo) -> Option<&Owned> {
        self.profiles.get(&no)
    }
    fn has_number(&self, no: ProfileNo, number: ProfileNo) -> bool {
        no == number
    }
}

struct Event {
    user: String,
    device: String,
    traits: String,
}

impl Event {
    fn new(no: u64) -> Self {
        Self {
            user: format!("user-{no:06}"),
            device: format!("018f3c2e-7d1a-7c3b-9f00-{no:012x}"),
            traits: format!(r#"{{"email":"someone.{no}@example.com","firstName":"Ann","plan":"pro"}}"#),
        }
    }

    /// A track call with two identifiers, or an identify call with three.
    fn parts(&self, is_identify: bool) -> Parts<'_> {
        Parts {
            event_type: if is_identify { EventType::Identify } else { EventType::Track },
            user_id: &self.user,
            anonymous_id: &self.device,
            group_id: "",
            body: if is_identify { &self.traits } else { PROPERTIES },
            context: CONTEXT,
        }
    }
}

impl People {
    /// Makes the profile of an event that has none, or has one that it merges into.
    fn note(&mut self, parts: &Parts<'_>, settings: &Settings) -> Option<()> {
        let at = Timestamp::from_millis(0);
        let ids = extract(parts, settings).users;
        let found = resolve(&ids, at, self, settings)?;
        let no = found.profile.unwrap_or(ProfileNo(self.profiles.len() as u64 + 1));
        let owned = self.profiles.entry(no).or_default();
        for candidate in found.added.iter().filter_map(|i| ids.get(*i)) {
            self.owners.insert(candidate.key, no);
            owned.identifiers.push(Held {
                type_no: candidate.type_no,
                value: candidate.value.clone(),
                first_seen: at,
                source: SourceNo(1),
                message_id: String::new(),
                brought_by: no,
            });
        }
        Some(())
    }
}

fn identity(criterion: &mut Criterion) {
    let Ok(settings) = Settings::new(IdType::defaults(), 100, 1_000) else { return };
    let events: Vec<Event> = (0..EVENTS).map(Event::new).collect();
    let mut known = People::default();
    for event in &events {
        known.note(&event.parts(true), &settings);
    }
    let mut group = criterion.benchmark_group("whose an event is");
    group.throughput(Throughput::Elements(EVENTS));
    for (name, is_identify) in [("known, track", false), ("known, identify", true)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                for event in &events {
                    let ids = extract(&black_box(event).parts(is_identify), &settings);
                    black_box(resolve(&ids.users, Timestamp::from_millis(0), &known, &settings));
                }
            });
        });
    }
    for (name, is_identify) in [("new, track", false), ("new, identify", true)] {
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                People::default,
                |people| {
                    for event in &events {
                        people.note(&black_box(event).parts(is_identify), &settings);
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    criterion.bench_function("the key of an identifier", |b| {
        b.iter(|| IdKey::of(Collection::Users, black_box("user_id"), black_box("user-000123")));
    });
}

criterion_group!(benches, identity);
criterion_main!(benches);
