//! The blocks of a long list by time.
//!
//! A block begins at the first entry of a time that [`begins_block`] chooses; entries of one time are in one block. Only
//! the first block may begin anywhere: entries leave a list at its old end. A block that nobody changes stays packed.

use std::borrow::Cow;
use std::ops::Range;

use super::aggregate::Aggregate;
use super::by_time::{Kind, add_entries};
use super::stored_blocks as stored;

/// One of so many times begins a block.
const PER_BLOCK: u64 = 32;

/// Whether a block begins at this time: as good as by chance, but always the same.
const fn begins_block(key: i64) -> bool {
    // The multiplier of Fibonacci hashing: times that follow each other regularly are spread out, too.
    ((key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32).is_multiple_of(PER_BLOCK)
}

/// A long list.
#[derive(Debug, Clone)]
pub(super) struct Blocks<A: Aggregate, K: Kind<A>> {
    pub(super) blocks: Vec<Block<A, K>>,
    /// What the packed ones are made of.
    pub(super) packed: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(super) struct Block<A: Aggregate, K: Kind<A>> {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) count: usize,
    /// All of it together, where that takes little.
    pub(super) total: Option<A>,
    pub(super) content: Content<K::Value>,
}

#[derive(Debug, Clone)]
pub(super) enum Content<V> {
    Packed(Range<usize>),
    Open(Vec<(i64, V)>),
}

impl<A: Aggregate, K: Kind<A>> Block<A, K> {
    fn of(entries: Vec<(i64, K::Value)>) -> Option<Self> {
        let (first, last) = (entries.first()?.0, entries.last()?.0);
        let total = A::IS_SMALL.then(|| {
            let mut total = A::default();
            add_entries::<A, K>(&entries, &mut total, i64::MIN, i64::MAX);
            total
        });
        Some(Self { first, last, count: entries.len(), total, content: Content::Open(entries) })
    }
}

impl<A: Aggregate, K: Kind<A>> Blocks<A, K> {
    pub(super) fn of(entries: Vec<(i64, K::Value)>) -> Self {
        Self { blocks: cut(entries), packed: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.count).sum()
    }

    pub(super) fn put(&mut self, key: i64, put: impl FnOnce(&mut Vec<(i64, K::Value)>)) {
        let place = self.blocks.partition_point(|block| block.first <= key).saturating_sub(1);
        let mut entries = self.take(place..place + 1);
        put(&mut entries);
        self.blocks.splice(place..place, cut(entries));
    }

    pub(super) fn into_entries(mut self) -> Vec<(i64, K::Value)> {
        self.take(0..self.blocks.len())
    }

    pub(super) fn take_oldest(&mut self, count: usize) -> Vec<(i64, K::Value)> {
        let (mut blocks, mut entries) = (0, 0);
        while entries < count
            && let Some(block) = self.blocks.get(blocks)
        {
            entries += block.count;
            blocks += 1;
        }
        let mut taken = self.take(0..blocks);
        let rest = taken.split_off(count.min(taken.len()));
        self.blocks.splice(0..0, Block::of(rest));
        taken
    }

    /// How many entries are before `key`.
    pub(super) fn count_before(&self, key: i64) -> usize {
        let whole = self.blocks.partition_point(|block| block.last < key);
        let (before, behind) = self.blocks.split_at_checked(whole).unwrap_or_default();
        let begun = behind.first().filter(|block| block.first < key);
        let begun = begun.map_or(0, |block| self.entries(block).partition_point(|(at, _)| *at < key));
        before.iter().map(|block| block.count).sum::<usize>() + begun
    }

    pub(super) fn drop_before(&mut self, key: i64) {
        self.blocks.drain(..self.blocks.partition_point(|block| block.last < key));
        if self.blocks.first().is_some_and(|block| block.first < key) {
            let mut entries = self.take(0..1);
            entries.drain(..entries.partition_point(|(at, _)| *at < key));
            self.blocks.splice(0..0, Block::of(entries));
        }
    }

    pub(super) fn add_to(&self, total: &mut A, from: i64, to: i64) {
        for block in self.blocks.iter().filter(|block| from <= block.last && block.first <= to) {
            let is_inside = from <= block.first && block.last <= to;
            match block.total.as_ref().filter(|_| is_inside) {
                Some(whole) => total.merge(whole.clone()),
                None => add_entries::<A, K>(&self.entries(block), total, from, to),
            }
        }
    }

    pub(super) fn first_from(&self, key: i64) -> Option<i64> {
        let block = self.blocks.get(self.blocks.partition_point(|block| block.last < key))?;
        if block.first >= key {
            return Some(block.first);
        }
        let entries = self.entries(block);
        entries.get(entries.partition_point(|(at, _)| *at < key)).map(|(at, _)| *at)
    }

    pub(super) fn iter_from(&self, key: i64) -> impl Iterator<Item = (i64, Cow<'_, K::Value>)> {
        let blocks = self.blocks.iter().skip_while(move |block| block.last < key);
        blocks.flat_map(|block| self.entries_of(block)).skip_while(move |(at, _)| *at < key)
    }

    fn entries_of<'s>(
        &'s self,
        block: &'s Block<A, K>,
    ) -> Box<dyn Iterator<Item = (i64, Cow<'s, K::Value>)> + 's> {
        match self.entries(block) {
            Cow::Borrowed(entries) => Box::new(entries.iter().map(|(at, value)| (*at, Cow::Borrowed(value)))),
            Cow::Owned(entries) => Box::new(entries.into_iter().map(|(at, value)| (at, Cow::Owned(value)))),
        }
    }

    fn entries<'s>(&'s self, block: &'s Block<A, K>) -> Cow<'s, [(i64, K::Value)]> {
        match &block.content {
            Content::Open(entries) => Cow::Borrowed(entries),
            Content::Packed(range) => Cow::Owned(self.unpack(block.first, range, block.count)),
        }
    }

    fn unpack(&self, first: i64, range: &Range<usize>, count: usize) -> Vec<(i64, K::Value)> {
        stored::unpack(self.packed.get(range.clone()).unwrap_or_default(), first, count)
    }

    /// Takes blocks out, as their entries.
    fn take(&mut self, range: Range<usize>) -> Vec<(i64, K::Value)> {
        let taken: Vec<Block<A, K>> = self.blocks.splice(range, []).collect();
        let entries = taken.into_iter().flat_map(|block| match block.content {
            Content::Open(entries) => entries,
            Content::Packed(range) => self.unpack(block.first, &range, block.count),
        });
        entries.collect()
    }
}

/// Cuts entries, in their order, into blocks.
fn cut<A: Aggregate, K: Kind<A>>(entries: Vec<(i64, K::Value)>) -> Vec<Block<A, K>> {
    let (mut blocks, mut block) = (Vec::new(), Vec::<(i64, K::Value)>::new());
    for entry in entries {
        if block.last().is_some_and(|(at, _)| *at != entry.0) && begins_block(entry.0) {
            blocks.extend(Block::of(std::mem::take(&mut block)));
        }
        block.push(entry);
    }
    blocks.extend(Block::of(block));
    blocks
}
