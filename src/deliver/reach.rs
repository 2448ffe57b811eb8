//! What kinds that do everything themselves reach the outside with, and what of it they may reach.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::guard::{Guard, Lookup};

/// The ways out. Whatever a kind connects to, the guard has been asked.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Judges hosts and addresses.
    pub guard: Arc<Guard>,
    /// Looks names up.
    pub lookup: Arc<dyn Lookup>,
    /// The folder that destinations may write below; none: they may not.
    pub folder: Option<PathBuf>,
    /// Time for one batch.
    pub timeout: Duration,
}

#[cfg(test)]
impl Reach {
    /// For kinds that do not reach out themselves.
    pub(super) fn nowhere() -> Self {
        let guard = Arc::new(Guard::new(&super::guard::Settings::default()));
        Self {
            guard,
            lookup: Arc::new(super::guard::SystemLookup),
            folder: None,
            timeout: Duration::from_secs(1),
        }
    }
}
