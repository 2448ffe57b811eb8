//! What operators do to profiles. Acts stand in the log between the events, so that the same log gives the same
//! profiles, operators included.

use serde::{Deserialize, Serialize};

use super::Collection;

/// An operator's act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// Takes an identifier away from the profile that has it, unless it is its last one.
    DeleteIdentifier {
        /// Whose.
        collection: Collection,
        /// Its type.
        id_type: String,
        /// Its normalised value.
        value: String,
    },
}
