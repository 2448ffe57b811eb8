//! What changes become in tables: pure, so that it can be looked at without a database.

use std::collections::BTreeMap;

use serde_json::Value;

use super::cells::Line;
use super::events;
use super::history::{self, Asked, Joined};
use crate::deliver::kind::Item;
use crate::deliver::payload::is_passed_on;
use crate::domain::Timestamp;

/// What has to be done, in order.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Rows are there as they are here.
    Write(Rows),
    /// One profile has become part of another.
    Merge { from: String, to: String, at: Timestamp },
    /// A profile is no part of another one any more; these types and values of identifiers are its.
    Separate { profile: String, from: String, at: Timestamp, identifiers: Vec<(String, String)> },
    /// Nothing of a profile is left.
    Delete { profile: String, former: Vec<String> },
}

/// Rows by their keys: the last change of a batch wins, and each key is there once.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rows {
    /// (profile, name) → value as JSON.
    pub(super) traits: BTreeMap<(String, String), (Option<String>, Timestamp)>,
    /// (profile, type, value).
    pub(super) identifiers: BTreeMap<(String, String, String), Timestamp>,
    /// (profile, key of the audience).
    pub(super) memberships: BTreeMap<(String, String), (bool, Timestamp)>,
    /// By the id of the change.
    pub(super) transitions: BTreeMap<String, Transition>,
    /// By the id of the change.
    pub(super) computed: BTreeMap<String, Computed>,
    /// Of tables whose columns come with them: history and events.
    pub(super) lines: Vec<Line>,
    /// Profiles that became part of others, for the graph.
    pub(super) joined: Vec<Joined>,
}

/// A profile entered an audience, or left it.
#[derive(Debug, PartialEq)]
pub(super) struct Transition {
    pub(super) profile: String,
    pub(super) user_id: Option<String>,
    pub(super) audience_key: String,
    pub(super) has_entered: bool,
    pub(super) at: Timestamp,
}

/// A computed trait has another value.
#[derive(Debug, PartialEq)]
pub(super) struct Computed {
    pub(super) profile: String,
    pub(super) user_id: Option<String>,
    pub(super) trait_key: String,
    pub(super) value: Option<String>,
    pub(super) at: Timestamp,
}

/// What changes ask for: as few steps as their order lets them be.
pub(super) fn steps(items: &[Item]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rows = Rows::default();
    for item in items {
        if is_passed_on(&item.event) {
            rows.lines.extend(events::line(item));
            continue;
        }
        match history::asked(item) {
            Some(Asked::Line(line)) => {
                rows.lines.push(line);
                continue;
            }
            Some(Asked::Joined(joined)) => {
                rows.joined.push(joined);
                continue;
            }
            None => {}
        }
        let text = |pointer: &str| item.event.pointer(pointer).and_then(Value::as_str);
        let is_bare = item.event.pointer("/context/personas/computation_class").is_none();
        let named = |pointer| text(pointer).filter(|_| is_bare);
        let merged = named("/properties/merged_profile_id");
        let separated = named("/properties/separated_from_profile_id");
        let step = match (text("/type"), merged, separated) {
            (Some("delete"), ..) => {
                let former = item.event.pointer("/context/personas/former_profile_ids");
                let former = former.and_then(Value::as_array).into_iter().flatten();
                let former = former.filter_map(|id| Some(id.as_str()?.to_owned())).collect();
                Step::Delete { profile: item.profile_id.clone(), former }
            }
            (Some("track"), Some(merged), _) => {
                Step::Merge { from: merged.to_owned(), to: item.profile_id.clone(), at: item.at }
            }
            (Some("track"), None, Some(from)) => Step::separate(item, from),
            _ => {
                rows.add(item);
                continue;
            }
        };
        steps.push(Step::Write(std::mem::take(&mut rows)));
        if let Step::Separate { profile, at, identifiers, .. } = &step {
            let own =
                identifiers.iter().map(|(id_type, value)| (profile.clone(), id_type.clone(), value.clone()));
            rows.identifiers.extend(own.map(|key| (key, *at)));
        }
        steps.push(step);
    }
    steps.push(Step::Write(rows));
    steps.retain(|step| *step != Step::Write(Rows::default()));
    steps
}

impl Step {
    fn separate(item: &Item, from: &str) -> Self {
        let own = identifiers(&item.event).into_iter();
        Self::Separate {
            profile: item.profile_id.clone(),
            from: from.to_owned(),
            at: item.at,
            identifiers: own.map(|(id_type, value)| (id_type.to_owned(), value.to_owned())).collect(),
        }
    }
}

impl Rows {
    fn add(&mut self, item: &Item) {
        let event = &item.event;
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
        for (id_type, value) in identifiers(event) {
            self.identifiers.insert((item.profile_id.clone(), id_type.to_owned(), value.to_owned()), item.at);
        }
        let class = text("/context/personas/computation_class");
        let key = text("/context/personas/computation_key");
        let values = event.get("traits").or_else(|| event.get("properties")).and_then(Value::as_object);
        for (name, value) in values.into_iter().flatten() {
            let is_own = key == Some(name.as_str());
            match (class, value) {
                (Some("audience"), Value::Bool(is_member)) if is_own => {
                    self.add_membership(item, name, *is_member);
                }
                // What names the computation, and identifiers, are no traits.
                _ if ["email", "audience_key", "trait_key"].contains(&name.as_str()) => {}
                _ => {
                    let json = (!value.is_null()).then(|| value.to_string());
                    if class == Some("trait") && is_own {
                        self.add_computed(item, name, json.clone());
                    }
                    self.traits.insert((item.profile_id.clone(), name.clone()), (json, item.at));
                }
            }
        }
    }

    fn add_membership(&mut self, item: &Item, key: &str, is_member: bool) {
        self.memberships.insert((item.profile_id.clone(), key.to_owned()), (is_member, item.at));
        let transition = Transition {
            profile: item.profile_id.clone(),
            user_id: user_id(item),
            audience_key: key.to_owned(),
            has_entered: is_member,
            at: item.at,
        };
        self.transitions.insert(item.id.clone(), transition);
    }

    fn add_computed(&mut self, item: &Item, key: &str, value: Option<String>) {
        let computed = Computed {
            profile: item.profile_id.clone(),
            user_id: user_id(item),
            trait_key: key.to_owned(),
            value,
            at: item.at,
        };
        self.computed.insert(item.id.clone(), computed);
    }
}

fn user_id(item: &Item) -> Option<String> {
    item.event.get("userId").and_then(Value::as_str).map(str::to_owned)
}

/// The external ids that an event carries.
fn identifiers(event: &Value) -> Vec<(&str, &str)> {
    let places = [
        ("user_id", "/userId"),
        ("anonymous_id", "/anonymousId"),
        ("group_id", "/groupId"),
        ("email", "/traits/email"),
        ("email", "/context/traits/email"),
    ];
    let usual = places.iter().filter_map(|(id_type, at)| Some((*id_type, event.pointer(at)?.as_str()?)));
    let listed = event.pointer("/context/externalIds").and_then(Value::as_array);
    let listed = listed
        .into_iter()
        .flatten()
        .filter_map(|external| Some((external.get("type")?.as_str()?, external.get("id")?.as_str()?)));
    usual.chain(listed).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::ProfileNo;

    fn item(id: &str, profile: &str, at: i64, event: Value) -> Item {
        Item {
            id: id.to_owned(),
            profile: ProfileNo(1),
            profile_id: profile.to_owned(),
            at: Timestamp::from_millis(at),
            attempts: 0,
            event,
        }
    }

    fn audience(is_member: bool) -> Value {
        json!({
            "type": "identify", "userId": "u1", "traits": {"vip": is_member, "email": "e@x.example", "plan": "pro"},
            "context": {
                "personas": {"computation_class": "audience", "computation_key": "vip"},
                "externalIds": [{"id": "c1", "type": "crm"}],
            },
        })
    }

    #[test]
    fn the_last_of_a_batch_is_what_is_there() {
        let items = [item("a", "p", 1, audience(true)), item("b", "p", 2, audience(false))];
        let steps = steps(&items);
        let [Step::Write(rows)] = &steps[..] else { panic!("{steps:?}") };
        let key = |name: &str| ("p".to_owned(), name.to_owned());
        let at = Timestamp::from_millis(2);
        assert_eq!(rows.memberships, BTreeMap::from([(key("vip"), (false, at))]));
        assert_eq!(rows.traits, BTreeMap::from([(key("plan"), (Some("\"pro\"".to_owned()), at))]));
        assert_eq!(rows.transitions.keys().collect::<Vec<_>>(), ["a", "b"]);
        let ids: Vec<_> = rows.identifiers.keys().map(|(_, kind, value)| format!("{kind}={value}")).collect();
        assert_eq!(ids, ["crm=c1", "email=e@x.example", "user_id=u1"]);
    }

    #[test]
    fn track_calls_say_the_same() {
        let event = json!({
            "type": "track", "event": "Trait Computed", "anonymousId": "a1",
            "properties": {"trait_key": "revenue", "revenue": 4.5},
            "context": {"personas": {"computation_class": "trait", "computation_key": "revenue"}},
        });
        let steps = steps(&[item("a", "p", 1, event)]);
        let [Step::Write(rows)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(rows.computed["a"].value.as_deref(), Some("4.5"));
        assert_eq!(rows.traits.keys().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["revenue"]);
    }

    #[test]
    fn merges_and_deletions_keep_their_place() {
        let merge = json!({
            "type": "track", "event": "Profile Merged", "userId": "u1",
            "properties": {"profile_id": "p", "merged_profile_id": "q"}, "context": {"personas": {}},
        });
        let items = [
            item("a", "q", 1, audience(true)),
            item("b", "p", 2, merge),
            item("c", "p", 3, json!({"type": "delete", "userId": "u1"})),
        ];
        let words: Vec<&str> = steps(&items)
            .iter()
            .map(|step| match step {
                Step::Write(_) => "write",
                Step::Merge { .. } => "merge",
                Step::Separate { .. } => "separate",
                Step::Delete { .. } => "delete",
            })
            .collect();
        assert_eq!(words, ["write", "merge", "delete"]);
        assert_eq!(steps(&[]), []);
    }
}
