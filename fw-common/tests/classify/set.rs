//! Table sets made from plain lists, line after line, and the same look-up on those lists.
//!
//! Words that no look-up may read hold [`POISON`], so that a look-up one entry or one line beside the right one shows.

use std::collections::HashMap;

use fw_common::abi::{
    Action, ClassRecord, Decision, Ip4, Ip6, LINE_WORDS, Line, PROTO_DIRECT, PairEntry, RuleRecord,
    SET_MAGIC, SetHeader, V4_LEAF, V6_SUBTREE,
};

/// What stands where nothing stands. As a class, a line or a pair class, it lies outside of every set made here.
pub const POISON: u32 = 0xfffe_fffd;

/// A prefix: address, length (0, 16, 20, 24, 28 or 32 are the borders of the strides; any will do), class.
pub type Prefix = (u32, u32, u32);

/// What an interval of high halves means.
#[derive(Clone, Debug)]
pub enum High {
    Class(u32),
    /// Intervals of low halves: start, class.
    Low(Vec<(u64, u32)>),
}

/// The address maps of one realm. Interval starts are sorted and begin with 0.
#[derive(Clone, Debug)]
pub struct Realm {
    pub v4: Vec<Prefix>,
    pub v6: Vec<(u64, High)>,
}

/// Service classes of a protocol.
#[derive(Clone, Debug)]
pub enum Service {
    Direct(u16),
    Selector(Vec<u16>),
}

/// A policy, as lists.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Record n is element n - 1.
    pub realms: Vec<Realm>,
    /// Record number by VLAN id.
    pub vlans: HashMap<u16, u16>,
    /// Record number by outer and inner VLAN id.
    pub stacks: HashMap<(u16, u16), u16>,
    pub classes: Vec<ClassRecord>,
    pub columns: u32,
    pub pairs: Vec<u32>,
    /// Protocols that are not named have service class 0.
    pub services: HashMap<u8, Service>,
    pub service_count: u32,
    pub pair_count: u32,
    pub rules: Vec<RuleRecord>,
    pub limits: Vec<u32>,
    pub protect: Line,
    pub planes: [u32; 32],
    pub features: u32,
}

pub fn class4(realm: &Realm, addr: Ip4) -> u32 {
    let covers = |&&(base, len, _): &&Prefix| len == 0 || (base ^ addr.0) >> (32 - len) == 0;
    let found = realm.v4.iter().filter(covers).max_by_key(|(_, len, _)| *len);
    found.map_or(0, |(.., class)| *class)
}

fn at<V>(intervals: &[(u64, V)], x: u64) -> &V {
    &intervals[intervals.partition_point(|(start, _)| *start <= x) - 1].1
}

pub fn class6(realm: &Realm, addr: Ip6) -> u32 {
    match at(&realm.v6, addr.high()) {
        High::Class(class) => *class,
        High::Low(low) => *at(low, addr.low()),
    }
}

impl Model {
    pub fn service(&self, proto: u8, selector: u16) -> u32 {
        match self.services.get(&proto) {
            None => 0,
            Some(Service::Direct(class)) => u32::from(*class),
            Some(Service::Selector(table)) => u32::from(table[selector as usize]),
        }
    }

    pub fn pair(&self, src: u32, dst: u32) -> u32 {
        let (row, column) = (
            self.classes[src as usize].src_row,
            self.classes[dst as usize].dst_col,
        );
        self.pairs[(row * self.columns + column) as usize]
    }

    /// Some decision for each pair class and service class.
    pub fn decision(&self, pair: u32, service: u32) -> Decision {
        let actions = [Action::Deny, Action::Allow, Action::Reject];
        let rule = (pair * 7 + service * 3 + service / 16) % self.rules.len() as u32;
        Decision::new(actions[((pair + service) % 3) as usize], rule)
    }

    fn pages_per_pair(&self) -> u32 {
        self.service_count.div_ceil(LINE_WORDS as u32)
    }

    pub fn build(&self) -> (Vec<Line>, SetHeader) {
        let mut set = Builder {
            lines: vec![Line::default(); 2],
        };
        let mut header = SetHeader {
            magic: SET_MAGIC,
            pair_columns: self.columns,
            pages_per_pair: self.pages_per_pair(),
            features: self.features,
            ..SetHeader::default()
        };
        header.realms = set.halves(&by_vlan(self.vlans.iter().map(|(vlan, n)| (*vlan, *n))));
        self.stacks(&mut set, &mut header);
        let records: Vec<_> = self.realms.iter().map(|realm| set.realm(realm)).collect();
        // Record 0 is never used.
        header.realm_records = set.table(records.into_iter().flat_map(|mut words| {
            words.resize(LINE_WORDS, POISON);
            words
        })) - 1;
        self.decisions(&mut set, &mut header);
        header.limits = set.table(self.limits.iter().copied());
        header.protect = set.table(self.protect.w);
        header.planes = set.table(self.planes);
        let lines = header.to_lines();
        set.lines[..2].copy_from_slice(&lines);
        (set.lines, header)
    }

    fn stacks(&self, set: &mut Builder, header: &mut SetHeader) {
        let mut outers: Vec<u16> = self.stacks.keys().map(|(outer, _)| *outer).collect();
        outers.sort_unstable();
        outers.dedup();
        if outers.is_empty() {
            return;
        }
        header.stacks = set.halves(&by_vlan(outers.iter().zip(1..).map(|(outer, n)| (*outer, n))));
        let mut all = Vec::new();
        for outer in outers {
            let inner = self.stacks.iter().filter(|((o, _), _)| *o == outer);
            all.extend(by_vlan(inner.map(|((_, inner), n)| (*inner, *n))));
        }
        header.stack_tables = set.halves(&all);
    }

    fn decisions(&self, set: &mut Builder, header: &mut SetHeader) {
        let class = |c: &ClassRecord| [c.src_row, c.dst_col, c.zone, c.flags];
        header.classes = set.table(self.classes.iter().flat_map(class));
        header.pairs = set.table(self.pairs.iter().copied());
        let mut protos = [PROTO_DIRECT; 256];
        for (proto, service) in &self.services {
            protos[*proto as usize] = match service {
                // The bits between mean nothing.
                Service::Direct(class) => PROTO_DIRECT | 0x0055_0000 | u32::from(*class),
                Service::Selector(table) => set.halves(table),
            };
        }
        header.protos = set.table(protos);
        let mut pages = Vec::new();
        for pair in 0..self.pair_count {
            for page in 0..self.pages_per_pair() {
                let services =
                    page * LINE_WORDS as u32..self.service_count.min((page + 1) * LINE_WORDS as u32);
                pages.push(set.table(services.map(|service| self.decision(pair, service).0)));
            }
        }
        header.decision_pages = set.table(pages);
        let rule = |r: &RuleRecord| [r.id, r.flags, r.limits, r.until];
        header.rules = set.table(self.rules.iter().flat_map(rule));
    }
}

/// A table by VLAN id.
fn by_vlan(entries: impl Iterator<Item = (u16, u16)>) -> Vec<u16> {
    let mut table = vec![0; 4096];
    for (vlan, number) in entries {
        table[vlan as usize] = number;
    }
    table
}

const POISONED: Line = Line {
    w: [POISON; LINE_WORDS],
};

struct Builder {
    lines: Vec<Line>,
}

impl Builder {
    /// Puts a table behind the others, and a poisoned line behind it.
    fn table(&mut self, words: impl IntoIterator<Item = u32>) -> u32 {
        let first = self.lines.len() as u32;
        let words: Vec<u32> = words.into_iter().collect();
        for chunk in words.chunks(LINE_WORDS) {
            let mut line = POISONED;
            line.w[..chunk.len()].copy_from_slice(chunk);
            self.lines.push(line);
        }
        self.lines.push(POISONED);
        first
    }

    fn halves(&mut self, table: &[u16]) -> u32 {
        let word = |pair: &[u16]| u32::from(pair[0]) | u32::from(pair[1]) << 16;
        self.table(table.chunks(2).map(word))
    }

    /// The words of a realm record.
    fn realm(&mut self, realm: &Realm) -> Vec<u32> {
        let long: Vec<Prefix> = realm.v4.iter().copied().filter(|(_, len, _)| *len > 16).collect();
        let short: Vec<Prefix> = realm
            .v4
            .iter()
            .copied()
            .filter(|(_, len, _)| *len <= 16)
            .collect();
        let short = Realm {
            v4: short,
            v6: Vec::new(),
        };
        let mut root: Vec<u32> = (0..=0xffff)
            .map(|high| V4_LEAF | class4(&short, Ip4(high << 16)))
            .collect();
        for (base, ..) in &long {
            root[(base >> 16) as usize] = self.node(realm, base & 0xffff_0000, 16);
        }
        let mut record = vec![self.table(root)];
        record.extend(self.high_tree(&realm.v6));
        record
    }

    /// The trie node for the prefix `base/depth`, or the leaf if nothing in it is longer.
    fn node(&mut self, realm: &Realm, base: u32, depth: u32) -> u32 {
        let inside = |(addr, len, _): &Prefix| *len > depth && (addr ^ base) >> (32 - depth) == 0;
        if !realm.v4.iter().any(inside) {
            return V4_LEAF | class4(realm, Ip4(base));
        }
        let children: Vec<u32> = (0..16)
            .map(|nibble| self.node_at(realm, base | nibble << (28 - depth), depth + 4))
            .collect();
        self.table(children)
    }

    fn node_at(&mut self, realm: &Realm, base: u32, depth: u32) -> u32 {
        if depth == 32 {
            V4_LEAF | class4(realm, Ip4(base))
        } else {
            self.node(realm, base, depth)
        }
    }

    fn high_tree(&mut self, intervals: &[(u64, High)]) -> Vec<u32> {
        let values: Vec<(u64, u32)> = intervals
            .iter()
            .map(|(start, value)| match value {
                High::Class(class) => (*start, *class),
                High::Low(low) => {
                    let tree = self.tree(low);
                    (*start, V6_SUBTREE | self.table(tree))
                }
            })
            .collect();
        self.tree(&values)
    }

    /// A tree as its twelve words.
    fn tree(&mut self, intervals: &[(u64, u32)]) -> Vec<u32> {
        let values = self.table(intervals.iter().map(|(_, value)| *value));
        let mut levels: Vec<Vec<u64>> = vec![intervals.iter().map(|(start, _)| *start).collect()];
        while levels[0].len() > 8 {
            levels.insert(0, levels[0].iter().copied().step_by(8).collect());
        }
        let level0 = self.lines.len() as u32;
        let mut words = vec![levels.len() as u32, intervals.len() as u32, values, level0];
        for level in &levels {
            let mut lines = 0;
            for keys in level.chunks(8) {
                let mut line = Line {
                    w: [u32::MAX; LINE_WORDS],
                };
                for (n, key) in keys.iter().enumerate() {
                    line.w[2 * n] = *key as u32;
                    line.w[2 * n + 1] = (*key >> 32) as u32;
                }
                self.lines.push(line);
                lines += 1;
            }
            words.push(lines);
        }
        self.lines.push(POISONED);
        words.resize(12, 0);
        words
    }
}

/// The pair class of a pair of address classes.
pub fn pair_class(entry: u32) -> u32 {
    PairEntry(entry).class()
}
