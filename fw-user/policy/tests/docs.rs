//! docs/policy.md says what the code does: services, keys, warnings.

use std::collections::BTreeSet;
use std::path::Path;

use fw_policy::diagnostic::WARNINGS;
use fw_policy::services::BUILT_IN;

fn docs() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy.md");
    std::fs::read_to_string(path).expect("docs/policy.md")
}

#[test]
fn every_built_in_service_has_its_row() {
    let docs = docs();
    let table = docs
        .split("| service | matches |")
        .nth(1)
        .expect("the table of services");
    let table = table.split("\n\n").next().expect("its end");
    let rows: Vec<&str> = table.lines().skip(2).collect();
    let expected: Vec<String> = BUILT_IN
        .iter()
        .map(|service| {
            format!(
                "| `{}` | {} | {} |",
                service.name,
                service.matches.join(", "),
                service.source
            )
        })
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn every_warning_has_its_row() {
    let docs = docs();
    let table = docs.split("## Warnings").nth(1).expect("the table of warnings");
    let codes = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let codes = codes.flat_map(|row| {
        let codes = row.split(" |").next().unwrap_or_default();
        codes.split(", ").map(|code| code.trim_matches('`'))
    });
    assert_eq!(
        codes.collect::<BTreeSet<_>>(),
        WARNINGS.iter().copied().collect::<BTreeSet<_>>()
    );
}

#[test]
fn every_key_is_explained() {
    let docs = docs();
    let schema = serde_json::to_value(fw_policy::schema::schema()).expect("plain data");
    let mut keys: BTreeSet<&str> = schema["properties"]
        .as_object()
        .expect("keys")
        .keys()
        .map(String::as_str)
        .collect();
    for mapping in schema["$defs"].as_object().expect("definitions").values() {
        keys.extend(
            mapping["properties"]
                .as_object()
                .into_iter()
                .flat_map(|keys| keys.keys().map(String::as_str)),
        );
    }
    assert!(keys.len() > 60, "{} keys", keys.len());
    for key in keys {
        let written = [format!("`{key}`"), format!("{key}:"), format!("`{key}:")];
        assert!(
            written.iter().any(|text| docs.contains(text)),
            "docs/policy.md does not know `{key}`"
        );
    }
}
