//! Objections to decisions that are made about people by machines: an act each, named by the act's message id, and lifted by
//! an act that names it. So an objection of either side holds after a merge, goes back to its side when that is taken back,
//! and one that is raised while another is lifted stays.

use super::acts::{Acting, Done, owner, profile_effect};
use super::apply::look_again;
use super::work::{Entry, Work};
use crate::domain::Act;
use crate::domain::act::{Effect, Named};
use crate::domain::trait_names::{OBJECTION_TRAIT, objection_trait};
use crate::engine::traits::Write;
use crate::store::log::codec::Record;

/// Notes on a profile that the person objects, or that objections are lifted. Used for acts as they come and for those of the
/// past alike.
pub(super) fn set(entry: &mut Entry, record: &Record<'_>, act: &Act) {
    let values: Vec<(String, &str)> = match act {
        Act::Object { .. } => vec![(objection_trait(record.message_id), "true")],
        Act::LiftObjections { objections, .. } => {
            objections.iter().map(|objection| (objection_trait(objection), "null")).collect()
        }
        _ => return,
    };
    let (at, message_id) = (record.received_at, record.message_id.to_owned());
    let write = Write { at, message_id, source: record.source, public: false };
    entry.profile.traits.update(|traits| {
        traits.apply(&write, values);
        traits.tidy();
    });
}

/// Applies an objection, or the lifting of some.
pub(super) fn apply(work: &mut Work, acting: &Acting<'_>, user: &Named) -> Done {
    let no = owner(work, user)?;
    let act = &acting.signed.act;
    if let Act::LiftObjections { objections, .. } = act {
        let traits = work.entries.get(&no).map(|entry| entry.profile.traits.get());
        let is_held = |id: &String| traits.is_some_and(|traits| traits.get(&objection_trait(id)).is_some());
        if !objections.iter().any(is_held) {
            return Err("the profile has none of these objections".to_owned());
        }
    }
    let at = acting.touch(work, no);
    let Some(entry) = work.entries.get_mut(&no) else { return Err("there is no such profile".to_owned()) };
    set(entry, acting.event.record, act);
    acting.catalog().program.mark_trait(OBJECTION_TRAIT, &mut entry.dirty);
    look_again(work, no, at, acting.ground);
    Ok(Effect { profiles: profile_effect(work, no, "changed").into_iter().collect(), ..Effect::default() })
}
