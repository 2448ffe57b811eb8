//! How lists by time are stored: short ones entry by entry, long ones as blocks. Of blocks only what is told of them as a
//! whole is read, and what nobody changed is written as it was.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::aggregate::Aggregate;
use super::blocks::{Block, Blocks, Content};
use super::by_time::{ByTime, Kind, PLAIN_MAX};
use crate::engine::packed::encode;

/// What is told of a block: how far it begins behind the end of the one before, how long it is in time, entries and bytes.
type Head = (i64, u64, u32, u32);

/// Number of entries, then those, each with its distance from the one before; or, when there are more than
/// [`PLAIN_MAX`], number of blocks, their heads, each with its total if it has one, and the content of all.
impl<A: Aggregate, K: Kind<A>> Serialize for ByTime<A, K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(0)?;
        tuple.serialize_element(&self.len())?;
        match self {
            Self::Plain(entries) => {
                let mut before = 0_i64;
                for (at, value) in entries {
                    tuple.serialize_element(&(at.wrapping_sub(before), value))?;
                    before = *at;
                }
            }
            Self::Blocks(blocks) => {
                tuple.serialize_element(&blocks.blocks.len())?;
                let content = serialize_heads(blocks, &mut tuple)?;
                tuple.serialize_element(&Together(&content))?;
            }
        }
        tuple.end()
    }
}

fn serialize_heads<A: Aggregate, K: Kind<A>, T: SerializeTuple>(
    Blocks { blocks, packed }: &Blocks<A, K>,
    tuple: &mut T,
) -> Result<Vec<u8>, T::Error> {
    let (mut content, mut before) = (Vec::with_capacity(packed.len() + 64), 0_i64);
    for block in blocks {
        let from = content.len();
        match &block.content {
            Content::Packed(range) => {
                content.extend_from_slice(packed.get(range.clone()).unwrap_or_default());
            }
            Content::Open(entries) => pack(entries, block.first, &mut content).map_err(T::Error::custom)?,
        }
        let head: Head = (
            block.first.wrapping_sub(before),
            block.last.wrapping_sub(block.first) as u64,
            block.count as u32,
            (content.len() - from) as u32,
        );
        tuple.serialize_element(&head)?;
        if let Some(total) = &block.total {
            tuple.serialize_element(total)?;
        }
        before = block.last;
    }
    Ok(content)
}

/// Bytes that are written in one piece.
struct Together<'a>(&'a [u8]);

impl Serialize for Together<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Entries one after the other, each with its distance from the one before.
fn pack<V: Serialize>(entries: &[(i64, V)], first: i64, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
    let mut before = first;
    for (at, value) in entries {
        encode(&(at.wrapping_sub(before), value), out)?;
        before = *at;
    }
    Ok(())
}

/// The entries that were packed. The checksum over the whole profile vouches for the bytes.
pub(super) fn unpack<V: DeserializeOwned>(mut bytes: &[u8], first: i64, count: usize) -> Vec<(i64, V)> {
    let (mut entries, mut before) = (Vec::with_capacity(count.min(bytes.len())), first);
    for _ in 0..count {
        let Ok(((delta, value), rest)) = postcard::take_from_bytes::<(i64, V)>(bytes) else { break };
        before = before.wrapping_add(delta);
        entries.push((before, value));
        bytes = rest;
    }
    entries
}

impl<'de, A: Aggregate, K: Kind<A>> Deserialize<'de> for ByTime<A, K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple(usize::MAX, Reading(PhantomData))
    }
}

struct Reading<A, K>(PhantomData<(A, K)>);

impl<'de, A: Aggregate, K: Kind<A>> Visitor<'de> for Reading<A, K> {
    type Value = ByTime<A, K>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list by time")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        let count: usize = next(&mut seq)?;
        if count > PLAIN_MAX {
            return Ok(ByTime::Blocks(visit_blocks(&mut seq)?));
        }
        let (mut entries, mut before) = (Vec::with_capacity(count), 0_i64);
        for _ in 0..count {
            let (delta, value): (i64, K::Value) = next(&mut seq)?;
            before = before.wrapping_add(delta);
            entries.push((before, value));
        }
        Ok(ByTime::Plain(entries))
    }
}

fn visit_blocks<'de, A: Aggregate, K: Kind<A>, S: SeqAccess<'de>>(
    seq: &mut S,
) -> Result<Blocks<A, K>, S::Error> {
    let count: usize = next(seq)?;
    let (mut blocks, mut before, mut end) = (Vec::new(), 0_i64, 0_usize);
    for _ in 0..count {
        let (behind, length, count, bytes): Head = next(seq)?;
        let first = before.wrapping_add(behind);
        let last = first.wrapping_add(length as i64);
        let total = if A::IS_SMALL { Some(next(seq)?) } else { None };
        let range = end..end + bytes as usize;
        (before, end) = (last, range.end);
        blocks.push(Block { first, last, count: count as usize, total, content: Content::Packed(range) });
    }
    let packed: &'de [u8] = next(seq)?;
    Ok(Blocks { blocks, packed: packed.to_vec() })
}

fn next<'de, T: Deserialize<'de>, S: SeqAccess<'de>>(seq: &mut S) -> Result<T, S::Error> {
    seq.next_element()?.ok_or_else(|| S::Error::custom("cut short"))
}
