//! Limit records of a table set.

use super::Lines;
use crate::abi::{LINE_WORDS, Line};

/// A limit record: half a line.
#[derive(Clone, Copy, Debug)]
pub struct LimitWords<'a> {
    line: &'a Line,
    first: u32,
}

impl LimitWords<'_> {
    /// Words of a record.
    const COUNT: u32 = 8;

    /// Word `index` of the record; it wraps.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, index: u32) -> u32 {
        let at = self.first | (index & (Self::COUNT - 1));
        self.line.w[at as usize & (LINE_WORDS - 1)]
    }
}

/// Limit record `number`.
#[inline(always)]
pub fn limit<'a, L: Lines<'a>>(lines: L, number: u32) -> Option<LimitWords<'a>> {
    const IN_LINE: u32 = LINE_WORDS as u32 / LimitWords::COUNT;
    let base = lines.line(1)?.w[4];
    Some(LimitWords {
        line: lines.line(base.wrapping_add(number / IN_LINE))?,
        first: number % IN_LINE * LimitWords::COUNT,
    })
}
