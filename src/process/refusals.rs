//! What identity resolution has refused: noted for those who ask why, and counted, because a value that is refused to one
//! profile after the other is put into quarantine.

use super::apply::{Incoming, type_name};
use super::catalog::Catalog;
use super::work::Work;
use crate::domain::ProfileNo;
use crate::engine::identity::{Candidate, Refusal, Rule, TypeNo};
use crate::store::identity::RefusalRow;

/// Notes a refused identifier.
pub(super) fn refuse(
    work: &mut Work,
    no: ProfileNo,
    refusal: &Refusal,
    event: &Incoming<'_>,
    catalog: &Catalog,
) {
    let record = event.record;
    let row = RefusalRow {
        profile: no,
        rule: refusal.rule.as_str().to_owned(),
        id_type: type_name(refusal.type_no, catalog),
        value: refusal.value.clone(),
        occurrences: 1,
        first_offset: event.offset,
        message_id: record.message_id.to_owned(),
        first_at: record.received_at,
        last_at: record.received_at,
    };
    let known = work.out.refusals.entry((no, row.key()));
    known
        .and_modify(|known| {
            known.occurrences += 1;
            known.last_at = record.received_at;
        })
        .or_insert(row);
}

/// Counts a value that was refused: after enough profiles it is in quarantine, from the next event on.
pub(super) fn suspect(
    work: &mut Work,
    no: ProfileNo,
    refusal: &Refusal,
    candidates: &[Candidate],
    event: &Incoming<'_>,
    catalog: &Catalog,
) {
    let is_it = |c: &&Candidate| c.type_no == refusal.type_no && c.value == refusal.value;
    let Some(refused) = candidates.iter().find(is_it) else { return };
    let (name, threshold) = (type_name(refused.type_no, catalog), catalog.settings.quarantine_threshold);
    work.suspects.refused(refused, &name, no, threshold, event.record.received_at);
}

/// Notes values that a rule keeps out whatever profile the event belongs to.
pub(super) fn refuse_all<'a>(
    work: &mut Work,
    no: ProfileNo,
    rule: Rule,
    values: impl Iterator<Item = (TypeNo, &'a String)>,
    event: &Incoming<'_>,
    catalog: &Catalog,
) {
    for (type_no, value) in values {
        refuse(work, no, &Refusal { type_no, value: value.clone(), rule }, event, catalog);
    }
}
