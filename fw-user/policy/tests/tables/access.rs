//! Router access lists: independent rules between arbitrary, overlapping prefixes, with ranges of ports on both sides and
//! wildcards everywhere.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use fw_policy::{
    Choice, Environment, Options, Policy, Representation, compile, compile_with, compile_within,
};

use crate::oracle::{compare_everywhere, compare_set, read};

/// Numbers that look random and are always the same (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// An access list of so many rules. `space` is how many of an address's bits differ.
fn access_list(rules: usize, space: u32, seed: u64) -> Policy {
    let mut random = Random(seed);
    let mut zones = String::new();
    let mut text = String::new();
    for rule in 0..rules {
        let ends = ["s", "d"].map(|side| {
            if random.below(6) == 0 {
                return "any".to_owned();
            }
            let length = [8, 12, 16, 20, 24, 28, 32][random.below(7) as usize];
            let bits = (random.next() as u32) & ((1 << space) - 1);
            let address = Ipv4Addr::from(0x0a00_0000 | bits << (24 - space));
            let net = ipnet::Ipv4Net::new(address, length).expect("a length").trunc();
            let _ = writeln!(zones, "  {side}{rule}: [{net}]");
            format!("{side}{rule}")
        });
        let low = random.below(60_000) as u16;
        let service = match random.below(5) {
            0 => "all".to_owned(),
            1 => format!("tcp/{low}"),
            2 => format!("tcp/{low}-{}", low + random.below(5_000) as u16),
            3 => format!("udp/{low}-{}", low + random.below(50) as u16),
            _ => "tcp, udp/53, icmp/8".to_owned(),
        };
        let action = ["allow", "deny"][random.below(2) as usize];
        let [from, to] = ends;
        let _ = writeln!(
            text,
            "  - {{ name: r{rule}, {action}: [{service}], from: {from}, to: {to} }}"
        );
    }
    let mut policy = read(&format!("version: 1\nzones:\n{zones}rules:\n{text}"));
    for rule in &mut policy.rules {
        for service in &mut rule.services {
            if matches!(service.proto, Some(6 | 17)) && random.below(3) == 0 {
                service.src_lo = [0, 1_024, random.below(65_000) as u16][random.below(3) as usize];
                service.src_hi = service.src_lo.saturating_add(random.below(40_000) as u16);
            }
        }
    }
    policy
}

#[test]
fn small_lists_decide_as_defined() {
    for seed in 1..9 {
        let policy = access_list(20 + 10 * seed as usize, 4 + seed as u32, seed * 0x9e37_79b9);
        compare_everywhere(&policy, &Environment::sample(), 1_500);
    }
}

#[test]
fn a_long_list_becomes_vectors_and_decides_as_defined() {
    let policy = access_list(1_500, 24, 77);
    let tables = compile(&policy, &Environment::sample()).expect("vectors hold it");
    let stats = &tables.stats;
    assert_eq!(stats.representation, Representation::Vectors, "{stats:?}");
    assert!(stats.why.contains("table of"), "{}", stats.why);
    assert!(stats.bytes < 64 << 20, "{stats:?}");
    assert!(stats.lookup_v4 < 150, "{stats:?}");
    compare_set(&policy, &Environment::sample(), &tables, 1_000);
}

#[test]
fn what_fits_neither_way_says_so_and_names_the_largest() {
    let policy = access_list(400, 24, 5);
    let error = compile_within(&policy, &Environment::sample(), 768 << 10).expect_err("768 KiB are too few");
    let text = error.to_string();
    assert!(text.contains("The most of it comes from the "), "{text}");
    let options = |choice| Options {
        limit: 4 << 20,
        choice,
    };
    let vectors = options(Choice::Only(Representation::Vectors));
    compile_with(&policy, &Environment::sample(), vectors).expect("vectors fit");
    let tables =
        compile_with(&policy, &Environment::sample(), options(Choice::Auto)).expect("they are chosen");
    assert_eq!(tables.stats.representation, Representation::Vectors);
}

#[test]
fn compiling_twice_gives_the_same_lines() {
    let policy = access_list(300, 20, 9);
    for representation in [Representation::Pairs, Representation::Vectors] {
        let options = Options {
            choice: Choice::Only(representation),
            ..Options::default()
        };
        let sets = [(); 2].map(|()| {
            compile_with(&policy, &Environment::sample(), options)
                .expect("they fit")
                .lines
        });
        assert!(sets[0] == sets[1]);
    }
}
