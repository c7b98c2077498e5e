//! Sets of small numbers, each of them kept once.
//!
//! A set is a list of chunks of 512 numbers, and equal chunks are one: sets that differ in a few members, such as the zones
//! of neighbouring addresses or the services of neighbouring ports, share all but a few of theirs.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Numbers in a chunk: as many as a line of the set of tables has bits.
const CHUNK: usize = 512;

/// A chunk's members, a bit each.
type Chunk = [u64; CHUNK / 64];

/// All sets so far. Set 0 is the empty one.
pub(super) struct Sets {
    /// Chunks of a set.
    stride: usize,
    /// Chunk 0 is empty.
    chunks: Vec<Chunk>,
    chunk_numbers: HashTable<u32>,
    /// Numbers of the chunks of each set, `stride` each.
    rows: Vec<u32>,
    set_numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Sets {
    /// The empty set of numbers below `size`.
    pub(super) fn new(size: usize) -> Self {
        let mut sets = Self {
            stride: size.div_ceil(CHUNK).max(1),
            chunks: Vec::new(),
            chunk_numbers: HashTable::new(),
            rows: Vec::new(),
            set_numbers: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        };
        sets.chunk([0; CHUNK / 64]);
        let empty = sets.empty();
        sets.number(&empty);
        sets
    }

    /// The chunks of the empty set, to be changed by [`Self::put`].
    pub(super) fn empty(&self) -> Vec<u32> {
        vec![0; self.stride]
    }

    /// The chunks of a set.
    pub(super) fn row(&self, set: u32) -> &[u32] {
        let first = set as usize * self.stride;
        &self.rows[first..first + self.stride]
    }

    /// Puts a number into the set of these chunks, or takes it out.
    pub(super) fn put(&mut self, row: &mut [u32], number: usize, on: bool) {
        let chunk = &mut row[number / CHUNK];
        let mut bits = self.chunks[*chunk as usize];
        let bit = 1 << (number % 64);
        let word = &mut bits[number % CHUNK / 64];
        *word = if on { *word | bit } else { *word & !bit };
        *chunk = self.chunk(bits);
    }

    /// The number of the set of these chunks.
    pub(super) fn number(&mut self, row: &[u32]) -> u32 {
        let (rows, hasher, stride) = (&self.rows, &self.hasher, self.stride);
        let of = |set: u32| &rows[set as usize * stride..(set as usize + 1) * stride];
        let hash = hasher.hash_one(row);
        if let Some(set) = self.set_numbers.find(hash, |set| of(*set) == row) {
            return *set;
        }
        let set = (rows.len() / stride) as u32;
        self.set_numbers
            .insert_unique(hash, set, |set| hasher.hash_one(of(*set)));
        self.rows.extend_from_slice(row);
        set
    }

    /// The set with one more member.
    pub(super) fn with(&mut self, set: u32, member: usize) -> u32 {
        self.changed(set, member, true)
    }

    /// The set without a member.
    pub(super) fn without(&mut self, set: u32, member: usize) -> u32 {
        self.changed(set, member, false)
    }

    fn changed(&mut self, set: u32, member: usize, on: bool) -> u32 {
        let mut row = self.row(set).to_vec();
        self.put(&mut row, member, on);
        self.number(&row)
    }

    /// True if the set has this member.
    pub(super) fn has(&self, set: u32, member: usize) -> bool {
        let chunk = self.row(set)[member / CHUNK] as usize;
        self.chunks[chunk][member % CHUNK / 64] >> (member % 64) & 1 != 0
    }

    /// The members of a set, ascending.
    pub(super) fn iter(&self, set: u32) -> impl Iterator<Item = usize> + '_ {
        let chunks = self.row(set).iter().enumerate().filter(|(_, chunk)| **chunk != 0);
        chunks.flat_map(|(at, chunk)| {
            let words = self.chunks[*chunk as usize].iter().enumerate();
            words.flat_map(move |(index, word)| ones(*word, at * CHUNK + index * 64))
        })
    }

    fn chunk(&mut self, bits: Chunk) -> u32 {
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        let hash = hasher.hash_one(bits);
        if let Some(number) = self
            .chunk_numbers
            .find(hash, |number| chunks[*number as usize] == bits)
        {
            return *number;
        }
        let number = chunks.len() as u32;
        self.chunk_numbers
            .insert_unique(hash, number, |number| hasher.hash_one(chunks[*number as usize]));
        self.chunks.push(bits);
        number
    }
}

/// The numbers of the bits of a word, counted from `first`, ascending.
pub(super) fn ones(word: u64, first: usize) -> impl Iterator<Item = usize> {
    let mut left = word;
    std::iter::from_fn(move || {
        (left != 0).then(|| {
            let bit = left.trailing_zeros() as usize;
            left &= left - 1;
            first + bit
        })
    })
}

#[cfg(test)]
mod tests {
    use super::Sets;

    #[test]
    fn equal_sets_have_one_number() {
        let mut sets = Sets::new(1_200);
        let one = sets.with(0, 7);
        let two = sets.with(one, 1_199);
        let other_way = sets.with(0, 1_199);
        assert_eq!(sets.with(other_way, 7), two);
        assert_eq!(sets.with(two, 7), two);
        assert_eq!(sets.without(two, 1_199), one);
        assert_eq!(sets.without(one, 7), 0);
        assert_eq!(sets.iter(two).collect::<Vec<_>>(), [7, 1_199]);
        assert!(sets.has(two, 1_199) && !sets.has(one, 1_199) && !sets.has(0, 7));
    }
}
