//! The first representation: a table of all pairs of rows and columns, and for each distinct pair the decision for each
//! service class, in pages of 16 of which equal ones are written once.

use fw_common::abi::{Action, Decision, LINE_WORDS, Line, PAGE_DIRECTORIES, PairEntry};
use hashbrown::HashMap;

use super::axes::Axes;
use super::combine::Combined;
use super::lines::{Lines, Pool, Section};
use super::{CompileError, decision, default_decision};
use crate::model::Rule;

/// Words that the table of pages may have before its pages get directories.
const MAX_FLAT: usize = 1 << 20;

/// Where the tables lie.
pub(super) struct Decided {
    pub(super) pairs: u32,
    pub(super) pages: u32,
    pub(super) pages_per_pair: u32,
    pub(super) pair_count: usize,
}

impl Decided {
    /// True if there are directories between the table of pages and the pages.
    pub(super) const fn has_directories(&self) -> bool {
        self.pages_per_pair & PAGE_DIRECTORIES != 0
    }
}

/// Writes the pair table, the pages of decisions, and the table of pages.
pub(super) fn build(
    rules: &[Rule],
    axes: &Axes,
    services: &Combined,
    lines: &mut Lines,
) -> Result<Decided, CompileError> {
    let cells = axes.rows.len() as u64 * axes.columns.len() as u64;
    let pairs = lines.reserve_words(Section::Pairs, cells)?;
    let (edges_from, columns_to) = axes.incidence();
    let mut table = Table::new(rules, services);
    // By what lies on a cell: its entry, for each of the two defaults.
    let mut known: HashMap<Vec<u32>, [Option<u32>; 2]> = HashMap::new();
    // By column: the edges between the row at hand and it, ascending.
    let mut between: Vec<Vec<u32>> = vec![Vec::new(); axes.columns.len()];
    let mut cell = 0;
    for (row, default) in axes.rows.lists.iter().zip(&axes.rows.defaults) {
        let rejects = usize::from(*default == Action::Reject);
        let edges = row.iter().flat_map(|list| &edges_from[*list as usize]);
        let mut edges: Vec<u32> = edges.copied().collect();
        edges.sort_unstable();
        for edge in edges {
            let (_, to) = axes.edges[edge as usize];
            columns_to[to as usize]
                .iter()
                .for_each(|column| between[*column as usize].push(edge));
        }
        for edges in &mut between {
            let seen = known.get(edges.as_slice()).and_then(|entries| entries[rejects]);
            let pair = if let Some(pair) = seen {
                pair
            } else {
                let pair = table.pair(axes, edges, *default, lines)?;
                known.entry(edges.clone()).or_default()[rejects] = Some(pair);
                pair
            };
            lines.set_word(pairs, cell, pair);
            edges.clear();
            cell += 1;
        }
    }
    let (pages, pages_per_pair) = table.write_pages(lines)?;
    Ok(Decided {
        pairs,
        pages,
        pages_per_pair,
        pair_count: table.pairs.len(),
    })
}

/// The pages of a pair class: what most hold, and those that differ.
struct Pages {
    /// The decision for all services that are not in `own`.
    most: u32,
    /// Place of the first of its pages in [`Table::own`]; they end where the next pair's begin.
    first: usize,
}

/// The decision table while it grows.
struct Table<'p> {
    rules: &'p [Rule],
    services: &'p Combined,
    /// Entries of the pair table by the rules that decide there, and the default where they leave anything to it. The same
    /// rules in the same order give the same decisions, and different rules never do.
    numbers: HashMap<(Vec<u32>, Option<u32>), u32>,
    row: Row,
    pairs: Vec<Pages>,
    /// Pages that are not filled with what most hold: place in the pair, line.
    own: Vec<(u32, u32)>,
    pool: Pool,
}

/// The decisions of the pair at hand: what most service classes get, and the others.
struct Row {
    most: u32,
    /// By service class: the pair that has decided it last.
    stamps: Vec<u32>,
    values: Vec<u32>,
    /// The classes that are decided otherwise than by `most`.
    others: Vec<u16>,
    /// Number of the pair, from 1.
    now: u32,
}

impl Row {
    fn new(services: usize) -> Self {
        Self {
            most: 0,
            stamps: vec![0; services],
            values: vec![0; services],
            others: Vec::new(),
            now: 0,
        }
    }

    fn clear(&mut self, default: u32) {
        self.most = default;
        self.others.clear();
        self.now += 1;
    }

    /// Decides a class unless it is decided.
    fn decide(&mut self, class: usize, decision: u32) {
        if self.stamps[class] != self.now {
            self.stamps[class] = self.now;
            self.values[class] = decision;
            self.others.push(class as u16);
        }
    }
}

impl<'p> Table<'p> {
    fn new(rules: &'p [Rule], services: &'p Combined) -> Self {
        Self {
            rules,
            services,
            numbers: HashMap::new(),
            row: Row::new(services.count()),
            pairs: Vec::new(),
            own: Vec::new(),
            pool: Pool::default(),
        }
    }

    /// The entry of pairs on which these edges lie.
    fn pair(
        &mut self,
        axes: &Axes,
        edges: &[u32],
        default: Action,
        lines: &mut Lines,
    ) -> Result<u32, CompileError> {
        let of_edges = edges.iter().flat_map(|edge| &axes.rules[*edge as usize]);
        let mut matching: Vec<u32> = of_edges.copied().collect();
        matching.sort_unstable();
        matching.dedup();
        let default = default_decision(default).0;
        let (deciding, left) = self.decide(&matching, default);
        let deciding = (deciding, (left > 0).then_some(default));
        if let Some(entry) = self.numbers.get(&deciding) {
            return Ok(*entry);
        }
        let number = self.numbers.len() as u32;
        if number > PairEntry::CLASS_MASK {
            return Err(CompileError::TooMany {
                what: "pairs of zones",
                count: number as usize + 1,
                limit: PairEntry::CLASS_MASK as usize + 1,
                most: String::new(),
            });
        }
        self.pages(lines)?;
        let entry = number | self.allowed_protocols() | if left > 0 { self.by_default(default) } else { 0 };
        self.numbers.insert(deciding, entry);
        Ok(entry)
    }

    /// Writes those pages of the row that are not filled with one decision.
    fn pages(&mut self, lines: &mut Lines) -> Result<(), CompileError> {
        self.pairs.push(Pages {
            most: self.row.most,
            first: self.own.len(),
        });
        self.row.others.sort_unstable();
        let page_of = |class: &u16| usize::from(*class) / LINE_WORDS;
        let pages = self.row.others.chunk_by(|a, b| page_of(a) == page_of(b));
        for classes in pages {
            let mut w = [self.row.most; LINE_WORDS];
            for class in classes {
                w[usize::from(*class) % LINE_WORDS] = self.row.values[usize::from(*class)];
            }
            let line = lines.share(Section::Decisions, &mut self.pool, Line { w })?;
            self.own.push((page_of(&classes[0]) as u32, line));
        }
        Ok(())
    }

    /// Bits of the protocols of which the row lets anything through.
    fn allowed_protocols(&self) -> u32 {
        let mut bits = 0;
        let mut left = self.services.classes_of_protocol;
        for class in self.row.others.iter().map(|class| usize::from(*class)) {
            let own = self.services.proto_bits[class];
            for (proto, left) in (0_u32..).zip(&mut left) {
                *left -= own >> (PairEntry::PROTO_SHIFT + proto) & 1;
            }
            if self.passes(self.row.values[class]) {
                bits |= own;
            }
        }
        if self.passes(self.row.most) {
            for (proto, left) in (0_u32..).zip(left) {
                bits |= u32::from(left > 0) << (PairEntry::PROTO_SHIFT + proto);
            }
        }
        bits
    }

    /// Bits of the service classes for which the default decides. The row must leave something to it.
    fn by_default(&self, default: u32) -> u32 {
        let all = PairEntry::UNNAMED | PairEntry::PAGES[0] | PairEntry::PAGES[1];
        let otherwise = self
            .row
            .others
            .iter()
            .filter(|class| self.row.values[usize::from(**class)] != default);
        let bits = otherwise.fold(all, |bits, class| {
            bits & !PairEntry::default_bit(u32::from(*class))
        });
        bits | if Decision(default).rejects() {
            PairEntry::REJECTS
        } else {
            0
        }
    }

    fn passes(&self, word: u32) -> bool {
        let decision = Decision(word);
        let rule = (decision.rule() as usize)
            .checked_sub(1)
            .and_then(|place| self.rules.get(place));
        decision.allows() || rule.is_some_and(|rule| rule.audit)
    }

    /// Fills the row with the first matching rule's decision for each service class, the default where none matches.
    /// Returns the rules that decide at least one class, and for how many classes the default does.
    fn decide(&mut self, matching: &[u32], default: u32) -> (Vec<u32>, usize) {
        self.row.clear(default);
        let count = self.services.count();
        let mut deciding = Vec::new();
        for place in matching {
            let decision = decision(&self.rules[*place as usize]).0;
            let before = self.row.others.len();
            if before == count {
                return (deciding, 0);
            }
            if self
                .services
                .decide(*place, |class| self.row.decide(class, decision))
            {
                deciding.push(*place);
                self.row.most = decision;
                return (deciding, 0);
            }
            if before < self.row.others.len() {
                deciding.push(*place);
            }
        }
        (deciding, count - self.row.others.len())
    }

    /// Writes the table of pages, with directories where it would be large. Returns its line and the header's word.
    fn write_pages(&mut self, lines: &mut Lines) -> Result<(u32, u32), CompileError> {
        let pages = self.services.count().div_ceil(LINE_WORDS);
        let flat = pages.saturating_mul(self.pairs.len()) <= MAX_FLAT;
        let entries = if flat { pages } else { pages.div_ceil(LINE_WORDS) };
        let mut table = Vec::with_capacity(entries * self.pairs.len());
        for number in 0..self.pairs.len() {
            let end = self
                .pairs
                .get(number + 1)
                .map_or(self.own.len(), |next| next.first);
            let Pages { most, first } = self.pairs[number];
            let uniform = Line {
                w: [most; LINE_WORDS],
            };
            let uniform = lines.share(Section::Decisions, &mut self.pool, uniform)?;
            let at = table.len();
            if flat {
                table.resize(at + entries, uniform);
                for (page, line) in &self.own[first..end] {
                    table[at + *page as usize] = *line;
                }
                continue;
            }
            let directory = Line {
                w: [uniform; LINE_WORDS],
            };
            let directory = lines.share(Section::Decisions, &mut self.pool, directory)?;
            table.resize(at + entries, directory);
            let directory_of = |page: u32| page as usize / LINE_WORDS;
            for own in self.own[first..end].chunk_by(|a, b| directory_of(a.0) == directory_of(b.0)) {
                let mut w = [uniform; LINE_WORDS];
                for (page, line) in own {
                    w[*page as usize % LINE_WORDS] = *line;
                }
                table[at + directory_of(own[0].0)] =
                    lines.share(Section::Decisions, &mut self.pool, Line { w })?;
            }
        }
        let at = lines.push_words(Section::Decisions, &table)?;
        let word = entries as u32 | if flat { 0 } else { PAGE_DIRECTORIES };
        Ok((at, word))
    }
}
