//! The policies that operators asked for (`tests/wanted/`, as they wrote them): what is not enforced yet is refused with
//! its sentence and nothing else is; without it each line does what its reader expects.

mod common;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use common::Files;
use fw_policy::model::{Limit, Measure, Per, Policy, RuleAction};
use fw_policy::{Asked, Diagnostics, Environment, Level, ask, check_files, compile, run_expectations};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/wanted")
        .join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).expect("a wanted policy")
}

fn read(name: &str, text: &str) -> Result<(Policy, Diagnostics), Diagnostics> {
    check_files(&Files, text, &path(name).display().to_string())
}

/// The text without its budgets: the section, and the references of rules to it.
fn without_budgets(text: &str) -> String {
    let mut inside = false;
    let lines = text.lines().filter(|line| {
        inside = line.starts_with("budgets:") || (inside && line.starts_with(' '));
        !inside
    });
    let lines = lines.map(|line| match line.split_once(", budget: ") {
        None => line.to_owned(),
        Some((head, tail)) => {
            let name = tail.find([',', ' ']).unwrap_or(tail.len());
            format!("{head}{}", &tail[name..])
        }
    });
    lines.map(|line| line + "\n").collect()
}

/// The policy without its budgets, sound and without a warning.
fn sound(name: &str) -> Policy {
    let (policy, warnings) =
        read(name, &without_budgets(&text(name))).unwrap_or_else(|findings| panic!("{findings}"));
    // The GPU node's isolation is said of the zones; a machine that is in both planes itself is warned of.
    let mut codes = warnings.items.iter().map(|item| item.code);
    assert!(
        codes.all(|code| code == "isolation_of_self"),
        "{name}\n{warnings}"
    );
    compile(&policy, &Environment::sample()).unwrap_or_else(|error| panic!("{name}: {error}"));
    policy
}

/// A machine with these addresses.
fn machine(own: &[&str]) -> Environment {
    let own = own.iter().map(|text| text.parse::<IpAddr>().expect("an address"));
    let sample = Environment::sample();
    Environment {
        own_addresses: own.chain(sample.own_addresses).collect(),
        ..sample
    }
}

/// Asserts what happens to flows: notation (with `@VLAN` behind it where tagged), `VERDICT by RULE` or `VERDICT: REASON`.
fn assert_flows(policy: &Policy, own: &[&str], flows: &[(&str, &str)]) {
    let environment = machine(own);
    let tables = compile(policy, &environment).expect("a small policy");
    for (flow, expected) in flows {
        let (flow, tags) = match flow.split_once('@') {
            Some((flow, vlan)) => (flow, Some(vlan.parse().expect("tags"))),
            None => (*flow, None),
        };
        let spec = flow.parse().expect("a flow");
        let asked = Asked {
            flow: &spec,
            tags,
            role: None,
            peer: None,
            guarded: false,
        };
        let answer =
            ask(policy, &tables, &environment, &asked).unwrap_or_else(|error| panic!("{flow}: {error}"));
        let is = match &answer.rule {
            Some(rule) => format!("{} by {}", answer.verdict.name(), rule.name),
            None => format!("{}: {}", answer.verdict.name(), answer.reason),
        };
        assert_eq!(is, *expected, "{flow}\n{answer}");
    }
}

#[test]
fn only_budgets_are_refused() {
    for (name, expected) in [
        ("1-gpu-node.yaml", 0),
        ("2-dpu-inline.yaml", 2),
        ("3-storage-frontend.yaml", 2),
        ("4-multi-tenant-inference.yaml", 1),
        ("5-egress-guard.yaml", 3),
    ] {
        let findings = match read(name, &text(name)) {
            Ok((_, warnings)) => warnings,
            Err(findings) => findings,
        };
        let errors: Vec<_> = findings
            .items
            .iter()
            .filter(|item| item.level == Level::Error)
            .collect();
        assert_eq!(errors.len(), expected, "{name}\n{findings}");
        for item in errors {
            assert_eq!(item.code, "not_enforced", "{name}\n{findings}");
            assert!(item.message.starts_with("`budget"), "{name}\n{findings}");
        }
    }
}

#[test]
fn their_expectations_are_met() {
    let policy = sound("1-gpu-node.yaml");
    let results = run_expectations(&policy, &Environment::sample()).expect("a small policy");
    assert_eq!(results.results.len(), 3);
    assert!(results.passed(), "{}", results.diagnostics);
}

#[test]
fn a_gpu_node() {
    let mut policy = sound("1-gpu-node.yaml");
    let node = ["10.30.8.4", "10.10.0.4"];
    assert_flows(
        &policy,
        &node,
        &[
            ("udp 10.10.0.4 10.10.0.5:4791", "allow by collectives"),
            ("tcp 10.10.0.5 10.10.0.4:45000", "allow by collectives"),
            ("tcp fd00:10::5 [fd00:10::4]:45000", "allow by collectives"),
            ("tcp 10.30.8.4 storage:2049", "allow by filesystems"),
            ("tcp 10.30.8.4 storage:4420", "allow by filesystems"),
            ("tcp 10.30.8.4 storage:988", "allow by lustre"),
            ("tcp storage 10.30.8.4:988", "allow by lustre"),
            ("tcp slurm self:6818", "allow by slurm_in"),
            ("tcp slurm self:61000", "allow by slurm_in"),
            ("tcp self slurm:6817", "allow by slurm_out"),
            ("tcp monitor self:9400", "allow by scrape"),
            ("udp self infra:53", "allow by basics"),
            ("tcp self infra:636", "allow by basics"),
            ("icmp bastion self", "allow by admin"),
            ("tcp self metadata:80", "reject by no_metadata"),
            ("tcp monitor self:22", "reject: reject_default"),
            ("tcp outside self:22", "deny: deny_default"),
        ],
    );
    let quarantine = policy.zone("quarantine").expect("a zone");
    assert!(policy.zones[quarantine].dynamic);
    policy.set_members(quarantine, ["10.10.0.5/32".parse().expect("a prefix")]);
    assert_flows(
        &policy,
        &node,
        &[
            ("udp 10.10.0.5 10.10.0.4:4791", "deny by quarantined"),
            ("udp 10.10.0.4 10.10.0.5:4791", "deny by quarantined2"),
            ("udp 10.10.0.4 10.10.0.6:4791", "allow by collectives"),
        ],
    );
    let collectives = &policy.rules[2];
    assert!(!collectives.track && policy.rules[10].log);
    assert_eq!(policy.isolations.len(), 1);
    assert_eq!(policy.isolations[0].left_name, "plane training");
    assert!(policy.link.dhcp_client && !policy.link.multicast);
}

#[test]
fn a_dpu_in_front_of_a_host() {
    let policy = sound("2-dpu-inline.yaml");
    assert_flows(
        &policy,
        &[],
        &[
            ("tcp tenant_host provision:80", "allow by boot"),
            ("tcp tenant_host bmc:443", "deny by no_bmc"),
            ("tcp bastion tenant_host:22", "allow by ssh_in"),
            ("tcp outside tenant_host:443", "allow by web"),
            ("udp tenant_host outside:53", "allow by out"),
            ("tcp tenant_host outside:22", "deny: deny_default"),
        ],
    );
    let web = &policy.rules[3];
    assert_eq!(web.limits.len(), 2);
    assert!(policy.zones[policy.zone("bastion").expect("a zone")].lifeline);
}

#[test]
fn a_storage_front_end() {
    let policy = sound("3-storage-frontend.yaml");
    assert_flows(
        &policy,
        &[],
        &[
            ("tcp clients osd:2049", "allow by nfs"),
            ("tcp clients osd:8009", "allow by nvme"),
            ("tcp clients lustre:988", "allow by lustre"),
            ("tcp lustre clients:988", "allow by lustre"),
            ("tcp 10.20.0.4 10.20.0.5:7000", "allow by ceph_peer"),
            ("tcp osd dr_site:8443", "allow by replicate"),
            ("tcp clients dr_site:8443", "reject: reject_default"),
            ("tcp outside osd:2049", "deny: deny_default"),
        ],
    );
    let clients = policy.zone("clients").expect("a zone");
    assert_eq!(policy.protect.exempt, [clients]);
    assert!(matches!(
        policy.rules[0].limits[..],
        [Limit {
            measure: Measure::Flows(4096),
            per: Per { .. },
            ..
        }]
    ));
}

#[test]
fn inference_for_many_tenants() {
    let policy = sound("4-multi-tenant-inference.yaml");
    assert_flows(
        &policy,
        &[],
        &[
            // The gateway has no VLAN of its own: a router brings its packets into the tenants'.
            ("tcp gateway tenant_a:8000", "allow by serve"),
            ("tcp gateway tenant_b:8443", "allow by serve"),
            ("tcp tenant_a registry:443", "allow by weights"),
            ("tcp tenant_b registry:443", "allow by weights"),
            ("tcp 192.168.1.1 192.168.1.2:50051@101", "allow by kv_a"),
            ("tcp 192.168.1.1 192.168.1.2:50051@102", "allow by kv_b"),
            ("tcp 192.168.1.1 192.168.1.2:50051@103", "deny: unknown_realm"),
            ("tcp 192.168.1.1 192.168.1.2:22@101", "deny: deny_default"),
            ("tcp tenant_a gateway:8000", "deny: deny_default"),
            ("tcp gateway 10.20.9.1:443", "deny: deny_default"),
        ],
    );
    assert_eq!(policy.isolations.len(), 1);
    let names = [&policy.isolations[0].left_name, &policy.isolations[0].right_name];
    assert_eq!(names, ["tenant=a", "tenant=b"]);
}

#[test]
fn a_guard_of_the_way_out() {
    let policy = sound("5-egress-guard.yaml");
    assert_flows(
        &policy,
        &[],
        &[
            ("tcp gpu 203.0.113.9:443", "deny by blocked"),
            ("tcp gpu 198.51.100.29:443", "deny by blocked"),
            ("tcp gpu 198.51.100.30:443", "deny: deny_default"),
            ("udp gpu resolver:53", "allow by names"),
            ("tcp gpu proxy:3128", "allow by packages"),
            ("udp gpu site_b:4791", "allow by across"),
            ("tcp gpu site_b:40000", "allow by across"),
            ("tcp outside gpu:22", "allow by vendor"),
        ],
    );
    let vendor = policy.rules.last().expect("rules");
    assert_eq!(
        (vendor.action, vendor.until),
        (RuleAction::Allow, Some(1_796_148_000))
    );
    assert_eq!(
        policy.zones[policy.zone("blocked").expect("a zone")]
            .prefixes
            .len(),
        6
    );
}
