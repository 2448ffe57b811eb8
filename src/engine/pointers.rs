//! Pointers of a profile to its events in the log: the newest in its row, older ones spilled into pages.

use bytes::Bytes;

use crate::domain::varint::{get_varint, put_varint, unzigzag, zigzag};
use crate::domain::{Offset, Timestamp};

/// Pointers kept inside the row; more are spilled into a page.
pub const POINTERS_MAX: usize = 64;

/// Where one of the profile's events stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Pointer {
    /// Its place in the log.
    pub offset: Offset,
    /// Its event time.
    pub at: Timestamp,
}

/// The pointers in a row. Stored newest first, each as the distance to the next newer one, so that a new one is put
/// before what is there without reading it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pointers {
    stored: Bytes,
    /// How many are stored.
    stored_len: usize,
    /// Those that came since, in log order.
    added: Vec<Pointer>,
}

impl Pointers {
    /// What [`Pointers::write`] has written.
    pub(super) fn stored(stored: Bytes) -> Self {
        let stored_len = get_varint(&mut &*stored).unwrap_or_default() as usize;
        Self { stored, stored_len, added: Vec::new() }
    }

    pub(super) const fn len(&self) -> usize {
        self.stored_len + self.added.len()
    }

    pub(super) fn push(&mut self, pointer: Pointer) {
        self.added.push(pointer);
    }

    /// Adds those of another profile: the list stays in log order.
    pub(super) fn merge(&mut self, other: &Self) {
        let mut all = self.list();
        all.extend(other.list());
        all.sort_unstable();
        *self = Self { added: all, ..Self::default() };
    }

    /// All of them, in log order.
    pub(super) fn list(&self) -> Vec<Pointer> {
        let mut list = read(&self.stored).unwrap_or_default();
        list.reverse();
        list.extend_from_slice(&self.added);
        list
    }

    /// Appends the stored form: nothing for none.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if self.added.is_empty() {
            out.extend_from_slice(&self.stored);
            return;
        }
        put_varint(out, self.len() as u64);
        let mut newer = None;
        for pointer in self.added.iter().rev() {
            put_step(out, newer, *pointer);
            newer = Some(*pointer);
        }
        let mut rest: &[u8] = &self.stored;
        if get_varint(&mut rest).is_some()
            && let Some(newest) = get_step(&mut rest, None)
        {
            put_step(out, newer, newest);
            out.extend_from_slice(rest);
        }
    }
}

/// Pointers in few bytes, as a page of spilled ones keeps them.
pub fn encode_pointers(pointers: &[Pointer]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pointers.len() * 5);
    Pointers { added: pointers.to_vec(), ..Pointers::default() }.write(&mut out);
    out
}

/// Inverse of [`encode_pointers`]; `None` when the bytes are not what was written.
pub fn decode_pointers(bytes: &[u8]) -> Option<Vec<Pointer>> {
    let mut list = read(bytes)?;
    list.reverse();
    Some(list)
}

/// Newest first.
fn read(mut bytes: &[u8]) -> Option<Vec<Pointer>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let count = get_varint(&mut bytes)? as usize;
    let mut list = Vec::with_capacity(count.min(bytes.len()));
    while !bytes.is_empty() {
        list.push(get_step(&mut bytes, list.last().copied())?);
    }
    (list.len() == count).then_some(list)
}

/// The newest pointer stands for itself, the others by their distance to the next newer one.
fn put_step(out: &mut Vec<u8>, newer: Option<Pointer>, pointer: Pointer) {
    let (offset, at) = (pointer.offset.0, pointer.at.millis());
    let (by, time) = newer.map_or((offset, at), |newer| {
        (newer.offset.0.wrapping_sub(offset), newer.at.millis().wrapping_sub(at))
    });
    put_varint(out, by);
    put_varint(out, zigzag(time));
}

fn get_step(bytes: &mut &[u8], newer: Option<Pointer>) -> Option<Pointer> {
    let (by, time) = (get_varint(bytes)?, unzigzag(get_varint(bytes)?));
    let (offset, at) = newer
        .map_or((by, time), |newer| (newer.offset.0.wrapping_sub(by), newer.at.millis().wrapping_sub(time)));
    Some(Pointer { offset: Offset(offset), at: Timestamp::from_millis(at) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_read_back_however_they_came(
            list in proptest::collection::vec((any::<u64>(), any::<i64>()), 0..80), split in 0_usize..80,
        ) {
            let pointer = |(offset, at)| Pointer { offset: Offset(offset), at: Timestamp::from_millis(at) };
            let pointers: Vec<Pointer> = list.into_iter().map(pointer).collect();
            let whole = encode_pointers(&pointers);
            prop_assert_eq!(decode_pointers(&whole), Some(pointers.clone()));
            let (first, rest) = pointers.split_at(split.min(pointers.len()));
            let mut held = Pointers::stored(encode_pointers(first).into());
            for pointer in rest {
                held.push(*pointer);
            }
            prop_assert_eq!((held.list(), held.len()), (pointers.clone(), pointers.len()));
            let mut out = Vec::new();
            held.write(&mut out);
            prop_assert_eq!(out, whole);
        }

        #[test]
        fn damage_is_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _any = decode_pointers(&bytes);
            let _any = Pointers::stored(bytes.into()).list();
        }
    }
}
