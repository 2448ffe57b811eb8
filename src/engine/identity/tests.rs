//! The documented identity vectors on the bare resolver, and laws of the graph over random logs.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::domain::{Collection, IdKey, ProfileNo, SourceNo, Timestamp};
use crate::engine::identity::resolve::Held;

const DAY: i64 = 86_400_000;

#[derive(Default)]
struct Model {
    owners: HashMap<IdKey, ProfileNo>,
    profiles: HashMap<ProfileNo, Owned>,
    last: u64,
}

impl Graph for Model {
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

impl Model {
    /// Resolves and applies one event of `type=value` words; returns the profile and the refused values.
    fn event(&mut self, settings: &Settings, day: i64, ids: &[&str]) -> (u64, Vec<String>) {
        let at = Timestamp::from_millis(day * DAY);
        let mut candidates: Vec<Candidate> = ids
            .iter()
            .map(|word| {
                let (name, value) = word.split_once('=').unwrap();
                let type_no = settings.by_name(name).unwrap().no;
                Candidate { type_no, value: value.into(), key: IdKey::of(Collection::Users, name, value) }
            })
            .collect();
        candidates.sort_by_key(|c| (settings.rank(c.type_no), c.value.clone()));
        candidates.dedup();
        let found = resolve(&candidates, at, self, settings).unwrap();
        let no = found.profile.unwrap_or_else(|| {
            self.last += 1;
            ProfileNo(self.last)
        });
        let mut owned = self.profiles.remove(&no).unwrap_or_default();
        for absorbed in &found.absorbed {
            let other = self.profiles.remove(absorbed).unwrap();
            owned.merges += other.merges + 1;
            owned.identifiers.extend(other.identifiers);
        }
        for index in found.added {
            let c = &candidates[index];
            owned.identifiers.push(Held {
                type_no: c.type_no,
                value: c.value.clone(),
                first_seen: at,
                source: SourceNo(1),
                message_id: String::new(),
                brought_by: no,
            });
        }
        for held in &owned.identifiers {
            let name = &settings.by_no(held.type_no).unwrap().name;
            self.owners.insert(IdKey::of(Collection::Users, name, &held.value), no);
        }
        self.profiles.insert(no, owned);
        (no.0, found.refusals.into_iter().map(|r| r.value).collect())
    }

    fn ids(&self, no: u64) -> Vec<String> {
        let mut ids: Vec<_> =
            self.profiles[&ProfileNo(no)].identifiers.iter().map(|h| h.value.clone()).collect();
        ids.sort_unstable();
        ids
    }
}

fn settings() -> Settings {
    Settings::new(IdType::defaults(), 100, 1_000).unwrap()
}

#[test]
fn id_02_a_shared_browser_does_not_merge_two_people() {
    let (s, mut m) = (settings(), Model::default());
    assert_eq!(m.event(&s, 0, &["anonymous_id=a1", "user_id=u1"]), (1, vec![]));
    assert_eq!(m.event(&s, 0, &["anonymous_id=a1"]), (1, vec![]));
    assert_eq!(m.event(&s, 0, &["anonymous_id=a1", "user_id=u2"]), (2, vec!["a1".into()]));
    assert_eq!((m.ids(1), m.ids(2)), (vec!["a1".into(), "u1".into()], vec!["u2".into()]));
}

#[test]
fn id_11_the_sixth_device_is_refused_every_time() {
    let (s, mut m) = (settings(), Model::default());
    for device in 1..=5 {
        m.event(&s, 0, &["user_id=u1", &format!("anonymous_id=a{device}")]);
    }
    assert_eq!(m.event(&s, 0, &["user_id=u1", "anonymous_id=a6"]), (1, vec!["a6".into()]));
    assert_eq!(m.event(&s, 0, &["anonymous_id=a6"]), (2, vec![]));
    assert_eq!(m.event(&s, 0, &["user_id=u1", "anonymous_id=a6"]), (1, vec!["a6".into()]));
}

#[test]
fn id_15_three_profiles_become_the_oldest() {
    let (s, mut m) = (settings(), Model::default());
    m.event(&s, 0, &["anonymous_id=a1"]);
    m.event(&s, 0, &["email=e"]);
    m.event(&s, 0, &["user_id=u1"]);
    assert_eq!(m.event(&s, 0, &["anonymous_id=a1", "email=e", "user_id=u1"]), (1, vec![]));
    assert_eq!(m.profiles[&ProfileNo(1)].merges, 2);
}

#[test]
fn id_17_a_harmless_identifier_is_taken_back() {
    let (s, mut m) = (settings(), Model::default());
    m.event(&s, 0, &["user_id=u1"]);
    m.event(&s, 0, &["user_id=u2", "email=e1"]);
    m.event(&s, 0, &["anonymous_id=a1"]);
    assert_eq!(m.event(&s, 0, &["user_id=u1", "email=e1", "anonymous_id=a1"]), (1, vec!["e1".into()]));
    assert_eq!(m.ids(1), vec!["a1".to_owned(), "u1".into()]);
}

#[test]
fn id_18_a_windowed_limit_opens_again() {
    let mut types = IdType::defaults();
    for t in types.iter_mut().filter(|t| t.name == "anonymous_id") {
        t.frequency = Frequency::Weekly;
    }
    let (s, mut m) = (Settings::new(types, 100, 1_000).unwrap(), Model::default());
    for device in 1..=5 {
        m.event(&s, 0, &["user_id=u1", &format!("anonymous_id=a{device}")]);
    }
    assert_eq!(m.event(&s, 3, &["user_id=u1", "anonymous_id=a6"]), (1, vec!["a6".into()]));
    assert_eq!(m.event(&s, 8, &["user_id=u1", "anonymous_id=a6"]), (1, vec![]));
}

#[test]
fn id_19_at_the_merge_cap_the_most_trusted_owner_gets_the_event() {
    let (s, mut m) = (Settings::new(IdType::defaults(), 1, 1_000).unwrap(), Model::default());
    m.event(&s, 0, &["anonymous_id=a1"]);
    m.event(&s, 0, &["user_id=u1"]);
    m.event(&s, 0, &["email=e1"]);
    assert_eq!(m.event(&s, 0, &["anonymous_id=a1", "user_id=u1"]).0, 1);
    assert_eq!(m.event(&s, 0, &["email=e1", "user_id=u1"]), (1, vec!["e1".into()]));
    assert_eq!(m.ids(3), vec!["e1".to_owned()]);
}

#[test]
fn id_20_a_full_profile_still_takes_events() {
    let (s, mut m) = (Settings::new(IdType::defaults(), 100, 2).unwrap(), Model::default());
    m.event(&s, 0, &["user_id=u1", "email=e1"]);
    assert_eq!(m.event(&s, 0, &["user_id=u1", "anonymous_id=a1"]), (1, vec!["a1".into()]));
}

proptest! {
    /// Whatever comes, nobody exceeds a limit, every identifier has one live owner, and who owns it lists it.
    #[test]
    fn limits_hold_and_owners_agree(events in proptest::collection::vec(
        proptest::collection::vec((0_usize..4, 0_u8..5), 1..4), 1..60)
    ) {
        let (s, mut m) = (settings(), Model::default());
        let names = ["user_id", "email", "anonymous_id", "ios.id"];
        for event in &events {
            let words: Vec<String> = event.iter().map(|(t, v)| format!("{}={v}x", names[*t])).collect();
            m.event(&s, 0, &words.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let mut listed = 0;
        for (no, owned) in &m.profiles {
            for t in s.types() {
                let held = owned.identifiers.iter().filter(|h| h.type_no == t.no).count();
                prop_assert!(held <= t.limit as usize, "{} {}", t.name, held);
            }
            for held in &owned.identifiers {
                let name = &s.by_no(held.type_no).unwrap().name;
                prop_assert_eq!(m.owner(IdKey::of(Collection::Users, name, &held.value)), Some(*no));
                listed += 1;
            }
        }
        prop_assert_eq!(listed, m.owners.len());
    }

    /// Where no limit can be hit, the order of the log does not matter.
    #[test]
    fn without_limits_any_order_gives_the_same_people(
        (events, shuffled) in proptest::collection::vec(proptest::collection::vec((0_usize..3, 0_u8..6), 1..4), 1..30)
            .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle()))
    ) {
        let mut types = IdType::defaults();
        for t in &mut types {
            t.limit = 1_000;
        }
        let s = Settings::new(types, 10_000, 10_000).unwrap();
        let names = ["user_id", "email", "anonymous_id"];
        let people = |events: &[Vec<(usize, u8)>]| {
            let mut m = Model::default();
            for event in events {
                let words: Vec<String> = event.iter().map(|(t, v)| format!("{}={t}-{v}", names[*t])).collect();
                m.event(&s, 0, &words.iter().map(String::as_str).collect::<Vec<_>>());
            }
            let mut people: Vec<Vec<String>> = m.profiles.keys().map(|no| m.ids(no.0)).collect();
            people.sort();
            people
        };
        prop_assert_eq!(people(&events), people(&shuffled));
    }
}
