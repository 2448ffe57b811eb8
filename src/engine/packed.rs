//! Packed parts of a profile: bytes as they are stored, and what has changed since.
//!
//! An event touches a few of the many things a profile has. So a part is decoded when somebody looks at it, and what
//! nobody changed is written back as the bytes it was: reading and writing a profile costs what the event touches.
//! Equal content has equal bytes, whatever the history of changes. The checksum over the whole profile vouches for
//! the bytes before anything in here looks at them.

use std::borrow::Cow;
use std::iter::Peekable;
use std::sync::OnceLock;

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::varint::{get_varint, put_varint};

/// A value that is decoded when it is looked at.
#[derive(Debug, Clone, Default)]
pub struct Part<T> {
    stored: Bytes,
    value: OnceLock<T>,
    changed: bool,
}

impl<T: Serialize + DeserializeOwned + Default + PartialEq> Part<T> {
    /// A value as it was written by [`Part::write`].
    pub(super) const fn stored(stored: Bytes) -> Self {
        Self { stored, value: OnceLock::new(), changed: false }
    }

    /// The value.
    pub fn get(&self) -> &T {
        self.value.get_or_init(|| decode(&self.stored).unwrap_or_default())
    }

    /// Lets `change` work on the value, and returns what it returns.
    pub fn update<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        self.get();
        let mut value = self.value.take().unwrap_or_default();
        let result = change(&mut value);
        self.value = OnceLock::from(value);
        self.changed = true;
        result
    }

    /// Whether anybody may have changed it since it was read.
    pub const fn is_changed(&self) -> bool {
        self.changed
    }

    /// Appends the stored form: nothing for the default value.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
        if !self.changed {
            out.extend_from_slice(&self.stored);
        } else if *self.get() != T::default() {
            encode(self.get(), out)?;
        }
        Ok(())
    }
}

/// A map from numbers to values that are decoded when they are looked at.
#[derive(Debug, Clone)]
pub(super) struct Packed<V> {
    /// (key, length, value) after one another, by key.
    stored: Bytes,
    /// By key; `None` where there is no value any more.
    changes: Vec<(u32, Option<V>)>,
}

impl<V> Default for Packed<V> {
    fn default() -> Self {
        Self { stored: Bytes::new(), changes: Vec::new() }
    }
}

impl<V: Serialize + DeserializeOwned + Clone> Packed<V> {
    /// A map as it was written by [`Packed::write`].
    pub(super) const fn stored(stored: Bytes) -> Self {
        Self { stored, changes: Vec::new() }
    }

    fn find(&self, key: u32) -> Option<&[u8]> {
        let mut entries = Entries(&self.stored);
        entries.find(|entry| entry.key >= key).filter(|entry| entry.key == key).map(|entry| entry.value)
    }

    fn change(&self, key: u32) -> Result<usize, usize> {
        self.changes.binary_search_by_key(&key, |(key, _)| *key)
    }

    /// The value of a key.
    pub(super) fn get(&self, key: u32) -> Option<Cow<'_, V>> {
        match self.change(key) {
            Ok(place) => self.changes.get(place)?.1.as_ref().map(Cow::Borrowed),
            Err(_) => self.find(key).and_then(decode).map(Cow::Owned),
        }
    }

    /// Sets or removes the value of a key.
    pub(super) fn set(&mut self, key: u32, value: Option<V>) {
        match self.change(key) {
            Ok(place) => {
                if let Some(slot) = self.changes.get_mut(place) {
                    slot.1 = value;
                }
            }
            Err(place) => self.changes.insert(place, (key, value)),
        }
    }

    /// Lets `change` work on the value of a key, the default one if there is none; it says whether there is another
    /// value now, and `keep` whether that is one to be kept.
    pub(super) fn update(
        &mut self,
        key: u32,
        change: impl FnOnce(&mut V) -> bool,
        keep: impl FnOnce(&V) -> bool,
    ) -> bool
    where
        V: Default,
    {
        match self.change(key) {
            Ok(place) => {
                let Some((_, slot)) = self.changes.get_mut(place) else { return false };
                let mut value = slot.take().unwrap_or_default();
                let changed = change(&mut value);
                *slot = Some(value).filter(keep);
                changed
            }
            Err(place) => {
                let mut value: V = self.find(key).and_then(decode).unwrap_or_default();
                let changed = change(&mut value);
                if changed {
                    self.changes.insert(place, (key, Some(value).filter(keep)));
                }
                changed
            }
        }
    }

    /// All values, by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Cow<'_, V>)> {
        let stored = Entries(&self.stored).peekable();
        Merged { stored, changes: self.changes.iter().peekable() }
    }

    /// Removes every key that `keep` does not accept.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        let gone: Vec<u32> = self.keys().filter(|key| !keep(*key)).collect();
        for key in gone {
            self.set(key, None);
        }
    }

    /// All keys that have a value, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = u32> {
        let stored = Entries(&self.stored).map(|entry| entry.key).filter(|key| self.change(*key).is_err());
        let changed = self.changes.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| *key);
        let mut keys: Vec<u32> = stored.chain(changed).collect();
        keys.sort_unstable();
        keys.into_iter()
    }

    /// Whether there is no value at all.
    pub(super) fn is_empty(&self) -> bool {
        if self.changes.is_empty() { self.stored.is_empty() } else { self.keys().next().is_none() }
    }

    /// Appends the stored form: runs of what has not changed as they are, and what has.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
        let stored: &[u8] = &self.stored;
        let (mut entries, mut copied) = (Entries(stored).peekable(), 0);
        for (key, value) in &self.changes {
            let mut run = copied;
            while let Some(before) = entries.next_if(|entry| entry.key < *key) {
                run = stored.len() - before.behind;
            }
            out.extend_from_slice(stored.get(copied..run).unwrap_or_default());
            copied = run;
            if let Some(same) = entries.next_if(|entry| entry.key == *key) {
                copied = stored.len() - same.behind;
            }
            if let Some(value) = value {
                put_varint(out, u64::from(*key));
                encode_with_length(value, out)?;
            }
        }
        out.extend_from_slice(stored.get(copied..).unwrap_or_default());
        Ok(())
    }
}

/// The entries of a stored map.
struct Entries<'a>(&'a [u8]);

#[derive(Clone, Copy)]
struct Entry<'a> {
    key: u32,
    value: &'a [u8],
    /// Bytes behind it.
    behind: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let key = get_varint(&mut self.0)? as u32;
        let len = get_varint(&mut self.0)? as usize;
        let (value, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(Entry { key, value, behind: rest.len() })
    }
}

/// Stored entries and changes together, by key.
struct Merged<'a, V: 'a, C: Iterator<Item = &'a (u32, Option<V>)>> {
    stored: Peekable<Entries<'a>>,
    changes: Peekable<C>,
}

impl<'a, V: DeserializeOwned + Clone + 'a, C: Iterator<Item = &'a (u32, Option<V>)>> Iterator
    for Merged<'a, V, C>
{
    type Item = (u32, Cow<'a, V>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let changed = self.changes.peek().map(|(key, _)| *key);
            if let Some(entry) = self.stored.next_if(|entry| changed.is_none_or(|key| entry.key < key)) {
                if let Some(value) = decode(entry.value) {
                    return Some((entry.key, Cow::Owned(value)));
                }
                continue;
            }
            let (key, value) = self.changes.next()?;
            // The change hides what was stored.
            self.stored.next_if(|entry| entry.key == *key);
            if let Some(value) = value {
                return Some((*key, Cow::Borrowed(value)));
            }
        }
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    if bytes.is_empty() { None } else { postcard::from_bytes(bytes).ok() }
}

/// Appends the length of a value's encoding and the encoding. Most take one byte of length, which is put right behind
/// them; longer ones are moved.
fn encode_with_length<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
    let at = out.len();
    out.push(0);
    encode(value, out)?;
    let length = out.len() - at - 1;
    match out.get_mut(at) {
        Some(slot) if length < 0x80 => *slot = length as u8,
        _ => {
            let mut prefix = Vec::new();
            put_varint(&mut prefix, length as u64);
            out.splice(at..=at, prefix);
        }
    }
    Ok(())
}

/// Appends a value's encoding.
pub(super) fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
    postcard::serialize_with_flavor(value, Appending(out))
}

struct Appending<'a>(&'a mut Vec<u8>);

impl Flavor for Appending<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn written(packed: &Packed<String>) -> Vec<u8> {
        let mut out = Vec::new();
        packed.write(&mut out).unwrap();
        out
    }

    proptest! {
        /// Whatever is changed, read and stored in between, it is the map it should be, down to its bytes.
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((0_u32..300, proptest::option::of("(.{0,9}|a{120,140})"), any::<bool>()), 0..40)) {
            let (mut packed, mut model) = (Packed::<String>::default(), BTreeMap::new());
            for (key, value, store) in steps {
                packed.set(key, value.clone());
                match value {
                    Some(value) => _ = model.insert(key, value),
                    None => _ = model.remove(&key),
                }
                if store {
                    packed = Packed::stored(written(&packed).into());
                }
                prop_assert_eq!(packed.get(key).map(Cow::into_owned), model.get(&key).cloned());
            }
            let all: BTreeMap<u32, String> = packed.iter().map(|(key, value)| (key, value.into_owned())).collect();
            prop_assert_eq!(&all, &model);
            prop_assert_eq!(packed.keys().collect::<Vec<_>>(), model.keys().copied().collect::<Vec<_>>());
            let mut fresh = Packed::default();
            for (key, value) in model {
                fresh.set(key, Some(value));
            }
            prop_assert_eq!(written(&fresh), written(&packed));
        }

        #[test]
        fn damage_is_nothing_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), key in 0_u32..200) {
            let mut packed = Packed::<String>::stored(bytes.into());
            let _any = packed.get(key);
            packed.set(key, Some("x".into()));
            let _all = packed.iter().count();
            written(&packed);
        }
    }

    #[test]
    fn what_update_does_not_change_stays_as_it_was() {
        let mut packed = Packed::<String>::default();
        packed.set(7, Some("seven".into()));
        packed = Packed::stored(written(&packed).into());
        assert!(!packed.update(7, |_| false, |_| true));
        assert!(packed.changes.is_empty());
        assert!(packed.update(
            7,
            |value| {
                value.clear();
                true
            },
            |value| !value.is_empty()
        ));
        assert!(packed.is_empty() && written(&packed).is_empty());
    }
}
