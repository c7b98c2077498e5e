//! Writes `policies/large-generated.yaml`: a cluster of 125 tenants, each with nodes and storage of its own.
//!
//! `cargo run -p fw-policy --example large_policy > policies/large-generated.yaml`

use std::fmt::Write as _;

/// Tenants, of eight rules each.
const TENANTS: u32 = 125;

const HEAD: &str = "\
# 125 tenants of one cluster: 1,003 rules over 256 zones. Generated; do not edit:
# cargo run -p fw-policy --example large_policy > policies/large-generated.yaml
version: 1

zones:
  bastion:    { plane: management, addresses: [10.30.0.10], lifeline: true }
  login:      { plane: management, addresses: [10.30.1.0/28] }
  monitor:    { plane: management, addresses: [10.30.2.5] }
  infra:      { plane: management, addresses: [10.30.3.0/28] }
  gateway:    [10.50.0.0/28]
  registry:   [10.20.255.0/28]
";

fn main() {
    print!("{}", text());
}

/// The policy.
#[must_use]
pub fn text() -> String {
    let mut text = HEAD.to_owned();
    for tenant in 1..=TENANTS {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  t{tenant:03}_nodes: {{ plane: training, addresses: [10.100.{tenant}.0/24, \"fd00:100:{tenant:x}::/64\"], labels: {{ tenant: t{tenant:03}, kind: nodes }} }}\n  \
             t{tenant:03}_store: {{ plane: storage, addresses: [10.20.{tenant}.0/25], labels: {{ tenant: t{tenant:03}, kind: store }} }}"
        );
    }
    text += "\nrules:\n  - { name: no_metadata, deny: all, from: any, to: metadata, log: true }\n";
    for tenant in 1..=TENANTS {
        rules(&mut text, &format!("t{tenant:03}"), tenant);
    }
    text += "  - { name: admin, allow: [ssh, ping], from: bastion, to: [{ label: kind }, self] }\n  \
             - { name: scrape_store, allow: [node_exporter], from: monitor, to: { label: { kind: store } } }\n";
    text += "\nisolate:\n  - { each: { label: tenant } }\n\ndefault: { inside: reject, outside: drop }\n";
    expectations(&mut text);
    text
}

fn rules(text: &mut String, name: &str, tenant: u32) {
    let port = 8000 + tenant;
    let (nodes, store) = (format!("{name}_nodes"), format!("{name}_store"));
    for rule in [
        format!("{name}_collectives, allow: [roce, nccl], from: {nodes}, to: {nodes}, track: false"),
        format!("{name}_files, allow: [nfs, nvme_tcp], from: {nodes}, to: {store}"),
        format!("{name}_lustre, allow: [lustre], between: [{nodes}, {store}]"),
        format!("{name}_login, allow: [ssh], from: login, to: {nodes}"),
        format!(
            "{name}_api, allow: [tcp/{port}], from: gateway, to: {nodes}, limit: {{ new_flows: 500/s, per: source }}"
        ),
        format!("{name}_scrape, allow: [exporters], from: monitor, to: {nodes}"),
        format!("{name}_weights, allow: [https], from: {nodes}, to: registry"),
        format!("{name}_basics, allow: [dns, ntp], from: {nodes}, to: infra"),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  - {{ name: {rule} }}");
    }
}

fn expectations(text: &mut String) {
    *text += "\nexpect:\n";
    for tenant in [1, 64, TENANTS] {
        let (name, port) = (format!("t{tenant:03}"), 8000 + tenant);
        let other = format!("t{:03}", tenant % TENANTS + 1);
        for line in [
            format!("tcp 10.100.{tenant}.4 10.100.{tenant}.5:40000, is: allow, rule: {name}_collectives"),
            format!("tcp {name}_nodes {name}_store:2049, is: allow, rule: {name}_files"),
            format!("tcp {name}_store {name}_nodes:988, is: allow, rule: {name}_lustre"),
            format!("tcp login {name}_nodes:22, is: allow, rule: {name}_login"),
            format!("tcp gateway {name}_nodes:{port}, is: allow, rule: {name}_api"),
            format!("tcp gateway {other}_nodes:{port}, is: reject"),
            format!("tcp {name}_nodes {other}_nodes:40000, is: reject, reason: reject_default"),
            format!("tcp {name}_nodes {other}_store:2049, is: reject"),
            format!("tcp bastion {name}_store:22, is: allow, rule: admin"),
            format!("tcp outside {name}_nodes:22, is: deny, reason: deny_default"),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  - {{ flow: {line} }}");
        }
    }
}
