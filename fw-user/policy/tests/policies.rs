//! The example policies, `explain` and expectations.

mod common;
#[path = "../examples/large_policy.rs"]
#[allow(dead_code, reason = "its `main` prints what the test compares")]
mod large_policy;

use std::path::{Path, PathBuf};

use common::Files;

use fw_policy::explain::{Explanation, Mismatch};
use fw_policy::model::RuleAction;
use fw_policy::{Environment, Policy, check, compile, explain, load, run_expectations};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

#[test]
fn examples_hold_what_they_promise() {
    let mut seen = 0;
    for entry in std::fs::read_dir(examples()).expect("the directory of examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        seen += 1;
        let name = path.display().to_string();
        let (policy, warnings) = load(&Files, &name).unwrap_or_else(|error| panic!("{error}"));
        assert!(warnings.items.is_empty(), "{warnings}");
        let results = run_expectations(&policy, &Environment::sample()).expect("examples are small");
        assert!(results.passed(), "{}", results.diagnostics);
        let denied = results
            .results
            .iter()
            .filter(|result| result.expected != RuleAction::Allow)
            .count();
        assert!(
            denied > 0 && denied < results.results.len(),
            "{name} expects denies and allows"
        );
    }
    assert!(seen >= 6, "{seen} examples");
}

#[test]
fn the_large_example_is_what_its_generator_writes() {
    let path = examples().join("large-generated.yaml");
    let text = std::fs::read_to_string(path).expect("the large example");
    assert!(
        text == large_policy::text(),
        "cargo run -p fw-policy --example large_policy > policies/large-generated.yaml"
    );
    let rules = text
        .lines()
        .filter(|line| line.starts_with("  - { name: "))
        .count();
    assert!((900..1100).contains(&rules), "{rules} rules");
}

/// The schema takes every policy of this repository, and no file with an unknown key.
#[test]
fn the_schema_takes_what_the_checker_takes() {
    let schema = serde_json::to_value(fw_policy::schema::schema()).expect("plain data");
    let schema = jsonschema::validator_for(&schema).expect("a schema");
    let wanted = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wanted");
    let mut seen = 0;
    for directory in [examples(), wanted] {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            seen += 1;
            let text = std::fs::read_to_string(&path).expect("a policy");
            let mut value: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
            // Budgets are of no version yet.
            for rule in value["rules"].as_array_mut().expect("rules") {
                rule.as_object_mut().expect("a rule").remove("budget");
            }
            value.as_object_mut().expect("a mapping").remove("budgets");
            let errors: Vec<String> = schema
                .iter_errors(&value)
                .map(|error| format!("{error} at {}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
            value["rules"][0]["alow"] = "ssh".into();
            assert!(!schema.is_valid(&value), "{}: an unknown key", path.display());
        }
    }
    assert!(seen >= 11, "{seen} policies");
}

#[test]
fn a_missing_file_is_named() {
    let error = load(&Files, "no/such/policy.yaml").expect_err("there is no such file");
    assert!(
        error.to_string().starts_with("cannot read no/such/policy.yaml: "),
        "{error}"
    );
}

const TEXT: &str = "version: 1
zones:
  gpu:     [10.10.0.0/16, \"fd00:10::/48\"]
  storage: [10.20.0.0/16]
  inner:   [10.10.0.0/30]
  tagged:  { addresses: [10.66.0.0/16], vlan: 66 }
link: { dhcp: client, router_advertisement: [uplink] }
rules:
  - { name: r1, allow: [ssh], from: storage, to: any }
  - { name: r2, allow: [ssh], from: gpu, to: self }
  - { name: r3, allow: [https], from: gpu, to: storage }
  - { name: r4, deny: all, from: gpu, to: storage }
";

fn policy() -> Policy {
    check(TEXT, "test.yaml").expect("a sound policy").0
}

fn explained(flow: &str, vlan: Option<u16>, role: Option<&str>) -> Explanation {
    let (policy, environment) = (policy(), Environment::sample());
    let tables = compile(&policy, &environment).expect("a small policy");
    let flow = flow.parse().expect("a flow");
    explain(&policy, &tables, &environment, &flow, vlan, role).expect("zones with addresses")
}

#[test]
fn explanations_name_rule_line_and_why_not_the_others() {
    let explanation = explained("tcp gpu storage:22", None, None);
    let rule = explanation.rule.as_ref().expect("a rule decides");
    assert_eq!(
        (rule.name.as_str(), rule.line, explanation.reason),
        ("r4", 12, "deny_rule")
    );
    let skipped: Vec<_> = explanation
        .skipped
        .iter()
        .map(|skipped| (skipped.rule.name.as_str(), skipped.why))
        .collect();
    assert_eq!(
        skipped,
        [
            ("r1", Mismatch::Source),
            ("r2", Mismatch::Destination),
            ("r3", Mismatch::Service)
        ]
    );
    assert_eq!(explanation.source_zones, ["gpu", "any"]);
    insta::assert_snapshot!("explanation", explanation.to_string());
    serde_json::to_string(&explanation).expect("plain data");
}

#[test]
fn zones_stand_for_an_address_of_their_own() {
    // 10.10.0.0/30 belongs to the smaller zone first of all.
    assert_eq!(
        explained("tcp gpu storage:22", None, None).flow.src.to_string(),
        "10.10.0.4"
    );
    assert_eq!(
        explained("tcp inner storage:22", None, None).source_zones,
        ["inner", "gpu", "any"]
    );
    let explanation = explained("tcp outside [fd00:10::1]:22", None, None);
    assert_eq!(
        (
            explanation.source_zones,
            explanation.destination_zones[0].as_str()
        ),
        (vec!["outside".to_owned(), "any".to_owned()], "gpu")
    );
}

#[test]
fn what_passes_or_falls_before_the_rules() {
    for (flow, vlan, role, reason) in [
        ("tcp gpu storage:22", Some(5), None, "unknown_realm"),
        ("tcp tagged 10.66.0.9:22", None, None, "deny_default"),
        ("icmp gpu storage echo-reply", None, None, "icmp_no_flow"),
        (
            "icmp gpu storage destination-unreachable/1",
            None,
            None,
            "icmp_unrelated",
        ),
        ("icmp gpu storage redirect", None, None, "deny_redirect"),
        ("icmp gpu storage 13", None, None, "icmp_type"),
        ("icmp fe80::1 ff02::1 135", None, None, "link_nd"),
        ("icmp fe80::1 ff02::1 143", None, None, "deny_multicast"),
        ("icmp fe80::1 ff02::1 133", None, None, "link_ra"),
        ("icmp fe80::1 ff02::1 134", None, Some("uplink"), "link_ra"),
        ("icmp fe80::1 ff02::1 134", None, None, "deny_ra"),
        ("2 10.10.0.9 224.0.0.22", None, None, "deny_multicast"),
    ] {
        let explanation = explained(flow, vlan, role);
        assert_eq!(explanation.reason, reason, "{flow}");
        assert!(explanation.rule.is_none());
    }
    assert!(
        explained("udp self 255.255.255.255:67", None, None)
            .note
            .is_some()
    );
}

#[test]
fn flows_without_addresses_are_sentences() {
    let (policy, environment) = (policy(), Environment::sample());
    for (flow, expected) in [
        ("tcp gpus self:1", "there is no zone `gpus`"),
        ("tcp any self:1", "the zone `any` has no"),
        ("tcp storage [fd00:10::1]:1", "no address family in common"),
        ("tcp tagged gpu:1", "different VLANs"),
        ("icmp fd00::1 fd00::2 timestamp-request", "no ICMP type"),
    ] {
        let flow = flow.parse().expect("a flow");
        let error = fw_policy::resolve(&policy, &environment, &flow, None)
            .expect_err(expected)
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn failed_expectations_point_at_their_flow() {
    let text = format!(
        "{TEXT}expect:
  - {{ flow: tcp gpu storage:443, is: allow, rule: r3 }}
  - {{ flow: tcp gpu storage:443, is: deny }}
  - {{ flow: tcp gpu storage:22, is: deny, rule: r1 }}
  - {{ flow: tcp outside gpu:22, is: deny, reason: deny_rule }}
  - {{ flow: tcp gpu self:22, self: \"fd00::9\", is: allow }}
  - {{ flow: tcp storage self:22, self: \"fd00::9\", is: allow }}
"
    );
    let (policy, _) = check(&text, "test.yaml").expect("a sound policy");
    let results = run_expectations(&policy, &Environment::sample()).expect("a small policy");
    let passed: Vec<bool> = results.results.iter().map(|result| result.passed).collect();
    assert_eq!(passed, [true, false, false, false, true, false]);
    assert!(!results.passed());
    insta::assert_snapshot!("failed_expectations", results.diagnostics.render(false));
}
