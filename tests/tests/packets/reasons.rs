//! Every reason that a packet can meet is met by one of a table, in each family where there is such a packet.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use fw_common::abi::Reason;

use crate::case::{Case, Net, Step};
use crate::{
    attributes, errors, fragments, headers, limits, link, others, protect, raw, running, screens, tcp,
    tunnels, windows,
};

/// All tables.
const TABLES: &[fn(&Net) -> Vec<Case>] = &[
    attributes::actions,
    errors::cases,
    fragments::cases,
    headers::cases,
    headers::cut_short,
    limits::cases,
    link::cases,
    others::cases,
    protect::cases,
    raw::cases,
    running::cases,
    screens::cases,
    tcp::cases,
    tcp::policies,
    tunnels::cases,
    windows::cases,
    windows::loose,
    windows::wraps,
];

/// Tests apart from the tables: `closed`, `full`, `answers`.
const ELSEWHERE: [Reason; 5] = [
    Reason::NoPolicy,
    Reason::UnknownPort,
    Reason::TableFull,
    Reason::TableCorrupt,
    Reason::SynProved,
];

/// Failures of the kernel, which a test run with one packet at a time cannot provoke: `fw-common/tests/pipeline.rs` meets them
/// over a model of the maps that refuses, with their errno.
const REFUSED_BY_THE_MODEL: [Reason; 3] = [Reason::TableError, Reason::TableBusy, Reason::TableMemory];

/// What no packet can meet: the first would be a bug, and a scan is only ever noted.
const NEVER: [Reason; 2] = [Reason::Unset, Reason::Scan];

/// Reasons of one family's headers and link protocols.
const IPV4_ONLY: [Reason; 11] = [
    Reason::LinkArp,
    Reason::LinkLldp,
    Reason::LinkLacp,
    Reason::DenyArp,
    Reason::DenyLldp,
    Reason::DenyLacp,
    Reason::BadArp,
    Reason::UnknownEthertype,
    Reason::BadIpv4,
    Reason::SourceRoute,
    Reason::WrongFamily,
];
const IPV6_ONLY: [Reason; 8] = [
    Reason::LinkNd,
    Reason::LinkRa,
    Reason::DenyNd,
    Reason::DenyRa,
    Reason::BadNd,
    Reason::BadIpv6,
    Reason::RoutingHeader0,
    Reason::ExtensionHeaders,
];

fn met(ipv6: bool) -> BTreeSet<u8> {
    let mut met = BTreeSet::new();
    for inline in [false, true] {
        let net = Net::new(ipv6, inline);
        for case in TABLES.iter().flat_map(|table| table(&net)) {
            for step in case.steps {
                if let Step::Send { reason, .. } = step {
                    met.insert(reason as u8);
                }
            }
        }
    }
    met
}

#[test]
fn every_reason_has_a_packet() -> Result<()> {
    for (ipv6, others) in [(false, &IPV6_ONLY[..]), (true, &IPV4_ONLY[..])] {
        let met = met(ipv6);
        let missing: Vec<&str> = Reason::ALL
            .iter()
            .filter(|reason| !met.contains(&(**reason as u8)))
            .filter(|reason| {
                !ELSEWHERE.contains(reason) && !NEVER.contains(reason) && !others.contains(reason)
            })
            .filter(|reason| !REFUSED_BY_THE_MODEL.contains(reason))
            .map(|reason| reason.name())
            .collect();
        ensure!(missing.is_empty(), "IPv6: {ipv6}: no packet meets {missing:?}");
        println!("IPv6: {ipv6}: {} reasons in the tables", met.len());
    }
    Ok(())
}
