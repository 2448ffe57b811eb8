//! How much room is left where the private Postgres keeps its data.
//!
//! A full disk stops Postgres; taking no more events while there is still room for a checkpoint does not. Whoever
//! measures calls [`DiskGuard::note`]; whoever takes events asks [`DiskGuard::is_full`], which costs one load.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::telemetry::metrics;

/// Whether there is room. Clones share the note.
#[derive(Debug, Clone, Default)]
pub struct DiskGuard {
    full: Arc<AtomicBool>,
    free_min: u64,
}

impl DiskGuard {
    /// Full while fewer than `free_min` bytes are free; 0 is never.
    pub fn new(free_min: u64) -> Self {
        Self { full: Arc::default(), free_min }
    }

    /// Whether the last measurement was below the limit.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Notes a measurement; says once when it crosses the limit.
    pub fn note(&self, free: u64) {
        metrics::DISK_FREE.set(&[], free as f64);
        let full = free < self.free_min;
        if self.full.swap(full, Ordering::Relaxed) != full {
            if full {
                tracing::error!(
                    free,
                    "only {free} bytes are free for Postgres: events are refused until there is room"
                );
            } else {
                tracing::info!(free, "{free} bytes are free for Postgres: events are taken again");
            }
        }
    }

    /// Measures the file system that holds `folder`; a folder that cannot be measured changes nothing.
    pub fn measure(&self, folder: &Path) {
        if let Some(free) = free_bytes(folder) {
            self.note(free);
        }
    }
}

/// Bytes an ordinary account may still write to the file system that holds `folder`.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
