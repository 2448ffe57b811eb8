//! The documented identity vectors on the bare resolver.

use super::model::Model;
use super::*;
use crate::domain::{Collection, IdKey, ProfileNo, Timestamp};

const DAY: i64 = 86_400_000;

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
        let (no, refusals) = self.apply(settings, at, &candidates).unwrap();
        (no.0, refusals.into_iter().map(|r| r.value).collect())
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
