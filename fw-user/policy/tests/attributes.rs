//! `explain` and expectations: actions, attributes of rules, planes, labels, stacked tags.

use fw_policy::explain::Explanation;
use fw_policy::model::{RuleAction, Tags};
use fw_policy::{Asked, Environment, Policy, ask, check, compile, run_expectations};

const TEXT: &str = "version: 1
zones:
  gpu:      { addresses: [10.10.0.0/16, \"fd00:10::/48\"], plane: training, ports: [rail], labels: { tier: hot } }
  storage:  { addresses: [10.20.0.0/16], plane: storage, ports: [store] }
  bmc:      { addresses: [10.31.0.0/16], plane: management, labels: { tier: cold } }
  node:     { addresses: [10.30.8.0/24], plane: management, ports: [mgmt] }
  free:     { addresses: [10.40.0.0/16] }
  tenant:   { addresses: [192.168.0.0/16], vlan: [100, 7], labels: { tier: cold } }
default: { inside: reject, outside: drop }
rules:
  - { name: rdma,    allow: [roce, ping], from: gpu, to: gpu, track: false, limit: { bytes: 5 Gbit/s, per: source } }
  - { name: no_meta, reject: all, from: any, to: metadata, log: true }
  - { name: trial,   deny: [http], from: any, to: any, audit: true }
  - { name: ends,    allow: [nfs], from: any, to: any, until: 2026-12-01T18:00:00Z, log: true,
      limit: [{ new_flows: 50/s, burst: 100, per: source/24 }, { flows: 9, per: pair }] }
  - { name: cold,    allow: [ssh], from: { label: { tier: cold } }, to: { label: tier } }
  - { name: no_dns,  deny: [dns], from: any, to: any }
";

fn policy() -> Policy {
    check(TEXT, "test.yaml")
        .unwrap_or_else(|findings| panic!("{findings}"))
        .0
}

fn asked(flow: &str, tags: Option<Tags>, role: Option<&str>, peer: Option<&str>) -> Explanation {
    let (policy, environment) = (policy(), Environment::sample());
    let tables = compile(&policy, &environment).expect("a small policy");
    let flow = flow.parse().expect("a flow");
    let asked = Asked {
        flow: &flow,
        tags,
        role,
        peer,
        guarded: false,
    };
    ask(&policy, &tables, &environment, &asked).expect("zones with addresses")
}

fn plain(flow: &str) -> Explanation {
    asked(flow, None, None, None)
}

#[test]
fn each_action_has_its_verdict_and_reason() {
    use RuleAction::{Allow, Deny, Reject};
    for (flow, verdict, reason, rule) in [
        ("udp gpu 10.10.0.9:4791", Allow, "untracked", Some("rdma")),
        ("tcp gpu metadata:80", Reject, "reject_rule", Some("no_meta")),
        ("tcp gpu storage:80", Allow, "audit", Some("trial")),
        ("tcp outside storage:2049", Allow, "rule", Some("ends")),
        ("udp gpu storage:53", Deny, "deny_rule", Some("no_dns")),
        ("tcp gpu storage:22", Reject, "reject_default", None),
        ("tcp self storage:22", Reject, "reject_default", None),
        ("tcp outside storage:22", Deny, "deny_default", None),
        // Answers to a rule without entries.
        (
            "udp 10.10.0.9:4791 10.10.0.8:33000",
            Allow,
            "untracked",
            Some("rdma"),
        ),
        ("udp 10.10.0.9 10.10.0.8:33000", Reject, "reject_default", None),
        (
            "icmp 10.10.0.9 10.10.0.8 echo-reply",
            Allow,
            "untracked",
            Some("rdma"),
        ),
        ("icmp 10.10.0.9 10.20.0.8 echo-reply", Deny, "icmp_no_flow", None),
        ("icmp 10.10.0.9 10.10.0.8 redirect", Deny, "deny_redirect", None),
        // Screens.
        ("tcp 10.20.0.1 10.20.0.1:2049", Deny, "land", None),
        ("tcp 127.0.0.1 10.20.0.1:2049", Deny, "impossible_source", None),
        ("tcp ::1 [fd00:10::1]:2049", Deny, "impossible_source", None),
    ] {
        let explanation = plain(flow);
        let by = explanation.rule.as_ref().map(|rule| rule.name.as_str());
        assert_eq!(
            (explanation.verdict, explanation.reason, by),
            (verdict, reason, rule),
            "{flow}"
        );
    }
}

#[test]
fn screens_that_count_let_pass() {
    let text = format!("{TEXT}protect: {{ screens: {{ land: count }}, spoofed: skip }}\n");
    let policy = check(&text, "test.yaml").expect("a sound policy").0;
    let environment = Environment::sample();
    let tables = compile(&policy, &environment).expect("a small policy");
    for flow in ["tcp 10.20.0.1 10.20.0.1:2049", "tcp 127.0.0.1 10.20.0.1:2049"] {
        let flow = flow.parse().expect("a flow");
        let found = fw_policy::explain(&policy, &tables, &environment, &flow, None, Some("mgmt"));
        assert_eq!(found.expect("addresses").reason, "rule");
    }
}

#[test]
fn explanations_show_what_else_the_rule_says() {
    let explanation = plain("tcp outside storage:2049");
    assert_eq!(
        explanation.attributes,
        [
            "limit: new_flows 50/s, burst 100, per source (IPv4 /24, IPv6 /64)",
            "limit: flows 9, per pair (IPv4 /32, IPv6 /64)",
            "log: true",
            "until: 2026-12-01T18:00:00Z"
        ]
    );
    let texts: Vec<String> = [
        "tcp outside storage:2049",
        "udp 10.10.0.9:4791 10.10.0.8:33000",
        "tcp gpu storage:80",
        "tcp gpu metadata:80",
        "tcp gpu storage:23",
        "tcp tenant 192.168.0.9:22",
    ]
    .map(|flow| plain(flow).to_string())
    .to_vec();
    insta::assert_snapshot!("attributes", texts.join("\n"));
    serde_json::to_string(&explanation).expect("plain data");
}

#[test]
fn labels_and_stacked_tags_select_zones() {
    assert_eq!(
        plain("tcp bmc gpu:22").rule.map(|rule| rule.name),
        Some("cold".into())
    );
    assert_eq!(
        plain("tcp gpu bmc:22").reason,
        "reject_default",
        "gpu is not cold"
    );
    let flow = "tcp 192.168.0.8 192.168.0.9:22";
    let tags = |outer, inner| Some(Tags { outer, inner });
    assert_eq!(
        plain("tcp tenant 192.168.0.9:22").flow.tags(),
        tags(100, 7).expect("tags")
    );
    assert_eq!(asked(flow, tags(100, 7), None, None).reason, "rule");
    for other in [tags(100, 0), tags(7, 100), tags(7, 0)] {
        assert_eq!(asked(flow, other, None, None).reason, "unknown_realm");
    }
    assert_eq!(plain(flow).reason, "deny_default", "untagged it lies outside");
}

#[test]
fn planes_are_bound_to_ports() {
    let mismatch = |flow, role, peer| asked(flow, None, Some(role), peer).reason == "plane_mismatch";
    // Mode host: the local end is the destination.
    assert!(!mismatch("tcp 10.10.0.1 10.10.0.2:2049", "rail", None));
    assert!(mismatch("tcp 10.10.0.1 10.10.0.2:2049", "mgmt", None));
    assert!(mismatch("tcp bmc gpu:2049", "mgmt", None), "bound to rail");
    assert!(
        !mismatch("tcp gpu storage:2049", "store", None),
        "routed between planes"
    );
    assert!(
        mismatch("tcp gpu storage:2049", "rail", None),
        "comes by the far end's port"
    );
    assert!(
        mismatch("tcp gpu free:2049", "mgmt", None),
        "the local end has no plane"
    );
    assert!(!mismatch("tcp gpu free:2049", "rail", None));
    assert!(!mismatch("tcp outside free:2049", "rail", None));
    assert!(mismatch("tcp bmc node:2049", "rail", None));
    // What this machine sends leaves by the port.
    assert!(
        mismatch("tcp self storage:2049", "mgmt", None),
        "self has no plane here"
    );
    assert!(!mismatch("tcp self storage:2049", "store", None));
    // Mode inline: each end has a port of its own.
    assert!(!mismatch("tcp gpu storage:2049", "rail", Some("store")));
    assert!(mismatch("tcp gpu storage:2049", "store", Some("rail")));
    assert!(mismatch("tcp gpu storage:2049", "rail", Some("rail")));
    assert!(!mismatch("tcp free storage:2049", "rail", Some("store")));
    // To the machine itself nothing is forwarded.
    assert!(!mismatch("tcp gpu self:2049", "rail", Some("rail")));
    // Where the port is not known, nothing is.
    assert_ne!(plain("tcp 10.10.0.1 10.10.0.2:2049").reason, "plane_mismatch");
}

#[test]
fn expectations_know_reject_planes_and_tags() {
    let text = format!(
        "{TEXT}expect:
  - {{ flow: tcp gpu metadata:80, is: reject, rule: no_meta, reason: reject_rule }}
  - {{ flow: tcp gpu metadata:80, is: deny }}
  - {{ flow: tcp gpu storage:80, is: allow, reason: audit }}
  - {{ flow: tcp gpu storage:80, is: deny }}
  - {{ flow: tcp 10.10.0.1 10.10.0.2:2049, in: mgmt, is: deny, reason: plane_mismatch }}
  - {{ flow: tcp gpu storage:2049, in: rail, out: store, is: allow, rule: ends }}
  - {{ flow: tcp gpu storage:2049, in: rail, out: rail, is: allow }}
  - {{ flow: tcp 192.168.0.8 192.168.0.9:22, vlan: [100, 7], is: allow, rule: cold }}
  - {{ flow: tcp 192.168.0.8 192.168.0.9:22, vlan: 100, is: deny, reason: unknown_realm }}
"
    );
    let (policy, warnings) = check(&text, "test.yaml").expect("a sound policy");
    let mut codes = warnings.items.iter().map(|item| item.code);
    assert!(
        codes.all(|code| ["unused_zone", "any_any"].contains(&code)),
        "{warnings}"
    );
    assert_eq!(
        policy.roles().into_iter().collect::<Vec<_>>(),
        ["mgmt", "rail", "store"]
    );
    let results = run_expectations(&policy, &Environment::sample()).expect("a small policy");
    let passed: Vec<bool> = results.results.iter().map(|result| result.passed).collect();
    assert_eq!(
        passed,
        [true, false, true, false, true, true, false, true, true],
        "{}",
        results.diagnostics
    );
    insta::assert_snapshot!("failed_actions", results.diagnostics.render(false));
}
