//! What was told of a profile while it was one, shared out between the two that it is now, and what each has to be told: so
//! that entering and leaving alternate for whoever follows one of them (decision A18).

use hashbrown::HashMap;

use super::acts::Acting;
use super::catalog::Catalog;
use super::consent;
use super::outbox::{self, Change, Compared};
use super::unmerge::Half;
use super::work::Work;
use crate::domain::ProfileNo;
use crate::domain::Timestamp;
use crate::domain::delivery::{OtherProfile, Subject};
use crate::engine::identity::separate::{Parted, Side};
use crate::engine::profile::{Outcome, OutcomeValue, Profile};
use crate::engine::traits::Traits;
use crate::store::definitions::Kind;
use crate::store::memberships::{MembershipChange, Transition};

/// What was told last: of each side, by audience.
pub(super) type Told = HashMap<(i32, Side), (bool, Timestamp)>;

/// What was told of the profile while it was one goes to the side for which entering and leaving alternate: it has left
/// where the one that was in it is the one that had entered before.
pub(super) fn share_out(
    work: &mut Work,
    before: Vec<Transition>,
    parted: &Parted,
    halves: [Half; 2],
) -> Told {
    let mut told = Told::default();
    for mut transition in before {
        let Transition { definition, entered, at, .. } = transition;
        let side = parted.numbers.get(&transition.profile).copied().unwrap_or(halves[0].side);
        let is_in = |half: &Half| told.get(&(definition, half.side)).is_some_and(|(entered, _)| *entered);
        let fits = |half: &Half| is_in(half) != entered;
        let own = halves.iter().find(|half| half.side == side && fits(half));
        let other = halves.iter().find(|half| half.side != side && fits(half));
        let side = match (own, other) {
            (None, Some(other)) => {
                transition.profile = other.no;
                work.out.corrections.retold.push(transition);
                other.side
            }
            _ => side,
        };
        told.insert((definition, side), (entered, at));
    }
    told
}

pub(super) fn tell(work: &mut Work, half: Half, told: &Told, at: Timestamp, catalog: &Catalog) {
    let profile = half.no;
    let Some(entry) = work.entries.get_mut(&profile) else { return };
    let mut serving: Vec<_> =
        catalog.meta.iter().filter(|(_, meta)| meta.serving && meta.kind == Kind::Audience).collect();
    serving.sort_unstable_by_key(|(no, _)| **no);
    for (no, meta) in serving {
        let outcome = entry.profile.outcome(*no);
        let is_member = outcome.as_ref().is_some_and(|o| o.value == OutcomeValue::Member(true));
        match told.get(&(meta.definition, half.side)) {
            // It has been in since then, and nobody was told otherwise.
            Some((true, since))
                if is_member && outcome.as_ref().is_some_and(|outcome| outcome.since != *since) =>
            {
                let (computation, entered_at) = (*no, Some(*since));
                let value = OutcomeValue::Member(true);
                entry.profile.set_outcome(Outcome { computation, value, since: *since });
                let change = MembershipChange { computation, profile, was_member: true, entered_at };
                work.out.memberships.push(change);
            }
            // It has been in and out: that is remembered of whoever was in once.
            Some((false, since)) if !is_member && outcome.is_none() => {
                let value = OutcomeValue::Member(false);
                entry.profile.set_outcome(Outcome { computation: *no, value, since: *since });
            }
            told if told.is_some_and(|(entered, _)| *entered) != is_member => {
                let definition = meta.definition;
                work.out.transitions.push(Transition { definition, no: 0, profile, entered: is_member, at });
            }
            _ => {}
        }
    }
}

/// Tells destinations that the separated side is no part of the other one any more, and which profiles that had become part
/// of it before are with it.
pub(super) fn tell_separation(work: &mut Work, parted: &Parted, halves: [Half; 2], acting: &Acting<'_>) {
    if !acting.catalog().wanted.wants(Subject::Merges, 0) {
        return;
    }
    let [stays, goes] = halves;
    // Just before all that it is told for its own: whoever follows merges would take that for the other one's.
    let at = acting.received_at().plus_millis(-1);
    let with_it = |(no, side): (&ProfileNo, &Side)| (*side == goes.side && *no != goes.no).then_some(no.0);
    let mut former: Vec<u64> = parted.numbers.iter().filter_map(with_it).collect();
    former.sort_unstable();
    let separated = OtherProfile::Separated { from: stays.no.0 as i64 };
    let absorbed = former.into_iter().map(|no| OtherProfile::Absorbed(no as i64));
    for other in std::iter::once(separated).chain(absorbed) {
        // Numbers under fixed names are always JSON.
        let value = serde_json::to_string(&other).unwrap_or_default();
        work.out.changes.push(Change::new(goes.no, (Subject::Merges, 0), value, at));
    }
}

/// Tells destinations what of the traits is another now; of the separated side, all of them.
pub(super) fn tell_traits(work: &mut Work, before: &Traits, halves: [Half; 2], acting: &Acting<'_>) {
    if !acting.catalog().wanted.wants(Subject::CustomTraits, 0) {
        return;
    }
    for (half, tells_all) in [(halves[0], false), (halves[1], true)] {
        let Some(entry) = work.entries.get(&half.no) else { continue };
        if let Some(value) = outbox::changed_traits(before, entry.profile.traits.get(), tells_all) {
            let of = (Subject::CustomTraits, 0);
            work.out.changes.push(Change::new(half.no, of, value, acting.received_at()));
        }
    }
}

/// Tells destinations what is true of both, be it new or not: what they were told of the two as one, by the identifiers of
/// either, may be wrong of it.
pub(super) fn tell_again(work: &mut Work, before: &Profile, halves: [Half; 2], acting: &Acting<'_>) {
    for half in halves {
        let Some(entry) = work.entries.get(&half.no) else { continue };
        let of_half =
            outbox::compared(Some(before), &entry.profile, &acting.catalog().wanted, acting.received_at());
        for Compared { change, .. } in of_half {
            let out = &work.out;
            let is_told = match change.subject {
                Subject::Audience => {
                    out.transitions.iter().any(|t| t.profile == half.no && t.definition == change.definition)
                }
                _ => out.changes.iter().any(|other| {
                    (other.profile, other.subject, other.definition)
                        == (half.no, change.subject, change.definition)
                }),
            };
            if !is_told {
                work.out.changes.push(change);
            }
        }
    }
}

/// Who has consent of their own again that both together had not is told of as anybody who gives it: destinations that ask for
/// it have heard nothing meanwhile.
pub(super) fn note_consent(work: &mut Work, before: &Profile, halves: [Half; 2], acting: &Acting<'_>) {
    for half in halves {
        let Some(entry) = work.entries.get(&half.no) else { continue };
        let given = consent::given_back(before.traits.get(), entry, acting.catalog());
        if !given.is_empty() {
            work.out.consented.entry(half.no).or_default().extend(given);
        }
    }
}
