//! Names of IP protocols.

use fw_common::abi::Proto;

const NAMES: &[(u8, &str)] = &[
    (Proto::ICMP, "icmp"),
    (Proto::IGMP, "igmp"),
    (Proto::TCP, "tcp"),
    (Proto::UDP, "udp"),
    (Proto::GRE, "gre"),
    (Proto::ESP, "esp"),
    (Proto::AH, "ah"),
    (Proto::ICMPV6, "icmpv6"),
    (Proto::SCTP, "sctp"),
];

/// The protocol's name, or its number where it has none here.
#[must_use]
pub fn proto_name(number: u8) -> String {
    let known = NAMES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

/// The protocol with this name or number.
#[must_use]
pub fn proto_number(name: &str) -> Option<u8> {
    let known = NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
    known.map(|(number, _)| *number).or_else(|| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{proto_name, proto_number};

    #[test]
    fn every_number_comes_back() {
        for number in 0..=u8::MAX {
            assert_eq!(proto_number(&proto_name(number)), Some(number));
        }
        assert_eq!(proto_number("TCP"), Some(6));
        assert_eq!(proto_number("tpc"), None);
        assert_eq!(proto_number("256"), None);
    }
}
