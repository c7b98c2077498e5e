//! `diff` against the definition: a flow is in exactly one set if its fate differs and in none otherwise, no set can be left
//! out, and no two can be merged.

mod random;

use std::net::IpAddr;

use fw_policy::diff::{AddressPart, AddressSet, Diff, Family, FlowSet, diff, diff_in};
use fw_policy::model::{DefaultAction, RuleAction, ServiceMatch};
use fw_policy::space::Scope;
use fw_policy::{Environment, Policy, check};
use ipnet::IpNet;
use random::{OWN, Oracle, Parts, Random, addresses, packet, service_points};

const POLICIES: u64 = 300;
const PACKETS: usize = 1500;

fn environment() -> Environment {
    Environment {
        own_addresses: OWN.to_vec(),
        ..Environment::sample()
    }
}

fn all(diff: &Diff) -> Vec<&FlowSet> {
    let lists = [&diff.allowed, &diff.denied, &diff.answered];
    lists.into_iter().flatten().collect()
}

/// Two policies of which the second came from the first by an edit, or by many.
fn pair(random: &mut Random) -> (Policy, Policy) {
    let mut parts = Parts::new(random);
    let dynamic = random.one_in(3);
    let mut old = parts.policy(&parts.rules, dynamic);
    let mut rules = parts.rules.clone();
    for _ in 0..=random.below(3) {
        let other = Parts::new(random);
        match random.below(5) {
            0 if !rules.is_empty() => drop(rules.remove(random.below(rules.len()))),
            1 if rules.len() > 1 => {
                let place = random.below(rules.len() - 1);
                rules.swap(place, place + 1);
            }
            2 => {
                let zone = random.below(parts.zones.len());
                parts.zones[zone].1.clone_from(&random.pick(&other.zones).1);
            }
            _ => {
                let rule = parts.extra_rule(random);
                rules.insert(random.below(rules.len() + 1), rule);
            }
        }
    }
    let mut new = parts.policy(&rules, dynamic);
    if random.one_in(6) {
        new.default.inside = DefaultAction::Reject;
    }
    if dynamic {
        let members: Vec<IpNet> = (0..3).map(|_| (*random.pick(&addresses(&old))).into()).collect();
        for policy in [&mut old, &mut new] {
            let quarantine = policy.zone("quarantine").expect("it was written");
            policy.set_members(quarantine, members.clone());
        }
    }
    (old, new)
}

/// Fails unless each of the packets is in the set that it belongs to, and in no other.
fn exact(random: &mut Random, (old, new): (&Policy, &Policy), diff: &Diff) -> usize {
    let mut places = addresses(old);
    places.extend(addresses(new));
    places.sort_unstable();
    places.dedup();
    let mut services = service_points(old);
    services.extend(service_points(new));
    let (before, after) = (Oracle::new(old, &OWN), Oracle::new(new, &OWN));
    let mut differing = 0;
    for _ in 0..PACKETS {
        let policy = if random.one_in(2) { old } else { new };
        let flow = packet(random, policy, &places, &services);
        let fates = (before.action(&flow), after.action(&flow));
        let no = |_: &str| false;
        let held: Vec<&FlowSet> = all(diff)
            .into_iter()
            .filter(|set| set.contains(&flow, no, no))
            .collect();
        let context = || {
            format!(
                "{flow} {:?}\n{}\n---\n{}\n---\n{diff}",
                flow.tags(),
                old.text,
                new.text
            )
        };
        if fates.0 == fates.1 {
            assert!(held.is_empty(), "{}", context());
            continue;
        }
        differing += 1;
        assert_eq!(held.len(), 1, "{fates:?} {}", context());
        assert_eq!((held[0].before, held[0].after), fates, "{}", context());
        let (left, right) = (before.decide(&flow), after.decide(&flow));
        for (rule, named) in [(left, &held[0].old_rules), (right, &held[0].new_rules)] {
            if let Some(rule) = rule {
                assert!(named.iter().any(|own| own.name == rule.name), "{}", context());
            }
        }
    }
    differing
}

fn spans(set: &AddressSet, family: Family) -> Vec<&AddressPart> {
    let ours = |part: &&AddressPart| part.prefixes[0].addr().is_ipv4() == (family == Family::Ipv4);
    set.parts.iter().filter(ours).collect()
}

fn meet(a: &AddressSet, b: &AddressSet, family: Family) -> bool {
    let excluded =
        |a: &AddressPart, b: &AddressPart| a.held_by.iter().any(|zone| b.not_held_by.contains(zone));
    let meets = |a: &AddressPart, b: &AddressPart| {
        let mut pairs = a
            .prefixes
            .iter()
            .flat_map(|x| b.prefixes.iter().map(move |y| (x, y)));
        !excluded(a, b) && !excluded(b, a) && pairs.any(|(x, y)| x.contains(y) || y.contains(x))
    };
    let (a, b) = (spans(a, family), spans(b, family));
    a.iter().any(|a| b.iter().any(|b| meets(a, b)))
}

fn serve(a: &[ServiceMatch], b: &[ServiceMatch]) -> bool {
    let meets = |x: &ServiceMatch, y: &ServiceMatch| {
        (x.proto.is_none() || y.proto.is_none() || x.proto == y.proto)
            && x.lo <= y.hi
            && y.lo <= x.hi
            && x.src_lo <= y.src_hi
            && y.src_lo <= x.src_hi
    };
    a.iter().any(|x| b.iter().any(|y| meets(x, y)))
}

/// Fails if a set is empty or shares a flow with another (then one might be left out), or if two can be merged: if they say the
/// same but for one of realms, sources, destinations, services.
fn irredundant(diff: &Diff) {
    let sets = all(diff);
    for family in [Family::Ipv4, Family::Ipv6] {
        let sets: Vec<&&FlowSet> = sets.iter().filter(|set| set.families.contains(&family)).collect();
        for (index, a) in sets.iter().enumerate() {
            assert!(!spans(&a.source, family).is_empty() && !spans(&a.destination, family).is_empty());
            assert!(!a.services.is_empty() && !a.tags.is_empty(), "{a}");
            for b in &sets[index + 1..] {
                let common = a.tags.iter().any(|tags| b.tags.contains(tags))
                    && meet(&a.source, &b.source, family)
                    && meet(&a.destination, &b.destination, family)
                    && serve(&a.services, &b.services);
                assert!(!common, "{a}\n{b}");
                if (a.before, a.after) != (b.before, b.after) {
                    continue;
                }
                let differ = [
                    a.tags != b.tags,
                    spans(&a.source, family) != spans(&b.source, family),
                    spans(&a.destination, family) != spans(&b.destination, family),
                    a.services != b.services,
                ];
                assert!(differ.iter().filter(|differ| **differ).count() > 1, "{a}\n{b}");
            }
        }
    }
}

#[test]
fn differences_are_exact_and_none_too_many() {
    let (mut differing, mut sets) = (0, 0);
    for seed in 0..POLICIES {
        let mut random = Random(seed);
        let (old, new) = pair(&mut random);
        let diff = diff(&old, &new, &environment()).expect("small policies");
        differing += exact(&mut random, (&old, &new), &diff);
        irredundant(&diff);
        sets += all(&diff).len();
        serde_json::to_string(&diff).expect("plain data");
    }
    println!(
        "{sets} sets, {differing} of {} packets differ",
        POLICIES as usize * PACKETS
    );
    assert!(differing > 20_000 && sets > 1000, "{differing} {sets}");
}

#[test]
fn a_policy_is_like_itself_and_like_one_in_other_words() {
    for seed in 0..50 {
        let mut random = Random(seed);
        let (old, new) = pair(&mut random);
        let one = diff_in(&old, &old, &Scope::everywhere()).expect("small policies");
        assert!(one.is_empty(), "{one}");
        let forth = diff_in(&old, &new, &Scope::everywhere()).expect("small policies");
        let back = diff_in(&new, &old, &Scope::everywhere()).expect("small policies");
        let flows = |sets: &[FlowSet]| {
            let mut flows: Vec<_> = sets
                .iter()
                .map(|set| (set.services.clone(), set.tags.clone()))
                .collect();
            flows.sort();
            flows
        };
        assert_eq!(flows(&forth.allowed), flows(&back.denied));
        irredundant(&forth);
    }
}

const ZONES: &str = "version: 1
zones:
  gpu:     [10.10.0.0/16, \"fd00:10::/48\"]
  storage: [10.20.0.0/16]
  backup:  [10.21.0.0/16]
  bastion: [10.30.0.10]
  inner:   [10.10.9.0/24]
  jobs:    [192.0.2.77]
rules:
";

fn policy(rules: &str) -> Policy {
    let (mut policy, _) =
        check(&format!("{ZONES}{rules}"), "test.yaml").unwrap_or_else(|findings| panic!("{findings}"));
    let jobs = policy.zone("jobs").expect("a zone");
    policy.set_members(jobs, []);
    policy.zones[jobs].dynamic = true;
    policy
}

#[test]
fn sets_are_named_as_an_operator_would() {
    let old = policy(
        "  - { name: nfs, allow: [nfs], from: gpu, to: storage }
  - { name: admin, allow: [ssh, ping], from: bastion, to: self }
",
    );
    let new = policy(
        "  - { name: stop, deny: all, from: jobs, to: any }
  - { name: keep, reject: [tcp/2049], from: inner, to: storage }
  - { name: nfs, allow: [nfs, tcp/111], from: gpu, to: [storage, backup] }
  - { name: admin, allow: [ssh], from: bastion, to: self }
  - { name: every, allow: [tcp/9100], from: bastion, to: any }
",
    );
    let found = diff_in(&old, &new, &Scope::everywhere()).expect("small policies");
    insta::assert_snapshot!("named_sets", found.to_string());
    let sample = diff(&old, &new, &Environment::sample()).expect("small policies");
    let any_held = |set: &FlowSet| set.source.parts.iter().any(|part| !part.held_by.is_empty());
    assert!(!all(&sample).into_iter().any(any_held) && all(&found).into_iter().any(any_held));
}

#[test]
fn a_realm_of_one_policy_is_denied_by_the_other() {
    let old = policy("  - { name: web, allow: [https], from: any, to: any }\n");
    let text = format!("{ZONES}  - {{ name: web, allow: [https], from: any, to: any }}\n");
    let text = text.replace(
        "rules:",
        "  guest: { addresses: [10.99.0.0/16], vlan: 7 }\nrules:",
    );
    let (mut new, _) = check(&text, "new.yaml").unwrap_or_else(|findings| panic!("{findings}"));
    let jobs = new.zone("jobs").expect("a zone");
    new.set_members(jobs, []);
    let diff = diff(&old, &new, &Environment::sample()).expect("small policies");
    assert_eq!(
        diff.to_string().lines().collect::<Vec<_>>(),
        [
            "becomes allowed:",
            "  any -> any: tcp/443, VLAN 7  (deny: default => allow: web, new.yaml:11)"
        ]
    );
    let sets = all(&diff);
    assert_eq!(
        (sets[0].before, sets[0].after),
        (RuleAction::Deny, RuleAction::Allow)
    );
    assert!(sets[0].source.contains(IpAddr::from([1, 2, 3, 4]), |_| false));
}
