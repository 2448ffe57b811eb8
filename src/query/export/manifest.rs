//! The lines of an export: rows of its files one after the other, and at the end what there was of each.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Counts the rows of each file, and hashes them.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    files: BTreeMap<&'static str, (u64, Sha256)>,
}

/// What there is of a file.
#[derive(Debug, Serialize)]
pub(super) struct FileSum {
    rows: u64,
    /// Of the rows as JSON, each with a line feed behind it.
    sha256: String,
}

/// A line of an export.
#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    row: &'a serde_json::value::RawValue,
}

impl Manifest {
    /// A file that is there also when it has no rows.
    pub(super) fn open(&mut self, file: &'static str) {
        self.files.entry(file).or_default();
    }

    /// Adds a row to a file, as a line of the export.
    pub(super) fn row(
        &mut self,
        out: &mut Vec<u8>,
        file: &'static str,
        row: &impl Serialize,
    ) -> serde_json::Result<()> {
        let row = serde_json::value::to_raw_value(row)?;
        let (count, hash) = self.files.entry(file).or_default();
        *count += 1;
        hash.update(row.get().as_bytes());
        hash.update(b"\n");
        serde_json::to_writer(&mut *out, &Line { file, row: &row })?;
        out.push(b'\n');
        Ok(())
    }

    /// What there was, by file.
    pub(super) fn sums(&mut self) -> BTreeMap<&'static str, FileSum> {
        let sum = |(rows, hash): (u64, Sha256)| FileSum { rows, sha256: hex::encode(hash.finalize()) };
        std::mem::take(&mut self.files).into_iter().map(|(file, of)| (file, sum(of))).collect()
    }
}
