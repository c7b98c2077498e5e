//! Names that the language knows: protocols, ICMP messages, built-in services, keys.

use fw_common::abi::Proto;

/// Longest name of a rule, zone or service.
pub(crate) const MAX_NAME: usize = 63;

/// True if `text` may be a name: `[a-z0-9_-]+`, up to [`MAX_NAME`] characters.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
}

/// Protocols with names (IANA, "Assigned Internet Protocol Numbers").
pub(crate) const PROTOCOLS: [(&str, u8); 8] = [
    ("tcp", Proto::TCP),
    ("udp", Proto::UDP),
    ("icmp", Proto::ICMP),
    ("icmpv6", Proto::ICMPV6),
    ("sctp", Proto::SCTP),
    ("esp", Proto::ESP),
    ("ah", Proto::AH),
    ("gre", Proto::GRE),
];

/// Number of the protocol with this name.
pub(crate) fn protocol(name: &str) -> Option<u8> {
    PROTOCOLS
        .iter()
        .find(|(own, _)| *own == name)
        .map(|(_, number)| *number)
}

/// Name of a protocol, or its number.
pub(crate) fn protocol_name(number: u8) -> String {
    let named = PROTOCOLS.iter().find(|(_, own)| *own == number);
    named.map_or_else(|| format!("protocol {number}"), |(name, _)| (*name).to_owned())
}

/// ICMP types with names: name, type of ICMP, type of ICMPv6 (IANA, "ICMP Parameters" and "ICMPv6 Parameters").
const ICMP_TYPES: [(&str, Option<u8>, Option<u8>); 15] = [
    ("echo-request", Some(8), Some(128)),
    ("echo-reply", Some(0), Some(129)),
    ("destination-unreachable", Some(3), Some(1)),
    ("packet-too-big", None, Some(2)),
    ("time-exceeded", Some(11), Some(3)),
    ("parameter-problem", Some(12), Some(4)),
    ("redirect", Some(5), Some(137)),
    ("timestamp-request", Some(13), None),
    ("timestamp-reply", Some(14), None),
    ("router-solicitation", Some(10), Some(133)),
    ("router-advertisement", Some(9), Some(134)),
    ("neighbour-solicitation", None, Some(135)),
    ("neighbour-advertisement", None, Some(136)),
    ("neighbor-solicitation", None, Some(135)),
    ("neighbor-advertisement", None, Some(136)),
];

/// Type of the ICMP message with this name, for protocol ICMP or ICMPv6.
pub(crate) fn icmp_type(proto: u8, name: &str) -> Option<u8> {
    let (_, v4, v6) = ICMP_TYPES.iter().find(|(own, _, _)| *own == name)?;
    if proto == Proto::ICMPV6 { *v6 } else { *v4 }
}

/// True if either family has a message of this name.
pub(crate) fn is_icmp_name(name: &str) -> bool {
    ICMP_TYPES.iter().any(|(own, _, _)| *own == name)
}

/// Names of the messages that a protocol has.
pub(crate) fn icmp_names(proto: u8) -> impl Iterator<Item = &'static str> {
    ICMP_TYPES
        .iter()
        .map(|(name, _, _)| *name)
        .filter(move |name| icmp_type(proto, name).is_some())
}

/// Type of the echo request.
pub(crate) const fn echo_request(proto: u8) -> u8 {
    if proto == Proto::ICMPV6 { 128 } else { 8 }
}

/// The service that matches everything.
pub(crate) const ALL: &str = "all";

/// Keys of the language that this version does not enforce, wherever they stand.
pub(crate) const NOT_ENFORCED: &[&str] = &["alert_at", "budget", "budgets", "vni"];

/// Words that YAML tools turn into booleans or nothing, so that they are no names here.
pub(crate) const YAML_WORDS: &[&str] = &["yes", "no", "on", "off", "true", "false", "null"];

/// The candidate that was most likely meant: the nearest one, if it is near.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// FNV-1a, 32 bits, over `kind:name`, never 0: an id that stays the same as long as the name does.
pub(crate) fn stable_id(kind: &str, name: &str) -> u32 {
    let bytes = kind.bytes().chain([b':']).chain(name.bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash.max(1)
}
