//! Rows, columns, pair classes, and the decision for each pair class and service class.

use std::collections::HashMap;

use fw_common::abi::{Action, Decision, LINE_WORDS, Line};

use super::CompileError;
use super::classes::{Bits, Classes};
use super::lines::{Lines, Section};
use super::services::{Matched, Services};
use crate::model::{Direction, Policy, Rule, RuleAction, ZoneIndex};

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

    /// Groups the classes that the same lists hold.
    fn group(&self, classes: &Classes, zones: usize) -> Groups {
        let mut of_zone: Vec<Vec<usize>> = vec![Vec::new(); zones];
        for (number, list) in self.list.iter().enumerate() {
            list.iter().for_each(|zone| of_zone[*zone].push(number));
        }
        let mut numbers: HashMap<Vec<usize>, u32> = HashMap::new();
        let mut lists = Vec::new();
        let of_class = classes.iter().map(|class| {
            let mut held: Vec<usize> = class
                .zones
                .iter()
                .flat_map(|zone| &of_zone[zone])
                .copied()
                .collect();
            held.sort_unstable();
            held.dedup();
            *numbers.entry(held).or_insert_with_key(|held| {
                lists.push(held.clone());
                lists.len() as u32 - 1
            })
        });
        let of_class = of_class.collect();
        Groups { lists, of_class }
    }
}

/// Groups of classes that all rules treat alike at one end of a flow: the rows, or the columns, of the pair table.
pub(super) struct Groups {
    /// By group: the lists of zones that hold its classes, ascending.
    lists: Vec<Vec<usize>>,
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
            rows: from.group(classes, zones),
            columns: to.group(classes, zones),
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
    let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
    // By column: the edges between the row at hand and it, ascending.
    let mut between: Vec<Vec<u32>> = vec![Vec::new(); axes.columns.len()];
    let mut cell = 0;
    for row in &axes.rows.lists {
        let mut edges: Vec<u32> = row.iter().flat_map(|list| &edges_from[*list]).copied().collect();
        edges.sort_unstable();
        for edge in edges {
            let (_, to) = axes.edges[edge as usize];
            columns_to[to]
                .iter()
                .for_each(|column| between[*column as usize].push(edge));
        }
        for edges in &mut between {
            let pair = if let Some(pair) = known.get(edges) {
                *pair
            } else {
                let pair = table.pair(axes, edges, lines)?;
                known.insert(edges.clone(), pair);
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
    /// Pair classes by the rules that decide in them. The same rules in the same order give the same decisions, and
    /// different rules never do.
    numbers: HashMap<Vec<u32>, u32>,
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

    /// The pair class of pairs on which these edges lie.
    fn pair(&mut self, axes: &Axes, edges: &[u32], lines: &mut Lines) -> Result<u32, CompileError> {
        self.matching.clear();
        for edge in edges {
            axes.rules[*edge as usize]
                .iter()
                .for_each(|rule| self.matching.set(*rule as usize, true));
        }
        let deciding = self.decide();
        if let Some(number) = self.numbers.get(&deciding) {
            return Ok(*number);
        }
        let number = self.numbers.len() as u32;
        for page in self.row.chunks(LINE_WORDS) {
            let mut w = [Decision::new(Action::Deny, 0).0; LINE_WORDS];
            w[..page.len()].copy_from_slice(page);
            let line = match self.written.get(&w) {
                Some(line) => *line,
                None => lines.push(Section::Decisions, Line { w })?,
            };
            self.written.insert(w, line);
            self.pages.push(line);
        }
        self.numbers.insert(deciding, number);
        Ok(number)
    }

    /// Fills `row` with the first matching rule's decision for each service class, the default where none matches.
    /// Returns the rules that decide at least one class.
    fn decide(&mut self) -> Vec<u32> {
        self.row.fill(Decision::new(Action::Deny, 0).0);
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
        deciding
    }
}

fn decision(rule: &Rule) -> Decision {
    let action = match rule.action {
        RuleAction::Allow => Action::Allow,
        RuleAction::Deny => Action::Deny,
    };
    Decision::new(action, rule.number)
}
