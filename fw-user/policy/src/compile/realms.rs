//! From VLAN tags to the address maps of their realm.

use std::collections::BTreeMap;

use fw_common::abi::LINE_WORDS;

use super::address::Cut;
use super::lines::{Lines, Section};
use super::{CompileError, tree6, trie4};
use crate::model::Tags;

/// Realm records that a table's 16-bit entries can name; 0 means none.
const MAX_REALMS: usize = u16::MAX as usize;
/// VLAN ids that a table has entries for, two of them in a word.
const IDS: u64 = 4096;

/// Where the tables lie.
pub(super) struct Realms {
    /// Line of the table by VLAN id.
    pub(super) table: u32,
    /// Line of realm record 0.
    pub(super) records: u32,
    /// Line of the table by outer VLAN id; 0: no zone has two tags.
    pub(super) stacks: u32,
    /// Line of the first table by inner VLAN id.
    pub(super) stack_tables: u32,
    /// Number of realms.
    pub(super) count: usize,
    /// Lines that the look-up of an IPv6 address loads at most.
    pub(super) v6_lines: u32,
}

/// Writes the address maps of all realms, and the tables that lead to them.
pub(super) fn write(cut: &Cut, lines: &mut Lines) -> Result<Realms, CompileError> {
    let realms = &cut.realms;
    if realms.len() > MAX_REALMS {
        return Err(CompileError::TooMany {
            what: "pairs of VLAN tags",
            count: realms.len(),
            limit: MAX_REALMS,
            most: String::new(),
        });
    }
    let table = lines.reserve_words(Section::Realms, IDS / 2)?;
    // Record 0 is never used, so that 0 can mean "no record".
    let records = lines.reserve(Section::Realms, realms.len() as u64 + 1)?;
    let mut stacked: BTreeMap<u16, Vec<(u16, u16)>> = BTreeMap::new();
    let (mut v4, mut v6) = (trie4::Writer::default(), tree6::Writer::default());
    let mut v6_lines = 0;
    for ((number, tags), intervals) in (1_u32..).zip(realms).zip(&cut.intervals) {
        let Tags { outer, inner } = *tags;
        if inner == 0 {
            lines.set_half(table, u32::from(outer), number as u16);
        } else {
            stacked.entry(outer).or_default().push((inner, number as u16));
        }
        let root = v4.write(&intervals.v4, lines)?;
        let tree = v6.write(&intervals.v6, lines)?;
        lines.set(records + number, 0, root);
        v6_lines = v6_lines.max(1 + tree.depth + 1);
        for (index, word) in tree6::words(&tree).into_iter().enumerate() {
            lines.set(records + number, 1 + index, word);
        }
    }
    let (stacks, stack_tables) = stacks(&stacked, lines)?;
    Ok(Realms {
        table,
        records,
        stacks,
        stack_tables,
        count: realms.len(),
        v6_lines: v6_lines + v6.deepest(),
    })
}

/// Writes the tables of stacked tags; `stacked` holds inner ids and numbers of realm records by outer id.
fn stacks(stacked: &BTreeMap<u16, Vec<(u16, u16)>>, lines: &mut Lines) -> Result<(u32, u32), CompileError> {
    if stacked.is_empty() {
        return Ok((0, 0));
    }
    let by_outer = lines.reserve_words(Section::Realms, IDS / 2)?;
    // In one piece, as they are found by their numbers.
    let words = IDS / 2;
    let first = lines.reserve_words(Section::Realms, words * stacked.len() as u64)?;
    let tables = (first..).step_by(words as usize / LINE_WORDS);
    for ((number, by_inner), (outer, inner)) in (1_u16..).zip(tables).zip(stacked) {
        lines.set_half(by_outer, u32::from(*outer), number);
        for (id, realm) in inner {
            lines.set_half(by_inner, u32::from(*id), *realm);
        }
    }
    Ok((by_outer, first))
}
