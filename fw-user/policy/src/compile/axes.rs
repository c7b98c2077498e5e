//! Rows and columns: source classes that all rules treat alike share a row, destination classes a column.

use fw_common::abi::Action;
use hashbrown::HashMap;

use super::classes::Classes;
use crate::model::{DefaultAction, Direction, Policy, ZoneIndex};

/// Cells that a table of pairs may have with the rows and columns that dynamic zones may need one day.
const MAX_CELLS: u64 = 1 << 20;
/// Rows and columns that vectors may have with them; and classes that are looked at for them.
const MAX_ROWS: usize = 1 << 16;

/// Distinct lists of zones, as numbers.
#[derive(Default)]
struct Lists<'p> {
    numbers: HashMap<&'p [ZoneIndex], u32>,
    list: Vec<&'p [ZoneIndex]>,
}

impl<'p> Lists<'p> {
    fn number(&mut self, zones: &'p [ZoneIndex]) -> u32 {
        *self.numbers.entry(zones).or_insert_with(|| {
            self.list.push(zones);
            self.list.len() as u32 - 1
        })
    }

    /// Groups of classes by the lists that hold them: none yet.
    fn groups(&self, zones: usize) -> Groups {
        let mut of_zone: Vec<Vec<u32>> = vec![Vec::new(); zones];
        for (number, list) in (0_u32..).zip(&self.list) {
            list.iter().for_each(|zone| of_zone[*zone].push(number));
        }
        Groups {
            of_zone,
            lists: Vec::new(),
            defaults: Vec::new(),
            numbers: HashMap::new(),
        }
    }
}

/// What a group's classes have in common: the lists that hold them, ascending, and their default.
type Key = (Vec<u32>, u8);

/// Groups of classes that all rules treat alike at one end of a flow: the rows, or the columns.
#[derive(Clone)]
pub(super) struct Groups {
    /// By zone: the lists that it is in.
    of_zone: Vec<Vec<u32>>,
    /// By group: the lists of zones that hold its classes, ascending.
    pub(super) lists: Vec<Vec<u32>>,
    /// By group: what happens to flows that no rule matches. Of rows only.
    pub(super) defaults: Vec<Action>,
    numbers: HashMap<Key, u32>,
}

impl Groups {
    /// Number of groups.
    pub(super) const fn len(&self) -> usize {
        self.lists.len()
    }

    fn key(&self, zones: impl Iterator<Item = ZoneIndex>, default: Action) -> Key {
        let mut held: Vec<u32> = zones.flat_map(|zone| &self.of_zone[zone]).copied().collect();
        held.sort_unstable();
        held.dedup();
        (held, default as u8)
    }

    /// The group of classes that these zones hold, a new one if need be.
    fn number(&mut self, zones: impl Iterator<Item = ZoneIndex>, default: Action) -> u32 {
        let key = self.key(zones, default);
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = self.lists.len() as u32;
        self.lists.push(key.0.clone());
        self.defaults.push(default);
        self.numbers.insert(key, number);
        number
    }

    /// The group of classes that these zones hold, if there is one.
    fn find(&self, zones: impl Iterator<Item = ZoneIndex>, default: Action) -> Option<u32> {
        self.numbers.get(&self.key(zones, default)).copied()
    }
}

/// By class: its row and its column.
pub(super) type Places = Vec<(u32, u32)>;

/// Rows, columns and what rules say of them.
#[derive(Clone)]
pub(super) struct Axes {
    pub(super) rows: Groups,
    pub(super) columns: Groups,
    /// The directions that rules have: (`from` list, `to` list).
    pub(super) edges: Vec<(u32, u32)>,
    /// By edge: the rules that have it, by place, ascending.
    pub(super) rules: Vec<Vec<u32>>,
    /// Number of `from` and of `to` lists.
    pub(super) lists: (usize, usize),
    /// What happens to flows that no rule matches, from inside and from `outside`.
    pub(super) defaults: (Action, Action),
}

impl Axes {
    /// The lists and directions of the rules; no row and no column yet.
    pub(super) fn new(policy: &Policy) -> Self {
        let (mut from, mut to) = (Lists::default(), Lists::default());
        let mut numbers: HashMap<(u32, u32), usize> = HashMap::new();
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
            rows: from.groups(zones),
            columns: to.groups(zones),
            edges,
            rules,
            lists: (from.list.len(), to.list.len()),
            defaults: (action(policy.default.inside), action(policy.default.outside)),
        }
    }

    fn default(&self, classes: &Classes, zones: u32) -> Action {
        if classes.is_outside(zones) {
            self.defaults.1
        } else {
            self.defaults.0
        }
    }

    /// Rows and columns of all classes; new ones where need be.
    pub(super) fn place(&mut self, classes: &Classes) -> Places {
        let mut known: HashMap<u32, (u32, u32)> = HashMap::new();
        let place = |class: super::classes::Class| {
            *known
                .entry(class.zones)
                .or_insert_with(|| self.number(classes, class.zones))
        };
        classes.iter().map(place).collect()
    }

    /// Rows and columns of all classes, if there are such.
    pub(super) fn find(&self, classes: &Classes) -> Option<Places> {
        let mut known: HashMap<u32, (u32, u32)> = HashMap::new();
        let mut places = Places::with_capacity(classes.len());
        for class in classes.iter() {
            let place = match known.get(&class.zones) {
                Some(place) => *place,
                None => self.found(classes, class.zones)?,
            };
            known.insert(class.zones, place);
            places.push(place);
        }
        Some(places)
    }

    fn number(&mut self, classes: &Classes, zones: u32) -> (u32, u32) {
        let default = self.default(classes, zones);
        (
            self.rows.number(classes.sets.iter(zones), default),
            self.columns.number(classes.sets.iter(zones), Action::Deny),
        )
    }

    fn found(&self, classes: &Classes, zones: u32) -> Option<(u32, u32)> {
        let default = self.default(classes, zones);
        Some((
            self.rows.find(classes.sets.iter(zones), default)?,
            self.columns.find(classes.sets.iter(zones), Action::Deny)?,
        ))
    }

    /// Cells of the table of pairs.
    pub(super) const fn cells(&self) -> u64 {
        self.rows.len() as u64 * self.columns.len() as u64
    }

    /// Adds rows and columns that addresses would need that come to a dynamic zone, or leave one: each set of zones that
    /// occurs, with the zone and without it. They are left out where they would be too many: more than [`MAX_CELLS`] cells,
    /// or, if there are more than `share` cells already and so vectors, more than [`MAX_ROWS`] rows and columns. Then a
    /// change of such a zone may need all tables anew.
    pub(super) fn foresee(&mut self, policy: &Policy, classes: &mut Classes, share: u64) {
        let dynamic = policy.zones.iter().enumerate().filter(|(_, zone)| zone.dynamic);
        let dynamic: Vec<ZoneIndex> = dynamic.map(|(index, _)| index).collect();
        if dynamic.is_empty() || dynamic.len().saturating_mul(classes.len()) > MAX_ROWS {
            return;
        }
        let mut sets: Vec<u32> = classes.iter().map(|class| class.zones).collect();
        sets.sort_unstable();
        sets.dedup();
        let vectors = self.cells() > share;
        let mut more = self.clone();
        for zone in dynamic {
            for set in &sets {
                let named = classes.named(*set);
                let other = if classes.sets.has(named, zone) {
                    classes.sets.without(named, zone)
                } else {
                    classes.sets.with(named, zone)
                };
                let other = classes.complete(other);
                more.number(classes, other);
            }
            let too_many = if vectors {
                more.rows.len() + more.columns.len() > MAX_ROWS
            } else {
                more.cells() > MAX_CELLS
            };
            if too_many {
                return;
            }
        }
        *self = more;
    }

    /// By `from` list: its edges. By `to` list: the columns that it holds.
    pub(super) fn incidence(&self) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
        let mut edges_from = vec![Vec::new(); self.lists.0];
        for (number, (from, _)) in (0_u32..).zip(&self.edges) {
            edges_from[*from as usize].push(number);
        }
        let mut columns_to = vec![Vec::new(); self.lists.1];
        for (column, held) in (0_u32..).zip(&self.columns.lists) {
            for list in held {
                columns_to[*list as usize].push(column);
            }
        }
        (edges_from, columns_to)
    }
}

const fn action(default: DefaultAction) -> Action {
    match default {
        DefaultAction::Drop => Action::Deny,
        DefaultAction::Reject => Action::Reject,
    }
}
