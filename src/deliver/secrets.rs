//! Secrets of destinations at rest: AES-256-GCM with a key that is not in the database (reliability.md T11).
//!
//! What is sealed names its key, and belongs to one destination: moved to another row it cannot be opened.

use std::fmt;
use std::io::Write;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::clock::IdMaker;

/// First byte of what is sealed.
const FORMAT: u8 = 1;
/// Digits a key is known by.
const ID_CHARS: usize = 16;
/// What is wrong with a key file.
const NO_KEY_IN_FILE: &str = "it must hold 64 hexadecimal digits";

/// Why secrets cannot be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// There is none.
    #[error(
        "there is no key to encrypt secrets with: set deliver.secret_key or deliver.secret_key_file to 64 hexadecimal digits"
    )]
    NoKey,
    /// It was sealed with another key.
    #[error(
        "its secrets are encrypted with the key {key}, and this server has {known}: give that key as deliver.secret_key or in \
         deliver.secret_keys_old, start again and resume the destination, or give the secrets anew"
    )]
    OtherKey {
        /// The id of that key: the beginning of its SHA-256.
        key: String,
        /// Ids of the keys there are.
        known: String,
    },
    /// Not what was sealed.
    #[error("the stored secrets are damaged: give them anew")]
    Damaged,
    /// The key file.
    #[error("the key file {path} cannot be used: {why}")]
    File {
        /// Its path.
        path: String,
        /// What is wrong.
        why: String,
    },
}

struct Key {
    id: String,
    key: LessSafeKey,
}

/// The keys of this process.
#[derive(Default)]
pub struct Keys {
    /// Seals, and opens.
    present: Option<Key>,
    /// Only open.
    old: Vec<Key>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = |keys: &[Key]| keys.iter().map(|key| key.id.clone()).collect::<Vec<_>>();
        let present = self.present.as_ref().map(|key| &key.id);
        f.debug_struct("Keys").field("present", &present).field("old", &ids(&self.old)).finish()
    }
}

fn key(hex: &str) -> Option<Key> {
    let bytes = hex::decode(hex.trim()).ok()?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?);
    let id = hex::encode(Sha256::digest(&bytes)).chars().take(ID_CHARS).collect();
    Some(Key { id, key })
}

impl Keys {
    /// The present key, as hexadecimal digits.
    pub fn new(present: &str) -> Self {
        Self { present: key(present), old: Vec::new() }
    }

    /// Adds a key of before, as hexadecimal digits.
    pub fn add_old(&mut self, old: &str) {
        self.old.extend(key(old));
    }

    /// Adds the key of before that is in a file.
    pub fn add_old_file(&mut self, path: &Path) -> Result<(), SecretsError> {
        let failed = |why: String| SecretsError::File { path: path.display().to_string(), why };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        self.old.push(key(&text).ok_or_else(|| failed(NO_KEY_IN_FILE.to_owned()))?);
        Ok(())
    }

    /// The id of the present key.
    pub fn present(&self) -> Option<&str> {
        self.present.as_ref().map(|key| key.id.as_str())
    }

    /// The key of a file, which is made with a new one where `may_make` and there is none.
    pub fn from_file(path: &Path, may_make: Option<&IdMaker>) -> Result<Self, SecretsError> {
        let failed = |why: String| SecretsError::File { path: path.display().to_string(), why };
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && may_make.is_some() => {
                let made = may_make.map(|ids| hex::encode(ids.bytes::<32>())).unwrap_or_default();
                make_file(path, &made).map_err(|error| failed(error.to_string()))?;
                made
            }
            read => read.map_err(|error| failed(error.to_string()))?,
        };
        let keys = Self::new(&text);
        if keys.present.is_none() {
            return Err(failed(NO_KEY_IN_FILE.to_owned()));
        }
        Ok(keys)
    }

    /// Seals secrets of a destination; with the id of the key.
    pub fn seal(
        &self,
        of: Uuid,
        secrets: &Map<String, Value>,
        ids: &IdMaker,
    ) -> Result<(Vec<u8>, String), SecretsError> {
        let key = self.present.as_ref().ok_or(SecretsError::NoKey)?;
        let nonce: [u8; NONCE_LEN] = ids.bytes();
        let mut sealed = Value::Object(secrets.clone()).to_string().into_bytes();
        let aad = Aad::from(of.into_bytes());
        key.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(|_| SecretsError::Damaged)?;
        let bytes = [&[FORMAT][..], &nonce, &sealed].concat();
        Ok((bytes, key.id.clone()))
    }

    /// Opens what was sealed for a destination.
    pub fn open(&self, of: Uuid, sealed: &[u8], key_id: &str) -> Result<Map<String, Value>, SecretsError> {
        let known = || self.present.iter().chain(&self.old);
        let key = known().find(|key| key.id == key_id).ok_or_else(|| {
            let known: Vec<&str> = known().map(|key| key.id.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            SecretsError::OtherKey { key: key_id.to_owned(), known }
        })?;
        let damaged = || SecretsError::Damaged;
        let (format, rest) = sealed.split_first().ok_or_else(damaged)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        if *format != FORMAT {
            return Err(damaged());
        }
        let mut sealed = sealed.to_vec();
        let opened = key.key.open_in_place(nonce, Aad::from(of.into_bytes()), &mut sealed);
        match serde_json::from_slice(opened.map_err(|_| damaged())?) {
            Ok(Value::Object(secrets)) => Ok(secrets),
            _ => Err(damaged()),
        }
    }
}

/// Nobody else may read it, from the beginning.
fn make_file(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn what_is_sealed_is_opened_by_its_key_for_its_destination_alone() {
        let ids = IdMaker::new(Clock::System);
        let (one, two) = ("11".repeat(32), "22".repeat(32));
        let keys = Keys::new(&one);
        let secrets = Map::from_iter([("secret".to_owned(), Value::from("whsec_canary"))]);
        let of = ids.uuid();
        let (sealed, id) = keys.seal(of, &secrets, &ids).unwrap();
        assert!(!sealed.windows(6).any(|bytes| bytes == b"canary"));
        assert_ne!(sealed, keys.seal(of, &secrets, &ids).unwrap().0, "a nonce is never used twice");
        assert_eq!(keys.open(of, &sealed, &id).unwrap(), secrets);
        assert_eq!(keys.open(ids.uuid(), &sealed, &id), Err(SecretsError::Damaged));
        let mut rotated = Keys::new(&two);
        rotated.add_old(&"33".repeat(32));
        rotated.add_old(&one);
        assert_eq!(rotated.open(of, &sealed, &id).unwrap(), secrets);
        let other = Keys::new(&two);
        let known = other.present().unwrap().to_owned();
        assert_eq!(other.open(of, &sealed, &id), Err(SecretsError::OtherKey { key: id.clone(), known }));
        assert!(matches!(Keys::default().seal(of, &secrets, &ids), Err(SecretsError::NoKey)));
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            assert!(keys.open(of, &damaged, &id).is_err(), "{place}");
        }
        assert!(!format!("{keys:?}").contains("1111"));
    }

    #[test]
    fn a_key_file_is_made_once_and_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.key");
        let ids = IdMaker::new(Clock::System);
        assert!(matches!(Keys::from_file(&path, None), Err(SecretsError::File { .. })));
        let made = Keys::from_file(&path, Some(&ids)).unwrap();
        let again = Keys::from_file(&path, Some(&ids)).unwrap();
        assert_eq!(format!("{made:?}"), format!("{again:?}"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "too short").unwrap();
        assert!(matches!(Keys::from_file(&path, None), Err(SecretsError::File { .. })));
    }
}
