//! Laws of the identity graph, over random logs and random settings.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::model::Model;
use super::*;
use crate::domain::Parts;
use crate::domain::{Collection, EventType, IdKey, Timestamp};

const DAY: i64 = 86_400_000;
const TYPES: [&str; 4] = ["user_id", "email", "anonymous_id", "ios.id"];

/// One event: days since the one before, and its identifiers, by type and number of the value.
pub(super) type Event = (i64, Vec<(usize, u8)>);

/// What a space's settings may be.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    limits: [u32; 4],
    is_windowed: [bool; 4],
    merges_max: u32,
    identifiers_max: u32,
    threshold: u32,
    /// Values with this number are blocked.
    blocked: u8,
}

impl Rules {
    /// Nothing is refused.
    pub(super) const NONE: Self = Self {
        limits: [1_000; 4],
        is_windowed: [false; 4],
        merges_max: 10_000,
        identifiers_max: 10_000,
        threshold: 0,
        blocked: u8::MAX,
    };

    pub(super) fn settings(&self) -> Settings {
        let mut types = IdType::defaults();
        for id_type in &mut types {
            let Some(place) = TYPES.iter().position(|name| *name == id_type.name) else { continue };
            id_type.limit = self.limits[place];
            id_type.frequency = if self.is_windowed[place] { Frequency::Weekly } else { Frequency::Ever };
            id_type.blocked_exact.push(value(place, self.blocked));
        }
        let mut settings = Settings::new(types, self.merges_max, self.identifiers_max).unwrap();
        settings.quarantine_threshold = self.threshold;
        settings
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let limits = prop_oneof![Just([1, 5, 5, 5]), [1_u32..4, 1_u32..4, 1_u32..4, 1_u32..4]];
    let windows = prop_oneof![Just([false; 4]), any::<[bool; 4]>()];
    (limits, windows, 0_u32..6, 1_u32..14, 0_u32..5, 0_u8..12).prop_map(
        |(limits, is_windowed, merges_max, identifiers_max, threshold, blocked)| Rules {
            limits,
            is_windowed,
            merges_max,
            identifiers_max,
            threshold,
            blocked,
        },
    )
}

/// 1 to 200 events over 3 to 40 identifiers of four types.
fn log() -> impl Strategy<Value = Vec<Event>> {
    (1_u8..=10).prop_flat_map(|values| {
        let id = (0_usize..4, 0..values);
        proptest::collection::vec((0_i64..4, proptest::collection::vec(id, 1..5)), 1..200)
    })
}

fn value(place: usize, number: u8) -> String {
    format!("v{place}-{number}")
}

/// The identifiers of an event as they are read of what was sent.
pub(super) fn candidates(ids: &[(usize, u8)], settings: &Settings) -> Extracted {
    let item = |(place, number): &(usize, u8)| serde_json::json!({"id": value(*place, *number), "type": TYPES[*place], "collection": "users", "encoding": "none"});
    let context = serde_json::json!({"externalIds": ids.iter().map(item).collect::<Vec<_>>()}).to_string();
    let parts = Parts {
        event_type: EventType::Track,
        user_id: "",
        anonymous_id: "",
        group_id: "",
        body: "",
        context: &context,
    };
    extract(&parts, settings)
}

/// What a log makes of an empty graph: the graph, and what was refused at each event.
fn run(
    log: &[Event],
    settings: &Settings,
    mut each: impl FnMut(&Model, Timestamp),
) -> (Model, Vec<Vec<Refusal>>) {
    let (mut model, mut day, mut refused) = (Model::default(), 0, Vec::new());
    for (days, ids) in log {
        day += days;
        let at = Timestamp::from_millis(day * DAY);
        let done = model.apply(settings, at, &candidates(ids, settings).users);
        refused.push(done.map(|(_, refusals)| refusals).unwrap_or_default());
        each(&model, at);
    }
    (model, refused)
}

fn held_within(owned: &Owned, id_type: &IdType, at: Timestamp) -> usize {
    let counts = |first_seen: Timestamp| {
        id_type.frequency.window_ms().is_none_or(|window| first_seen > at.plus_millis(-window))
    };
    owned.identifiers.iter().filter(|h| h.type_no == id_type.no && counts(h.first_seen)).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever comes, under whatever settings: every identifier is in one live profile, which is the one it leads to; no
    /// limit and no cap is passed, at any event; blocked values are nowhere; those absorbed lead to who is there in one hop.
    #[test]
    fn the_graph_is_a_partition_within_the_limits(log in log(), rules in rules()) {
        let settings = rules.settings();
        let mut wrong = None;
        let (model, _) = run(&log, &settings, |model, at| {
            for owned in model.profiles.values() {
                let over = settings.types().find(|t| held_within(owned, t, at) > t.limit as usize);
                if let Some(over) = over {
                    wrong.get_or_insert_with(|| format!("too many of {}: {owned:?}", over.name));
                }
                if owned.merges > rules.merges_max || owned.identifiers.len() > rules.identifiers_max as usize {
                    wrong.get_or_insert_with(|| format!("a cap is passed: {owned:?}"));
                }
            }
        });
        prop_assert_eq!(wrong, None);
        let mut listed = HashMap::new();
        for (no, owned) in &model.profiles {
            for held in &owned.identifiers {
                let name = &settings.by_no(held.type_no).unwrap().name;
                let key = IdKey::of(Collection::Users, name, &held.value);
                prop_assert_eq!(listed.insert(key, *no), None, "twice: {:?}", held);
                prop_assert!(!settings.is_blocked(held.type_no, &held.value), "blocked: {:?}", held);
            }
        }
        prop_assert_eq!(&listed, &model.owners);
        let live: HashSet<_> = model.profiles.keys().copied().collect();
        for (absorbed, survivor) in &model.redirects {
            prop_assert!(live.contains(survivor) && !live.contains(absorbed) && survivor < absorbed);
        }
        prop_assert_eq!(live.len() + model.redirects.len(), model.last as usize);
    }

    /// The same log under the same settings gives the same graph, the same refusals and the same quarantine; and an event
    /// that comes again changes nothing of who is who.
    #[test]
    fn a_log_has_one_graph_and_an_event_that_comes_again_changes_nothing(log in log(), rules in rules()) {
        let settings = rules.settings();
        let (model, refused) = run(&log, &settings, |_, _| ());
        prop_assert_eq!(&run(&log, &settings, |_, _| ()), &(model, refused));
        // Counting apart: a refusal that comes again to another profile may be the one that is too many.
        let settings = Rules { threshold: 0, ..rules }.settings();
        let (mut model, _) = run(&log, &settings, |_, _| ());
        let at = Timestamp::from_millis(log.iter().map(|(days, _)| days).sum::<i64>() * DAY);
        let last = candidates(&log.last().unwrap().1, &settings).users;
        let before = model.clone();
        model.apply(&settings, at, &last);
        prop_assert_eq!(before, model);
    }

    /// Where no limit can be hit, the order of the log does not matter.
    #[test]
    fn without_limits_any_order_gives_the_same_people(
        (log, shuffled) in log().prop_flat_map(|log| (Just(log.clone()), Just(log).prop_shuffle()))
    ) {
        let settings = Rules { threshold: 1, ..Rules::NONE }
        .settings();
        let (one, refused) = run(&log, &settings, |_, _| ());
        let (other, _) = run(&shuffled, &settings, |_, _| ());
        prop_assert!(refused.iter().all(Vec::is_empty));
        prop_assert_eq!(one.people(), other.people());
    }

    /// No more than the threshold are counted, and nothing in quarantine gets to anybody new.
    #[test]
    fn quarantine_counts_up_to_its_threshold_and_is_final(log in log(), rules in rules()) {
        let settings = rules.settings();
        let mut seen: HashMap<IdKey, Option<crate::domain::ProfileNo>> = HashMap::new();
        let mut wrong = None;
        let (model, _) = run(&log, &settings, |model, _| {
            for (key, known) in &model.suspects {
                if known.is_quarantined() {
                    let owner = model.owners.get(key).map(|no| model.redirects.get(no).unwrap_or(no)).copied();
                    let before = *seen.entry(*key).or_insert(owner);
                    let before = before.map(|no| *model.redirects.get(&no).unwrap_or(&no));
                    if before != owner {
                        wrong.get_or_insert((*key, before, owner));
                    }
                }
            }
        });
        prop_assert_eq!(wrong, None);
        for known in model.suspects.values() {
            if let Suspicion::Counting(profiles) = known {
                prop_assert!(profiles.len() < rules.threshold.max(1) as usize, "{:?}", profiles);
            }
        }
    }
}
