//! The words of the header that lie in no table.

use std::collections::BTreeSet;

use fw_common::abi::{Line, LinkFlags, SetHeader, checksum};

use crate::Environment;
use crate::model::{Link, Policy, RouterAdvertisement};

/// Writes the header and its checksum into the first two lines.
pub(super) fn seal(lines: &mut [Line], mut header: SetHeader) {
    lines[..2].copy_from_slice(&header.to_lines());
    let sum = checksum(lines);
    header.checksum_lo = sum as u32;
    header.checksum_hi = (sum >> 32) as u32;
    lines[..2].copy_from_slice(&header.to_lines());
}

/// [`LinkFlags`] and the roles from which router advertisements are accepted.
pub(super) fn link_words(link: &Link, environment: &Environment) -> (u32, u32) {
    let flags = [
        (link.arp, LinkFlags::ARP),
        (link.nd, LinkFlags::ND),
        (link.lldp, LinkFlags::LLDP),
        (link.lacp, LinkFlags::LACP),
        (link.dhcp_client, LinkFlags::DHCP_CLIENT),
        (link.multicast, LinkFlags::MULTICAST),
    ];
    let flags = flags
        .iter()
        .filter(|(on, _)| *on)
        .fold(0, |word, (_, flag)| word | flag);
    let RouterAdvertisement::Roles(accepted) = &link.router_advertisement else {
        return (flags, 0);
    };
    let roles = environment
        .roles
        .iter()
        .enumerate()
        .filter(|(_, role)| accepted.contains(role));
    (flags, roles.fold(0, |word, (number, _)| word | 1 << number))
}

/// Roles that decide something in the policy and that no port has.
pub(super) fn unknown_roles(policy: &Policy, environment: &Environment) -> Vec<String> {
    let accepted = match &policy.link.router_advertisement {
        RouterAdvertisement::Never => &[][..],
        RouterAdvertisement::Roles(roles) => roles,
    };
    let planes = policy.planes.iter().flat_map(|plane| &plane.roles);
    let named: BTreeSet<&String> = accepted.iter().chain(planes).collect();
    let unknown = named.into_iter().filter(|role| !environment.roles.contains(role));
    unknown.cloned().collect()
}
