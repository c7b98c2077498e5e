//! Addresses as a zone or a zone's file writes them: a prefix, one address, or a range.

use std::net::IpAddr;

use ipnet::IpNet;

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
    prefix(text, address(text, head)?, length).map(Range::from)
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
    let number = length.parse::<u8>().ok().filter(|_| !length.starts_with('+'));
    let Some(net) = number.and_then(|number| IpNet::new(address, number).ok()) else {
        let message = format!("`/{length}` is no length of an {family} prefix; it is at most /{full}");
        return Err(Bad::new(message, None));
    };
    if net.trunc() != net {
        let message = format!("`{text}` has bits set behind its length");
        let help = format!(
            "write {} for the network, or {address} for the one address",
            net.trunc()
        );
        return Err(Bad::new(message, Some(help)));
    }
    Ok(net)
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
    let help = match parts.len() {
        _ if !numbers => None,
        1..=3 => Some(format!(
            "an IPv4 address has four numbers, such as {}",
            padded(&parts)
        )),
        4 => Some("each of the four numbers is at most 255, without leading zeros".to_owned()),
        _ => Some("an IPv4 address has four numbers".to_owned()),
    };
    Bad::new(format!("`{text}` is no prefix, no address and no range"), help)
}

fn padded(parts: &[&str]) -> String {
    let zeros = std::iter::repeat_n("0", 4 - parts.len());
    parts.iter().copied().chain(zeros).collect::<Vec<_>>().join(".")
}
