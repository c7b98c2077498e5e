//! `docs/reasons.md` is derived from the table of reasons and from what a policy does that says nothing of protection.

use std::fmt::Write as _;
use std::path::Path;

use fw_common::abi::{DefaultAction, ProtectMode, Reason, Screen};
use fw_policy::model::Protect;

const HEAD: &str = "# Reasons

Every packet has exactly one. Numbers are never used again; counters, events, metrics (`dpufw_packets_total{verdict,reason}`),
`dpufw drops` and `expect: { reason: ... }` use these names. This page is made from `fw-common/src/abi/reason.rs`
and the defaults of `fw-policy` by `DPUFW_BLESS=1 cargo test -p fw-policy --test reasons`.

";

const NOTED: &str = "
## Counted only
A screen or threshold in mode `count`, and a rule with `audit: true`, drop nothing. What they would have dropped is counted a second
time, beside the packet's own reason: `dpufw_noted_packets_total{reason}` and `dpufw_noted_bytes_total{reason}`, `noted` in
`dpufw status --json`, and records of the kinds `noted` and `audit` in `dpufw drops`. The reasons that can stand there are those of the
two tables above, and `deny_rule` or `reject_rule` of a rule with `audit: true`.
";

fn defaults() -> Protect {
    let policy =
        "version: 1\nzones: { a: [10.0.0.1] }\nrules: [{ name: r, allow: [ssh], from: a, to: self }]\n";
    let (policy, _) = fw_policy::check(policy, "policy.yaml").unwrap();
    policy.protect
}

const fn mode(mode: ProtectMode) -> &'static str {
    match mode {
        ProtectMode::Skip => "skip",
        ProtectMode::Count => "count",
        ProtectMode::Drop => "drop",
    }
}

fn reasons() -> String {
    let mut text = String::from("| number | name | default action | why |\n| --- | --- | --- | --- |\n");
    for reason in Reason::ALL {
        let (number, name) = (*reason as u8, reason.name());
        let (action, why) = (reason.default_action().text(), reason.sentence());
        writeln!(text, "| {number} | `{name}` | {action} | {why} |").unwrap();
    }
    text
}

fn screens(protect: &Protect) -> String {
    let mut text = String::from(
        "\n## Screens\nEach is `skip`, `count` or `drop`: `protect: { screens: { land: count } }`; `spoofed` and `invalid` set \
         them in groups.\n\n| screen and reason | group | default |\n| --- | --- | --- |\n",
    );
    for screen in Screen::ALL {
        let reason = Reason::ALL
            .iter()
            .find(|reason| **reason as u32 == screen.reason())
            .unwrap();
        let spoofed = matches!(screen, Screen::ImpossibleSource | Screen::PlaneMismatch);
        let group = if spoofed { "spoofed" } else { "invalid" };
        let default = mode(protect.screens[screen as usize]);
        writeln!(text, "| `{}` | `{group}` | `{default}` |", reason.name()).unwrap();
    }
    text
}

fn thresholds(protect: &Protect) -> String {
    let mut text = String::from(
        "\n## Floods and scans\n| key of `protect` | default | above | reasons |\n| --- | --- | --- | --- |\n",
    );
    let rows = [
        (
            "syn_flood",
            &protect.syn_flood,
            &[Reason::SynProof, Reason::SynProofOver][..],
        ),
        ("udp_flood", &protect.udp_flood, &[Reason::UdpFlood]),
        ("icmp_flood", &protect.icmp_flood, &[Reason::IcmpFlood]),
        ("scan", &protect.scan, &[Reason::Scan, Reason::Banned]),
    ];
    for (key, threshold, reasons) in rows {
        let names: Vec<_> = reasons
            .iter()
            .map(|reason| format!("`{}`", reason.name()))
            .collect();
        let (units, seconds) = (threshold.rate.units, threshold.rate.per_ns / 1_000_000_000);
        let (mode, names) = (mode(threshold.mode), names.join(", "));
        writeln!(text, "| `{key}` | `{mode}` | {units} in {seconds} s | {names} |").unwrap();
    }
    text
}

#[test]
fn the_document_lists_the_table() {
    let protect = defaults();
    let tables = [reasons(), screens(&protect), thresholds(&protect)];
    let text = format!("{HEAD}{}{NOTED}", tables.concat());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reasons.md");
    if std::env::var_os("DPUFW_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        recorded == text,
        "docs/reasons.md is stale: DPUFW_BLESS=1 cargo test -p fw-policy --test reasons"
    );
}

/// The defaults of a policy are those of the table.
#[test]
fn a_policy_without_a_protect_section_does_what_the_table_says() {
    let protect = defaults();
    let by_table = |reason: Reason| reason.default_action().mode();
    assert_eq!(protect.syn_flood.mode, by_table(Reason::SynProof));
    assert_eq!(protect.udp_flood.mode, by_table(Reason::UdpFlood));
    assert_eq!(protect.icmp_flood.mode, by_table(Reason::IcmpFlood));
    assert_eq!(protect.scan.mode, by_table(Reason::Scan));
    for reason in Reason::ALL {
        if let Some(screen) = Screen::ALL
            .iter()
            .find(|screen| screen.reason() == *reason as u32)
        {
            assert_eq!(
                protect.screens[*screen as usize],
                by_table(*reason),
                "{}",
                reason.name()
            );
        }
    }
    // As the issue of the stateful core has it: screens drop, scans and floods that prove nothing are counted.
    assert_eq!(Reason::Land.default_action(), DefaultAction::Drop);
    assert_eq!(Reason::Scan.default_action(), DefaultAction::Count);
    assert_eq!(Reason::SynProof.default_action(), DefaultAction::Answer);
    assert_eq!(Reason::Established.default_action(), DefaultAction::Pass);
}
