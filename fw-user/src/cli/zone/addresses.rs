//! Prefixes, addresses and ranges as a command line writes them.

use std::net::IpAddr;

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};

/// Reads a prefix, an address, or a range (both ends included).
///
/// # Errors
/// A sentence about a word that is none of these.
pub(super) fn prefixes(word: &str) -> Result<Vec<IpNet>, String> {
    if let Some((from, to)) = word.split_once('-') {
        return range(word, from, to);
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        return unmapped(word, address).map(|address| vec![IpNet::from(address)]);
    }
    let net: IpNet = word.parse().map_err(|_| {
        format!(
            "`{word}` is no prefix, no address and no range; write one such as 10.0.0.0/24, fd00::/64, 10.0.0.7 or \
             10.0.0.3-10.0.0.9"
        )
    })?;
    unmapped(word, net.addr())?;
    if net.trunc() != net {
        return Err(format!(
            "`{word}` has bits set behind its length; write {} for the network, or {} for the one address",
            net.trunc(),
            net.addr()
        ));
    }
    Ok(vec![net])
}

fn range(word: &str, from: &str, to: &str) -> Result<Vec<IpNet>, String> {
    let end = |text: &str| {
        let address = text.trim().parse::<IpAddr>();
        address.map_err(|_| {
            format!("`{text}` in the range `{word}` is no address; a range is written 10.0.0.3-10.0.0.9")
        })
    };
    let subnets = match (unmapped(word, end(from)?)?, unmapped(word, end(to)?)?) {
        (IpAddr::V4(from), IpAddr::V4(to)) if from <= to => IpSubnets::V4(Ipv4Subnets::new(from, to, 0)),
        (IpAddr::V6(from), IpAddr::V6(to)) if from <= to => IpSubnets::V6(Ipv6Subnets::new(from, to, 0)),
        (from, to) if from.is_ipv4() == to.is_ipv4() => {
            return Err(format!(
                "the range `{word}` ends before it begins; write {to}-{from}"
            ));
        }
        _ => {
            return Err(format!(
                "the ends of the range `{word}` are of different families"
            ));
        }
    };
    Ok(subnets.collect())
}

fn unmapped(word: &str, address: IpAddr) -> Result<IpAddr, String> {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(format!(
            "`{word}` is an IPv4 address in IPv6 notation, which never stands in packets; write the IPv4 address"
        )),
        address => Ok(address),
    }
}

/// A prefix of one address as the address.
pub(super) fn short(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::prefixes;

    #[test]
    fn what_people_write_becomes_prefixes() {
        for (word, wanted) in [
            ("10.0.0.7", "10.0.0.7/32"),
            ("10.0.0.0/24", "10.0.0.0/24"),
            ("fd00::/64", "fd00::/64"),
            ("fd00::7", "fd00::7/128"),
            ("10.0.0.3-10.0.0.9", "10.0.0.3/32 10.0.0.4/30 10.0.0.8/31"),
            ("10.0.0.3-10.0.0.3", "10.0.0.3/32"),
            ("0.0.0.0-255.255.255.255", "0.0.0.0/0"),
            ("fd00::1-fd00::2", "fd00::1/128 fd00::2/128"),
        ] {
            let found: Vec<String> = prefixes(word).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), wanted, "{word}");
        }
    }

    #[test]
    fn the_rest_is_refused_with_a_hint() {
        for (word, hint) in [
            ("10.0.0.1/24", "10.0.0.0/24 for the network"),
            ("10.0.0", "no prefix"),
            ("10.0.0.0/33", "no prefix"),
            ("10.0.0.9-10.0.0.3", "10.0.0.3-10.0.0.9"),
            ("10.0.0.9-fd00::1", "different families"),
            ("10.0.0.9-x", "no address"),
            ("::ffff:10.0.0.1", "IPv4 address in IPv6 notation"),
            ("gpu", "no prefix"),
        ] {
            let sentence = prefixes(word).unwrap_err();
            assert!(sentence.contains(hint), "{word}: {sentence}");
        }
    }
}
