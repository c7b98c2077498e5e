//! What the table of pairs makes decisions for: service classes, or where rules look at source ports classes of both.

use fw_common::abi::PairEntry;

use super::CompileError;
use super::lines::{Lines, Section};
use super::services::{Axis, Services};
use super::sets::{Sets, ones};

/// The classes, and which of them each rule matches.
pub(super) struct Combined {
    /// Line of the table of service and source classes; 0: no rule looks at source ports.
    pub(super) table: u32,
    /// By class: the bits of the protocols that it holds packets of ([`PairEntry::proto_bit`]).
    pub(super) proto_bits: Vec<u32>,
    /// By protocol: how many classes hold packets of it.
    pub(super) classes_of_protocol: [u32; PairEntry::PROTOS as usize],
    /// By rule: its list of services.
    list_of: Vec<u32>,
    /// By list: its classes.
    matched: Vec<Matched>,
}

/// The classes of a list, in the form that is quicker to walk.
enum Matched {
    /// All there are.
    All,
    /// These.
    Few(Vec<u16>),
    /// These, a bit each, and there are many.
    Many(Vec<u64>),
}

impl Combined {
    /// Entries that the table of both classes would have; 0 where there is no such table.
    pub(super) const fn entries(services: &Services) -> u64 {
        if services.sources == 0 {
            return 0;
        }
        services.destinations.classes.len() as u64 * services.source_ports.classes.len() as u64
    }

    /// Numbers the classes and writes the table that leads to them.
    pub(super) fn new(services: &Services, lines: &mut Lines) -> Result<Self, CompileError> {
        let lists = services.lists();
        let (table, proto_bits, matched) = if services.sources == 0 {
            // Each list is one item, of the same number.
            let Axis { sets, classes, .. } = &services.destinations;
            (0, services.proto_bits.clone(), matched(lists, sets, classes))
        } else {
            let table = lines.reserve_words(Section::Protocols, Self::entries(services).div_ceil(2))?;
            let (both, proto_bits) = both(services, table, lines)?;
            (table, proto_bits, matched(lists, &both.sets, &both.classes))
        };
        let mut classes_of_protocol = [0; PairEntry::PROTOS as usize];
        for bits in &proto_bits {
            for (proto, count) in (0_u32..).zip(&mut classes_of_protocol) {
                *count += bits >> (PairEntry::PROTO_SHIFT + proto) & 1;
            }
        }
        Ok(Self {
            table,
            proto_bits,
            classes_of_protocol,
            list_of: services.list_of.clone(),
            matched,
        })
    }

    /// Number of classes, at least 1.
    pub(super) const fn count(&self) -> usize {
        self.proto_bits.len()
    }

    /// Hands out the classes that a rule matches; rules by place, from 0. True, and none handed out: all there are.
    pub(super) fn decide(&self, rule: u32, mut take: impl FnMut(usize)) -> bool {
        match &self.matched[self.list_of[rule as usize] as usize] {
            Matched::All => return true,
            Matched::Few(classes) => classes.iter().for_each(|class| take(usize::from(*class))),
            Matched::Many(words) => {
                let numbered = words.iter().enumerate();
                let classes = numbered.flat_map(|(index, word)| ones(*word, index * 64));
                classes.for_each(take);
            }
        }
        false
    }
}

/// Numbers the sets of lists that a service class and a source class match together, and fills the table of both. Returns
/// them, and by class its protocols.
fn both(services: &Services, table: u32, lines: &mut Lines) -> Result<(Axis, Vec<u32>), CompileError> {
    let mut both = Axis::new(services.lists(), "pairs of services and source ports");
    let mut proto_bits: Vec<u32> = Vec::new();
    let sources = &services.source_ports;
    let mut cell = 0;
    for (set, bits) in services.destinations.classes.iter().zip(&services.proto_bits) {
        let items = services
            .destinations
            .sets
            .iter(*set)
            .map(|item| services.items[item]);
        let (always, ranged): (Vec<_>, Vec<_>) = items.partition(|item| item.range == 0);
        let mut base = both.sets.empty();
        for item in always {
            both.sets.put(&mut base, item.list as usize, true);
        }
        for source in &sources.classes {
            let mut row = base.clone();
            for item in &ranged {
                if sources.sets.has(*source, item.range as usize) {
                    both.sets.put(&mut row, item.list as usize, true);
                }
            }
            let class = both.class(&row)?;
            proto_bits.resize(both.classes.len(), 0);
            proto_bits[usize::from(class)] |= bits;
            lines.set_half(table, cell, class);
            cell += 1;
        }
    }
    Ok((both, proto_bits))
}

/// By list: the classes that it matches. Each class is a set of lists.
fn matched(lists: usize, sets: &Sets, classes: &[u32]) -> Vec<Matched> {
    let count = classes.len();
    let mut sizes = vec![0_usize; lists];
    for set in classes {
        sets.iter(*set).for_each(|list| sizes[list] += 1);
    }
    // Walking a set of bits costs a step for each 64 classes.
    let form = |size: usize| match size {
        size if size == count => Matched::All,
        size if size <= count / 16 => Matched::Few(Vec::with_capacity(size)),
        _ => Matched::Many(vec![0; count.div_ceil(64)]),
    };
    let mut matched: Vec<Matched> = sizes.into_iter().map(form).collect();
    for (class, set) in classes.iter().enumerate() {
        for list in sets.iter(*set) {
            match &mut matched[list] {
                Matched::All => {}
                Matched::Few(classes) => classes.push(class as u16),
                Matched::Many(words) => words[class / 64] |= 1 << (class % 64),
            }
        }
    }
    matched
}
