//! What a tracking call becomes once it is accepted.

use serde::{Deserialize, Serialize};

use super::{Offset, SourceNo, Timestamp};

/// The six calls of the tracking protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum EventType {
    /// Sets traits on a user.
    Identify = 0,
    /// Records an action.
    Track = 1,
    /// A page view, event name `Page Viewed`.
    Page = 2,
    /// A screen view, event name `Screen Viewed`.
    Screen = 3,
    /// Puts a user into an account and sets traits on the account.
    Group = 4,
    /// Joins ids for downstream tools; never merges profiles.
    Alias = 5,
}

impl EventType {
    /// All types, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Identify, Self::Track, Self::Page, Self::Screen, Self::Group, Self::Alias];

    /// The protocol's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Track => "track",
            Self::Page => "page",
            Self::Screen => "screen",
            Self::Group => "group",
            Self::Alias => "alias",
        }
    }

    /// Whether calls of this type are events of the query language: they count for the account that they name.
    pub const fn is_event(self) -> bool {
        matches!(self, Self::Track | Self::Page | Self::Screen)
    }

    /// Reads the protocol's word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == word)
    }
}

/// One event as the engine sees it: what a leaf may look at. Borrows from the decoded chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Which call it was.
    pub event_type: EventType,
    /// Event name: track's `event`, `Page Viewed`, `Screen Viewed`; empty for the other calls.
    pub name: &'a str,
    /// When it happened (corrected event time).
    pub timestamp: Timestamp,
    /// When this server received it.
    pub received_at: Timestamp,
    /// Its place in the log.
    pub offset: Offset,
    /// Unit of de-duplication and breaker of ties.
    pub message_id: &'a str,
    /// The source that sent it.
    pub source: SourceNo,
    /// `properties` as a JSON object, or empty when there are none.
    pub properties: &'a str,
    /// `context` as a JSON object, or empty when there is none.
    pub context: &'a str,
}

/// The parts of an event identifiers are read from. Texts are empty where absent.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Which call.
    pub event_type: EventType,
    /// `userId`.
    pub user_id: &'a str,
    /// `anonymousId`.
    pub anonymous_id: &'a str,
    /// `groupId`, or `context.groupId` on other calls.
    pub group_id: &'a str,
    /// `traits` of identify and group, `properties` of track, page and screen.
    pub body: &'a str,
    /// `context`.
    pub context: &'a str,
}
