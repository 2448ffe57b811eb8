//! What the outbox says of how profiles came to be what they are, and of events as they came.
//!
//! Public ids of profiles stand in it as they were at that time: whatever becomes of a profile later does not change what
//! was true of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What did it: an event, or an operator's act.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Its message id; empty where that is not known any more.
    pub id: String,
    /// The call (`identify`, `track`, …), or [`OPERATOR`]; empty where that is not known any more, as in a full sync.
    #[serde(rename = "type", default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name of the event, where it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Number of the source that sent it; 0 for none.
    pub source: i32,
    /// Its time, in milliseconds since 1970.
    pub at: i64,
    /// When it was received, in milliseconds since 1970.
    pub received_at: i64,
    /// Its place in the log; 0 where that is not known any more.
    pub offset: u64,
}

/// What stands in the place of a call's type where it was an operator's act.
pub const OPERATOR: &str = "operator";

/// What happened to a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// It was made.
    Created,
    /// It was given an identifier.
    IdentifierAdded {
        /// The type.
        #[serde(rename = "type")]
        id_type: String,
        /// The value.
        id: String,
    },
    /// An identifier was taken away from it.
    IdentifierRemoved {
        /// The type.
        #[serde(rename = "type")]
        id_type: String,
        /// The value.
        id: String,
    },
    /// Another profile has become part of it.
    Merged {
        /// The public id that the other one had.
        merged: String,
    },
    /// It was part of another one, and is one of its own again.
    Separated {
        /// The public id of the other one.
        from: String,
    },
    /// It has these traits now, null for what was removed.
    Traits(Map<String, Value>),
    /// The same, by a merge: all that one of those that are one now had otherwise.
    TraitsMerged(Map<String, Value>),
}

impl Update {
    /// Its word in what is sent.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::IdentifierAdded { .. } => "identifier_added",
            Self::IdentifierRemoved { .. } => "identifier_removed",
            Self::Merged { .. } => "merged",
            Self::Separated { .. } => "separated",
            Self::Traits(_) => "traits",
            Self::TraitsMerged(_) => "traits_merged",
        }
    }
}

/// Something that happened to a profile, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileUpdate {
    /// The public id that the profile had then.
    pub profile_id: String,
    /// What happened.
    pub what: Update,
    /// What did it.
    pub by: Cause,
}

/// An event as it was received, and whose it was then.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SentEvent {
    /// The public id that the profile had when the event came.
    pub profile_id: String,
    /// Number of the source.
    pub source: i32,
    /// When it was received, in milliseconds since 1970.
    pub received_at: i64,
    /// The call, as it was.
    pub call: Map<String, Value>,
}

/// Sources by number: public id and name.
pub type SourceNames = BTreeMap<i32, (String, String)>;
