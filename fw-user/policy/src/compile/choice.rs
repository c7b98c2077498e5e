//! Which of the two representations, and writing it.

use fw_common::abi::{BLOCK_ATOMS, ExtraRecord, SetHeader};

use super::axes::Axes;
use super::combine::Combined;
use super::lines::{Lines, Section};
use super::services::Services;
use super::stats::{Choice, Representation, Stats};
use super::{CompileError, decisions, vectors};
use crate::model::Policy;

/// Share of the memory that the table of pairs and that of source ports may take together: a sixteenth. The pages of
/// decisions come on top, to at most half of the memory.
const SHARE: u64 = 16;

/// Entries that the table of service and source classes may have, where vectors are possible: beyond, the classes of both are
/// so many that finding them takes seconds.
const MAX_COMBINED: u64 = 1 << 16;

/// Cells of the table of pairs that fit into its share.
pub(super) const fn cells_within(limit: u64) -> u64 {
    limit / SHARE / 4
}

/// What is written.
pub(super) struct Chosen {
    pub(super) representation: Representation,
    why: String,
    pair_classes: usize,
    service_classes: usize,
    atoms: usize,
    /// Lines that a look-up loads at most between the class records and the rule's record.
    lines: u32,
}

impl Chosen {
    pub(super) fn note(&self, services: &Services, stats: &mut Stats) {
        stats.representation = self.representation;
        stats.why.clone_from(&self.why);
        stats.pair_classes = self.pair_classes;
        stats.service_classes = self.service_classes;
        stats.source_classes = services.source_ports.classes.len();
        stats.atoms = self.atoms;
        // Besides: header, table of realms (of stacked tags: two more), two class records, protocol, port map, rule.
        let common = 1 + 3 + 2 + 2 + 1 + self.lines;
        // Realm record, root and four nodes, for both addresses; IPv6 is added when the trees are known.
        stats.lookup_v4 = common + 2 * 6;
        stats.lookup_v6 = common;
    }
}

/// Everything but the policy's rules that decides which representation is possible.
pub(super) struct Parts<'p> {
    pub(super) policy: &'p Policy,
    pub(super) axes: &'p Axes,
    pub(super) services: &'p Services,
}

impl Parts<'_> {
    /// Bytes of the table of pairs, and of the table of service and source classes.
    fn pair_bytes(&self) -> u64 {
        self.axes.cells() * 4 + Combined::entries(self.services) * 2
    }

    /// Chooses a representation and writes it behind what is there.
    pub(super) fn write(
        &self,
        choice: Choice,
        limit: u64,
        lines: &mut Lines,
        header: &mut SetHeader,
    ) -> Result<Chosen, CompileError> {
        let atoms = vectors::count(self.policy, self.services);
        let (needed, share) = (self.pair_bytes(), limit / SHARE);
        match choice {
            Choice::Only(Representation::Pairs) => self.pairs("asked for".to_owned(), lines, header),
            Choice::Only(Representation::Vectors) => self.vectors("asked for".to_owned(), lines, header),
            Choice::Auto if atoms > vectors::MAX_ATOMS => {
                let why = format!(
                    "the rules have {atoms} directions and services; bit vectors hold at most {}",
                    vectors::MAX_ATOMS
                );
                self.pairs(why, lines, header)
            }
            Choice::Auto if needed > share => {
                let why = format!(
                    "a table of {} x {} pairs would take {}, more than its share of {}",
                    self.axes.rows.len(),
                    self.axes.columns.len(),
                    size(needed),
                    size(share)
                );
                self.vectors(why, lines, header)
            }
            Choice::Auto if Combined::entries(self.services) > MAX_COMBINED => {
                let why = format!(
                    "{} services times {} kinds of source ports are too many for a table of pairs",
                    self.services.destinations.classes.len(),
                    self.services.source_ports.classes.len()
                );
                self.vectors(why, lines, header)
            }
            Choice::Auto => {
                let mark = lines.mark();
                lines.set_limit(limit / 2);
                let why = format!(
                    "a table of {} x {} pairs takes {}",
                    self.axes.rows.len(),
                    self.axes.columns.len(),
                    size(needed)
                );
                let tried = self.pairs(why, lines, header);
                lines.set_limit(limit);
                match tried {
                    Err(error) if error.is_size() => {
                        lines.rewind(&mark);
                        let why = format!("a table of pairs was tried: {error}");
                        self.vectors(why, lines, header)
                    }
                    other => other,
                }
            }
        }
    }

    fn pairs(&self, why: String, lines: &mut Lines, header: &mut SetHeader) -> Result<Chosen, CompileError> {
        let combined = Combined::new(self.services, lines)?;
        header.extra = 0;
        let mut loaded = 3;
        if combined.table != 0 {
            let record = ExtraRecord {
                sources: self.services.sources,
                source_classes: self.services.source_ports.classes.len() as u32,
                combine: combined.table,
                ..ExtraRecord::default()
            };
            header.extra = lines.push(Section::Protocols, record.to_line())?;
            loaded += 3;
        }
        let decided = decisions::build(&self.policy.rules, self.axes, &combined, lines)?;
        header.pairs = decided.pairs;
        header.pair_columns = self.axes.columns.len() as u32;
        header.decision_pages = decided.pages;
        header.pages_per_pair = decided.pages_per_pair;
        header.pair_count = decided.pair_count as u32;
        loaded += u32::from(decided.has_directories());
        Ok(Chosen {
            representation: Representation::Pairs,
            why,
            pair_classes: decided.pair_count,
            service_classes: combined.count(),
            atoms: 0,
            lines: loaded,
        })
    }

    fn vectors(
        &self,
        why: String,
        lines: &mut Lines,
        header: &mut SetHeader,
    ) -> Result<Chosen, CompileError> {
        let mut record = ExtraRecord {
            sources: self.services.sources,
            source_classes: self.services.source_ports.classes.len() as u32,
            default_inside: super::default_decision(self.axes.defaults.0).0,
            default_outside: super::default_decision(self.axes.defaults.1).0,
            ..ExtraRecord::default()
        };
        let extra = lines.reserve(Section::Vectors, 1)?;
        let atoms = vectors::build(self.policy, self.axes, self.services, &mut record, lines)?;
        lines.set_line(extra, record.to_line());
        header.extra = extra;
        header.pair_columns = 0;
        header.pair_count = 0;
        let dimensions = 3 + u32::from(record.sources != 0);
        let blocks = atoms.div_ceil(BLOCK_ATOMS as usize) as u32;
        Ok(Chosen {
            representation: Representation::Vectors,
            why,
            pair_classes: 0,
            service_classes: self.services.destinations.classes.len(),
            atoms,
            // The extra record, the source port, an aggregate for each dimension, for each block its number and itself, the atom.
            lines: 1 + u32::from(record.sources != 0) + dimensions * (1 + 2 * blocks) + 1,
        })
    }
}

/// Bytes as a person reads them.
fn size(bytes: u64) -> String {
    if bytes < 1 << 20 {
        format!("{} KiB", bytes.div_ceil(1 << 10))
    } else {
        format!("{} MiB", bytes.div_ceil(1 << 20))
    }
}
