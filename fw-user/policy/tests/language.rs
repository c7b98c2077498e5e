//! What the parts of the language mean: zones and what they hold, files, includes, source ports, isolations, warnings' absence.

mod common;

use common::Texts;
use fw_policy::model::{Policy, Tags};
use fw_policy::{Environment, Loader as _, add_tests, check, check_files, load, run_expectations};

fn policy(text: &str) -> Policy {
    check(text, "policy.yaml")
        .unwrap_or_else(|findings| panic!("{findings}"))
        .0
}

fn prefixes(policy: &Policy, zone: &str) -> Vec<String> {
    let zone = policy.zone(zone).unwrap_or_else(|| panic!("no zone {zone}"));
    policy.zones[zone]
        .prefixes
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn zones_hold_what_they_say() {
    let policy = policy(
        "version: 1
zones:
  range:    [10.0.0.5-10.0.0.9, \"fd00::-fd00::ffff\"]
  merged:   [10.1.0.0/24, 10.1.1.0/24, 10.1.0.7, 10.1.2.0-10.1.3.255]
  without:  { addresses: [10.2.0.0/24], exclude: [10.2.0.0/25, 10.2.0.255] }
  parts:    { zones: [range, without], addresses: [10.9.0.1], exclude: [range] }
  tagged:   { addresses: [10.3.0.0/16], vlan: [100, 7] }
  same_tag: { zones: [tagged] }
  nested:   { zones: [same_tag], exclude: [10.3.128.0/17] }
rules:
  - { name: r, deny: all, from: [merged, parts, nested], to: any }
",
    );
    assert_eq!(
        prefixes(&policy, "range"),
        ["10.0.0.5/32", "10.0.0.6/31", "10.0.0.8/31", "fd00::/112"]
    );
    assert_eq!(prefixes(&policy, "merged"), ["10.1.0.0/22"]);
    let rest = [
        "10.2.0.128/26",
        "10.2.0.192/27",
        "10.2.0.224/28",
        "10.2.0.240/29",
        "10.2.0.248/30",
        "10.2.0.252/31",
        "10.2.0.254/32",
    ];
    assert_eq!(prefixes(&policy, "without"), rest);
    assert_eq!(prefixes(&policy, "parts"), [&rest[..], &["10.9.0.1/32"]].concat());
    assert_eq!(prefixes(&policy, "nested"), ["10.3.0.0/17"]);
    let nested = policy.zone("nested").expect("a zone");
    assert_eq!(policy.zones[nested].tags(), Tags { outer: 100, inner: 7 });
}

#[test]
fn included_files_come_first_and_spans_know_their_file() {
    let files = [
        (
            "site/policy.yaml",
            "version: 1\ninclude: [base/zones.yaml, rules.yaml]\nzones: { own: [10.3.0.0/16] }\nrules:\n  - { name: last, allow: [api], from: own, to: base }\nexpect:\n  - { flow: tcp own base:9000, is: allow, rule: last }\n",
        ),
        (
            "site/base/zones.yaml",
            "version: 1\nzones: { base: { file: feeds/base.txt } }\nservices: { api: [tcp/9000] }\n",
        ),
        ("site/base/feeds/base.txt", "10.1.0.0/16\n"),
        (
            "site/rules.yaml",
            "version: 1\n\nrules:\n  - { name: first, deny: [ssh], from: own, to: base }\nexpect:\n  - { flow: tcp own base:22, is: allow }\n",
        ),
    ];
    let (policy, warnings) =
        load(&Texts(&files), "site/policy.yaml").unwrap_or_else(|error| panic!("{error}"));
    assert!(warnings.items.is_empty(), "{warnings}");
    let names: Vec<&str> = policy.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["first", "last"]);
    let places: Vec<(&str, usize)> = policy
        .rules
        .iter()
        .map(|rule| (policy.sources.name(rule.span), rule.line))
        .collect();
    assert_eq!(places, [("site/rules.yaml", 4), ("site/policy.yaml", 5)]);
    assert_eq!(
        (policy.zones[0].name.as_str(), policy.zones[1].name.as_str()),
        ("base", "own")
    );
    let results = run_expectations(&policy, &Environment::sample()).expect("a small policy");
    let met: Vec<(bool, &str)> = results
        .results
        .iter()
        .map(|result| (result.passed, result.file.as_str()))
        .collect();
    assert_eq!(met, [(false, "site/rules.yaml"), (true, "site/policy.yaml")]);
    let report = &results.diagnostics.reports()[0];
    assert_eq!((report.file.as_str(), report.line), ("site/rules.yaml", 6));
    // What was read can be kept and checked again, to the same policy.
    let text = policy
        .sources
        .load("site/policy.yaml")
        .expect("the policy itself");
    let (again, _) = check_files(&policy.sources, &text, "site/policy.yaml").expect("the same policy");
    assert_eq!(again.hash, policy.hash);
    let changed = [
        files[0],
        files[1],
        ("site/base/feeds/base.txt", "10.2.0.0/16\n"),
        files[3],
    ];
    let (other, _) = load(&Texts(&changed), "site/policy.yaml").expect("a sound policy");
    assert_ne!(other.hash, policy.hash, "another feed makes another policy");
}

#[test]
fn source_ports_are_part_of_a_match() {
    let policy = policy(
        "version: 1\nzones: { a: [10.0.0.0/8] }\nservices: { boot: [udp/69 from 1024-65535, tcp from 20] }\nrules:\n  - { name: r, allow: [nfs_secure, boot], from: a, to: a }\n",
    );
    let rule = &policy.rules[0];
    for (proto, port, source, served) in [
        (6, 2049, 1023, true),
        (6, 2049, 1024, false),
        (6, 5, 20, true),
        (6, 5, 21, false),
        (17, 69, 1024, true),
        (17, 69, 1023, false),
    ] {
        assert_eq!(
            rule.serves(proto, port, source),
            served,
            "{proto} {port} {source}"
        );
    }
}

#[test]
fn isolations_are_pairs() {
    let text = "version: 1
zones:
  gpu: { addresses: [10.1.0.0/16], plane: training, labels: { tenant: a } }
  sto: { addresses: [10.2.0.0/16], plane: storage, labels: { tenant: b } }
  bmc: { addresses: [10.3.0.0/16], plane: management, labels: { tenant: c } }
rules:
  - { name: admin, allow: [ssh], from: bmc, to: gpu }
  - { name: other, allow: [ssh], from: bmc, to: sto }
isolate:
  - { planes: [training, storage, management], except: [other, admin] }
  - { each: { label: tenant }, except: [other, admin] }
  - { zones: [gpu, [sto, bmc], self], except: admin }
";
    let policy = policy(text);
    let sides = |index: usize| {
        let isolation = &policy.isolations[index];
        (
            isolation.left_name.as_str(),
            isolation.right_name.as_str(),
            isolation.except.clone(),
            isolation.line,
        )
    };
    assert_eq!(policy.isolations.len(), 3 + 2 + 3);
    assert_eq!(sides(0), ("plane training", "plane storage", vec![0, 1], 10));
    assert_eq!(sides(2), ("plane storage", "plane management", vec![0, 1], 10));
    assert_eq!(sides(3), ("tenant=a", "tenant=b and 1 others", vec![0, 1], 11));
    assert_eq!(
        (&policy.isolations[3].left, &policy.isolations[3].right),
        (&vec![0], &vec![1, 2])
    );
    assert_eq!(sides(4), ("tenant=b", "tenant=c", vec![0, 1], 11));
    assert_eq!(sides(5), ("zone gpu", "zones sto, bmc", vec![0], 12));
    assert_eq!(sides(7), ("zones sto, bmc", "zone self", vec![0], 12));
}

#[test]
fn a_zone_without_a_vlan_is_seen_in_that_of_the_other_side() {
    let mut policy = policy(
        "version: 1
zones:
  gateway: [10.50.0.0/28]
  held:    { dynamic: true, labels: { kind: held } }
  tenant:  { addresses: [192.168.0.0/16], vlan: 101 }
  stacked: { addresses: [192.168.0.0/16], vlan: [200, 7] }
  far:     [10.60.0.0/16]
rules:
  - { name: hold,  deny: all, from: { label: kind }, to: tenant }
  - { name: serve, allow: [https], from: gateway, to: [tenant, stacked, self] }
  - { name: plain, allow: [https], from: gateway, to: far }
isolate:
  - { zones: [gateway, far], except: [plain, serve] }
",
    );
    let names: Vec<&str> = policy.zones.iter().map(|zone| zone.name.as_str()).collect();
    assert_eq!(
        names[..9],
        [
            "gateway",
            "held",
            "tenant",
            "stacked",
            "far",
            "gateway@101",
            "gateway@200.7",
            "held@101",
            "self"
        ]
    );
    assert_eq!(policy.rules[1].directions[0].from, [0, 5, 6]);
    assert_eq!(policy.rules[1].directions[0].to, [2, 3, 8]);
    assert_eq!(policy.rules[2].directions[0].from, [0]);
    assert_eq!(policy.isolations[0].left, [0, 5, 6]);
    let address = "10.50.0.1".parse().expect("an address");
    let of = |vlan| {
        policy
            .most_specific(Tags::from(vlan), address, &[])
            .map(|zone| names[zone])
    };
    assert_eq!((of(0), of(101)), (Some("gateway"), Some("gateway@101")));
    policy.set_members(1, ["10.50.0.9/32".parse().expect("a prefix")]);
    assert_eq!(prefixes(&policy, "held@101"), ["10.50.0.9/32"]);
}

#[test]
fn tests_of_other_files_run_with_the_policys_own() {
    let mut policy = policy(
        "version: 1\nzones: { a: [10.0.0.0/8] }\nrules:\n  - { name: r, allow: [ssh], from: a, to: self }\nexpect:\n  - { flow: tcp a self:22, is: allow }\n",
    );
    let tests =
        "expect:\n  - { flow: tcp a self:22, is: allow, rule: r }\n  - { flow: tcp a self:23, is: allow }\n";
    add_tests(&mut policy, tests, "more.yaml").unwrap_or_else(|findings| panic!("{findings}"));
    let results = run_expectations(&policy, &Environment::sample()).expect("a small policy");
    let places: Vec<(&str, usize, bool)> = results
        .results
        .iter()
        .map(|result| (result.file.as_str(), result.line, result.passed))
        .collect();
    assert_eq!(
        places,
        [
            ("policy.yaml", 6, true),
            ("more.yaml", 2, true),
            ("more.yaml", 3, false)
        ]
    );
    assert_eq!(results.diagnostics.reports()[0].file, "more.yaml");
}

#[test]
fn what_comes_in_by_a_port_of_this_machine_is_for_it() {
    let text = "version: 1\nzones: { a: [10.0.0.0/8] }\nrules:\n  - { name: r, allow: [ssh], from: a, to: self }\nexpect:\n";
    for (line, met) in [
        (
            "{ flow: tcp a 192.168.0.1:22, in: mgmt, is: allow, rule: r }",
            true,
        ),
        ("{ flow: tcp a 192.168.0.1:22, is: deny }", true),
        (
            "{ flow: tcp a 192.168.0.1:22, in: mgmt, out: up, is: deny }",
            true,
        ),
        (
            "{ flow: tcp a 192.168.0.1:22, in: mgmt, self: 192.168.0.2, is: deny }",
            true,
        ),
        ("{ flow: tcp self 192.168.0.1:22, in: mgmt, is: deny }", true),
    ] {
        let policy = policy(&format!("{text}  - {line}\n"));
        let results = run_expectations(&policy, &Environment::sample()).expect("a small policy");
        assert_eq!(results.passed(), met, "{line}\n{}", results.diagnostics);
    }
}
