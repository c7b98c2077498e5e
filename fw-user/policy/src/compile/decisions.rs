//! Rows, columns, pair classes, and the decision for each pair class and service class.

use std::collections::HashMap;

use fw_common::abi::{Action, Decision, LINE_WORDS, Line, PairEntry};

use super::CompileError;
use super::classes::{Bits, Class, Classes};
use super::lines::{Lines, Section};
use super::services::{Matched, Services};
use crate::model::{DefaultAction, Direction, Policy, Rule, RuleAction, ZoneIndex, ZoneKind};

/// Distinct lists of zones, as numbers.
#[derive(Default)]
struct Lists<'p> {
    numbers: HashMap<&'p [ZoneIndex], usize>,
    list: Vec<&'p [ZoneIndex]>,
}

impl<'p> Lists<'p> {
    fn number(&mut self, zones: &'p [ZoneIndex]) -> usize {
        *self.numbers.entry(zones).or_insert_with(|| {
            self.list.push(zones);
            self.list.len() - 1
        })
    }

    /// Groups the classes that the same lists hold and that have the same default.
    fn group(&self, classes: &Classes, zones: usize, default: impl Fn(&Class) -> Action) -> Groups {
        let mut of_zone: Vec<Vec<usize>> = vec![Vec::new(); zones];
        for (number, list) in self.list.iter().enumerate() {
            list.iter().for_each(|zone| of_zone[*zone].push(number));
        }
        let mut numbers: HashMap<(Vec<usize>, u8), u32> = HashMap::new();
        let (mut lists, mut defaults) = (Vec::new(), Vec::new());
        let of_class = classes.iter().map(|class| {
            let mut held: Vec<usize> = class
                .zones
                .iter()
                .flat_map(|zone| &of_zone[zone])
                .copied()
                .collect();
            held.sort_unstable();
            held.dedup();
            let default = default(class);
            *numbers
                .entry((held, default as u8))
                .or_insert_with_key(|(held, _)| {
                    lists.push(held.clone());
                    defaults.push(default);
                    lists.len() as u32 - 1
                })
        });
        let of_class = of_class.collect();
        Groups {
            lists,
            defaults,
            of_class,
        }
    }
}

/// Groups of classes that all rules treat alike at one end of a flow: the rows, or the columns, of the pair table.
pub(super) struct Groups {
    /// By group: the lists of zones that hold its classes, ascending.
    lists: Vec<Vec<usize>>,
    /// By group: what happens to flows that no rule matches. Of rows only.
    defaults: Vec<Action>,
    /// By class: its group.
    pub(super) of_class: Vec<u32>,
}

impl Groups {
    /// Number of groups, at least 1.
    pub(super) const fn len(&self) -> usize {
        self.lists.len()
    }
}

/// The pair table's rows and columns.
pub(super) struct Axes {
    pub(super) rows: Groups,
    pub(super) columns: Groups,
    /// The directions that rules have: (`from` list, `to` list).
    edges: Vec<(usize, usize)>,
    /// By edge: the rules that have it, by place, ascending.
    rules: Vec<Vec<u32>>,
}

impl Axes {
    pub(super) fn new(policy: &Policy, classes: &Classes) -> Self {
        let (mut from, mut to) = (Lists::default(), Lists::default());
        let mut numbers: HashMap<(usize, usize), usize> = HashMap::new();
        let (mut edges, mut rules) = (Vec::new(), Vec::<Vec<u32>>::new());
        for (place, rule) in policy.rules.iter().enumerate() {
            for Direction {
                from: sources,
                to: destinations,
            } in &rule.directions
            {
                let edge = (from.number(sources), to.number(destinations));
                let number = *numbers.entry(edge).or_insert_with(|| {
                    edges.push(edge);
                    rules.push(Vec::new());
                    edges.len() - 1
                });
                rules[number].push(place as u32);
            }
        }
        let zones = policy.zones.len();
        Self {
            rows: from.group(classes, zones, |class| default(policy, class)),
            columns: to.group(classes, zones, |_| Action::Deny),
            edges,
            rules,
        }
    }

    /// By `from` list: its edges. By `to` list: the columns that it holds.
    fn incidence(&self) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
        let lists =
            |end: fn(&(usize, usize)) -> usize| self.edges.iter().map(end).max().map_or(0, |max| max + 1);
        let mut edges_from = vec![Vec::new(); lists(|edge| edge.0)];
        for (number, (from, _)) in self.edges.iter().enumerate() {
            edges_from[*from].push(number as u32);
        }
        let mut columns_to = vec![Vec::new(); lists(|edge| edge.1)];
        for (column, held) in self.columns.lists.iter().enumerate() {
            for list in held {
                columns_to[*list].push(column as u32);
            }
        }
        (edges_from, columns_to)
    }
}

/// Where the tables lie.
pub(super) struct Decided {
    pub(super) pairs: u32,
    pub(super) pages: u32,
    pub(super) pages_per_pair: u32,
    pub(super) pair_count: usize,
}

/// Writes the pair table, the pages of decisions, and the table of pages, which ends the set.
pub(super) fn build(
    policy: &Policy,
    axes: &Axes,
    services: &Services,
    lines: &mut Lines,
) -> Result<Decided, CompileError> {
    let cells = axes.rows.len() as u64 * axes.columns.len() as u64;
    let pairs = lines.reserve_words(Section::Pairs, cells)?;
    let (edges_from, columns_to) = axes.incidence();
    let mut table = Table::new(&policy.rules, services);
    // By what lies on a cell: its entry, for each of the two defaults.
    let mut known: HashMap<Vec<u32>, [Option<u32>; 2]> = HashMap::new();
    // By column: the edges between the row at hand and it, ascending.
    let mut between: Vec<Vec<u32>> = vec![Vec::new(); axes.columns.len()];
    let mut cell = 0;
    for (row, default) in axes.rows.lists.iter().zip(&axes.rows.defaults) {
        let rejects = usize::from(*default == Action::Reject);
        let mut edges: Vec<u32> = row.iter().flat_map(|list| &edges_from[*list]).copied().collect();
        edges.sort_unstable();
        for edge in edges {
            let (_, to) = axes.edges[edge as usize];
            columns_to[to]
                .iter()
                .for_each(|column| between[*column as usize].push(edge));
        }
        for edges in &mut between {
            let seen = known.get(edges).and_then(|entries| entries[rejects]);
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
    let pages = lines.reserve_words(Section::Decisions, table.pages.len() as u64)?;
    lines.set_words(pages, 0, &table.pages);
    Ok(Decided {
        pairs,
        pages,
        pages_per_pair: table.row.len().div_ceil(LINE_WORDS) as u32,
        pair_count: table.numbers.len(),
    })
}

/// The decision table while it grows.
struct Table<'p> {
    rules: &'p [Rule],
    services: &'p Services,
    /// Entries of the pair table by the rules that decide there, and the default where they leave anything to it. The same
    /// rules in the same order give the same decisions, and different rules never do.
    numbers: HashMap<(Vec<u32>, Option<u32>), u32>,
    /// The rules of the pair at hand.
    matching: Bits,
    /// Service classes that no rule has decided yet.
    open: Bits,
    row: Vec<u32>,
    /// By pair class and page: the page's line.
    pages: Vec<u32>,
    /// The lines of the pages written so far.
    written: HashMap<[u32; LINE_WORDS], u32>,
}

impl<'p> Table<'p> {
    fn new(rules: &'p [Rule], services: &'p Services) -> Self {
        Self {
            rules,
            services,
            numbers: HashMap::new(),
            matching: Bits::new(rules.len()),
            open: Bits::new(services.count),
            row: vec![0; services.count],
            pages: Vec::new(),
            written: HashMap::new(),
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
        self.matching.clear();
        for edge in edges {
            axes.rules[*edge as usize]
                .iter()
                .for_each(|rule| self.matching.set(*rule as usize, true));
        }
        let default = Decision::new(default, 0).0;
        let (deciding, left) = self.decide(default);
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
            });
        }
        for page in self.row.chunks(LINE_WORDS) {
            let mut w = [default; LINE_WORDS];
            w[..page.len()].copy_from_slice(page);
            let line = match self.written.get(&w) {
                Some(line) => *line,
                None => lines.push(Section::Decisions, Line { w })?,
            };
            self.written.insert(w, line);
            self.pages.push(line);
        }
        let entry = number | self.allowed_protocols();
        self.numbers.insert(deciding, entry);
        Ok(entry)
    }

    /// Bits of the protocols of which `row` lets anything through.
    fn allowed_protocols(&self) -> u32 {
        let bits = self.row.iter().zip(&self.services.proto_bits);
        bits.fold(0, |bits, (word, own)| {
            let decision = Decision(*word);
            let rule = (decision.rule() as usize)
                .checked_sub(1)
                .and_then(|place| self.rules.get(place));
            let passes = decision.allows() || rule.is_some_and(|rule| rule.audit);
            bits | if passes { *own } else { 0 }
        })
    }

    /// Fills `row` with the first matching rule's decision for each service class, the default where none matches.
    /// Returns the rules that decide at least one class, and for how many classes the default does.
    fn decide(&mut self, default: u32) -> (Vec<u32>, usize) {
        self.row.fill(default);
        self.open.fill(self.services.count);
        let mut left = self.services.count;
        let mut deciding = Vec::new();
        for place in self.matching.iter() {
            if left == 0 {
                break;
            }
            let decision = decision(&self.rules[place]).0;
            let before = left;
            let mut take = |class: usize| {
                self.row[class] = decision;
                left -= 1;
            };
            match self.services.of(place) {
                Matched::All => self.open.drain(take),
                Matched::Many(classes) => self.open.drain_common(classes, take),
                Matched::Few(classes) => {
                    for class in classes.iter().map(|class| usize::from(*class)) {
                        if self.open.has(class) {
                            self.open.set(class, false);
                            take(class);
                        }
                    }
                }
            }
            if left < before {
                deciding.push(place as u32);
            }
        }
        (deciding, left)
    }
}

/// What happens to flows of such a source that no rule matches.
fn default(policy: &Policy, class: &Class) -> Action {
    let outside = policy.built_in(ZoneKind::Outside);
    let side = if outside.is_some_and(|zone| class.zones.has(zone)) {
        policy.default.outside
    } else {
        policy.default.inside
    };
    match side {
        DefaultAction::Drop => Action::Deny,
        DefaultAction::Reject => Action::Reject,
    }
}

fn decision(rule: &Rule) -> Decision {
    let action = match rule.action {
        RuleAction::Allow => Action::Allow,
        RuleAction::Deny => Action::Deny,
        RuleAction::Reject => Action::Reject,
    };
    Decision::new(action, rule.number)
}
