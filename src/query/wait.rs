//! Read your writes: waiting until a space's processor has passed an offset.

use std::time::Duration;

use super::{QueryError, Reader};
use crate::domain::{Offset, SpaceNo};
use crate::store::processor;

/// Longest wait of a read.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How often another process's progress is asked for.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// The offset was not passed in time.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// Not within the longest wait.
    #[error("offset {wanted} is not processed yet; the processor is at {processed}")]
    TooLong {
        /// What was waited for.
        wanted: Offset,
        /// Where the processor is.
        processed: Offset,
    },
    /// The database could not be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Reader {
    /// Returns once everything up to `offset` is processed.
    pub async fn wait_for(&self, space: SpaceNo, offset: Offset) -> Result<(), WaitError> {
        let deadline = tokio::time::Instant::now() + WAIT_MAX;
        loop {
            if let Some(mut progress) = self.board.follow(space) {
                let passed = progress.wait_for(|p| p.processed >= offset);
                let waited = tokio::time::timeout_at(deadline, passed).await.map(|ended| ended.is_ok());
                match waited {
                    Ok(true) => return Ok(()),
                    // The lease went elsewhere; go on with the database.
                    Ok(false) => {}
                    Err(_) => {
                        let processed = self.processed(space).await?;
                        return Err(WaitError::TooLong { wanted: offset, processed });
                    }
                }
            }
            let processed = self.processed(space).await?;
            if processed >= offset {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(WaitError::TooLong { wanted: offset, processed });
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn processed(&self, space: SpaceNo) -> Result<Offset, QueryError> {
        let status = processor::status(&self.door(space), space).await?;
        Ok(status.map(|s| s.processed).unwrap_or_default())
    }
}
