//! Words of destinations: what a change is about, as which call it is sent, and what a subscription asks for.

use serde::{Deserialize, Serialize};

use super::Collection;

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Subject {
    /// Somebody entered or left an audience: the value is `true` or `false`.
    Audience = 0,
    /// A computed trait has another value; `null` for none any more.
    ComputedTrait = 1,
    /// Custom traits have other values: an object of them, `null` for removed ones.
    CustomTraits = 2,
    /// A profile has taken in another one, or is no part of another one any more: the value is an [`OtherProfile`].
    Merges = 3,
    /// A profile was erased, and is to be erased where it was told, too: the value is what it was known by. Nobody subscribes
    /// to it: it goes to all.
    Deletion = 4,
    /// How a profile came to be what it is: made, given identifiers, merged, given traits, each with the event that did it.
    /// The value is a [`ProfileUpdate`](super::update::ProfileUpdate).
    ProfileUpdates = 5,
    /// An event as it was received, with the profile it was counted for: the value is a
    /// [`SentEvent`](super::update::SentEvent).
    Events = 6,
}

impl Subject {
    /// Those that can be subscribed to.
    pub const ALL: [Self; 6] = [
        Self::Audience,
        Self::ComputedTrait,
        Self::CustomTraits,
        Self::Merges,
        Self::ProfileUpdates,
        Self::Events,
    ];

    /// The one with this number.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Deletion]).find(|subject| *subject as i16 == number)
    }

    /// Its word in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Audience => "audience",
            Self::ComputedTrait => "computed_trait",
            Self::CustomTraits => "custom_traits",
            Self::Merges => "merges",
            Self::Deletion => "deletion",
            Self::ProfileUpdates => "profile_updates",
            Self::Events => "events",
        }
    }

    /// Whether there is something to be told of everybody when a subscription begins: of the others, only what comes is told.
    pub const fn has_present(self) -> bool {
        !matches!(self, Self::Merges | Self::Deletion | Self::Events)
    }

    /// Whether it is about one definition.
    pub const fn has_definition(self) -> bool {
        matches!(self, Self::Audience | Self::ComputedTrait)
    }
}

/// The other profile of a change of [`Subject::Merges`], by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OtherProfile {
    /// It has become part of the profile.
    Absorbed(i64),
    /// The profile was part of it until the merge was taken back.
    Separated {
        /// The number of the other one.
        from: i64,
    },
}

impl OtherProfile {
    /// Its number.
    pub const fn number(self) -> i64 {
        match self {
            Self::Absorbed(no) | Self::Separated { from: no } => no,
        }
    }
}

/// The key of a subscription to all audiences, or to all computed traits.
pub const ALL: &str = "*";

/// What such a subscription has in the place of a definition's number, which is above 0: one for each collection.
pub const fn all_of(collection: Collection) -> i32 {
    -(collection as i32)
}

/// The call a change is sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Form {
    /// Traits of a user; of an account a group call.
    Identify = 1,
    /// An event of a user.
    Track = 2,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Identify, Self::Track];

    /// The one with this number.
    pub const fn from_number(number: i16) -> Option<Self> {
        match number {
            1 => Some(Self::Identify),
            2 => Some(Self::Track),
            _ => None,
        }
    }

    /// Its word in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Track => "track",
        }
    }

    /// Those of a set as it is stored.
    pub fn of_set(bits: i16) -> Vec<Self> {
        Self::ALL.into_iter().filter(|form| bits & *form as i16 != 0).collect()
    }

    /// A set as it is stored.
    pub fn set_of(forms: &[Self]) -> i16 {
        forms.iter().fold(0, |bits, form| bits | *form as i16)
    }
}

/// How the changes of a subscription are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscriptionOptions {
    /// Event of one who enters.
    pub entered_event: String,
    /// Event of one who leaves.
    pub exited_event: String,
    /// Event of a computed trait.
    pub computed_event: String,
    /// The choice of data as it was given: `id_sync`, `traits`, `filter`, `allow`, `deny`.
    pub data: serde_json::Value,
}

impl Default for SubscriptionOptions {
    fn default() -> Self {
        Self {
            entered_event: "Audience Entered".to_owned(),
            exited_event: "Audience Exited".to_owned(),
            computed_event: "Trait Computed".to_owned(),
            data: serde_json::json!({}),
        }
    }
}

/// Name of the identifier types that every destination knows.
pub const USER_ID: &str = "user_id";
/// See [`USER_ID`].
pub const EMAIL: &str = "email";
/// See [`USER_ID`].
pub const ANONYMOUS_ID: &str = "anonymous_id";

impl SubscriptionOptions {
    /// Whether a new identifier of this type makes a difference to what is sent of a user.
    pub fn sends(&self, id_type: &str, has_user_id: bool) -> bool {
        let chosen =
            self.data.get("id_sync").and_then(serde_json::Value::as_array).filter(|list| !list.is_empty());
        let Some(chosen) = chosen else {
            return match id_type {
                USER_ID | EMAIL => true,
                ANONYMOUS_ID => !has_user_id,
                _ => false,
            };
        };
        let names = ["type", "external_id", "externalId"];
        chosen
            .iter()
            .any(|sync| names.iter().any(|name| sync.get(*name).is_some_and(|value| value == id_type)))
    }
}
