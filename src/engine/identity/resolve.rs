//! The resolver: which profile an event belongs to, and what the event changes in the graph.
//!
//! Segment's flat matching with merge protection (personas.md 3.5): while the union of what the identifiers match
//! would break a limit, the least trusted identifier of the event is set aside and matching starts again. Then,
//! where Segment would lose harmless identifiers, each one set aside is tried once more (decisions I4). At a cap the
//! event goes to the owner of its most trusted identifier: never frozen, never lost (I5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::extract::Candidate;
use super::settings::{Settings, TypeNo};
use crate::domain::{IdKey, ProfileNo, SourceNo, Timestamp};

/// An identifier a profile holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its type.
    pub type_no: TypeNo,
    /// Its value.
    pub value: String,
    /// When it was first seen on the profile (event time); frequency windows count from here (I7).
    pub first_seen: Timestamp,
    /// Who sent it first.
    pub source: SourceNo,
    /// The message that brought it.
    #[serde(with = "crate::domain::message_id")]
    pub message_id: String,
    /// The profile that brought it: the former number where it came by a merge.
    pub brought_by: ProfileNo,
}

/// What the resolver knows of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// Its identifiers, in the order they came.
    pub identifiers: Vec<Held>,
    /// Merges it has taken, those of the absorbed included.
    pub merges: u32,
    /// Profiles that must not become one with it.
    pub apart: Vec<Apart>,
}

/// Two profiles are not to become one: after an un-merge by what had made them one (decision I11), or at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apart {
    /// The number of the side that has this entry.
    pub own: ProfileNo,
    /// A number the other profile has or had.
    pub other: ProfileNo,
    /// The identifiers that must not do it; none: whatever matches.
    pub keys: Vec<IdKey>,
}

/// The identity graph as far as one event can reach it.
pub trait Graph {
    /// The live profile that owns an identifier.
    fn owner(&self, key: IdKey) -> Option<ProfileNo>;
    /// A live profile.
    fn profile(&self, no: ProfileNo) -> Option<&Owned>;
    /// Whether a number is one that this live profile has or had.
    fn has_number(&self, no: ProfileNo, number: ProfileNo) -> bool;
}

/// Why an identifier of an event was not taken; names as in Segment's Profiles Insights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The profile would have more values of a type than its limit.
    ValueLimit,
    /// The same, for a limit with a window.
    ValueTimeLimit,
    /// The value is on the block list.
    Blocked,
    /// The value was refused to so many profiles that it says nothing about who somebody is.
    Quarantined,
    /// The profile has taken as many merges as it may.
    MergeLimit,
    /// The profile has as many identifiers as it may.
    MappingLimit,
    /// An operator has said that the profiles are not one.
    MergeBlocked,
}

impl Rule {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ValueLimit => "Identifier value limit exceeded",
            Self::ValueTimeLimit => "Identifier value time limit exceeded",
            Self::Blocked => "ID value blocked",
            Self::Quarantined => "ID value quarantined",
            Self::MergeLimit => "Profile merge limit exceeded",
            Self::MappingLimit => "Identifier mapping limit exceeded",
            Self::MergeBlocked => "Profile merge blocked",
        }
    }
}

/// An identifier that was set aside, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its type.
    pub type_no: TypeNo,
    /// Its value.
    pub value: String,
    /// Which rule it would have broken.
    pub rule: Rule,
}

/// Where an event belongs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolution {
    /// The surviving profile; `None` for one that has to be made.
    pub profile: Option<ProfileNo>,
    /// Profiles merged into it, oldest first.
    pub absorbed: Vec<ProfileNo>,
    /// Indexes of candidates that are new to the graph and now belong to the profile.
    pub added: Vec<usize>,
    /// Indexes of candidates that were known and matched.
    pub matched: Vec<usize>,
    /// Candidates set aside.
    pub refusals: Vec<Refusal>,
}

/// Resolves an event's identifiers, most trusted first. `None` when there are none, or none may be taken.
pub fn resolve(
    candidates: &[Candidate],
    at: Timestamp,
    graph: &impl Graph,
    settings: &Settings,
) -> Option<Resolution> {
    let owners: Vec<Option<ProfileNo>> = candidates.iter().map(|c| graph.owner(c.key)).collect();
    let first = *owners.first()?;
    if first.is_some() && owners.iter().all(|o| *o == first) {
        let matched = (0..candidates.len()).collect();
        return Some(Resolution { profile: first, matched, ..Resolution::default() });
    }
    let matching = Matching { candidates, owners, at, graph, settings };
    let (kept, refusals) = matching.protect();
    matching.settle(kept, refusals)
}

struct Matching<'a, G> {
    candidates: &'a [Candidate],
    owners: Vec<Option<ProfileNo>>,
    at: Timestamp,
    graph: &'a G,
    settings: &'a Settings,
}

/// Values of one type, of all owners together.
#[derive(Debug, Default)]
struct Values {
    total: usize,
    /// Those of the owner that has most.
    largest: usize,
    /// Those of the owner being counted.
    of_owner: usize,
}

impl Values {
    fn end_owner(&mut self) {
        self.total += self.of_owner;
        self.largest = self.largest.max(self.of_owner);
        self.of_owner = 0;
    }
}

impl<G: Graph> Matching<'_, G> {
    /// The candidates that can be taken together, and the others with the rule each would have broken.
    fn protect(&self) -> (Vec<usize>, Vec<(usize, Rule)>) {
        let mut kept: Vec<usize> = (0..self.candidates.len()).collect();
        let mut aside = Vec::new();
        while let Some(rule) = self.broken(&kept) {
            let Some(lowest) = kept.pop() else { break };
            aside.push((lowest, rule));
        }
        // Candidates stand most trusted first, so the last one set aside is the most trusted of them.
        let mut refused = Vec::new();
        for (index, rule) in aside.into_iter().rev() {
            let mut with = kept.clone();
            with.push(index);
            with.sort_unstable();
            if self.broken(&with).is_none() {
                kept = with;
            } else {
                refused.push((index, rule));
            }
        }
        (kept, refused)
    }

    /// The rule that taking these candidates together would break, if any; of several the first by type.
    fn broken(&self, kept: &[usize]) -> Option<Rule> {
        let mut counts: BTreeMap<TypeNo, Values> = BTreeMap::new();
        for owner in self.owners_of(kept) {
            for held in self.held(owner).filter(|held| self.is_within_window(held)) {
                counts.entry(held.type_no).or_default().of_owner += 1;
            }
            for values in counts.values_mut() {
                values.end_owner();
            }
        }
        let is_new = |i: &&usize| self.owners.get(**i) == Some(&None);
        for candidate in kept.iter().filter(is_new).filter_map(|i| self.candidates.get(*i)) {
            counts.entry(candidate.type_no).or_default().total += 1;
        }
        let passed = counts.into_iter().find_map(|(type_no, values)| {
            let id_type = self.settings.by_no(type_no)?;
            // A profile that is over a changed limit already stays usable: only what would make it worse is refused.
            if values.total <= id_type.limit as usize || values.total == values.largest {
                return None;
            }
            let is_windowed = id_type.frequency.window_ms().is_some();
            Some(if is_windowed { Rule::ValueTimeLimit } else { Rule::ValueLimit })
        });
        passed.or_else(|| self.parts(kept).then_some(Rule::MergeBlocked))
    }

    /// Whether taking these candidates together would make one of profiles that are to stay apart.
    fn parts(&self, kept: &[usize]) -> bool {
        let owners = self.owners_of(kept);
        if owners.len() < 2 {
            return false;
        }
        let matches_only = |pair: [ProfileNo; 2], keys: &[IdKey]| {
            let of_pair =
                |i: &&usize| self.owners.get(**i).is_some_and(|o| o.is_some_and(|o| pair.contains(&o)));
            let mut matched = kept.iter().filter(of_pair).filter_map(|i| self.candidates.get(*i));
            keys.is_empty() || matched.all(|candidate| keys.contains(&candidate.key))
        };
        owners.iter().any(|no| {
            self.graph.profile(*no).is_some_and(|owned| {
                owned.apart.iter().any(|Apart { other, keys, .. }| {
                    let is_it = |live: &&ProfileNo| *live != no && self.graph.has_number(**live, *other);
                    owners.iter().find(is_it).is_some_and(|live| matches_only([*no, *live], keys))
                })
            })
        })
    }

    /// Whether an identifier counts for the limit of its type.
    fn is_within_window(&self, held: &Held) -> bool {
        let window = self.settings.by_no(held.type_no).and_then(|id_type| id_type.frequency.window_ms());
        window.is_none_or(|window| held.first_seen > self.at.plus_millis(-window))
    }

    fn held(&self, no: ProfileNo) -> impl Iterator<Item = &Held> {
        self.graph.profile(no).into_iter().flat_map(|p| &p.identifiers)
    }

    /// Owners of the candidates, oldest profile first.
    fn owners_of(&self, kept: &[usize]) -> Vec<ProfileNo> {
        let mut owners: Vec<ProfileNo> = kept.iter().filter_map(|i| *self.owners.get(*i)?).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// Applies the caps and says where the event belongs.
    fn settle(&self, mut kept: Vec<usize>, mut aside: Vec<(usize, Rule)>) -> Option<Resolution> {
        let mut owners = self.owners_of(&kept);
        if owners.len() > 1
            && let Some(rule) = self.capped(&owners)
        {
            let home = kept.iter().find_map(|i| *self.owners.get(*i)?)?;
            let belongs = |i: &usize| self.owners.get(*i).is_some_and(|o| o.is_none() || *o == Some(home));
            aside.extend(kept.iter().filter(|i| !belongs(i)).map(|i| (*i, rule)));
            kept.retain(belongs);
            owners = vec![home];
        }
        let (mut matched, mut added) = (Vec::new(), Vec::new());
        let held: usize = owners.iter().map(|no| self.held(*no).count()).sum();
        let room = (self.settings.identifiers_max as usize).saturating_sub(held);
        for index in kept {
            if self.owners.get(index).is_some_and(Option::is_some) {
                matched.push(index);
            } else if added.len() < room {
                added.push(index);
            } else {
                aside.push((index, Rule::MappingLimit));
            }
        }
        if matched.is_empty() && added.is_empty() {
            return None;
        }
        aside.sort_by_key(|(index, _)| *index);
        let refusals = aside.into_iter().filter_map(|(i, rule)| self.refusal(i, rule)).collect();
        let mut owners = owners.into_iter();
        Some(Resolution { profile: owners.next(), absorbed: owners.collect(), added, matched, refusals })
    }

    fn refusal(&self, index: usize, rule: Rule) -> Option<Refusal> {
        let candidate = self.candidates.get(index)?;
        Some(Refusal { type_no: candidate.type_no, value: candidate.value.clone(), rule })
    }

    /// The cap that merging these profiles would pass, if any.
    fn capped(&self, owners: &[ProfileNo]) -> Option<Rule> {
        let profiles = || owners.iter().filter_map(|no| self.graph.profile(*no));
        let merges: usize = profiles().map(|p| p.merges as usize).sum::<usize>() + owners.len() - 1;
        let identifiers: usize = profiles().map(|p| p.identifiers.len()).sum();
        if merges > self.settings.merges_max as usize {
            Some(Rule::MergeLimit)
        } else if identifiers > self.settings.identifiers_max as usize {
            Some(Rule::MappingLimit)
        } else {
            None
        }
    }
}
