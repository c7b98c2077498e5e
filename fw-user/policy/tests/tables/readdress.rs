//! Other addresses only: the quick way decides as a fresh compile does.

use std::net::IpAddr;

use fw_policy::{Choice, Compiled, Environment, Options, Policy, Readdressed, Representation, compile};
use ipnet::IpNet;
use proptest::prelude::*;

use crate::oracle::{compare_set, read};
use crate::random::{policy_text, ports, prefix, with_source_ports};

const POLICY: &str = "
version: 1
zones:
  cluster: [10.10.0.0/16, \"fd00:10::/48\"]
  storage: [10.20.0.0/16]
  job:     [10.10.9.0/28]
rules:
  - { name: quarantined, deny: [tcp/25], from: job, to: any }
  - { name: collectives, allow: [tcp/1000-2000], from: job, to: [job, storage] }
  - { name: files, allow: [tcp/2049], from: cluster, to: storage }
  - { name: ssh, allow: [ssh], from: any, to: self }
";

/// The policy with the zone `job` made dynamic, holding these prefixes.
fn with_job(members: &[&str]) -> Policy {
    let mut policy = read(POLICY);
    let job = policy.zone("job").expect("it is there");
    policy.zones[job].dynamic = true;
    let members: Vec<IpNet> = members
        .iter()
        .map(|text| text.parse().expect("a prefix"))
        .collect();
    policy.set_members(job, members);
    policy
}

fn environment(generation: u32, own: &[&str]) -> Environment {
    Environment {
        generation,
        own_addresses: own.iter().map(|text| text.parse().expect("an address")).collect(),
        ..Environment::sample()
    }
}

#[test]
fn members_come_and_go_quickly() {
    for representation in [Representation::Pairs, Representation::Vectors] {
        let options = Options {
            choice: Choice::Only(representation),
            ..Options::default()
        };
        let here = environment(1, &["10.10.0.1"]);
        let (mut compiled, _) = Compiled::with(&with_job(&[]), &here, options).expect("it is tiny");
        let changes: [&[&str]; 5] = [
            &["10.10.3.0/28"],
            &["10.10.3.0/28", "10.20.0.0/24", "172.16.0.0/12", "fd00:10::7/128"],
            &["10.10.0.1/32", "0.0.0.0/0", "::/0"],
            &["169.254.0.0/16"],
            &[],
        ];
        for (generation, members) in (2..).zip(changes) {
            let policy = with_job(members);
            let here = environment(generation, &["10.10.0.1"]);
            let (tables, what) = compiled.readdress(&policy, &here).expect("it is tiny");
            assert_eq!(what, Readdressed::Addresses, "{members:?}");
            assert_eq!(tables.stats.representation, representation);
            compare_set(&policy, &here, &tables, 1_000);
        }
    }
}

#[test]
fn what_else_changes_is_compiled_anew() {
    let here = environment(1, &["10.10.0.1"]);
    let limit = fw_policy::compile::DEFAULT_LIMIT;
    let (mut compiled, _) = Compiled::new(&with_job(&[]), &here, limit).expect("it is tiny");
    let mut ask = |policy: &Policy, environment: &Environment| {
        let (tables, what) = compiled.readdress(policy, environment).expect("it is tiny");
        let fresh = compile(policy, environment).expect("it is tiny");
        (tables.lines == fresh.lines, what)
    };
    let mut policy = with_job(&[]);
    policy.rules[1].services[0].hi += 1;
    let (same, what) = ask(&policy, &here);
    assert!(
        same && matches!(what, Readdressed::Everything { why: "rules differ" }),
        "{what:?}"
    );
    let mut roles = here.clone();
    roles.roles.push("uplink".to_owned());
    let (same, what) = ask(&policy, &roles);
    assert!(same && matches!(what, Readdressed::Everything { .. }), "{what:?}");
    policy.zones[0].lifeline = true;
    let (same, what) = ask(&policy, &roles);
    assert!(same && matches!(what, Readdressed::Everything { .. }), "{what:?}");
    // The same again: only the generation.
    let next = Environment {
        generation: 9,
        ..roles.clone()
    };
    let (_, what) = ask(&policy, &next);
    assert_eq!(what, Readdressed::Addresses);
}

#[test]
fn a_refused_change_leaves_the_old_one() {
    let here = environment(1, &[]);
    let limit = fw_policy::compile::DEFAULT_LIMIT;
    let (mut compiled, first) = Compiled::new(&with_job(&[]), &here, limit).expect("it is tiny");
    let none = environment(0, &[]);
    compiled
        .readdress(&with_job(&[]), &none)
        .expect_err("generation 0 is none");
    let (again, what) = compiled.readdress(&with_job(&[]), &here).expect("it is tiny");
    assert_eq!(what, Readdressed::Addresses);
    assert!(again.lines == first.lines);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever zones become dynamic and whatever addresses come: as a fresh compile.
    #[test]
    fn as_a_fresh_compile(
        text in policy_text(),
        ports in ports(),
        dynamic in 0..32_u8,
        steps in prop::collection::vec((0..5_usize, prop::collection::vec(prefix(), 0..4)), 1..5),
        own in any::<u8>(),
        vectors: bool,
    ) {
        let mut policy = with_source_ports(read(&text), &ports);
        for (zone, found) in policy.zones.iter_mut().take(5).enumerate() {
            // Planes may not overlap, which nobody checks here.
            found.plane = 0;
            found.dynamic = dynamic >> zone & 1 != 0;
        }
        let choice = if vectors {
            Choice::Only(Representation::Vectors)
        } else {
            Choice::Auto
        };
        let options = Options { choice, ..Options::default() };
        let mut environment = Environment {
            own_addresses: vec![IpAddr::from([10, 0, 0, own & 7])],
            ..Environment::sample()
        };
        let (mut compiled, _) = Compiled::with(&policy, &environment, options).expect("it is small");
        for (zone, members) in steps {
            let members: Vec<IpNet> = members
                .iter()
                .map(|text| text.trim_matches('"').parse().expect("a prefix"))
                .collect();
            policy.set_members(zone, members);
            environment.generation += 1;
            let (tables, _) = compiled.readdress(&policy, &environment).expect("it is small");
            compare_set(&policy, &environment, &tables, 300);
        }
    }
}
