//! The audit log's entries, and the chain they are links of.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::act::Actor;

/// The hash of an entry, which covers all before it.
pub type Hash = [u8; 32];

/// What stands before the first entry of a chain.
pub const START: Hash = [0; 32];

/// Kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// What an operator did to profiles: an act of the log.
    Act,
    /// A call that changes something, or tried to.
    Change,
    /// Personal data was read.
    Read,
}

impl EntryKind {
    /// The word of the API and of the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Act => "act",
            Self::Change => "change",
            Self::Read => "read",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Act, Self::Change, Self::Read].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// An entry: who did what, when, from where, to what, and how it ended. Its JSON is what is hashed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number in its chain, from 1 without gaps.
    #[serde(default)]
    pub no: i64,
    /// Which kind.
    pub kind: EntryKind,
    /// When, RFC 3339; of reads that were gathered, the first.
    pub at: String,
    /// What was done: the name of an act, or method and route.
    pub action: String,
    /// The access token.
    pub actor: Actor,
    /// The client's address, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    /// What of the service it was done to: the names in the path.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<Value>,
    /// The status of the answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// The id of the request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
    /// What was changed, where the path does not say it all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<Value>,
    /// Reads that were gathered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
    /// Profiles that were read, by public id.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub profiles: Vec<String>,
    /// Of an act, its place in the log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub offset: Option<u64>,
    /// Of an act, the hash of what it was about: [`digest`], in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<String>,
}

impl Entry {
    /// An entry of which nothing more is known.
    pub fn new(kind: EntryKind, at: String, action: String, actor: Actor) -> Self {
        let (address, target, status, request_id, detail) = (None, None, None, None, None);
        let (count, profiles, offset, digest) = (None, Vec::new(), None, None);
        Self {
            no: 0,
            kind,
            at,
            action,
            actor,
            address,
            target,
            status,
            request_id,
            detail,
            count,
            profiles,
            offset,
            digest,
        }
    }

    /// What is hashed.
    pub fn content(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The hash of an entry behind another one.
pub fn link(previous: &Hash, content: &str) -> Hash {
    Sha256::new().chain_update(previous).chain_update(content.as_bytes()).finalize().into()
}

/// The hash of what an act was about. The salt keeps those who have only the chain from trying out what it could have been.
pub fn digest(salt: &[u8], act: &Value, effect: &Value) -> String {
    let about = serde_json::json!([act, effect]).to_string();
    hex::encode(Sha256::new().chain_update(salt).chain_update(about.as_bytes()).finalize())
}

/// What stands where an act stood that somebody erased was named in.
pub const ERASED_ACT: &str = r#"{"erased": true}"#;
/// What stands where its effect stood, beside [`ERASED_COUNTS`], which are kept of it.
pub const ERASED_EFFECT: &str = r#"{"profiles": [], "identifiers": [], "transitions": []}"#;
const ERASED_COUNTS: [&str; 2] = ["events_moved", "events_gone"];

/// Whether nothing is left of an act and its effect but what an erasure leaves.
pub fn is_erased(act: &Value, effect: &Value) -> bool {
    let mut rest = effect.clone();
    let Some(fields) = rest.as_object_mut() else { return false };
    let counts = ERASED_COUNTS.map(|name| fields.remove(name).unwrap_or_default());
    let left =
        |text: &str, found: &Value| serde_json::from_str::<Value>(text).is_ok_and(|left| left == *found);
    counts.iter().all(|count| count.is_null() || count.is_u64())
        && left(ERASED_ACT, act)
        && left(ERASED_EFFECT, &rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_its_content_says_and_a_link_covers_what_is_before() {
        let mut entry =
            Entry::new(EntryKind::Read, "2024-03-01T00:00:00.000Z".into(), "GET /x".into(), Actor::default());
        entry.count = Some(2);
        entry.profiles = vec!["prf_1".into()];
        let content = entry.content();
        assert_eq!(serde_json::from_str::<Entry>(&content).unwrap(), entry);
        let first = link(&START, &content);
        assert_ne!(link(&first, &content), first);
        assert_ne!(link(&START, &content.replace('2', "3")), first);
        assert_ne!(digest(b"a", &Value::Null, &Value::Null), digest(b"b", &Value::Null, &Value::Null));
    }
}
