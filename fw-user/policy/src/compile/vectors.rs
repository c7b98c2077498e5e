//! The second representation: aggregated bit vectors, for policies whose table of pairs would be too large. The layout and
//! where it comes from are told in [`fw_common::abi::SetHeader`]'s module.

use fw_common::abi::{BLOCK_ATOMS, ExtraRecord, LINE_WORDS, Line, MAX_BLOCKS, PairEntry, ROW_BLOCKS};

use super::axes::{Axes, Groups};
use super::lines::{Lines, Pool, Section};
use super::services::Services;
use super::{CompileError, decision};
use crate::model::{Policy, RuleAction};

/// Atoms that the aggregate of a row has bits for.
pub(super) const MAX_ATOMS: usize = (MAX_BLOCKS * BLOCK_ATOMS) as usize;

/// A part of a rule that is a product: one direction, one item.
#[derive(Clone, Copy)]
struct Atom {
    /// Place of the rule.
    rule: u32,
    /// List of zones that hold the source.
    from: u32,
    /// List of zones that hold the destination.
    to: u32,
    item: u32,
}

/// Number of atoms that the rules split into.
pub(super) fn count(policy: &Policy, services: &Services) -> usize {
    let rules = policy.rules.iter().enumerate();
    rules
        .map(|(place, rule)| rule.directions.len() * services.items_of(place).len())
        .sum()
}

/// The atoms in the order of their rules.
fn atoms(policy: &Policy, axes: &Axes, services: &Services) -> Vec<Atom> {
    let mut edges_of: Vec<Vec<u32>> = vec![Vec::new(); policy.rules.len()];
    for (edge, rules) in (0_u32..).zip(&axes.rules) {
        for rule in rules {
            edges_of[*rule as usize].push(edge);
        }
    }
    let mut atoms = Vec::new();
    for (rule, edges) in edges_of.iter().enumerate() {
        for edge in edges {
            let (from, to) = axes.edges[*edge as usize];
            atoms.extend(services.items_of(rule).map(|item| Atom {
                rule: rule as u32,
                from,
                to,
                item,
            }));
        }
    }
    atoms
}

/// Writes the rows of all dimensions and the decisions of the atoms into `extra`. Returns the number of atoms.
pub(super) fn build(
    policy: &Policy,
    axes: &Axes,
    services: &Services,
    extra: &mut ExtraRecord,
    lines: &mut Lines,
) -> Result<usize, CompileError> {
    let atoms = atoms(policy, axes, services);
    if atoms.len() > MAX_ATOMS {
        return Err(CompileError::TooMany {
            what: "directions and services of rules",
            count: atoms.len(),
            limit: MAX_ATOMS,
            most: String::new(),
        });
    }
    let mut writer = Writer::new(atoms.len(), lines);
    extra.stride = writer.stride;
    let by_from = writer.masks(axes.lists.0, atoms.iter().map(|atom| atom.from));
    extra.src_rows = writer.groups(&axes.rows, &by_from)?;
    let by_to = writer.masks(axes.lists.1, atoms.iter().map(|atom| atom.to));
    extra.dst_rows = writer.groups(&axes.columns, &by_to)?;
    let by_item = writer.masks(services.items.len(), atoms.iter().map(|atom| atom.item));
    let classes = &services.destinations;
    extra.service_rows = writer.rows(&classes.classes, |set, row| {
        classes.sets.iter(*set).for_each(|item| by_item[item].put(row));
    })?;
    if services.sources != 0 {
        let classes = &services.source_ports;
        let ranges = atoms.iter().map(|atom| services.items[atom.item as usize].range);
        let by_range = writer.masks(classes.size, ranges);
        extra.source_rows = writer.rows(&classes.classes, |set, row| {
            classes.sets.iter(*set).for_each(|range| by_range[range].put(row));
        })?;
    }
    let protocols: Vec<u32> = (0..PairEntry::PROTOS)
        .map(|proto| 1 << (PairEntry::PROTO_SHIFT + proto))
        .collect();
    let answers: Vec<u32> = atoms
        .iter()
        .map(|atom| answered(policy, services, *atom))
        .collect();
    extra.proto_rows = writer.rows(&protocols, |bit, row| {
        let of_bit = answers.iter().enumerate().filter(|(_, bits)| *bits & bit != 0);
        of_bit.for_each(|(atom, _)| row[atom / 64] |= 1 << (atom % 64));
    })?;
    let decisions: Vec<u32> = atoms
        .iter()
        .map(|atom| decision(&policy.rules[atom.rule as usize]).0)
        .collect();
    extra.atoms = lines.push_words(Section::Vectors, &decisions)?;
    Ok(atoms.len())
}

/// For which protocols does the atom answer whether some packet passes: those of which it lets one through, and those that
/// it denies as a whole.
fn answered(policy: &Policy, services: &Services, atom: Atom) -> u32 {
    let rule = &policy.rules[atom.rule as usize];
    let item = services.items[atom.item as usize];
    if rule.action == RuleAction::Allow || rule.audit {
        item.holds
    } else {
        item.covers
    }
}

/// The atoms that one member of a dimension fits.
enum Mask {
    Few(Vec<u32>),
    Many(Vec<u64>),
}

impl Mask {
    /// Puts the atoms into a row.
    fn put(&self, row: &mut [u64]) {
        match self {
            Self::Few(atoms) => {
                for atom in atoms {
                    row[*atom as usize / 64] |= 1 << (atom % 64);
                }
            }
            Self::Many(words) => row.iter_mut().zip(words).for_each(|(row, word)| *row |= word),
        }
    }
}

struct Writer<'l> {
    lines: &'l mut Lines,
    pool: Pool,
    blocks: usize,
    stride: u32,
}

impl<'l> Writer<'l> {
    fn new(atoms: usize, lines: &'l mut Lines) -> Self {
        let blocks = atoms.div_ceil(BLOCK_ATOMS as usize);
        Self {
            lines,
            pool: Pool::default(),
            blocks,
            stride: (blocks + ROW_BLOCKS as usize).div_ceil(LINE_WORDS) as u32,
        }
    }

    /// Words of a row's bits.
    const fn words(&self) -> usize {
        self.blocks * BLOCK_ATOMS as usize / 64
    }

    /// By member of a dimension: the atoms that have it, where `of_atoms` says which each has.
    fn masks(&self, members: usize, of_atoms: impl Iterator<Item = u32>) -> Vec<Mask> {
        let mut lists: Vec<Vec<u32>> = vec![Vec::new(); members];
        for (atom, member) in (0_u32..).zip(of_atoms) {
            lists[member as usize].push(atom);
        }
        let form = |atoms: Vec<u32>| {
            if atoms.len() <= self.words() {
                return Mask::Few(atoms);
            }
            let mut words = vec![0; self.words()];
            Mask::Few(atoms).put(&mut words);
            Mask::Many(words)
        };
        lists.into_iter().map(form).collect()
    }

    fn groups(&mut self, groups: &Groups, masks: &[Mask]) -> Result<u32, CompileError> {
        self.rows(&groups.lists, |lists, row| {
            for list in lists {
                masks[*list as usize].put(row);
            }
        })
    }

    /// Writes a row for each member, which `fill` fills; returns the line of the first.
    fn rows<M>(&mut self, members: &[M], fill: impl Fn(&M, &mut [u64])) -> Result<u32, CompileError> {
        let size = members.len() as u64 * u64::from(self.stride);
        let base = self.lines.reserve(Section::Vectors, size)?;
        let mut row = vec![0_u64; self.words()];
        for (number, member) in (0_u32..).zip(members) {
            row.fill(0);
            fill(member, &mut row);
            self.row(base + number * self.stride, &row)?;
        }
        Ok(base)
    }

    /// Writes the row at this line.
    fn row(&mut self, at: u32, row: &[u64]) -> Result<(), CompileError> {
        let mut aggregate = 0_u64;
        for (block, bits) in row.chunks(BLOCK_ATOMS as usize / 64).enumerate() {
            if bits.iter().all(|word| *word == 0) {
                continue;
            }
            aggregate |= 1 << block;
            let mut line = Line::default();
            for (pair, word) in line.w.chunks_mut(2).zip(bits) {
                pair.copy_from_slice(&[*word as u32, (*word >> 32) as u32]);
            }
            let line = self.lines.share(Section::Vectors, &mut self.pool, line)?;
            self.lines.set_word(at, ROW_BLOCKS + block as u32, line);
        }
        self.lines
            .set_words(at, 0, &[aggregate as u32, (aggregate >> 32) as u32]);
        Ok(())
    }
}
