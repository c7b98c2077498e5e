//! Rows, columns, pair classes, and the decision for each pair class and service class.

use std::collections::HashMap;

use fw_common::abi::{Action, Decision};

use super::CompileError;
use super::classes::{Bits, Classes};
use super::lines::{Lines, Section};
use super::services::{Matched, Services};
use crate::model::{Direction, Policy, Rule, RuleAction, ZoneIndex};

/// Distinct lists of zones as numbers, and by class which lists hold it.
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

    /// Groups the classes that the same lists hold: the groups, and by class its group.
    fn group(&self, classes: &Classes) -> (Vec<Bits>, Vec<u32>) {
        let mut numbers: HashMap<Bits, u32> = HashMap::new();
        let mut groups = Vec::new();
        let group_of = classes.iter().map(|class| {
            let mut held = Bits::new(self.list.len());
            for (number, zones) in self.list.iter().enumerate() {
                if zones.iter().any(|zone| class.zones.has(*zone)) {
                    held.set(number, true);
                }
            }
            *numbers.entry(held).or_insert_with_key(|held| {
                groups.push(held.clone());
                groups.len() as u32 - 1
            })
        });
        let group_of = group_of.collect();
        (groups, group_of)
    }
}

/// The pair table's rows and columns.
pub(super) struct Axes {
    /// By row: the `from` lists that hold its classes.
    pub(super) rows: Vec<Bits>,
    /// By column: the `to` lists.
    pub(super) columns: Vec<Bits>,
    /// By class: its row.
    pub(super) row_of: Vec<u32>,
    /// By class: its column.
    pub(super) column_of: Vec<u32>,
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
            for Direction { from: sources, to: destinations } in &rule.directions {
                let edge = (from.number(sources), to.number(destinations));
                let number = *numbers.entry(edge).or_insert_with(|| {
                    edges.push(edge);
                    rules.push(Vec::new());
                    edges.len() - 1
                });
                rules[number].push(place as u32);
            }
        }
        let (rows, row_of) = from.group(classes);
        let (columns, column_of) = to.group(classes);
        Self { rows, columns, row_of, column_of, edges, rules }
    }

    /// By group: the edges whose list (as `side` picks it) holds the group.
    fn edges_of(&self, groups: &[Bits], side: impl Fn(&(usize, usize)) -> usize) -> Vec<Bits> {
        let edges_of = groups.iter().map(|group| {
            let mut held = Bits::new(self.edges.len());
            for (number, edge) in self.edges.iter().enumerate() {
                if group.has(side(edge)) {
                    held.set(number, true);
                }
            }
            held
        });
        edges_of.collect()
    }
}

/// Where the tables lie.
pub(super) struct Decided {
    pub(super) pairs: u32,
    pub(super) decisions: u32,
    pub(super) pair_count: usize,
}

/// Writes the pair table and the decisions, which end the set.
pub(super) fn build(
    policy: &Policy,
    axes: &Axes,
    services: &Services,
    lines: &mut Lines,
) -> Result<Decided, CompileError> {
    let cells = axes.rows.len() as u64 * axes.columns.len() as u64;
    let pairs = lines.reserve_words(Section::Pairs, cells)?;
    let decisions = lines.len();
    let by_row = axes.edges_of(&axes.rows, |(from, _)| *from);
    let by_column = axes.edges_of(&axes.columns, |(_, to)| *to);
    let mut table = Table::new(&policy.rules, services);
    let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
    let mut common = Bits::new(axes.edges.len());
    let mut cell = 0;
    for row in &by_row {
        for column in &by_column {
            common.set_common(row, column);
            let edges: Vec<u32> = common.iter().map(|edge| edge as u32).collect();
            let pair = match known.get(&edges) {
                Some(pair) => *pair,
                None => {
                    let pair = table.pair(axes, &edges, lines)?;
                    known.insert(edges, pair);
                    pair
                }
            };
            lines.set_word(pairs, cell, pair);
            cell += 1;
        }
    }
    Ok(Decided { pairs, decisions, pair_count: table.numbers.len() })
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
        }
    }

    /// The pair class of pairs on which these edges lie.
    fn pair(&mut self, axes: &Axes, edges: &[u32], lines: &mut Lines) -> Result<u32, CompileError> {
        self.matching.clear();
        for edge in edges {
            axes.rules[*edge as usize].iter().for_each(|rule| self.matching.set(*rule as usize, true));
        }
        let deciding = self.decide();
        if let Some(number) = self.numbers.get(&deciding) {
            return Ok(*number);
        }
        let number = self.numbers.len() as u32;
        lines.append(Section::Decisions, &self.row)?;
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
