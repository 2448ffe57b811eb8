//! How much is listed of what was not taken of accepted events. Write keys are public, so it is bounded: so many rows for
//! each source and second of receipt. What is not listed is counted.

use hashbrown::HashMap;

use crate::domain::SourceNo;
use crate::store::rejected::RejectedEvent;
use crate::telemetry::metrics;

/// Rows of one source for events received in one second.
const PER_SECOND_MAX: u32 = 100;

/// Rows of the latest second of each source.
#[derive(Debug, Default)]
pub(super) struct Warned(HashMap<SourceNo, (i64, u32)>);

impl Warned {
    /// Leaves of these rows, which come in the order of the log, those that may be listed.
    pub(super) fn bound(&mut self, rows: &mut Vec<RejectedEvent>) {
        let before = rows.len();
        rows.retain(|row| {
            let second = row.received_at.millis().div_euclid(1_000);
            let (latest, listed) = self.0.entry(row.source).or_insert((second, 0));
            if *latest != second {
                (*latest, *listed) = (second, 0);
            }
            *listed += 1;
            *listed <= PER_SECOND_MAX
        });
        if rows.len() < before {
            metrics::INGEST_UNLISTED.add(&["rate"], (before - rows.len()) as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::Timestamp;

    fn row(source: i32, at: i64) -> RejectedEvent {
        RejectedEvent {
            id: Uuid::nil(),
            warning: true,
            code: "no_identifier".to_owned(),
            message: String::new(),
            field: None,
            message_id: None,
            source: SourceNo(source),
            received_at: Timestamp::from_millis(at),
            event: String::new(),
        }
    }

    #[test]
    fn so_many_a_source_and_second_are_listed_however_they_are_gathered() {
        let mut warned = Warned::default();
        let mut listed = 0;
        for _ in 0..15 {
            let mut rows: Vec<RejectedEvent> = (0..10).map(|_| row(1, 5_500)).collect();
            warned.bound(&mut rows);
            listed += rows.len();
        }
        assert_eq!(listed, 100);
        let mut rows = vec![row(2, 5_500), row(1, 5_999), row(1, 6_000)];
        warned.bound(&mut rows);
        assert_eq!(rows, [row(2, 5_500), row(1, 6_000)]);
    }
}
