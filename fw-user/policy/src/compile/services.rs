//! Service classes: all (protocol, selector) that the same rules match are one class.

use std::collections::HashMap;

use fw_common::abi::{PROTO_DIRECT, PairEntry};

use super::CompileError;
use super::classes::Bits;
use super::lines::{Lines, Section};
use crate::model::{Rule, ServiceMatch};

/// Classes that a port map's 16-bit entries can name.
const MAX_CLASSES: usize = 1 << 16;
/// Selectors of a protocol.
const SELECTORS: u32 = 1 << 16;

/// The classes, and which of them each rule matches.
pub(super) struct Services {
    /// Line of the protocol table.
    pub(super) protos: u32,
    /// Number of classes, at least 1.
    pub(super) count: usize,
    /// By class: the bits of the protocols that it holds packets of ([`PairEntry::proto_bit`]).
    pub(super) proto_bits: Vec<u32>,
    /// By rule: the list of services that it has in common with other rules.
    list_of: Vec<usize>,
    /// By list: its classes.
    matched: Vec<Matched>,
}

/// The classes of a list, in the form that is quicker to walk.
pub(super) enum Matched {
    /// All there are.
    All,
    /// These.
    Few(Vec<u16>),
    /// These, and there are many.
    Many(Bits),
}

impl Services {
    /// The classes that a rule matches; rules by place, from 0.
    pub(super) fn of(&self, rule: usize) -> &Matched {
        &self.matched[self.list_of[rule]]
    }
}

/// Numbers the classes and writes the protocol table and the port maps.
pub(super) fn build(rules: &[Rule], lines: &mut Lines) -> Result<Services, CompileError> {
    let (lists, list_of) = distinct_lists(rules);
    let mut classes = Classes {
        size: lists.len(),
        numbers: HashMap::new(),
        sets: Vec::new(),
    };
    let mut by_proto: [Vec<(usize, ServiceMatch)>; 256] = std::array::from_fn(|_| Vec::new());
    let mut every = Vec::new();
    for (index, list) in lists.iter().enumerate() {
        for found in *list {
            match found.proto {
                Some(proto) => by_proto[usize::from(proto)].push((index, *found)),
                None => every.push((index, *found)),
            }
        }
    }
    let protos = lines.reserve_words(Section::Protocols, 256)?;
    let mut maps = Maps::default();
    let others = classes.cut(&every)?;
    let mut proto_bits = Vec::new();
    for (proto, own) in (0_u8..=255).zip(&by_proto) {
        let mixed;
        let intervals = if own.is_empty() {
            &others
        } else {
            let all: Vec<_> = own.iter().chain(&every).copied().collect();
            mixed = classes.cut(&all)?;
            &mixed
        };
        proto_bits.resize(classes.sets.len(), 0);
        for (_, class) in intervals {
            proto_bits[usize::from(*class)] |= PairEntry::proto_bit(proto);
        }
        let entry = maps.write(intervals, lines)?;
        lines.set_word(protos, u32::from(proto), entry);
    }
    Ok(Services {
        protos,
        count: classes.sets.len(),
        proto_bits,
        list_of,
        matched: classes.matched(),
    })
}

/// The lists of services that differ, and by rule which it has.
fn distinct_lists(rules: &[Rule]) -> (Vec<&[ServiceMatch]>, Vec<usize>) {
    let mut numbers: HashMap<&[ServiceMatch], usize> = HashMap::new();
    let mut lists = Vec::new();
    let list_of = rules.iter().map(|rule| {
        *numbers.entry(&rule.services).or_insert_with(|| {
            lists.push(rule.services.as_slice());
            lists.len() - 1
        })
    });
    let list_of = list_of.collect();
    (lists, list_of)
}

/// The classes so far: the set of lists that match each of them.
struct Classes {
    size: usize,
    numbers: HashMap<Bits, u16>,
    sets: Vec<Bits>,
}

impl Classes {
    /// Cuts the selectors of a protocol: first selector and class of each interval, in order, the first one from 0.
    fn cut(&mut self, matches: &[(usize, ServiceMatch)]) -> Result<Vec<(u32, u16)>, CompileError> {
        let mut cuts: Vec<(u32, bool, usize)> = Vec::with_capacity(matches.len() * 2);
        for (list, found) in matches {
            cuts.push((u32::from(found.lo), true, *list));
            cuts.push((u32::from(found.hi) + 1, false, *list));
        }
        cuts.sort_unstable();
        let mut counts = vec![0_u32; self.size];
        let mut open = Bits::new(self.size);
        let mut intervals: Vec<(u32, u16)> = Vec::new();
        let mut at = 0;
        let mut cuts = cuts.into_iter().peekable();
        while at < SELECTORS {
            while let Some((_, begins, list)) = cuts.next_if(|(place, _, _)| *place == at) {
                counts[list] = if begins {
                    counts[list] + 1
                } else {
                    counts[list] - 1
                };
                open.set(list, counts[list] > 0);
            }
            let class = self.number(&open)?;
            if intervals.last().is_none_or(|(_, last)| *last != class) {
                intervals.push((at, class));
            }
            at = cuts.peek().map_or(SELECTORS, |(place, _, _)| *place);
        }
        Ok(intervals)
    }

    fn number(&mut self, open: &Bits) -> Result<u16, CompileError> {
        if let Some(number) = self.numbers.get(open) {
            return Ok(*number);
        }
        let number = self.sets.len();
        if number == MAX_CLASSES {
            return Err(CompileError::TooMany {
                what: "services",
                count: number + 1,
                limit: MAX_CLASSES,
            });
        }
        self.sets.push(open.clone());
        self.numbers.insert(open.clone(), number as u16);
        Ok(number as u16)
    }

    /// By list: the classes that it matches.
    fn matched(&self) -> Vec<Matched> {
        let count = self.sets.len();
        let mut sizes = vec![0_usize; self.size];
        for set in &self.sets {
            set.iter().for_each(|list| sizes[list] += 1);
        }
        // Walking a set of bits costs a step for each 64 classes.
        let form = |size: usize| match size {
            size if size == count => Matched::All,
            size if size <= count / 16 => Matched::Few(Vec::with_capacity(size)),
            _ => Matched::Many(Bits::new(count)),
        };
        let mut matched: Vec<Matched> = sizes.into_iter().map(form).collect();
        for (class, set) in self.sets.iter().enumerate() {
            for list in set.iter() {
                match &mut matched[list] {
                    Matched::All => {}
                    Matched::Few(classes) => classes.push(class as u16),
                    Matched::Many(bits) => bits.set(class, true),
                }
            }
        }
        matched
    }
}

/// The port maps that are written; equal ones are written once.
#[derive(Default)]
struct Maps {
    written: HashMap<Vec<(u32, u16)>, u32>,
}

impl Maps {
    /// The protocol table's entry for these intervals.
    fn write(&mut self, intervals: &[(u32, u16)], lines: &mut Lines) -> Result<u32, CompileError> {
        if let [(_, only)] = intervals {
            return Ok(PROTO_DIRECT | u32::from(*only));
        }
        if let Some(table) = self.written.get(intervals) {
            return Ok(*table);
        }
        let table = lines.reserve_words(Section::Protocols, u64::from(SELECTORS) / 2)?;
        let ends = intervals
            .iter()
            .skip(1)
            .map(|(first, _)| *first)
            .chain([SELECTORS]);
        for ((first, class), end) in intervals.iter().zip(ends) {
            for selector in *first..end {
                lines.set_half(table, selector, *class);
            }
        }
        self.written.insert(intervals.to_vec(), table);
        Ok(table)
    }
}
