//! Broken policies, and what is said about each. The texts are kept in `snapshots/`; after a wanted change:
//! `INSTA_UPDATE=always cargo test -p fw-policy --test broken`.

mod common;

use common::Texts;
use fw_policy::{Diagnostics, Level, add_tests, check, check_files};
use proptest::prelude::*;

/// A policy that is sound but for what a case puts into it.
const ZONES: &str = "version: 1\nzones: { gpu: [10.10.0.0/16], storage: [10.20.0.0/16] }\n";

fn findings(text: &str) -> Diagnostics {
    match check(text, "policy.yaml") {
        Ok((_, warnings)) => warnings,
        Err(findings) => findings,
    }
}

/// Checks the rendered text against the snapshot, and that the policy is refused.
fn refused(name: &str, text: &str) {
    let findings = check(text, "policy.yaml").expect_err(name);
    assert!(findings.has_errors(), "{name}");
    insta::assert_snapshot!(name, findings.render(false));
}

/// As [`refused`], with sound zones before it.
fn refused_behind_zones(name: &str, rest: &str) {
    refused(name, &format!("{ZONES}{rest}"));
}

#[test]
fn yaml() {
    refused("empty", "");
    refused("only_a_comment", "# nothing\n");
    refused("tab", "version: 1\nzones:\n\tgpu: [10.0.0.0/8]\n");
    refused("open_bracket", "version: 1\nrules: [\n");
    refused("two_documents", "version: 1\nrules: []\n---\nversion: 1\n");
    refused(
        "anchor",
        "version: 1\nzones: { a: &x [10.0.0.0/8], b: *x }\nrules: []\n",
    );
    refused("tag", "version: !!int 1\nrules: []\n");
    refused(
        "bracket_in_flow",
        &format!("{ZONES}rules: []\nexpect: [{{ flow: tcp fd00::1 [fd00::2]:22, is: deny }}]\n"),
    );
    refused("not_a_mapping", "- version: 1\n");
    refused(
        "duplicate_key",
        "version: 1\nzones:\n  gpu: [10.0.0.0/8]\n  gpu: [10.0.0.0/8]\nrules: []\n",
    );
    refused(
        "deep",
        &format!("version: 1\nrules: {}{}\n", "[".repeat(60), "]".repeat(60)),
    );
    refused(
        "umlauts",
        "version: 1\nzones: { größe: [10.0.0.0/8] }\nrules: [] # ä\nrulez: []\n",
    );
    refused(
        "crlf",
        "version: 1\r\nzones:\r\n  gpu: [10.0.0.300]\r\nrules: []\r\n",
    );
}

#[test]
fn top() {
    refused("version_missing", "rules: []\n");
    refused("version_2", "version: 2\nrules: []\n");
    refused("version_text", "version: \"1\"\nrules: []\n");
    refused("rules_missing", "version: 1\n");
    refused("rules_mapping", "version: 1\nrules: { a: b }\n");
    refused("unknown_section", "version: 1\nrule: []\nrules: []\n");
    refused_behind_zones(
        "sections_not_enforced",
        "rules: []\nisolate: []\nbudgets: []\nprotect: { vni: 7 }\nfragmnts: strict\n",
    );
    refused_behind_zones(
        "default_key",
        "rules: []\ndefault: { inside: reject, outside: drop, side: drop }\n",
    );
    refused_behind_zones(
        "default_word",
        "rules: []\ndefault: { inside: drp, outside: no }\n",
    );
    refused_behind_zones(
        "link",
        "rules: []\nlink: { allow: [arp, ndp], dhcp: yes, router_advertisement: always, multicast: on, lacp: never }\n",
    );
}

#[test]
fn zones() {
    refused(
        "prefixes",
        "version: 1\nzones:\n  a: [10.0.0.1/8, 10.0.0.0/33, 10.0.0, 10.0.0.256, \"fd00::1/64\", hello]\nrules: []\n",
    );
    refused(
        "mapped",
        "version: 1\nzones: { a: [\"::ffff:10.0.0.1\"] }\nrules: []\n",
    );
    refused(
        "zone_empty",
        "version: 1\nzones: { a: [], b: { vlan: 1 }, c: }\nrules: []\n",
    );
    refused(
        "zone_built_in",
        "version: 1\nzones: { self: [10.0.0.1] }\nrules: []\n",
    );
    refused(
        "zone_names",
        "version: 1\nzones: { no: [10.0.0.1], GPU Nodes: [10.0.0.2] }\nrules: []\n",
    );
    refused(
        "vlans",
        "version: 1\nzones: { a: { addresses: [10.0.0.0/8], vlan: 4095 }, b: { addresses: [10.0.0.0/8], vlan: [1, 2, 3] }, c: { addresses: [10.0.0.0/8], vlan: [0, x] } }\nrules: []\n",
    );
    refused(
        "zone_not_enforced",
        "version: 1\nzones:\n  gpu: { plane: training, adresses: [10.0.0.0/8], ports: [rail] }\n  bad: { file: feeds/x.txt }\n  q: { dynamic: true }\nrules: []\n",
    );
}

#[test]
fn planes_and_labels() {
    refused(
        "two_planes",
        "version: 1\nzones:\n  gpu:  { addresses: [10.10.0.0/16], plane: training }\n  bmc:  { addresses: [10.0.0.0/8], plane: management }\n  part: { addresses: [10.10.4.0/24, 10.10.5.1], plane: storage }\n  other_tag: { addresses: [10.10.0.0/16], plane: storage, vlan: 5 }\nrules: []\n",
    );
    refused(
        "ports_without_plane",
        "version: 1\nzones:\n  a: { addresses: [10.1.0.0/16], ports: [rail] }\n  b: { addresses: [10.2.0.0/16], plane: on, ports: [] }\n  c: { addresses: [10.3.0.0/16], plane: p, ports: [Rail, []] }\nrules: []\n",
    );
    let many: Vec<String> = (0..33)
        .map(|plane| format!("  z{plane}: {{ addresses: [10.{plane}.0.0/16], plane: p{plane} }}\n"))
        .collect();
    let findings = findings(&format!("version: 1\nzones:\n{}rules: []\n", many.concat()));
    let errors = findings.items.iter().filter(|item| item.level == Level::Error);
    assert_eq!(errors.map(|item| item.code).collect::<Vec<_>>(), ["too_large"]);
    refused(
        "labels",
        "version: 1\nzones:\n  a: { addresses: [10.1.0.0/16], labels: { tenant: a, No: b, x: [1] }, lifeline: yes }\n  b: { addresses: [10.2.0.0/16], labels: tenant }\nrules:\n  - { name: r1, allow: [ssh], from: { label: tenent }, to: self }\n  - { name: r2, allow: [ssh], from: { label: { tenant: b } }, to: { lable: tenant } }\n  - { name: r3, allow: [ssh], from: { label: role }, to: { label: {} } }\n",
    );
}

#[test]
fn attributes() {
    refused_behind_zones(
        "misplaced",
        "rules:\n  - { name: a, allow: [ssh], from: gpu, to: self, audit: true }\n  - { name: b, deny: all, from: gpu, to: self, track: false, limit: { bytes: 1 Gbit/s }, until: 2026-12-01T18:00:00Z }\n  - { name: c, allow: [roce], from: gpu, to: gpu, track: false, limit: [{ new_flows: 1/s }, { packets: 100/s }, { flows: 3 }] }\n  - { name: d, reject: all, from: gpu, to: self, log: on, audit: maybe, track: [] }\n",
    );
    refused_behind_zones(
        "until",
        "rules:\n  - { name: a, allow: [ssh], from: gpu, to: self, until: 2026-12-01 }\n  - { name: b, allow: [ssh], from: gpu, to: self, until: 2026-12-01T18:00:00 }\n  - { name: c, allow: [ssh], from: gpu, to: self, until: tomorrow }\n  - { name: d, allow: [ssh], from: gpu, to: self, until: 2026-02-30T18:00:00Z }\n",
    );
    refused_behind_zones(
        "three_actions",
        "rules:\n  - { name: a, allow: [ssh], reject: [ssh], from: gpu, to: self }\n",
    );
}

#[test]
fn limits() {
    let rule =
        |limit: &str| format!("  - {{ name: a, allow: [ssh], from: gpu, to: self, limit: {limit} }}\n");
    for (name, limit) in [
        (
            "limit_rates",
            "[{ new_flows: 50 }, { packets: 1k/s }, { bytes: 5 Gbps/s }, { bytes: 0 B/s }]",
        ),
        (
            "limit_bursts",
            "[{ new_flows: 50/s, burst: 0 }, { bytes: 1 MB/s, burst: 5 }, { flows: 5, burst: 5 }, { packets: 1/h, burst: 1000000 }]",
        ),
        (
            "limit_fast",
            "[{ packets: 999999999999999/s }, { flows: 0 }, { flows: 5000000000 }, { flows: 1_000 }]",
        ),
        (
            "limit_per",
            "[{ bytes: 1 MB/s, per: host }, { bytes: 1 MB/s, per: sorce }, { bytes: 1 MB/s, per: source/129 }, { bytes: 1 MB/s, per: rule/8 }]",
        ),
        (
            "limit_kinds",
            "[{ packets: 1/s, bytes: 1 MB/s }, { burst: 5 }, { newflows: 5/s }, x]",
        ),
        (
            "limit_many",
            "[{ flows: 1 }, { flows: 2 }, { flows: 3 }, { flows: 4 }, { flows: 5 }]",
        ),
        ("limit_none", "[]"),
    ] {
        refused_behind_zones(name, &format!("rules:\n{}", rule(limit)));
    }
}

#[test]
fn protection() {
    refused_behind_zones(
        "tcp",
        "rules: []\ntcp: { invalid: count, window: lose, pickup: never, cold_start: 120, windows: strict }\nfragments: pass\n",
    );
    refused_behind_zones(
        "protect",
        "rules: []\nprotect:\n  spoofed: log\n  invalid: no\n  screens: { lan: drop, land: on, ttl_zero: skip }\n  syn_flood: { above: 10000, per: source, exempt: [gpus, outside], mode: proof }\n  udp_flood: { burst: 5, exempt: [gpu] }\n  scan: { above: 600/min, ban: 10, per: source }\n  caps: { half_open: 0, flows: many }\n  exempt: any\n",
    );
}

#[test]
fn small_bursts_are_warnings() {
    let text = format!(
        "{ZONES}rules:\n  - name: a\n    allow: [ssh]\n    from: gpu\n    to: self\n    limit:\n      - {{ packets: 10000000/s, burst: 99 }}\n      - {{ packets: 10000000/s, burst: 100 }}\n      - {{ bytes: 64 KiB/s, burst: 8999 B }}\n      - {{ bytes: 400 Gbit/s, burst: 499 kB, per: pair }}\n"
    );
    let findings = check(&text, "policy.yaml").expect("warnings refuse nothing").1;
    // The fourth is of the zone that no rule uses.
    assert_eq!(findings.items.len(), 4);
    insta::assert_snapshot!("small_bursts", findings.render(false));
}

#[test]
fn rules_that_have_ended_are_warned_of() {
    let text = format!(
        "{ZONES}rules:\n  - {{ name: a, allow: [ssh], from: gpu, to: self, until: 2026-12-01T18:00:00+01:00 }}\n"
    );
    let (policy, _) = check(&text, "policy.yaml").expect("a sound policy");
    let end = 1_796_144_400;
    assert_eq!(policy.rules[0].until, Some(end));
    assert!(fw_policy::ended_rules(&policy, end - 1).items.is_empty());
    insta::assert_snapshot!("ended", fw_policy::ended_rules(&policy, end).render(false));
}

/// As [`refused`], for a policy in several files, the policy itself first.
fn refused_files(name: &str, files: &[(&str, &str)]) {
    let findings = check_files(&Texts(files), files[0].1, files[0].0).expect_err(name);
    insta::assert_snapshot!(name, findings.render(false));
}

#[test]
fn what_zones_hold() {
    refused(
        "ranges",
        "version: 1\nzones:\n  a: [10.0.0.9-10.0.0.5, 10.0.0.1-fd00::1, 10.0.0.1-, \"fd00::9-fd00::\", 10.0.0.0/24-10.0.1.0/24]\nrules: []\n",
    );
    refused(
        "exclusions",
        "version: 1\nzones:\n  a: { addresses: [10.0.0.0/24], exclude: [10.0.0.0/16] }\n  b: { addresses: [10.1.0.0/24], exclude: [10.1.0.0/33, No Zone, nowhere] }\n  c: { exclude: [10.0.0.1] }\nrules: []\n",
    );
    refused(
        "zone_cycle",
        "version: 1\nzones:\n  a: { zones: [b] }\n  b: { zones: [c], exclude: [10.0.0.1] }\n  c: { addresses: [10.0.0.0/8], exclude: [a] }\n  d: { zones: [d] }\nrules: []\n",
    );
    refused(
        "zone_parts",
        "version: 1\nzones:\n  gpu: [10.0.0.0/8]\n  q: { dynamic: true }\n  a: { zones: [gup, self, q] }\n  b: { zones: [] }\nrules: []\n",
    );
    refused(
        "zone_realms",
        "version: 1\nzones:\n  a: { addresses: [10.1.0.0/16], vlan: 5 }\n  b: { addresses: [10.2.0.0/16], vlan: 6 }\n  both: { zones: [a, b] }\n  untagged: { addresses: [10.3.0.0/16], exclude: [a] }\n  other: { zones: [a], vlan: [6, 7] }\nrules: []\n",
    );
    refused(
        "zone_planes",
        "version: 1\nzones:\n  a: { addresses: [10.1.0.0/16], plane: training }\n  b: { addresses: [10.2.0.0/16], plane: storage }\n  both: { zones: [a, b], plane: training }\nrules: []\n",
    );
    refused(
        "dynamic",
        "version: 1\nzones:\n  a: { dynamic: true, addresses: [10.0.0.1], plane: p, exclude: [] }\n  b: { dynamic: yes }\n  c: { dynamic: false }\nrules: []\n",
    );
}

#[test]
fn files_of_zones() {
    refused_files(
        "feed_lines",
        &[
            (
                "site/policy.yaml",
                "version: 1\nzones: { bad: { file: [feeds/a.txt, feeds/none.txt] }, dir: { directory: feeds.d } }\nrules: []\n",
            ),
            (
                "site/feeds/a.txt",
                "# a comment\n10.0.0.0/8\n  10.0.0.300 # not this\r\n\n10.1.0.1/16\nfd00::1-fd00::\n",
            ),
            ("site/feeds.d/10-first", "10.1.0.0/16 10.2.0.0/16\n"),
            ("site/feeds.d/20-second", "größe\n10.3.0.0/16\n"),
        ],
    );
    let lines = "no address\n".repeat(1000);
    let files = [
        (
            "policy.yaml",
            "version: 1\nzones: { bad: { file: feed } }\nrules: []\n",
        ),
        ("feed", lines.as_str()),
    ];
    let findings = check_files(&Texts(&files), files[0].1, files[0].0).expect_err("no addresses");
    let errors = findings.items.iter().filter(|item| item.level == Level::Error);
    assert_eq!(errors.count(), 21, "twenty and how many more");
    refused_files(
        "feed_paths",
        &[(
            "policy.yaml",
            "version: 1\nzones: { a: { file: \"\" }, b: { directory: nowhere }, c: { file: [] , directory: [x] } }\nrules: []\n",
        )],
    );
}

#[test]
fn includes_of_files_that_differ() {
    let base = "version: 1\nzones: { gpu: [10.11.0.0/16], bad: [10.0.0.1/8] }\nservices: { api: [tcp/2] }\ndefault: { inside: drop }\nrules:\n  - { name: r, deny: all, from: gpu, to: any }\nbudgets: []\n";
    let rest = "zones: { gpu: [10.10.0.0/16] }\nservices: { api: [tcp/1] }\nrules:\n  - { name: r, allow: [api], from: gpu, to: gp }\n";
    let policy = format!("version: 1\ninclude: [site/base.yaml, missing.yaml]\n{rest}");
    refused_files(
        "include_errors",
        &[("policy.yaml", policy.as_str()), ("site/base.yaml", base)],
    );
    let policy = format!("version: 1\ninclude: base.yaml\n{rest}");
    refused_files(
        "include_duplicates",
        &[("policy.yaml", policy.as_str()), ("base.yaml", base)],
    );
}

#[test]
fn includes() {
    refused_files(
        "include_cycle",
        &[
            ("policy.yaml", "version: 1\ninclude: [a.yaml]\nrules: []\n"),
            ("a.yaml", "version: 1\ninclude: [b.yaml, policy.yaml]\n"),
            ("b.yaml", "version: 1\ninclude: [a.yaml, c.yaml]\n"),
            ("c.yaml", "version: 1\ninclude: [c.yaml, x/../c.yaml]\n"),
            ("x/../c.yaml", "version: 2\n"),
        ],
    );
    refused_files(
        "include_twice",
        &[
            (
                "policy.yaml",
                "version: 1\ninclude: [a.yaml, b.yaml]\nrules: []\n",
            ),
            ("a.yaml", "version: 1\ninclude: [c.yaml]\n"),
            ("b.yaml", "version: 1\ninclude: [c.yaml]\nzones: []\n"),
            ("c.yaml", "zones: { c: [10.0.0.0/8] }\n"),
        ],
    );
    refused_files(
        "include_syntax",
        &[
            ("policy.yaml", "version: 1\ninclude: [a.yaml]\nrules: []\n"),
            ("a.yaml", "version: 1\nzones: { a: [\n"),
        ],
    );
    refused_files(
        "include_types",
        &[("policy.yaml", "version: 1\ninclude: { a: b }\nrules: []\n")],
    );
    refused(
        "include_without_files",
        "version: 1\ninclude: [a.yaml]\nrules: []\n",
    );
}

#[test]
fn isolations() {
    let zones = "version: 1\nzones:\n  gpu: { addresses: [10.10.0.0/16], plane: training, labels: { tenant: a } }\n  bmc: { addresses: [10.30.0.0/16], plane: management, labels: { role: b } }\nrules:\n  - { name: admin, allow: [ssh], from: bmc, to: gpu }\n";
    refused(
        "isolate",
        &format!(
            "{zones}isolate:\n  - {{ planes: [training, managment], except: [admni] }}\n  - {{ zones: [gpu, bmc], planes: [training, management] }}\n  - {{ zones: [gpu] }}\n  - {{ each: {{ label: tenant }} }}\n  - {{ each: {{ label: tenent }} }}\n  - {{ except: [] }}\n  - {{ plane: [training] }}\n  - x\n"
        ),
    );
    refused(
        "isolate_types",
        &format!("{zones}isolate: {{ planes: [training, management] }}\n"),
    );
    refused(
        "isolate_words",
        &format!(
            "{zones}isolate: [{{ planes: training }}, {{ each: tenant }}, {{ zones: [gpu, bcm] }}, {{ planes: [[x], y] }}]\n"
        ),
    );
}

#[test]
fn source_ports() {
    let rules = "rules: [{ name: a, allow: [web], from: gpu, to: storage }]\n";
    refused_behind_zones(
        "source_ports",
        &format!(
            "services: {{ web: [tcp/2049 from 0-1023, tcp/2049 from 1023-1, tcp/22 from, tcp/22 to 5, icmp from 1-5, nfs from 1-1023, esp from 1, tcp/22 from 1 2] }}\n{rules}"
        ),
    );
}

#[test]
fn files_of_tests() {
    let text = format!("{ZONES}rules: [{{ name: admin, allow: [ssh], from: gpu, to: storage }}]\n");
    let (mut policy, _) = check(&text, "policy.yaml").expect("a sound policy");
    for (name, tests) in [
        (
            "tests_errors",
            "expect:\n  - { flow: tcp gpu storag:22, is: allow }\n  - { flow: tcp gpu storage:22, is: allow, rule: admn }\nrules: []\n",
        ),
        ("tests_missing", "version: 1\n"),
        ("tests_version", "version: 2\nexpect: []\n"),
    ] {
        let findings = add_tests(&mut policy, tests, "tests.yaml").expect_err(name);
        insta::assert_snapshot!(name, findings.render(false));
    }
    assert!(policy.expectations.is_empty(), "nothing is added");
}

#[test]
fn what_is_probably_not_meant() {
    let warned = |name: &str, text: &str| {
        let findings = check(text, "policy.yaml").expect("warnings refuse nothing").1;
        insta::assert_snapshot!(name, findings.render(false));
    };
    warned(
        "wide",
        &format!(
            "{ZONES}rules:\n  - {{ name: open, allow: all, from: any, to: [any, gpu] }}\n  - {{ name: web_a, allow: [https], from: gpu, to: storage }}\n  - {{ name: web_b, allow: [https], from: any, to: storage }}\n  - {{ name: web_c, allow: [https], from: storage, to: gpu }}\n  - {{ name: closed, deny: all, from: any, to: any }}\n"
        ),
    );
    warned(
        "overlaps",
        "version: 1\nzones:\n  a:    { addresses: [10.1.0.0/16, 10.2.0.0/16], labels: { tenant: a } }\n  b:    { addresses: [10.2.128.0/17], labels: { tenant: b } }\n  gpu:  { addresses: [10.10.0.0/16, 10.11.0.0/16], plane: training }\n  lab:  [10.11.0.0/24, 10.12.0.0/24]\n  lab2: [10.12.0.0/24, 10.11.0.0/25, 10.11.0.128/25]\n  all:  [10.0.0.0/8]\n  both: { zones: [a, gpu] }\nrules:\n  - { name: r, deny: all, from: [a, b, gpu, lab, lab2, all, both], to: self }\n",
    );
    warned(
        "seen_overlap",
        "version: 1\nzones:\n  gateway: [10.50.0.0/28]\n  tenant: { addresses: [10.0.0.0/8], vlan: 101 }\nrules:\n  - { name: r, allow: [https], from: gateway, to: tenant }\n",
    );
    warned(
        "useless_exclusion",
        "version: 1\nzones:\n  a: { addresses: [10.0.0.0/24], exclude: [10.0.1.0/24, 10.0.0.7] }\n  unused: [10.9.0.0/16]\nrules:\n  - { name: r, allow: [https], from: a, to: self }\n",
    );
}

#[test]
fn services() {
    let rules = "rules: [{ name: a, allow: [web], from: gpu, to: storage }]\n";
    refused_behind_zones(
        "ports",
        &format!("services: {{ web: [tcp/70000, tcp/0, tcp/90-80, tcp/https, udp/, 80] }}\n{rules}"),
    );
    refused_behind_zones(
        "protocols",
        &format!(
            "services: {{ web: [tpc/80, esp/1, proto/256, icmp/ping, icmpv6/echo-requst, icmp/8/x] }}\n{rules}"
        ),
    );
    refused_behind_zones(
        "cycle",
        &format!("services: {{ web: [api], api: [web] }}\n{rules}"),
    );
    refused_behind_zones(
        "reserved",
        &format!("services: {{ tcp: [tcp/1], all: [udp/1], web: [] }}\n{rules}"),
    );
    refused_behind_zones(
        "unknown_service",
        "rules: [{ name: a, allow: [shh, tcp/22, quake], from: gpu, to: storage }]\n",
    );
}

#[test]
fn rules() {
    refused_behind_zones(
        "unknown_zone",
        "rules:\n  - { name: a, allow: [ssh], from: gpus, to: [storage, 10.0.0.1] }\n",
    );
    refused_behind_zones(
        "same_name",
        "rules:\n  - { name: admin, allow: [ssh], from: gpu, to: self }\n  - { name: other, deny: all, from: any, to: any }\n  - { name: admin, allow: [ssh], from: storage, to: self }\n",
    );
    refused_behind_zones(
        "unknown_key",
        "rules:\n  - { name: a, alow: [ssh], form: gpu, to: self }\n",
    );
    refused_behind_zones(
        "rule_not_enforced",
        "rules:\n  - name: a\n    allow: [ssh]\n    from: gpu\n    to: self\n    budget: weights\n    limits: [{ new_flows: 50/s }]\n  - { name: b, allow: [isolate], from: { each: gpu }, to: any }\n",
    );
    refused_behind_zones(
        "both_actions",
        "rules:\n  - { name: a, allow: [ssh], deny: [ssh], from: gpu, to: self }\n",
    );
    refused_behind_zones("no_action", "rules:\n  - { name: a, from: gpu, to: self }\n");
    refused_behind_zones(
        "between",
        "rules:\n  - { name: a, allow: [ssh], between: [gpu], from: gpu }\n  - { name: b, allow: [ssh], between: gpu }\n",
    );
    refused_behind_zones("missing", "rules:\n  - { allow: [ssh], from: gpu }\n");
    refused_behind_zones(
        "names",
        "rules:\n  - { name: on, allow: [ssh], from: gpu, to: self }\n  - { name: Big Rule, allow: [ssh], from: gpu, to: self }\n",
    );
    refused_behind_zones(
        "types",
        "rules:\n  - a\n  - { name: [x], allow: { ssh: 1 }, from: [], to: [[gpu]] }\n",
    );
}

#[test]
fn expectations() {
    let rules = "rules: [{ name: admin, allow: [ssh], from: gpu, to: storage }]\n";
    refused_behind_zones(
        "expectations",
        &format!(
            "{rules}expect:\n  - {{ flow: tcp 10.0.0.1, is: allow }}\n  - {{ flow: tcp gpu storag:22, is: allow }}\n  - {{ flow: tcp gpu storage, is: yes }}\n  - {{ flow: tcp gpu any:22, is: refuse }}\n  - {{ flow: tcp gpu storage:22 }}\n"
        ),
    );
    refused_behind_zones(
        "expectation_names",
        &format!("{rules}expect:\n  - {{ flow: tcp gpu storage:22, is: allow, rule: admn }}\n"),
    );
    refused_behind_zones(
        "expectation_reason",
        &format!(
            "{rules}expect:\n  - {{ flow: tcp gpu storage:22, is: deny, reason: deny_defalt, self: host, out: uplink, vlan: [1, 0] }}\n"
        ),
    );
}

#[test]
fn warnings() {
    let text = format!(
        "{ZONES}  # comment\nservices: {{ unused: [tcp/1] }}\nrules:\n  - {{ name: a, allow: [icmp/echo-reply], from: gpu, to: storage }}\n"
    );
    let text = text.replace(
        "storage: [10.20.0.0/16]",
        "storage: { addresses: [10.20.0.0/16], vlan: 7 }",
    );
    let text = text.replace(
        "gpu: [10.10.0.0/16]",
        "gpu: { addresses: [10.10.0.0/16], vlan: 6 }",
    );
    let findings = check(&text, "policy.yaml").expect("warnings refuse nothing").1;
    assert!(findings.items.iter().all(|item| item.level == Level::Warning));
    insta::assert_snapshot!("warnings", findings.render(false));
    let findings = check("version: 1\nrules: []\n", "policy.yaml")
        .expect("a lock-down is a policy")
        .1;
    insta::assert_snapshot!("lock_down", findings.render(false));
}

#[test]
fn reports_have_lines_and_columns() {
    let findings = findings("version: 1\nzones:\n  größe_ü: [10.0.0.0/8]\nrules: [] # ä\nrulez: 1\n");
    let report = serde_json::to_string_pretty(&findings.reports()).expect("reports are plain data");
    insta::assert_snapshot!("json", report);
    assert!(findings.render(true).contains("\u{1b}["));
    assert!(!findings.render(false).contains('\u{1b}'));
}

#[test]
fn a_large_file_is_refused_in_no_time() {
    let keys: Vec<String> = (0..50_000).map(|index| format!("  k{index}: 1\n")).collect();
    let findings = findings(&format!("version: 1\nzones:\n{}rules: []\n", keys.concat()));
    // One for each zone, and the warning about the empty list of rules.
    assert_eq!(findings.items.len(), 50_001);
    assert_eq!(findings.reports().len(), 50_001);
    assert!(findings.render(false).ends_with("and 49901 more"));
    assert!(check(&"#".repeat(17 << 20), "policy.yaml").is_err());
}

/// Pieces of the language and of YAML, with U+001F between them.
const PIECES: &str = "include: [a]\u{1f}isolate:\u{1f}exclude: \u{1f}zones: [a]\u{1f}dynamic: true\u{1f}file: x\u{1f}10.0.0.9-\u{1f} from 1-5\u{1f}each: \u{1f}version: 1\n\u{1f}zones:\u{1f}rules:\u{1f}expect:\u{1f}link:\u{1f}services:\u{1f}default:\u{1f}\n\u{1f}\n  \
    \u{1f}  - \u{1f}{ \u{1f} }\u{1f}[\u{1f}]\u{1f}, \u{1f}: \u{1f}name: a\u{1f}allow\u{1f}deny\u{1f}from\u{1f}to: self\
    \u{1f}between\u{1f}10.0.0.0/8\u{1f}\"fd00::/8\"\u{1f}tcp/22\u{1f}tcp/1-\u{1f}icmp/\u{1f}vlan: 5\u{1f}flow: tcp a b:1\
    \u{1f}is: allow\u{1f}limit: \u{1f}bytes: 5 Gbit/s\u{1f}per: source/\u{1f}plane: p\u{1f}ports: [rail]\u{1f}until: 2026-\u{1f}label: \u{1f}protect:\u{1f}- \u{1f}'\u{1f}\"\u{1f}#\u{1f}&x\u{1f}*x\u{1f}!t\u{1f}|\u{1f}>\u{1f}\t\u{1f}\r\n\u{1f}ä\u{1f}\u{feff}\
    \u{1f}---\u{1f}...\u{1f}? \u{1f}%\u{1f}@\u{1f}\0\u{1f}~\u{1f}self\u{1f}any\u{1f}a\u{1f}[[[[[[[[\u{1f}{{{{{{{{";

/// A text that is nearly a policy: pieces of the language and of YAML in a random order, or an example with a few
/// characters changed.
fn nearly_a_policy() -> impl Strategy<Value = String> {
    const EXAMPLE: &str = include_str!("../../../policies/dpu-inline.yaml");
    let pieces: Vec<&str> = PIECES.split('\u{1f}').collect();
    let soup =
        prop::collection::vec(prop::sample::select(pieces.clone()), 0..60).prop_map(|pieces| pieces.concat());
    let changes = prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(pieces)), 1..6);
    let changed = changes.prop_map(|changes| {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (place, piece) in changes {
            let at = place.index(text.len());
            text.splice(at..=at, piece.chars());
        }
        text.into_iter().collect()
    });
    prop_oneof![soup, changed]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_checker_panic(text in nearly_a_policy()) {
        let result = check(&text, "policy.yaml");
        if let Err(findings) = &result {
            prop_assert!(findings.has_errors());
        }
        let findings = result.map_or_else(|findings| findings, |(_, warnings)| warnings);
        let lines = text.matches('\n').count() + 1;
        for report in findings.reports() {
            prop_assert!(report.line <= report.end_line && report.end_line <= lines, "{report:?}");
        }
        prop_assert_eq!(findings.render(false).is_empty(), findings.items.is_empty());
    }
}
