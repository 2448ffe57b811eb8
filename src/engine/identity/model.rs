//! An identity graph in memory, for tests: what the processor does with a resolution, and nothing else.

use std::collections::HashMap;

use super::*;
use crate::domain::{IdKey, ProfileNo, SourceNo, Timestamp};
use crate::engine::identity::resolve::Held;

/// Who has what.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Model {
    pub owners: HashMap<IdKey, ProfileNo>,
    pub profiles: HashMap<ProfileNo, Owned>,
    /// Absorbed profiles, and who they are today.
    pub redirects: HashMap<ProfileNo, ProfileNo>,
    pub suspects: HashMap<IdKey, Suspicion>,
    pub last: u64,
}

impl Graph for Model {
    fn owner(&self, key: IdKey) -> Option<ProfileNo> {
        self.owners.get(&key).copied()
    }
    fn profile(&self, no: ProfileNo) -> Option<&Owned> {
        self.profiles.get(&no)
    }
    fn has_number(&self, no: ProfileNo, number: ProfileNo) -> bool {
        no == number || self.redirects.get(&number) == Some(&no)
    }
}

impl Model {
    /// Resolves and applies one event's identifiers; returns its profile, and what was refused.
    pub(super) fn apply(
        &mut self,
        settings: &Settings,
        at: Timestamp,
        candidates: &[Candidate],
    ) -> Option<(ProfileNo, Vec<Refusal>)> {
        let (no, refusals, _) = self.apply_named(settings, at, candidates, "")?;
        Some((no, refusals))
    }

    /// The same for an event with a message id; also returns who was absorbed.
    pub(super) fn apply_named(
        &mut self,
        settings: &Settings,
        at: Timestamp,
        candidates: &[Candidate],
        message_id: &str,
    ) -> Option<(ProfileNo, Vec<Refusal>, Vec<ProfileNo>)> {
        let is_free = |c: &&Candidate| !self.suspects.get(&c.key).is_some_and(Suspicion::is_quarantined);
        let candidates: Vec<Candidate> = candidates.iter().filter(is_free).cloned().collect();
        let found = resolve(&candidates, at, self, settings)?;
        let no = found.profile.unwrap_or_else(|| {
            self.last += 1;
            ProfileNo(self.last)
        });
        let mut owned = self.profiles.remove(&no).unwrap_or_default();
        for absorbed in &found.absorbed {
            let other = self.profiles.remove(absorbed).unwrap();
            owned.merges += other.merges + 1;
            owned.identifiers.extend(other.identifiers);
            owned.apart.extend(other.apart);
            self.redirects.values_mut().filter(|to| *to == absorbed).for_each(|to| *to = no);
            self.redirects.insert(*absorbed, no);
            self.owners.values_mut().filter(|owner| *owner == absorbed).for_each(|owner| *owner = no);
        }
        for index in found.added {
            let c = &candidates[index];
            owned.identifiers.push(Held {
                type_no: c.type_no,
                value: c.value.clone(),
                first_seen: at,
                source: SourceNo(1),
                message_id: message_id.to_owned(),
                brought_by: no,
            });
            self.owners.insert(c.key, no);
        }
        self.profiles.insert(no, owned);
        for refusal in &found.refusals {
            let is_it = |c: &&Candidate| c.type_no == refusal.type_no && c.value == refusal.value;
            let key = candidates.iter().find(is_it).unwrap().key;
            let threshold = settings.quarantine_threshold as usize;
            self.suspects.entry(key).or_default().refused(no, threshold, at);
        }
        Some((no, found.refusals, found.absorbed))
    }

    /// Who a profile is by now.
    pub(super) fn live(&self, no: ProfileNo) -> ProfileNo {
        self.redirects.get(&no).copied().unwrap_or(no)
    }

    /// The identifiers of every live profile, sorted: who is who, whatever their numbers.
    pub(super) fn people(&self) -> Vec<Vec<(TypeNo, &str)>> {
        let mut people: Vec<Vec<(TypeNo, &str)>> = self
            .profiles
            .values()
            .map(|owned| {
                let mut ids: Vec<_> =
                    owned.identifiers.iter().map(|h| (h.type_no, h.value.as_str())).collect();
                ids.sort_unstable();
                ids
            })
            .collect();
        people.sort();
        people
    }
}
