//! `docs/reasons.md` is derived from the table of reasons.

use std::fmt::Write as _;
use std::path::Path;

use fw_common::abi::Reason;

#[test]
fn the_document_lists_the_table() {
    let mut text = String::from(
        "# Reasons\n\nEvery packet has exactly one. Numbers are never used again; counters, events, metrics \
         (`dpufw_packets_total{verdict,reason}`),\n`dpufw drops` and `expect: { reason: ... }` use these names. This page is \
         made from `fw-common/src/abi/reason.rs`\nby `DPUFW_BLESS=1 cargo test -p fw-common --test reasons`.\n\n\
         | number | name | the packet | why |\n| --- | --- | --- | --- |\n",
    );
    for reason in Reason::ALL {
        let verdict = if reason.allows() { "passes" } else { "is dropped" };
        writeln!(
            text,
            "| {} | `{}` | {verdict} | {} |",
            *reason as u8,
            reason.name(),
            reason.sentence()
        )
        .unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reasons.md");
    if std::env::var_os("DPUFW_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        recorded == text,
        "docs/reasons.md is stale: DPUFW_BLESS=1 cargo test -p fw-common --test reasons"
    );
}
