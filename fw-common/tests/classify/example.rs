//! A policy with all shapes of tables, its interesting addresses, and what the look-up must say.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use fw_common::abi::{ClassRecord, Ip4, Ip6, Line, RuleRecord, SetHeader};
use fw_common::classify::{Address, Classified, Walk};

use crate::set::{High, Model, Realm, Service, pair_class};

pub const CLASSES: u32 = 23;
const ROWS: u32 = 7;
const COLUMNS: u32 = 5;
const PAIRS: u32 = 6;
const SERVICES: u32 = 41;
const RULES: u32 = 38;

/// Numbers that look random and are always the same (Knuth's multiplier).
fn mix(n: u64) -> u64 {
    let x = (n + 1).wrapping_mul(6_364_136_223_846_793_005);
    x ^ (x >> 29)
}

/// Sorted starts from 0: neighbours, both sides of the sign bit, and others.
fn starts(count: usize, seed: u64) -> Vec<u64> {
    let mut starts: BTreeSet<u64> = [0, 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, u64::MAX - 1]
        .into_iter()
        .take(count)
        .collect();
    let mut n = seed << 32;
    while starts.len() < count {
        starts.insert(mix(n));
        n += 1;
    }
    starts.into_iter().collect()
}

fn class_of(n: u64) -> u32 {
    (mix(n) >> 40) as u32 % CLASSES
}

fn low(count: usize, seed: u64) -> Vec<(u64, u32)> {
    let classes = (0..).map(|n| class_of(seed * 1000 + n));
    starts(count, seed).into_iter().zip(classes).collect()
}

/// A map of high halves; each fifth interval has one of low halves, of 1, 2 or 3 levels.
fn high(count: usize, seed: u64) -> Vec<(u64, High)> {
    let value = |n: u64| match n % 5 {
        3 => High::Low(low([1, 8, 9, 64, 65, 100][n as usize / 5 % 6], seed + n)),
        _ => High::Class(class_of(seed * 7 + n)),
    };
    starts(count, seed).into_iter().zip((0..).map(value)).collect()
}

fn realms() -> Vec<Realm> {
    let net = 0x0a01_0000;
    vec![
        Realm {
            v4: vec![
                (0, 0, 1),
                (0x0a00_0000, 8, 2),
                (net, 16, 3),
                (net | 0x2000, 20, 4),
                (net | 0x3450, 28, 5),
                (net | 0x3458, 32, 6),
                (net | 0x345f, 32, 7),
                (net | 0xf000, 24, 8),
                (net | 0xffff, 32, 9),
                (0xc000_0201, 32, 10),
                (0xffff_ffff, 32, 11),
            ],
            v6: high(150, 1),
        },
        Realm {
            v4: vec![(0, 0, 12)],
            v6: vec![(0, High::Class(13))],
        },
        Realm {
            v4: vec![(0, 0, 14), (0x8000_0000, 1, 15), (0x7fff_8000, 17, 16)],
            v6: high(8, 2),
        },
        Realm {
            v4: vec![(0xe000_0000, 4, 17), (0, 32, 18)],
            v6: high(64, 3),
        },
    ]
}

/// Both sides of the direct mark, and classes on all three pages of a pair.
fn services() -> HashMap<u8, Service> {
    let selector = |seed: u64| {
        let class = |n: u64| (mix(seed + n) >> 33) as u16 % SERVICES as u16;
        Service::Selector((0..65_536).map(class).collect())
    };
    [
        (1, selector(1 << 20)),
        (6, selector(2 << 20)),
        (17, selector(3 << 20)),
        (16, Service::Direct(40)),
        (47, Service::Direct(15)),
        (50, Service::Direct(16)),
        (255, Service::Direct(33)),
    ]
    .into()
}

pub fn model() -> Model {
    Model {
        realms: realms(),
        vlans: [
            (0, 1),
            (1, 2),
            (2, 3),
            (31, 4),
            (32, 1),
            (33, 2),
            (100, 3),
            (4094, 4),
            (4095, 1),
        ]
        .into(),
        stacks: [
            ((100, 7), 2),
            ((100, 8), 3),
            ((101, 7), 4),
            ((101, 4095), 1),
            ((2000, 1), 2),
        ]
        .into(),
        classes: (0..CLASSES)
            .map(|n| ClassRecord {
                src_row: n * 3 % ROWS,
                dst_col: n * 2 % COLUMNS,
                zone: 1000 + n,
                flags: (0x100 << (n % 8)) | n,
            })
            .collect(),
        columns: COLUMNS,
        pairs: (0..ROWS * COLUMNS)
            .map(|n| (n * 5 % PAIRS) | ((n % 16) << 24))
            .collect(),
        services: services(),
        service_count: SERVICES,
        pair_count: PAIRS,
        rules: (0..RULES)
            .map(|n| RuleRecord {
                id: 5000 + n,
                flags: 6000 + n,
                limits: 7000 + n,
                until: 8000 + n,
            })
            .collect(),
        limits: (0..9 * 8).map(|n| 9000 + n).collect(),
        protect: Line {
            w: std::array::from_fn(|n| if n == 15 { 0 } else { 77 + n as u32 }),
        },
        planes: std::array::from_fn(|n| 1 << n),
        features: 0x5a,
    }
}

pub struct Fixture {
    pub model: Model,
    pub lines: Vec<Line>,
    pub header: SetHeader,
}

pub fn fixture() -> &'static Fixture {
    static MADE: OnceLock<Fixture> = OnceLock::new();
    MADE.get_or_init(|| {
        let model = model();
        let (lines, header) = model.build();
        Fixture { model, lines, header }
    })
}

/// Borders of the IPv4 map, and the addresses beside them.
pub fn addresses4(realm: &Realm) -> Vec<Ip4> {
    let mut all = BTreeSet::from([0, u32::MAX, 1 << 31, (1 << 31) - 1]);
    for (base, len, _) in &realm.v4 {
        let end = base | u32::MAX.checked_shr(*len).unwrap_or(0);
        all.extend([
            *base,
            base.wrapping_sub(1),
            end,
            end.wrapping_add(1),
            base | 0x10,
            base | 0x1000,
        ]);
    }
    all.into_iter().map(Ip4).collect()
}

pub fn beside(starts: impl Iterator<Item = u64>) -> Vec<u64> {
    let near = |x: u64| [x.saturating_sub(1), x, x.saturating_add(1)];
    starts.flat_map(near).chain([u64::MAX, 1 << 63]).collect()
}

/// Borders of the IPv6 map, and the addresses beside them.
pub fn addresses6(realm: &Realm) -> Vec<Ip6> {
    let mut all = Vec::new();
    for high in beside(realm.v6.iter().map(|(start, _)| *start)) {
        let index = realm.v6.partition_point(|(start, _)| *start <= high) - 1;
        let lows = match &realm.v6[index].1 {
            High::Class(_) => vec![0, u64::MAX],
            High::Low(low) => beside(low.iter().map(|(start, _)| *start)),
        };
        let addr = |low: u64| Ip6::from_bits(u128::from(high) << 64 | u128::from(low));
        all.extend(lows.into_iter().map(addr));
    }
    all
}

pub fn class<A: Address>(lines: &[Line], record: u32, addr: A) -> u32 {
    // What was looked for before does not matter.
    let mut walk = Walk {
        x: 99,
        base: 98,
        index: 97,
        tree: 96,
        at: 95,
        realm: 94,
        pad: 0,
        low: 93,
    };
    addr.class(lines, record, &mut walk)
}

/// The look-up of a packet, on the lists.
pub fn expected(model: &Model, (src, dst): (u32, u32), proto: u8, selector: u16) -> Classified {
    let pair = model.pair(src, dst);
    let decision = model.decision(pair_class(pair), model.service(proto, selector));
    let rule = model.rules[decision.rule() as usize];
    Classified {
        src: model.classes[src as usize],
        dst: model.classes[dst as usize],
        decision: decision.0,
        rule_id: rule.id,
        rule_flags: rule.flags,
        rule_limits: rule.limits,
        rule_until: rule.until,
        pair,
        found: 1,
        ..Classified::default()
    }
}

pub fn without_walk(mut out: Classified) -> Classified {
    out.walk = Walk::default();
    (out.src_class, out.dst_class, out.service) = (0, 0, 0);
    out
}
