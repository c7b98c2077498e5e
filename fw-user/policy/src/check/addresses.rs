//! Addresses as a zone or a zone's file writes them: a prefix, one address, or a range.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::fields;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::ranges::Range;
use crate::yaml::Node;

/// What should have stood there.
pub(super) const EXPECTED: &str =
    "expected a prefix such as 10.0.0.0/8 or fd00::/8, an address, or a range such as 10.0.0.5-10.0.0.9";

/// Why a text is none of them.
pub(super) struct Bad {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Bad {
    fn new(message: String, help: Option<String>) -> Self {
        Self { message, help }
    }

    /// The finding.
    pub(super) fn finding(self, span: crate::diagnostic::Span) -> Diagnostic {
        let item = Diagnostic::error("bad_prefix", span, self.message).label(EXPECTED);
        match self.help {
            Some(help) => item.help(help),
            None => item,
        }
    }
}

/// Reads one of a zone's addresses.
pub(super) fn read(node: &Node, findings: &mut Diagnostics) -> Option<Range> {
    let text = fields::text(node, "a prefix, an address or a range", findings)?;
    match parse(text) {
        Ok(range) => Some(range),
        Err(bad) => {
            findings.push(bad.finding(node.span));
            None
        }
    }
}

/// A prefix, an address, or a range; else a message and a suggestion.
pub(super) fn parse(text: &str) -> Result<Range, Bad> {
    if let Some((first, last)) = text.split_once('-') {
        return range(text, first.trim_end(), last.trim_start());
    }
    let Some((head, length)) = text.split_once('/') else {
        let address = address(text, text)?;
        return Ok(IpNet::from(address).into());
    };
    if let Some(bad) = mapped_prefix(text, head, length) {
        return Err(bad);
    }
    prefix(text, address(text, head)?, length).map(Range::from)
}

/// The refusal of a prefix of IPv4 addresses in IPv6 notation, if it is one.
fn mapped_prefix(text: &str, head: &str, length: &str) -> Option<Bad> {
    let v4 = head.parse::<Ipv6Addr>().ok()?.to_ipv4_mapped()?;
    let message = format!("`{text}` is an IPv4 prefix in IPv6 notation");
    // 96 bits say that it is IPv4.
    let meant = length
        .parse::<u8>()
        .ok()
        .and_then(|length| length.checked_sub(96));
    let help = match meant.and_then(|length| Ipv4Net::new(v4, length).ok()) {
        Some(net) => format!("write {}: mapped addresses never stand in packets", net.trunc()),
        None => "write it as an IPv4 prefix, such as 10.0.0.0/8: mapped addresses never stand in packets"
            .to_owned(),
    };
    Some(Bad::new(message, Some(help)))
}

/// An address as packets carry it.
fn address(text: &str, head: &str) -> Result<IpAddr, Bad> {
    let Ok(address) = head.parse::<IpAddr>() else {
        return Err(no_address(text, head));
    };
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        let help = format!("write {v4}: mapped addresses never stand in packets");
        let message = format!("`{text}` is an IPv4 address in IPv6 notation");
        return Err(Bad::new(message, Some(help)));
    }
    Ok(address)
}

fn prefix(text: &str, address: IpAddr, length: &str) -> Result<IpNet, Bad> {
    let (full, family) = if address.is_ipv4() {
        (32, "IPv4")
    } else {
        (128, "IPv6")
    };
    let plain = length.len() == 1 || !length.starts_with(['+', '0']);
    let number = length.parse::<u8>().ok().filter(|_| plain);
    let Some(net) = number.and_then(|number| IpNet::new(address, number).ok()) else {
        let meant = meant_length(address, length).and_then(|number| IpNet::new(address, number).ok());
        let Some(net) = meant else {
            let message = format!("`/{length}` is no length of an {family} prefix; it is at most /{full}");
            return Err(Bad::new(message, None));
        };
        let message = format!("`/{length}` is not how the length of a prefix is written");
        let help = Some(if net.trunc() == net {
            format!("write {net}")
        } else {
            network_or_address(net)
        });
        return Err(Bad::new(message, help));
    };
    if net.trunc() != net {
        let message = format!("`{text}` has bits set behind its length");
        return Err(Bad::new(message, Some(network_or_address(net))));
    }
    Ok(net)
}

fn network_or_address(net: IpNet) -> String {
    format!(
        "write {} for the network, or {} for the one address",
        net.trunc(),
        net.addr()
    )
}

/// The length that something else behind the stroke means: a number with zeros in front, a netmask, or the inverted netmask
/// of routers.
fn meant_length(address: IpAddr, length: &str) -> Option<u8> {
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    if digits {
        return length.parse().ok();
    }
    let mask: Ipv4Addr = length.parse().ok().filter(|_| address.is_ipv4())?;
    let inverted = Ipv4Addr::from_bits(!mask.to_bits());
    let length = ipnet::ipv4_mask_to_prefix(mask).or_else(|_| ipnet::ipv4_mask_to_prefix(inverted));
    length.ok()
}

fn range(text: &str, first: &str, last: &str) -> Result<Range, Bad> {
    let (first, last) = (address(text, first)?, address(text, last)?);
    Range::between(first, last).ok_or_else(|| {
        if first.is_ipv4() == last.is_ipv4() {
            let help = format!("write {last}-{first}, the lower address first");
            Bad::new(format!("the range {text} is empty"), Some(help))
        } else {
            Bad::new(format!("the ends of the range {text} are of two families"), None)
        }
    })
}

fn no_address(text: &str, head: &str) -> Bad {
    let parts: Vec<&str> = head.split('.').collect();
    let numbers = parts
        .iter()
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let small = parts.iter().all(|part| part.parse::<u8>().is_ok());
    let help = match parts.len() {
        _ if !numbers => None,
        1..=3 if small => Some(format!(
            "an IPv4 address has four numbers, such as {}{}",
            padded(&parts),
            length_of(text)
        )),
        // Some tools write an address as one number.
        1 if head.parse::<u32>().is_ok() => Some(format!(
            "an IPv4 address has four numbers; write {}{} if that is meant",
            Ipv4Addr::from_bits(head.parse().unwrap_or_default()),
            length_of(text)
        )),
        1..=4 => Some("each of the four numbers is at most 255, without leading zeros".to_owned()),
        _ => Some("an IPv4 address has four numbers".to_owned()),
    };
    Bad::new(format!("`{text}` is no prefix, no address and no range"), help)
}

/// The length behind an address, with its stroke; empty if there is none.
fn length_of(text: &str) -> &str {
    text.find('/').map_or("", |at| &text[at..])
}

fn padded(parts: &[&str]) -> String {
    let zeros = std::iter::repeat_n("0", 4 - parts.len());
    parts.iter().copied().chain(zeros).collect::<Vec<_>>().join(".")
}
