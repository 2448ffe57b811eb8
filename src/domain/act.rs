//! What operators do to profiles. Acts stand in the log between the events, so that the same log gives the same
//! profiles, operators included.

use serde::{Deserialize, Serialize};

use super::Collection;

/// What the names of the traits begin with that keep who is on a list. Events cannot set them, and nobody is shown them.
pub const LIST_TRAIT: &str = "$list:";

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
    /// Lets a value out of quarantine, for good: it is counted no more.
    LiftQuarantine {
        /// Whose identifiers have the type.
        collection: Collection,
        /// Its type.
        id_type: String,
        /// Its normalised value.
        value: String,
    },
    /// Puts the profiles that have these identifiers onto a list, or takes them off it.
    ChangeList {
        /// The trait that keeps it.
        list: String,
        /// Type and normalised value of one identifier of each profile.
        ids: Vec<(String, String)>,
        /// Onto it, or off it.
        listed: bool,
    },
}
