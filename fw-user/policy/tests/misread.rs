//! What an operator could misread: denies that a VLAN gets around, answers of untracked rules, rules that have ended, two
//! addresses of one zone, and changes that no flow shows.

use fw_policy::{Environment, Policy, check, compile, diff, explain};

fn policy(text: &str) -> Policy {
    check(text, "policy.yaml").expect("a policy").0
}

/// Machine name of the reason, and the rule.
fn judged(policy: &Policy, flow: &str, vlan: Option<u16>) -> (&'static str, String) {
    let environment = Environment::sample();
    let tables = compile(policy, &environment).expect("tables");
    let flow = flow.parse().expect("a flow");
    let found = explain(policy, &tables, &environment, &flow, vlan, None).expect("addresses");
    (found.reason, found.rule.map(|rule| rule.name).unwrap_or_default())
}

#[test]
fn a_deny_from_or_to_any_holds_in_every_vlan() {
    let policy = policy(
        "version: 1
zones:
  tenant: { addresses: [192.168.0.0/16], vlan: 101 }
  blocked: { addresses: [203.0.113.0/24] }
  bmc: { addresses: [10.31.0.0/16] }
rules:
  - { name: blocked, deny: all, from: any, to: blocked }
  - { name: bmc, reject: all, from: bmc, to: any }
  - { name: out, allow: [https], from: tenant, to: outside }
  - { name: web, allow: [https], from: outside, to: tenant }
",
    );
    let judged = |flow| judged(&policy, flow, Some(101));
    assert_eq!(
        judged("tcp 192.168.0.1 203.0.113.5:443"),
        ("deny_rule", "blocked".to_owned())
    );
    assert_eq!(
        judged("tcp 10.31.0.9 192.168.0.1:443"),
        ("reject_rule", "bmc".to_owned())
    );
    assert_eq!(
        judged("tcp 192.168.0.1 198.51.100.9:443"),
        ("rule", "out".to_owned())
    );
    assert_eq!(
        judged("tcp 198.51.100.9 192.168.0.1:443"),
        ("rule", "web".to_owned())
    );
}

const UNTRACKED: &str = "version: 1
zones: { near: [10.0.0.0/8], far: [11.0.0.0/8] }
rules:
  - { name: pings, allow: [icmp/echo-request], from: near, to: far, track: false }
  - { name: names, allow: [udp/53], from: near, to: far, track: false }
  - { name: tunnels, allow: [esp], from: near, to: far, track: false }
";

/// As the packet path has it: who asks does not answer, protocols without ports show no answer, and no answer beats a deny.
#[test]
fn answers_of_untracked_rules_are_what_the_packet_path_takes_for_them() {
    let open = policy(UNTRACKED);
    let judged_by = |policy: &Policy, flow| judged(policy, flow, None).0;
    assert_eq!(judged_by(&open, "udp 11.0.0.1:53 10.0.0.1:9999"), "untracked");
    assert_eq!(judged_by(&open, "icmp 11.0.0.1 10.0.0.1 echo-reply"), "untracked");
    assert_eq!(judged_by(&open, "icmp 11.0.0.1 10.0.0.1"), "deny_default");
    assert_eq!(judged_by(&open, "esp 11.0.0.1 10.0.0.1"), "deny_default");
    let closed = policy(&format!(
        "{UNTRACKED}  - {{ name: back, deny: all, from: far, to: near }}\n"
    ));
    assert_eq!(judged_by(&closed, "udp 11.0.0.1:53 10.0.0.1:9999"), "deny_rule");
    assert_eq!(
        judged_by(&closed, "icmp 11.0.0.1 10.0.0.1 echo-reply"),
        "icmp_no_flow"
    );
}

#[test]
fn a_rule_that_has_ended_allows_nothing() {
    let policy = policy(
        "version: 1
zones: { a: [10.0.0.0/8], b: [11.0.0.0/8] }
rules:
  - { name: guest, allow: [ssh], from: a, to: b, until: 2026-01-01T00:00:00Z }
",
    );
    let environment = Environment::sample();
    let tables = compile(&policy, &environment).expect("tables");
    let flow = "tcp a b:22".parse().expect("a flow");
    let at = |time| {
        let found = explain(&policy, &tables, &environment, &flow, None, None).expect("addresses");
        found.at(&policy, time).reason
    };
    let end = 1_767_225_600;
    assert_eq!((at(end - 1), at(end)), ("rule", "rule_expired"));
}

#[test]
fn a_zone_on_both_sides_stands_for_two_of_its_addresses() {
    let policy = policy(
        "version: 1
zones: { gpu: [10.10.0.0/16], one: [10.20.0.1] }
rules:
  - { name: collectives, allow: [udp/4791], between: [gpu, one] }
  - { name: inside, allow: [udp/4791], from: gpu, to: gpu }
",
    );
    assert_eq!(
        judged(&policy, "udp gpu gpu:4791", None),
        ("rule", "inside".to_owned())
    );
    // A zone of one address has no other.
    assert_eq!(judged(&policy, "udp one one:4791", None).0, "land");
}

#[test]
fn what_no_flow_shows_is_named_by_diff() {
    let text = |attributes: &str, rest: &str| {
        format!(
            "version: 1\nzones: {{ a: [10.0.0.0/8], b: [11.0.0.0/8] }}\n{rest}rules:\n  - {{ name: names, allow: [dns], from: a, to: b{attributes} }}\n"
        )
    };
    let old = policy(&text("", ""));
    let changed = |new: &str| diff::diff(&old, &policy(new), &Environment::sample()).expect("comparable");
    assert!(changed(&text("", "")).is_empty());
    for (new, named) in [
        (
            text(", track: false", ""),
            "rule `names`: track: false (before: nothing more)",
        ),
        (
            text(", until: 2020-01-01T00:00:00Z", ""),
            "rule `names`: until: 2020-01-01T00:00:00Z (before: nothing more)",
        ),
        (text("", "fragments: pass_early\n"), "section `fragments`"),
    ] {
        let found = changed(&new);
        assert!(found.flows_are_the_same() && !found.is_empty());
        assert_eq!(found.also, [named]);
        assert!(found.to_string().contains("has changed besides:"));
    }
}
