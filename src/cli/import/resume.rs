//! The journal beside the file: how far an import came, so that the same command goes on from there.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use super::send::Outcome;

/// The beginning of the file that has to be the same for an import to be resumed.
const HEAD_BYTES: u64 = 64 * 1024;

/// What the server has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    /// Which file was sent where; another one begins anew.
    identity: String,
    /// All lines up to this one.
    pub(super) line: u64,
    /// Events the server took.
    pub(super) accepted: u64,
    /// Lines that were refused.
    pub(super) rejected: u64,
    /// Where the events taken stand in the server's log, first and last included.
    ranges: Vec<(u64, u64)>,
}

impl Done {
    /// Where the events taken stand in the server's log, first and last included.
    pub(super) fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    fn add(&mut self, outcome: &Outcome) {
        self.line = outcome.line;
        self.accepted += outcome.accepted;
        self.rejected += outcome.refused.len() as u64;
        let Some((first, last)) = outcome.range else { return };
        // Batches are answered nearly in the order they are stored, so that few ranges remain.
        let (before, after) = (first.checked_sub(1), last.checked_add(1));
        let next = self.ranges.iter_mut().rev().take(16);
        for range in next {
            if Some(range.1) == before {
                range.1 = last;
                return;
            }
            if Some(range.0) == after {
                range.0 = first;
                return;
            }
        }
        self.ranges.push((first, last));
    }
}

/// The journal: kept after every answer, removed at the end.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    pub(super) done: Done,
    problem: Option<String>,
}

impl Journal {
    /// Finds how far an earlier run came; anew when there was none, or not with this file and `target`.
    pub(super) fn open(file: &Path, target: &str) -> anyhow::Result<Self> {
        let mut name = file.file_name().context("this is no file")?.to_owned();
        name.push(".personas-import");
        let path = file.with_file_name(name);
        let identity = identity(file, target)?;
        let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Done>(&bytes).ok());
        let done = known
            .filter(|done| done.identity == identity)
            .unwrap_or_else(|| Done { identity, ..Done::default() });
        let mut journal = Self { path, done, problem: None };
        journal.write();
        Ok(journal)
    }

    /// Why nothing can be kept.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    pub(super) fn record(&mut self, outcome: &Outcome) {
        self.done.add(outcome);
        if self.problem.is_none() {
            self.write();
        }
    }

    /// Nothing is left to be resumed.
    pub(super) fn finish(&self) {
        let _not_there = fs::remove_file(&self.path);
    }

    /// Replaces the journal as a whole: a torn one would be worse than an old one.
    fn write(&mut self) {
        let write = || -> anyhow::Result<()> {
            let mut new = self.path.clone().into_os_string();
            new.push(".new");
            fs::write(&new, serde_json::to_vec(&self.done)?)?;
            Ok(fs::rename(&new, &self.path)?)
        };
        self.problem = write().err().map(|error| format!("{}: {error}", self.path.display()));
    }
}

/// The beginning of the file, and where it is sent; no secret can be read from it.
fn identity(file: &Path, target: &str) -> anyhow::Result<String> {
    let mut head = Vec::new();
    let open = fs::File::open(file).with_context(|| file.display().to_string())?;
    open.take(HEAD_BYTES).read_to_end(&mut head)?;
    let mut hasher = Xxh3Default::new();
    hasher.update(target.as_bytes());
    hasher.update(&[0]);
    hasher.update(&head);
    Ok(format!("{:016x}", hasher.digest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(line: u64, range: Option<(u64, u64)>) -> Outcome {
        Outcome { range, line, ..Outcome::default() }
    }

    #[test]
    fn neighbouring_ranges_become_one() {
        let mut done = Done::default();
        for (line, range) in
            [(500, (1, 500)), (1_000, (1_001, 1_500)), (1_500, (501, 1_000)), (2_000, (3_000, 3_001))]
        {
            done.add(&outcome(line, Some(range)));
        }
        done.add(&outcome(2_001, None));
        assert_eq!(done.ranges, [(1, 500), (501, 1_500), (3_000, 3_001)]);
        assert_eq!(done.line, 2_001);
    }

    #[test]
    fn another_target_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events.jsonl");
        fs::write(&file, "{}\n").unwrap();
        let mut journal = Journal::open(&file, "here").unwrap();
        journal.record(&outcome(7, None));
        assert_eq!(Journal::open(&file, "here").unwrap().done.line, 7);
        assert_eq!(Journal::open(&file, "there").unwrap().done.line, 0);
        journal.finish();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
