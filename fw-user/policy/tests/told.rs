//! What is told about a policy, so that its reader finds the place and knows what to write.

mod common;

use common::Texts;
use fw_policy::{
    Diagnostics, Environment, Policy, check_files, compile, diff, explain, run_expectations,
};

fn read(files: &[(&str, &str)]) -> Result<(Policy, Diagnostics), Diagnostics> {
    check_files(&Texts(files), files[0].1, files[0].0)
}

/// A policy whose first rules stand in another file, and one whose own rules they shadow.
fn in_two_files(rest: &str) -> Result<(Policy, Diagnostics), Diagnostics> {
    let base = "version: 1\nzones: { gpu: [10.10.0.0/16], bmc: [10.31.0.0/16] }\nrules:\n  - { name: wide, allow: [tcp], from: gpu, to: bmc }\n";
    let policy = format!(
        "version: 1\ninclude: [base.yaml]\nrules:\n  - {{ name: web, allow: [http], from: gpu, to: bmc }}\n  - {{ name: name, allow: [dns], from: gpu, to: bmc }}\n{rest}"
    );
    read(&[("policy.yaml", &policy), ("base.yaml", base)])
}

#[test]
fn a_rule_of_another_file_is_named_with_its_file() {
    let (policy, warnings) = in_two_files("").unwrap_or_else(|findings| panic!("{findings}"));
    let messages: Vec<&str> = warnings.items.iter().map(|item| item.message.as_str()).collect();
    assert_eq!(
        messages,
        ["no packet reaches the rule `web`: `wide` (base.yaml:4) matches everything that it matches"]
    );
    let environment = Environment::sample();
    let tables = compile(&policy, &environment).expect("tables");
    let flow = "udp gpu bmc:53".parse().expect("a flow");
    let found = explain(&policy, &tables, &environment, &flow, None, None).expect("addresses");
    let text = found.to_string();
    for line in [
        "  allowed by rule `name` (policy.yaml:5)",
        "  not `wide` (base.yaml:4): another service",
        "  not `web` (policy.yaml:4): another service",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let (other, _) = read(&[(
        "other.yaml",
        "version: 1\nzones: { gpu: [10.10.0.0/16], bmc: [10.31.0.0/16] }\nrules:\n  - { name: name, allow: [dns], from: gpu, to: bmc }\n",
    )])
    .unwrap_or_else(|findings| panic!("{findings}"));
    let diff = diff::diff(&other, &policy, &environment).expect("comparable");
    assert!(diff.to_string().contains("allow: wide, base.yaml:4"), "{diff}");
}

#[test]
fn crossings_and_expectations_name_the_file_too() {
    let findings = in_two_files("isolate: [{ zones: [gpu, bmc] }]\n").expect_err("a crossing");
    assert!(
        findings
            .items
            .iter()
            .any(|item| item.message.contains("by the rule `wide` (base.yaml:4)")),
        "{findings}"
    );
    let (policy, _) = in_two_files("expect: [{ flow: tcp gpu bmc:22, is: deny }]\n")
        .unwrap_or_else(|findings| panic!("{findings}"));
    let results = run_expectations(&policy, &Environment::sample()).expect("a small policy");
    let help = results.diagnostics.items[0].help.as_deref();
    assert_eq!(help, Some("the rule `wide` (base.yaml:4) decides this flow"));
}
