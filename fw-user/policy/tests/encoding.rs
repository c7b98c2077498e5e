//! Records of rules, limits, planes and protection, as the kernel reads them.

use fw_common::abi::{
    Features, LimitKind, LimitPer, ProtectMode, Reason, RuleFlags, Screen, SetHeader, threshold,
};
use fw_common::classify::{self, Classified, plane_roles, realm_record};
use fw_common::limit::Rate;
use fw_policy::model::{Pickup, Tags};
use fw_policy::{Environment, Policy, TableSet, check, compile};
use proptest::prelude::*;

const ZONES: &str = "version: 1
zones:
  gpu:     { addresses: [10.10.0.0/16], plane: training, ports: [rail] }
  gpu2:    { addresses: [10.11.0.0/16], plane: training, ports: [rail2] }
  storage: { addresses: [10.20.0.0/16], plane: storage, ports: [nowhere] }
  free:    { addresses: [10.40.0.0/16], plane: free }
  bastion: { addresses: [10.30.0.10], lifeline: true }
";

fn read(text: &str) -> Policy {
    check(text, "test.yaml")
        .unwrap_or_else(|findings| panic!("{findings}\n{text}"))
        .0
}

fn environment() -> Environment {
    Environment {
        roles: ["mgmt", "rail", "rail2"].map(str::to_owned).to_vec(),
        boot_unix_s: 1_700_000_000,
        ..Environment::sample()
    }
}

fn compiled(rest: &str) -> TableSet {
    compile(&read(&format!("{ZONES}{rest}")), &environment()).expect("a small policy")
}

fn rule(tables: &TableSet, number: u32) -> Classified {
    let mut out = Classified::default();
    assert!(classify::rule_of(tables.lines.as_slice(), number, &mut out));
    out
}

/// A limit record: what, and the rate.
fn limit(tables: &TableSet, number: u32) -> (u32, Rate) {
    let record = classify::limit(tables.lines.as_slice(), number).expect("a whole set");
    let word = |index| record.word(index);
    let rate = Rate::from_words([word(2), word(3), word(4), word(5)]);
    assert_eq!((word(6), word(7)), (0, 0));
    (word(1), rate)
}

const fn what(kind: LimitKind, per: LimitPer, v4: u32, v6: u32) -> u32 {
    kind as u32 | (per as u32) << 8 | v4 << 16 | v6 << 24
}

#[test]
fn rules_carry_their_flags_and_deadlines() {
    let tables = compiled(
        "rules:
  - { name: plain,  allow: [ssh], from: gpu, to: self }
  - { name: logged, deny: [http], from: gpu, to: self, log: true }
  - { name: tried,  reject: [https], from: gpu, to: self, audit: true, log: true }
  - { name: free,   allow: [roce], from: gpu, to: gpu, track: false }
  - { name: ends,   allow: [nfs], from: gpu, to: storage, until: 2026-12-01T18:00:00Z }
  - { name: ended,  allow: [ntp], from: gpu, to: storage, until: 2001-01-01T00:00:00Z }
  - { name: far,    allow: [dns], from: gpu, to: storage, until: 2200-01-01T00:00:00Z }
  - { name: opens,  allow: [ldap], from: gpu, to: storage, limit: { new_flows: 5/s } }
  - { name: paced,  allow: [http], from: gpu, to: storage, limit: { packets: 5/s }, track: false }
",
    );
    let of = |number| {
        let found = rule(&tables, number);
        (found.rule_flags, found.rule_until)
    };
    let ends = 1_796_148_000 - 1_700_000_000;
    assert_eq!(of(0), (0, 0));
    assert_eq!(of(1), (0, 0));
    assert_eq!(of(2), (RuleFlags::LOG, 0));
    assert_eq!(of(3), (RuleFlags::LOG | RuleFlags::AUDIT, 0));
    assert_eq!(of(4), (RuleFlags::UNTRACKED, 0));
    assert_eq!(of(5), (RuleFlags::POLICED, ends));
    assert_eq!(
        of(6),
        (RuleFlags::POLICED, 1),
        "it had ended before the machine started"
    );
    assert_eq!(
        of(7),
        (RuleFlags::POLICED, u32::MAX),
        "136 years are as good as for ever"
    );
    assert_eq!(of(8), (0, 0), "limits on new flows measure no other packet");
    assert_eq!(of(9), (RuleFlags::POLICED | RuleFlags::UNTRACKED, 0));
    let header = SetHeader::from_lines(&tables.lines[0], &tables.lines[1]);
    assert_eq!(header.features, Features::UNTRACKED);
    assert_eq!(compiled("rules: []\n").lines[1].w[7], 0);
}

#[test]
fn limits_follow_the_thresholds() {
    let tables = compiled(
        "rules:
  - { name: none, allow: [ssh], from: gpu, to: self }
  - name: all
    allow: [http]
    from: gpu
    to: self
    limit:
      - { new_flows: 50/s, burst: 100, per: source/24 }
      - { bytes: 5 Gbit/s, per: rule }
      - { packets: 1000/min, per: destination }
      - { flows: 4096, per: pair/56 }
  - { name: one, allow: [https], from: gpu, to: self, limit: { bytes: 64 KiB/s, burst: 1 MiB, per: source } }
",
    );
    let of = |number| rule(&tables, number).rule_limits;
    let first = threshold::COUNT;
    assert_eq!((of(1), of(2), of(3)), (0, first << 8 | 4, (first + 4) << 8 | 1));
    let second = 1_000_000_000;
    let expected = [
        (
            what(LimitKind::NewFlows, LimitPer::Source, 24, 64),
            Rate::new(50, second, 100),
        ),
        (
            what(LimitKind::Bytes, LimitPer::Rule, 0, 0),
            Rate::new(625_000_000, second, 62_500_000),
        ),
        (
            what(LimitKind::Packets, LimitPer::Destination, 32, 128),
            Rate::new(1000, 60 * second, 64),
        ),
    ];
    for (number, (what, rate)) in (first..).zip(expected) {
        assert_eq!(limit(&tables, number), (what, rate.expect("a rate")));
    }
    let (what_flows, flows) = limit(&tables, first + 3);
    assert_eq!(what_flows, what(LimitKind::Flows, LimitPer::Pair, 32, 56));
    assert_eq!(flows.words(), [4096, 0, 0, 0]);
    let (what_bytes, bytes) = limit(&tables, first + 4);
    assert_eq!(what_bytes, what(LimitKind::Bytes, LimitPer::Source, 32, 64));
    assert_eq!(bytes, Rate::new(65_536, second, 1 << 20).expect("a rate"));
    let ids: std::collections::BTreeSet<_> = (0..first + 5)
        .map(|number| classify::limit(tables.lines.as_slice(), number).expect("a whole set"))
        .map(|record| record.word(0))
        .collect();
    assert_eq!(ids.len() as u32, first + 5, "each limit has an id of its own");
    assert_eq!(tables.stats.limits, 5);
}

#[test]
fn the_protect_record_holds_modes_caps_and_defaults() {
    let all = Screen::ALL.iter().fold(0, |bits, screen| bits | screen.bit());
    let tables = compiled("rules: []\n");
    let words = classify::protect(tables.lines.as_slice()).expect("a whole set").w;
    let (drop, count) = (ProtectMode::Drop as u32, ProtectMode::Count as u32);
    assert_eq!(words[..5], [all, 0, 0, 16_384, 65_536]);
    assert_eq!(words[5..10], [drop, count, count, count, 600]);
    let second = 1_000_000_000;
    let defaults = [
        (threshold::SYN, 10_000, second),
        (threshold::UDP, 100_000, second),
        (threshold::ICMP, 100_000, second),
        (threshold::SCAN, 600, 60 * second),
    ];
    for (number, units, per_ns) in defaults {
        assert_eq!(
            limit(&tables, number).1,
            Rate::new(units, per_ns, units).expect("a rate")
        );
    }

    let tables = compiled(
        "rules: []
fragments: pass_early
protect:
  spoofed: count
  invalid: skip
  screens: { land: drop, plane_mismatch: skip, ttl_zero: count }
  syn_flood: { above: 200000/s, burst: 400000, mode: count, exempt: gpu }
  udp_flood: { above: 5/s, mode: drop }
  icmp_flood: { mode: skip }
  scan: { above: 100/h, mode: drop, ban: 1h }
  caps: { half_open: none, flows: 77 }
",
    );
    let words = classify::protect(tables.lines.as_slice()).expect("a whole set").w;
    let counts = Screen::TtlZero.bit() | Screen::ImpossibleSource.bit();
    assert_eq!(words[..5], [Screen::Land.bit(), counts, 1, 0, 77]);
    assert_eq!(words[5..10], [count, drop, ProtectMode::Skip as u32, drop, 3600]);
    let rates = [
        (threshold::SYN, Rate::new(200_000, second, 400_000)),
        (threshold::UDP, Rate::new(5, second, 5)),
        (threshold::SCAN, Rate::new(100, 3600 * second, 100)),
    ];
    for (number, rate) in rates {
        assert_eq!(limit(&tables, number).1, rate.expect("a rate"));
    }
}

#[test]
fn planes_are_numbered_by_name_and_bound_to_the_roles_of_all_their_zones() {
    let tables = compiled("rules: []\n");
    let roles = |plane| plane_roles(tables.lines.as_slice(), plane).expect("a whole set");
    // free, storage, training; roles are mgmt, rail, rail2.
    assert_eq!((roles(0), roles(1), roles(3)), (0, 0, 0b110));
    assert_eq!(
        roles(2),
        1 << 31,
        "bound to a role that no port has: no port will do"
    );
    assert_eq!(tables.stats.unknown_roles, ["nowhere"]);
    let roles: Vec<String> = (0..32).map(|role| format!("r{role}")).collect();
    let too_many = Environment {
        roles,
        ..environment()
    };
    assert!(compile(&read(&format!("{ZONES}rules: []\n")), &too_many).is_err());
}

#[test]
fn settings_are_for_the_agent() {
    let settings = |text: &str| {
        let settings = compiled(&format!("rules: []\n{text}")).settings;
        (settings.window_loose, settings.pickup)
    };
    assert_eq!(settings(""), (false, Pickup::ColdStart(120)));
    assert_eq!(
        settings("tcp: { invalid: drop, window: strict, pickup: cold_start, cold_start: 2m }\n"),
        (false, Pickup::ColdStart(120))
    );
    assert_eq!(
        settings("tcp: { window: loose, cold_start: 5s }\n"),
        (true, Pickup::ColdStart(5))
    );
    assert_eq!(settings("tcp: { pickup: never }\n"), (false, Pickup::Never));
    assert_eq!(settings("tcp: { pickup: always }\n"), (false, Pickup::Always));
}

#[test]
fn stacked_tags_have_realms_of_their_own() {
    let text = "version: 1
zones:
  a: { addresses: [10.0.0.0/8], vlan: 100 }
  b: { addresses: [10.0.0.0/8], vlan: [100, 7] }
  c: { addresses: [10.0.0.0/8], vlan: [7, 100] }
  d: { addresses: [10.0.0.0/8], vlan: [100, 4094] }
rules: []
";
    let policy = read(text);
    let tables = compile(&policy, &environment()).expect("a small policy");
    assert_eq!((tables.stats.realms, policy.realms().len()), (5, 5));
    let record = |outer, inner| realm_record(tables.lines.as_slice(), (outer, inner));
    let known: std::collections::BTreeSet<u32> = policy
        .realms()
        .into_iter()
        .map(|Tags { outer, inner }| record(outer, inner).expect("a named realm"))
        .collect();
    assert_eq!(known.len(), 5);
    for (outer, inner) in [(7, 0), (7, 7), (100, 100), (1, 1), (4095, 4095)] {
        assert_eq!(record(outer, inner), Err(Reason::UnknownRealm), "{outer}.{inner}");
    }
    // Without stacked tags there are no tables for them.
    assert_eq!(compiled("rules: []\n").lines[1].w[8], 0);
}

proptest! {
    #[expect(
        clippy::cast_precision_loss,
        reason = "rates are compared to nine digits; a float has fifteen"
    )]
    #[test]
    fn an_encoded_rate_is_the_configured_one(
        count in 1_u64..4_000_000_000,
        size in prop::sample::select(vec![("", 1), ("B", 8), ("KiB", 8 << 10), ("MB", 8_000_000), ("bit", 1), ("kbit", 1000)]),
        (time, seconds) in prop::sample::select(vec![("s", 1_u64), ("min", 60), ("h", 3600)]),
    ) {
        let (unit, bits) = size;
        let (key, kind) = if unit.is_empty() { ("new_flows", LimitKind::NewFlows) } else { ("bytes", LimitKind::Bytes) };
        let units = if unit.is_empty() { count as f64 } else { (count * bits) as f64 / 8.0 };
        let text = format!("{ZONES}rules:\n  - {{ name: a, allow: all, from: gpu, to: any, limit: {{ {key}: {count} {unit}/{time} }} }}\n");
        // Rates above what can be measured are refused, and no others.
        let fastest = units / seconds as f64 > 255e9;
        let Ok((policy, _)) = check(&text, "test.yaml") else {
            prop_assert!(fastest || units / (seconds as f64) < 1.0 / 600_000.0, "{count} {unit}/{time}");
            return Ok(());
        };
        let tables = compile(&policy, &environment()).expect("a small policy");
        let (what, rate) = limit(&tables, threshold::COUNT);
        prop_assert_eq!(what & 0xff, kind as u32);
        // Ticks of 2^-8 ns that a unit costs.
        let encoded = if rate.shift < 32 {
            f64::from(rate.mantissa) / 2_f64.powi(rate.shift.cast_signed())
        } else {
            f64::from(rate.mantissa) * 2_f64.powi(rate.shift.cast_signed() - 32)
        };
        let configured = seconds as f64 * 256e9 / units;
        prop_assert!((encoded / configured - 1.0).abs() < 1e-9, "{encoded} {configured}");
        // The default burst: 100 ms, and never too small for a super-packet.
        let least = if kind == LimitKind::Bytes { 65_536.0 } else { 1.0 };
        let burst = (units / seconds as f64 / 10.0).floor().max(least);
        let stored = rate.burst as f64 / configured;
        prop_assert!(stored >= burst * 0.999_999 && stored <= burst * 1.02 + 64.0, "{stored} {burst}");
    }
}
