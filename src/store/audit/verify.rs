//! Whether an audit log is as it was written: every entry, none missing, none changed.

use super::{PAGE, SERVER};
use crate::domain::SpaceNo;
use crate::domain::audit::{self, Entry, START};
use crate::store::{Result, Walled};

/// Faults that are told one by one.
const TOLD: usize = 100;

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Entries looked at.
    pub entries: u64,
    /// Acts of which only the hash is left, because what they were about was erased.
    pub erased: u64,
    /// What is wrong: in all, and the first of it in words.
    pub faults: u64,
    /// The first faults, in words.
    pub told: Vec<String>,
    /// The hash of the last entry: whoever keeps it elsewhere knows later that nothing before it was made anew.
    pub last_hash: String,
}

impl Report {
    fn fault(&mut self, what: String) {
        self.faults += 1;
        if self.told.len() < TOLD {
            self.told.push(what);
        }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    entry_no: i64,
    kind: String,
    action: String,
    log_offset: Option<i64>,
    content: String,
    hash: Vec<u8>,
    act: Option<serde_json::Value>,
    effect: Option<serde_json::Value>,
    salt: Option<Vec<u8>>,
    erased: Option<bool>,
}

/// Goes through the chain of a space, or of the server.
pub async fn verify(door: &Walled, space: SpaceNo) -> Result<Report> {
    let mut report = Report::default();
    let head: Option<(i64, Vec<u8>)> = sqlx::query_as(
        "-- store::audit::verify\nSELECT last_no, last_hash FROM audit_head WHERE space_id = $1",
    )
    .bind(space.0)
    .fetch_optional(door)
    .await?;
    // What is added meanwhile is not looked at.
    let (end, end_hash) = head.unwrap_or((0, START.to_vec()));
    let sql = "-- store::audit::verify
         SELECT max(entry_no) FROM audit_record WHERE space_id = $1 AND kind = 'act' AND action = 'profiles.erase'";
    let last_erasure: Option<i64> = sqlx::query_scalar(sql).bind(space.0).fetch_one(door).await?;
    let (mut no, mut hash) = (0_i64, START);
    while no < end {
        let rows = read(door, space, no, end).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            if row.entry_no != no + 1 {
                report.fault(format!("entries {} to {} are missing", no + 1, row.entry_no - 1));
            }
            no = row.entry_no;
            report.entries += 1;
            let expected = audit::link(&hash, &row.content);
            if row.hash != expected {
                report.fault(format!("entry {no} is not what it was, or one before it"));
            }
            // Told once: what follows is judged by what is there.
            hash = row.hash.as_slice().try_into().unwrap_or(expected);
            check_columns(&row, last_erasure, &mut report);
        }
    }
    if no < end {
        report.fault(format!("entries {} to {end} are missing", no + 1));
    } else if hash.as_slice() != end_hash {
        report.fault(format!("the end of the chain is not the hash of entry {end}"));
    }
    let sql =
        "-- store::audit::verify\nSELECT count(*) FROM audit_record WHERE space_id = $1 AND entry_no > $2
             AND NOT EXISTS (SELECT 1 FROM audit_head WHERE space_id = $1 AND last_no > $2)";
    let beyond: i64 = sqlx::query_scalar(sql).bind(space.0).bind(end).fetch_one(door).await?;
    if beyond > 0 {
        report.fault(format!("{beyond} entries stand behind the end of the chain"));
    }
    report.last_hash = hex::encode(end_hash);
    if space != SERVER {
        find_unlinked(door, space, &mut report).await?;
    }
    Ok(report)
}

/// The columns say what the content says, and what an act was about is what was hashed.
fn check_columns(row: &Row, last_erasure: Option<i64>, report: &mut Report) {
    let no = row.entry_no;
    let Ok(entry) = serde_json::from_str::<Entry>(&row.content) else {
        return report.fault(format!("entry {no} cannot be read"));
    };
    let offset = entry.offset.map(|offset| offset as i64);
    if entry.no != no
        || entry.kind.as_str() != row.kind
        || entry.action != row.action
        || offset != row.log_offset
    {
        report.fault(format!("entry {no} is filed under something else than it says"));
    }
    let (Some(digest), Some(offset)) = (entry.digest, offset) else { return };
    match (&row.act, &row.effect, &row.salt, row.erased) {
        // Whoever says that somebody was erased shows that it was done, behind it in the same chain.
        (Some(act), Some(effect), _, Some(true))
            if audit::is_erased(act, effect) && last_erasure > Some(no) =>
        {
            report.erased += 1;
        }
        (Some(act), Some(effect), Some(salt), _) if audit::digest(salt, act, effect) == digest => {}
        (Some(_), ..) => {
            report.fault(format!("entry {no}: what the act at offset {offset} was about was changed"));
        }
        _ => report.fault(format!("entry {no}: what the act at offset {offset} was about is missing")),
    }
}

async fn read(door: &Walled, space: SpaceNo, after: i64, end: i64) -> Result<Vec<Row>> {
    let sql = "-- store::audit::verify
         SELECT r.entry_no, r.kind, r.action, r.log_offset, r.content, r.hash, e.act, e.effect, e.salt, e.erased
         FROM audit_record r
         LEFT JOIN audit_entry e ON e.space_id = $1 AND e.log_offset = r.log_offset
         WHERE r.space_id = $1 AND r.entry_no > $2 AND r.entry_no <= $3 ORDER BY r.entry_no LIMIT $4";
    Ok(sqlx::query_as(sql).bind(space.0).bind(after).bind(end).bind(PAGE).fetch_all(door).await?)
}

/// Acts that are in no chain: written by somebody else than this service.
async fn find_unlinked(door: &Walled, space: SpaceNo, report: &mut Report) -> Result<()> {
    let sql = "-- store::audit::verify
         SELECT e.log_offset FROM audit_entry e
         LEFT JOIN audit_record r ON r.space_id = $1 AND r.kind = 'act' AND r.log_offset = e.log_offset
         WHERE e.space_id = $1 AND r.entry_no IS NULL ORDER BY e.log_offset LIMIT $2";
    let unlinked: Vec<i64> = sqlx::query_scalar(sql).bind(space.0).bind(TOLD as i64).fetch_all(door).await?;
    for offset in unlinked {
        report.fault(format!("the act at offset {offset} is in no entry"));
    }
    Ok(())
}
