//! Any text as a policy: findings or a policy, tables or a reason, and no look-up in them that fails. No panic, no hang.
#![no_main]

use std::net::IpAddr;

use fw_common::abi::{Ip4, Ip6};
use fw_common::classify::{Classified, Service, classify, realm_record};
use fw_policy::{Environment, Policy, TableSet, check, compile_within, run_expectations};
use libfuzzer_sys::fuzz_target;

/// Longer texts only take longer.
const LONGEST: usize = 16 << 10;
/// Tables may take so much; what is larger must be refused in time. Bytes.
const MEMORY: u64 = 16 << 20;
/// Zones and rules, multiplied, that are run: what larger policies cost is measured elsewhere.
const SIZE: usize = 20_000;

/// Ends of packets that are looked up in every policy.
const ADDRESSES: [&str; 8] = [
    "0.0.0.0",
    "10.0.0.1",
    "192.0.2.1",
    "255.255.255.255",
    "::",
    "fd00::1",
    "2001:db8::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
];
const SERVICES: [Service; 6] = [
    Service::of(6, 22, 49_152),
    Service::of(17, 65_535, 1),
    Service::of(1, 8 << 8, 0),
    Service::of(58, 128 << 8, 0),
    Service::of(47, 0, 0),
    Service::of(255, 1, 0),
];

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if text.len() > LONGEST {
        return;
    }
    match check(text, "fuzz.yaml") {
        Err(findings) => {
            assert!(findings.has_errors(), "refused without an error");
            let _ = findings.render(false);
            let _ = findings.reports();
        }
        Ok((policy, warnings)) => {
            assert!(!warnings.has_errors(), "accepted with an error");
            let _ = warnings.render(true);
            if policy.zones.len() * policy.rules.len() <= SIZE {
                run(&policy);
            }
        }
    }
});

fn run(policy: &Policy) {
    let environment = Environment::sample();
    let Ok(tables) = compile_within(policy, &environment, MEMORY) else {
        return;
    };
    let again = compile_within(policy, &environment, MEMORY).expect("it compiled before");
    assert_eq!(tables.lines, again.lines, "the same policy has other tables");
    look_up(policy, &tables);
    let _ = run_expectations(policy, &environment);
}

/// Every look-up finds an answer, and names a rule of the policy.
fn look_up(policy: &Policy, tables: &TableSet) {
    let lines = tables.lines.as_slice();
    let vlans = policy
        .zones
        .iter()
        .map(|zone| (zone.vlan, zone.inner_vlan))
        .take(4);
    for tags in vlans.chain([(0, 0), (4095, 0)]) {
        let Ok(realm) = realm_record(lines, tags) else {
            continue;
        };
        for (src, dst) in ADDRESSES.iter().zip(ADDRESSES.iter().cycle().skip(1)) {
            let ends: (IpAddr, IpAddr) = (src.parse().expect("an address"), dst.parse().expect("an address"));
            for service in SERVICES {
                let mut out = Classified::default();
                let decision = match ends {
                    (IpAddr::V4(src), IpAddr::V4(dst)) => classify(
                        lines,
                        realm,
                        (Ip4(src.into()), Ip4(dst.into())),
                        service,
                        &mut out,
                    ),
                    (IpAddr::V6(src), IpAddr::V6(dst)) => {
                        let ends = (Ip6::from_bits(src.into()), Ip6::from_bits(dst.into()));
                        classify(lines, realm, ends, service, &mut out)
                    }
                    _ => continue,
                };
                let decision = decision.expect("tables that were just compiled are not damaged");
                assert!(
                    decision.rule() as usize <= policy.rules.len(),
                    "a rule that is none"
                );
            }
        }
    }
}
