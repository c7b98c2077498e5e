//! The IPv4 map: strides 16-4-4-4-4. Equal nodes are written once, in whatever realm they occur.

use fw_common::abi::{LINE_WORDS, Line, V4_LEAF};
use hashbrown::HashMap;

use super::CompileError;
use super::lines::{Lines, Pool, Section};

/// Entries of a root: one for each value of the first 16 bits.
const ROOT: u32 = 1 << 16;

#[derive(Default)]
pub(super) struct Writer<'i> {
    nodes: Pool,
    roots: HashMap<&'i [(u32, u32)], u32>,
}

impl<'i> Writer<'i> {
    /// Writes the map of a realm, given as (first address, class) in order, and returns the line of its root.
    pub(super) fn write(
        &mut self,
        intervals: &'i [(u32, u32)],
        lines: &mut Lines,
    ) -> Result<u32, CompileError> {
        if let Some(root) = self.roots.get(intervals) {
            return Ok(*root);
        }
        let root = lines.reserve_words(Section::Ipv4, u64::from(ROOT))?;
        let mut rest = intervals;
        for index in 0..ROOT {
            let entry = self.entry(&mut rest, index << 16, 16, lines)?;
            lines.set_word(root, index, entry);
        }
        self.roots.insert(intervals, root);
        Ok(root)
    }

    /// The entry for the 2^`bits` addresses from `first` on. `rest` begins with the interval that holds `first`, and
    /// afterwards with the one that holds the last address.
    fn entry(
        &mut self,
        rest: &mut &[(u32, u32)],
        first: u32,
        bits: u32,
        lines: &mut Lines,
    ) -> Result<u32, CompileError> {
        let last = first | ((1 << bits) - 1);
        while rest.get(1).is_some_and(|(next, _)| *next <= first) {
            *rest = &rest[1..];
        }
        if rest.get(1).is_none_or(|(next, _)| *next > last) {
            // The space is covered from 0 on, so there is an interval.
            return Ok(V4_LEAF | rest.first().map_or(0, |(_, class)| *class));
        }
        // An interval begins behind `first` and up to `last`, so `bits` is at least 4 here: ranges are aligned, and a
        // single address cannot be cut.
        let bits = bits - 4;
        let mut node = [0; LINE_WORDS];
        for (child, entry) in (0_u32..).zip(&mut node) {
            *entry = self.entry(rest, first | (child << bits), bits, lines)?;
        }
        lines.share(Section::Ipv4, &mut self.nodes, Line { w: node })
    }
}
