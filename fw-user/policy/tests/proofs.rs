//! The prover against the definition: planted leaks are found, what it calls isolated is isolated wherever one looks, and
//! every packet that it shows crosses.

mod random;

use fw_policy::isolate::{Crossing, Fault, Violation, Way, violations, violations_in};
use fw_policy::model::{Isolation, Policy, Rule, RuleAction, ZoneIndex};
use fw_policy::space::Scope;
use fw_policy::{Environment, Span, check};
use random::{OWN, Oracle, Parts, Random, addresses, packet, service_points};

const POLICIES: u64 = 500;
/// Packets at the edges of each policy that brute force looks at.
const PACKETS: usize = 2000;

fn environment() -> Environment {
    Environment {
        own_addresses: OWN.to_vec(),
        ..Environment::sample()
    }
}

fn isolation(left: Vec<ZoneIndex>, right: Vec<ZoneIndex>) -> Isolation {
    Isolation {
        left_name: "left".into(),
        right_name: "right".into(),
        left,
        right,
        except: Vec::new(),
        line: 1,
        span: Span::default(),
    }
}

fn lets(rule: &Rule) -> bool {
    rule.action == RuleAction::Allow || rule.audit
}

fn crossings(found: &[Violation]) -> Vec<&Crossing> {
    let crossings = found.iter().filter_map(|violation| match &violation.fault {
        Fault::Crossing(crossing) => Some(crossing),
        Fault::Overlap { .. } => None,
        Fault::Unproved { why } => panic!("these are small: {why}"),
    });
    crossings.collect()
}

/// Fails unless the packet crosses by the rule that the prover names.
fn confirm(policy: &Policy, crossing: &Crossing) {
    let mut policy = policy.clone();
    let flow = &crossing.flow;
    for (zones, address) in [
        (&crossing.source_also, flow.src),
        (&crossing.destination_also, flow.dst),
    ] {
        for name in zones {
            let zone = policy.zone(name).expect("a zone of the policy");
            let mut members = policy.zones[zone].prefixes.clone();
            members.push(address.into());
            policy.set_members(zone, members);
        }
    }
    let oracle = Oracle::new(&policy, &OWN);
    let rule = oracle
        .decide(flow)
        .unwrap_or_else(|| panic!("no rule decides {crossing:?}\n{}", policy.text));
    assert_eq!(rule.name, crossing.rule.name, "{crossing:?}\n{}", policy.text);
    assert!(lets(rule), "{crossing:?}");
    let isolation = &policy.isolations[0];
    assert!(!isolation.except.contains(&crossing.place));
    let (from, to) = match crossing.way {
        Way::LeftToRight => (&isolation.left, &isolation.right),
        Way::RightToLeft => (&isolation.right, &isolation.left),
    };
    assert!(oracle.within(from, flow.tags(), flow.src), "{crossing:?}");
    assert!(oracle.within(to, flow.tags(), flow.dst), "{crossing:?}");
}

/// Rules and directions that random packets at the edges cross by. The dynamic zone holds random addresses.
fn brute_force(random: &mut Random, policy: &Policy) -> Vec<(String, Way)> {
    let mut policy = policy.clone();
    let addresses = addresses(&policy);
    let quarantine = policy.zone("quarantine").expect("every random policy has it");
    if policy.zones[quarantine].dynamic {
        let members: Vec<_> = (0..random.below(8))
            .map(|_| (*random.pick(&addresses)).into())
            .collect();
        policy.set_members(quarantine, members);
    }
    let services = service_points(&policy);
    let oracle = Oracle::new(&policy, &OWN);
    let mut found = Vec::new();
    for _ in 0..PACKETS {
        let flow = packet(random, &policy, &addresses, &services);
        let isolation = &policy.isolations[0];
        let sides = [
            (&isolation.left, &isolation.right, Way::LeftToRight),
            (&isolation.right, &isolation.left, Way::RightToLeft),
        ];
        for (from, to, way) in sides {
            let crosses = flow.src != flow.dst
                && oracle.within(from, flow.tags(), flow.src)
                && oracle.within(to, flow.tags(), flow.dst);
            if !crosses {
                continue;
            }
            let Some(rule) = oracle.decide(&flow) else {
                continue;
            };
            if lets(rule) && !isolation.except.contains(&(rule.number as usize - 1)) {
                found.push((rule.name.clone(), way));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// A random policy whose two sides are kept apart by rules that deny, in pieces, what may cross.
fn guarded(random: &mut Random) -> (Parts, Vec<String>, [String; 2]) {
    let mut parts = Parts::new(random);
    // What is asked is not whether an unknown member could cross, which it nearly always could.
    let (left, right) = (parts.zone(random), parts.zone(random));
    let mut rules = vec![
        format!("{{ name: g0, deny: [tcp/1-1000, udp, icmp], between: [{left}, {right}] }}"),
        format!("{{ name: g1, deny: [tcp/0-1, tcp/1000-65535], from: {left}, to: any }}"),
        format!("{{ name: g2, reject: [tcp], from: any, to: {left} }}"),
        format!("{{ name: g3, deny: all, between: [{right}, {left}] }}"),
    ];
    // Ports begin at 1 in a policy.
    rules[1] = rules[1].replace("tcp/0-1, ", "");
    rules.append(&mut parts.rules);
    (parts, rules, [left, right])
}

fn with_sides(mut policy: Policy, sides: &[String; 2]) -> Policy {
    let [left, right] = [0, 1].map(|side| policy.zone(&sides[side]).expect("a zone of the policy"));
    policy.isolations = vec![isolation(vec![left], vec![right])];
    policy
}

#[test]
fn planted_leaks_are_found() {
    let mut planted = 0;
    for seed in 0.. {
        let mut random = Random(seed);
        let (parts, mut rules, sides) = guarded(&mut random);
        let leak = format!(
            "{{ name: leak, allow: [tcp/22, udp/53], from: {}, to: {} }}",
            sides[0], sides[1]
        );
        let place = random.below(3);
        rules.insert(place, leak);
        let policy = with_sides(parts.policy(&rules, random.one_in(2)), &sides);
        let sampled = brute_force(&mut random, &policy);
        if !sampled.iter().any(|(rule, _)| rule == "leak") {
            // The two have no family in common, or the rules before take all: it is no leak, or none that one stumbles on.
            continue;
        }
        planted += 1;
        let found = violations(&policy, &environment());
        let found = crossings(&found);
        for crossing in &found {
            confirm(&policy, crossing);
        }
        for (rule, way) in sampled {
            assert!(
                found
                    .iter()
                    .any(|crossing| crossing.rule.name == rule && crossing.way == way),
                "seed {seed}: {rule} crosses {way:?}, and the prover does not say so\n{}",
                policy.text
            );
        }
        if planted == POLICIES {
            println!("{planted} leaks among {} policies", seed + 1);
            return;
        }
    }
}

#[test]
fn what_is_proved_holds_wherever_one_looks() {
    let mut proved = 0;
    for seed in 10_000.. {
        let mut random = Random(seed);
        let (parts, rules, sides) = guarded(&mut random);
        let policy = with_sides(parts.policy(&rules, random.one_in(2)), &sides);
        let found = violations(&policy, &environment());
        let found = crossings(&found);
        for crossing in &found {
            confirm(&policy, crossing);
        }
        assert!(found.is_empty(), "seed {seed}: {:?}\n{}", found[0], policy.text);
        proved += 1;
        assert_eq!(
            brute_force(&mut random, &policy),
            [],
            "seed {seed}\n{}",
            policy.text
        );
        if proved == POLICIES {
            return;
        }
    }
}

#[test]
fn on_any_policy_the_prover_says_what_is() {
    let (mut clean, mut crossed) = (0, 0);
    for seed in 20_000..20_000 + POLICIES {
        let mut random = Random(seed);
        let parts = Parts::new(&mut random);
        let sides = [parts.zone(&mut random), parts.zone(&mut random)];
        let mut policy = with_sides(parts.policy(&parts.rules, true), &sides);
        // Now and then a side is dynamic, everything, or what is in no zone.
        if random.one_in(4) {
            let quarantine = policy.zone("quarantine").expect("it was written");
            policy.isolations[0].left = vec![quarantine];
        }
        if random.one_in(6) {
            policy.isolations[0].right = vec![random::any(&policy)];
        }
        policy.isolations[0].except = (0..policy.rules.len()).filter(|_| random.one_in(4)).collect();
        let found = violations(&policy, &environment());
        let found = crossings(&found);
        for crossing in &found {
            confirm(&policy, crossing);
        }
        for (rule, way) in brute_force(&mut random, &policy) {
            assert!(
                found
                    .iter()
                    .any(|crossing| crossing.rule.name == rule && crossing.way == way),
                "seed {seed}: {rule} crosses {way:?}\n{}",
                policy.text
            );
        }
        if found.is_empty() {
            clean += 1;
        } else {
            crossed += 1;
        }
    }
    println!("{clean} hold, {crossed} do not");
    assert!(clean > 50 && crossed > 50, "{clean} {crossed}");
}

const TEXT: &str = "version: 1
zones:
  gpu:     { addresses: [10.10.0.0/16, \"fd00:10::/48\"], plane: training }
  storage: { addresses: [10.20.0.0/16] }
  bastion: { addresses: [10.30.0.10], plane: management }
  inner:   { addresses: [10.10.1.0/24] }
  jobs:    { addresses: [192.0.2.77] }
rules:
  - { name: scp,      allow: [ssh], from: bastion, to: self }
  - { name: no_inner, deny: all, from: any, to: inner }
  - { name: pull,     allow: [tcp/8000-8003], from: [gpu, jobs], to: storage, track: false }
  - { name: push,     allow: [icmp, udp/7], from: storage, to: gpu }
";

fn small(left: &str, right: &str) -> Policy {
    let (mut policy, _) = check(TEXT, "small.yaml").expect("a sound policy");
    let [left, right] = [left, right].map(|name| policy.zone(name).expect("a zone"));
    policy.isolations = vec![isolation(vec![left], vec![right])];
    policy
}

#[test]
fn each_rule_and_direction_has_its_smallest_packet() {
    let mut policy = small("gpu", "storage");
    let found = violations(&policy, &Environment::sample());
    let seen: Vec<_> = crossings(&found)
        .into_iter()
        .map(|crossing| {
            (
                crossing.rule.line,
                crossing.way,
                crossing.packet.as_str(),
                crossing.untracked,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (11, Way::LeftToRight, "tcp 10.10.0.1 10.20.0.1:8000", true),
            (12, Way::RightToLeft, "udp 10.20.0.1 10.10.0.1:7", false)
        ]
    );
    policy.isolations[0].except = vec![2, 3];
    assert_eq!(violations(&policy, &Environment::sample()), []);
}

#[test]
fn an_address_on_both_sides_is_a_finding_of_its_own() {
    let found = violations(&small("gpu", "inner"), &Environment::sample());
    assert!(matches!(&found[0].fault, Fault::Overlap { address, .. } if address.to_string() == "10.10.1.1"));
}

#[test]
fn a_dynamic_zone_may_hold_any_address() {
    let mut policy = small("bastion", "storage");
    assert_eq!(violations(&policy, &Environment::sample()), []);
    let jobs = policy.zone("jobs").expect("a zone");
    policy.zones[jobs].dynamic = true;
    policy.set_members(jobs, []);
    let found = violations(&policy, &Environment::sample());
    let found = crossings(&found);
    assert_eq!(
        (found[0].packet.as_str(), found[0].source_also.as_slice()),
        ("tcp 10.30.0.10 10.20.0.1:8000", &["jobs".to_owned()][..])
    );
    let now = Scope::now(&Environment::sample());
    assert_eq!(violations_in(&policy, &now), []);
}

#[test]
fn on_every_machine_self_may_be_anywhere() {
    let policy = small("bastion", "gpu");
    assert_eq!(violations(&policy, &Environment::sample()), []);
    let found = violations_in(&policy, &Scope::everywhere());
    let found = crossings(&found);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].packet.as_str(), found[0].destination_also.as_slice()),
        ("tcp 10.30.0.10 10.10.0.1:22", &["self".to_owned()][..])
    );
}

#[test]
fn rules_that_audit_let_through() {
    let mut policy = small("inner", "bastion");
    policy.rules[1].audit = true;
    let found = violations(&policy, &Environment::sample());
    assert_eq!(crossings(&found)[0].rule.name, "no_inner");
}
