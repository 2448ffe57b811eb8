//! How message ids are stored inside of profiles: most are UUIDs, and a UUID is 16 bytes rather than 36 letters. To be
//! used with `#[serde(with)]`; what is read back is the text that was written.

use std::marker::PhantomData;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// Length of a stored UUID.
const UUID_BYTES: usize = 16;
/// Stands behind a text that would have the length of a UUID. No text ends with it.
const NOT_A_UUID: u8 = 0xff;

/// Writes 16 bytes for a UUID in its usual spelling, else the text.
pub fn serialize<S: Serializer>(id: &str, serializer: S) -> Result<S::Ok, S::Error> {
    if let Some(uuid) = usual(id) {
        return serializer.serialize_bytes(uuid.as_bytes());
    }
    if id.len() == UUID_BYTES {
        return serializer.serialize_bytes(&[id.as_bytes(), &[NOT_A_UUID]].concat());
    }
    serializer.serialize_bytes(id.as_bytes())
}

/// Reads what [`serialize`] has written.
pub fn deserialize<'de, D: Deserializer<'de>, T: for<'a> From<&'a str>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_bytes(Read(PhantomData))
}

/// The UUID that this is the usual spelling of: the one that is written again, letter by letter.
fn usual(id: &str) -> Option<Uuid> {
    let is_usual = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f' | b'-');
    (id.len() == Hyphenated::LENGTH && id.bytes().all(is_usual)).then(|| Uuid::try_parse(id).ok()).flatten()
}

struct Read<T>(PhantomData<T>);

impl<T: for<'a> From<&'a str>> Visitor<'_> for Read<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a message id")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<T, E> {
        if let Ok(uuid) = <[u8; UUID_BYTES]>::try_from(bytes) {
            let mut buffer = Uuid::encode_buffer();
            return Ok(T::from(Uuid::from_bytes(uuid).hyphenated().encode_lower(&mut buffer)));
        }
        let text = bytes.strip_suffix(&[NOT_A_UUID]).unwrap_or(bytes);
        std::str::from_utf8(text).map(T::from).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder {
        #[serde(with = "super")]
        id: String,
    }

    fn stored(id: &str) -> Vec<u8> {
        postcard::to_extend(&Holder { id: id.to_owned() }, Vec::new()).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(id in "(.{0,40}|.{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9A-F]{32}|[0-9a-fA-F-]{36})") {
            let read: Holder = postcard::from_bytes(&stored(&id)).unwrap();
            prop_assert_eq!(read.id, id);
        }
    }

    #[test]
    fn a_uuid_is_sixteen_bytes_in_its_usual_spelling_only() {
        assert_eq!(stored("5e4d526f-453a-8590-0000-000000000d00").len(), 17);
        assert_eq!(stored("5E4D526F-453A-8590-0000-000000000d00").len(), 37);
        assert_eq!(stored("5e4d526f453a85900000000000000d00").len(), 33);
        assert_eq!(stored("sixteen letters!").len(), 18);
        assert_eq!(stored(""), [0]);
    }
}
