//! Rows as `COPY … (FORMAT BINARY)` takes them.

use crate::domain::Timestamp;

/// What such a stream begins with: signature, flags, length of what is added to the header.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with, in the place of a number of columns.
const END: i16 = -1;
/// What stands in the place of the length of a null.
const NULL: i32 = -1;
/// Postgres counts from 2000 on, in microseconds.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

/// Gathers rows of so many columns: each is begun, and then has a value for each column.
#[derive(Debug)]
pub(super) struct CopyRows {
    bytes: Vec<u8>,
    columns: i16,
}

impl CopyRows {
    pub(super) fn new(columns: i16) -> Self {
        Self { bytes: HEADER.to_vec(), columns }
    }

    pub(super) fn begin(&mut self) {
        self.bytes.extend_from_slice(&self.columns.to_be_bytes());
    }

    fn field(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(&(value.len() as i32).to_be_bytes());
        self.bytes.extend_from_slice(value);
    }

    pub(super) fn smallint(&mut self, value: i16) {
        self.field(&value.to_be_bytes());
    }

    pub(super) fn int(&mut self, value: i32) {
        self.field(&value.to_be_bytes());
    }

    pub(super) fn bigint(&mut self, value: i64) {
        self.field(&value.to_be_bytes());
    }

    pub(super) fn bigint_or_null(&mut self, value: Option<i64>) {
        match value {
            Some(value) => self.bigint(value),
            None => self.bytes.extend_from_slice(&NULL.to_be_bytes()),
        }
    }

    pub(super) fn text(&mut self, value: &str) {
        self.field(value.as_bytes());
    }

    pub(super) fn timestamp(&mut self, value: Timestamp) {
        let micros =
            value.to_utc().timestamp_millis().saturating_sub(POSTGRES_EPOCH_MS).saturating_mul(1_000);
        self.bigint(micros);
    }

    /// Bytes that have gathered.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What has gathered, to be sent before the rest.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// The rest of the stream.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&END.to_be_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_columns_with_their_lengths() {
        let mut rows = CopyRows::new(2);
        rows.begin();
        rows.smallint(1);
        rows.timestamp(Timestamp::from_millis(POSTGRES_EPOCH_MS + 1));
        let bytes = rows.finish();
        let row = [0, 2, 0, 0, 0, 2, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 3, 232, 255, 255];
        assert_eq!(bytes.strip_prefix(HEADER), Some(row.as_slice()));
        assert_eq!(HEADER.len(), 19);
    }
}
