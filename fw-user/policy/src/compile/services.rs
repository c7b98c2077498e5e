//! Service classes: all (protocol, selector) that the same services of rules hold are one class; and source classes: all
//! source ports that the same ranges hold.
//!
//! A rule's list of services is a union of products: of ranges of source ports, and of what is reached from them. Each
//! product is an *item*; most lists have one, from any source port.

use fw_common::abi::{PROTO_DIRECT, PairEntry, Proto};
use hashbrown::HashMap;

use super::CompileError;
use super::lines::{Lines, Section};
use super::sets::Sets;
use crate::model::{Rule, ServiceMatch};

/// Classes that a port map's 16-bit entries can name.
pub(super) const MAX_CLASSES: usize = 1 << 16;
/// Selectors of a protocol, and source ports.
const SELECTORS: u32 = 1 << 16;
/// The range of all source ports.
const ANY: u32 = 0;

/// What one list of services holds from one range of source ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// The list.
    pub(super) list: u32,
    /// Number of the range of source ports.
    pub(super) range: u32,
    /// Protocols of which it holds something, as bits of [`PairEntry`].
    pub(super) holds: u32,
    /// Protocols that it holds as a whole.
    pub(super) covers: u32,
}

/// The classes, and what each rule matches.
pub(super) struct Services {
    /// Line of the protocol table.
    pub(super) protos: u32,
    /// Line of the table by source port; 0: no rule looks at source ports.
    pub(super) sources: u32,
    /// By rule: the list of services that it has in common with other rules.
    pub(super) list_of: Vec<u32>,
    /// By list: its first item, and one more for the end.
    first_items: Vec<u32>,
    pub(super) items: Vec<Item>,
    /// Sets of items; each is a service class.
    pub(super) destinations: Axis,
    /// Sets of ranges; each is a source class.
    pub(super) source_ports: Axis,
    /// By service class: the bits of the protocols that it holds packets of ([`PairEntry::proto_bit`]).
    pub(super) proto_bits: Vec<u32>,
}

/// Classes along one axis: the set that each of them is.
pub(super) struct Axis {
    /// The sets' members are numbers below this.
    pub(super) size: usize,
    pub(super) sets: Sets,
    /// By class: its set.
    pub(super) classes: Vec<u32>,
    numbers: HashMap<u32, u16>,
    /// What the classes tell apart.
    what: &'static str,
}

impl Services {
    /// Number of distinct lists.
    pub(super) const fn lists(&self) -> usize {
        self.first_items.len() - 1
    }

    /// The items of a rule; rules by place, from 0.
    pub(super) fn items_of(&self, rule: usize) -> std::ops::Range<u32> {
        let list = self.list_of[rule] as usize;
        self.first_items[list]..self.first_items[list + 1]
    }
}

/// Numbers the classes and writes the protocol table, the port maps and the table of source ports.
pub(super) fn build(rules: &[Rule], lines: &mut Lines) -> Result<Services, CompileError> {
    let (lists, list_of) = distinct_lists(rules);
    let mut ranges = Ranges::default();
    let (mut items, mut first_items) = (Vec::<Item>::new(), vec![0]);
    let mut by_proto: Vec<Vec<Span>> = vec![Vec::new(); 256];
    let mut every = Vec::new();
    for (list, matches) in lists.iter().enumerate() {
        let first = items.len();
        for found in *matches {
            let range = ranges.number(found);
            let at = (first..items.len()).find(|at| items[*at].range == range);
            let at = at.unwrap_or_else(|| {
                items.push(Item {
                    list: list as u32,
                    range,
                    holds: 0,
                    covers: 0,
                });
                items.len() - 1
            });
            note_protocols(&mut items[at], found);
            let span = (at as u32, found.lo, found.hi);
            match found.proto {
                Some(proto) => by_proto[usize::from(proto)].push(span),
                None => every.push(span),
            }
        }
        first_items.push(items.len() as u32);
    }
    let mut destinations = Axis::new(items.len(), "services");
    let (protos, proto_bits) = write_protocols(&mut destinations, &by_proto, &every, lines)?;
    let mut source_ports = Axis::new(ranges.list.len(), "ranges of source ports");
    let intervals = source_ports.cut(&ranges.spans())?;
    let sources = if ranges.list.len() > 1 {
        Maps::default().table(&intervals, lines)?
    } else {
        0
    };
    Ok(Services {
        protos,
        sources,
        list_of,
        first_items,
        items,
        destinations,
        source_ports,
        proto_bits,
    })
}

/// A part of an item: the item (or range), first and last number.
type Span = (u32, u16, u16);

/// The distinct ranges of source ports.
struct Ranges {
    numbers: HashMap<(u16, u16), u32>,
    list: Vec<(u16, u16)>,
}

impl Default for Ranges {
    fn default() -> Self {
        let all = (0, u16::MAX);
        Self {
            numbers: HashMap::from([(all, ANY)]),
            list: vec![all],
        }
    }
}

impl Ranges {
    fn number(&mut self, found: &ServiceMatch) -> u32 {
        let range = (found.src_lo, found.src_hi);
        let list = &mut self.list;
        *self.numbers.entry(range).or_insert_with(|| {
            list.push(range);
            list.len() as u32 - 1
        })
    }

    fn spans(&self) -> Vec<Span> {
        let numbered = (0_u32..).zip(&self.list);
        numbered.map(|(number, (lo, hi))| (number, *lo, *hi)).collect()
    }
}

/// Which protocols does the item hold, with this match of it?
fn note_protocols(item: &mut Item, found: &ServiceMatch) {
    let bits = found.proto.map_or(PairEntry::ANY, PairEntry::proto_bit);
    item.holds |= bits;
    let whole = found.lo == 0 && found.hi == u16::MAX && item.range == ANY;
    if !whole {
        return;
    }
    // ICMP shares its bit with ICMPv6, and the other protocols share theirs: one alone is not all that the bit means.
    let alone = [Proto::TCP, Proto::UDP].map(PairEntry::proto_bit);
    if found.proto.is_none() || alone.contains(&bits) {
        item.covers |= bits;
    }
}

/// Writes the protocol table and the port maps; returns the table's line, and by service class its protocols.
fn write_protocols(
    axis: &mut Axis,
    by_proto: &[Vec<Span>],
    every: &[Span],
    lines: &mut Lines,
) -> Result<(u32, Vec<u32>), CompileError> {
    let protos = lines.reserve_words(Section::Protocols, 256)?;
    let mut maps = Maps::default();
    let others = axis.cut(every)?;
    let mut proto_bits = Vec::new();
    for (proto, own) in (0_u8..=255).zip(by_proto) {
        let mixed;
        let intervals = if own.is_empty() {
            &others
        } else {
            let all: Vec<Span> = own.iter().chain(every).copied().collect();
            mixed = axis.cut(&all)?;
            &mixed
        };
        proto_bits.resize(axis.classes.len(), 0);
        for (_, class) in intervals {
            proto_bits[usize::from(*class)] |= PairEntry::proto_bit(proto);
        }
        let entry = maps.write(intervals, lines)?;
        lines.set_word(protos, u32::from(proto), entry);
    }
    Ok((protos, proto_bits))
}

/// The lists of services that differ, and by rule which it has.
fn distinct_lists(rules: &[Rule]) -> (Vec<&[ServiceMatch]>, Vec<u32>) {
    let mut numbers: HashMap<&[ServiceMatch], u32> = HashMap::new();
    let mut lists = Vec::new();
    let list_of = rules.iter().map(|rule| {
        *numbers.entry(rule.services.as_slice()).or_insert_with(|| {
            lists.push(rule.services.as_slice());
            lists.len() as u32 - 1
        })
    });
    let list_of = list_of.collect();
    (lists, list_of)
}

impl Axis {
    /// No classes yet, of sets of numbers below `size`; `what` they tell apart, for messages.
    pub(super) fn new(size: usize, what: &'static str) -> Self {
        Self {
            size,
            sets: Sets::new(size),
            classes: Vec::new(),
            numbers: HashMap::new(),
            what,
        }
    }

    /// Cuts the numbers from 0 to 65,535: first number and class of each interval, in order, the first one from 0.
    fn cut(&mut self, spans: &[Span]) -> Result<Vec<(u32, u16)>, CompileError> {
        let mut cuts: Vec<(u32, bool, u32)> = Vec::with_capacity(spans.len() * 2);
        for (member, lo, hi) in spans {
            cuts.push((u32::from(*lo), true, *member));
            cuts.push((u32::from(*hi) + 1, false, *member));
        }
        cuts.sort_unstable();
        // A member's own spans may overlap: a protocol's and those of every protocol.
        let mut counts: HashMap<u32, u32> = HashMap::new();
        let mut open = self.sets.empty();
        let mut intervals: Vec<(u32, u16)> = Vec::new();
        let mut at = 0;
        let mut cuts = cuts.into_iter().peekable();
        while at < SELECTORS {
            while let Some((_, begins, member)) = cuts.next_if(|(place, _, _)| *place == at) {
                let count = counts.entry(member).or_default();
                *count = if begins { *count + 1 } else { *count - 1 };
                if *count == u32::from(begins) {
                    self.sets.put(&mut open, member as usize, begins);
                }
            }
            let class = self.class(&open)?;
            if intervals.last().is_none_or(|(_, last)| *last != class) {
                intervals.push((at, class));
            }
            at = cuts.peek().map_or(SELECTORS, |(place, _, _)| *place);
        }
        Ok(intervals)
    }

    /// The class of the set of these chunks.
    pub(super) fn class(&mut self, row: &[u32]) -> Result<u16, CompileError> {
        let set = self.sets.number(row);
        if let Some(number) = self.numbers.get(&set) {
            return Ok(*number);
        }
        let number = self.classes.len();
        if number == MAX_CLASSES {
            return Err(CompileError::TooMany {
                what: self.what,
                count: number + 1,
                limit: MAX_CLASSES,
                most: String::new(),
            });
        }
        self.classes.push(set);
        self.numbers.insert(set, number as u16);
        Ok(number as u16)
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
        match intervals {
            [(_, only)] => Ok(PROTO_DIRECT | u32::from(*only)),
            _ => self.table(intervals, lines),
        }
    }

    /// The line of the table of these intervals.
    fn table(&mut self, intervals: &[(u32, u16)], lines: &mut Lines) -> Result<u32, CompileError> {
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
