//! The keys of the policy file, mapping by mapping. The checker refuses all others, and the JSON Schema has the same: a
//! test compares the two.

/// The file.
pub(crate) const POLICY: &[&str] = &[
    "version",
    "include",
    "zones",
    "services",
    "link",
    "tcp",
    "fragments",
    "protect",
    "rules",
    "isolate",
    "default",
    "expect",
];
/// A file that another includes: what there can be only one of belongs into the policy itself.
pub(crate) const INCLUDED: &[&str] = &[
    "version", "include", "zones", "services", "rules", "isolate", "expect",
];
/// A file of tests: `dpufw check --tests`.
pub(crate) const TESTS: &[&str] = &["version", "expect"];
/// A zone's long form.
pub(crate) const ZONE: &[&str] = &[
    "addresses",
    "exclude",
    "zones",
    "file",
    "directory",
    "dynamic",
    "vlan",
    "plane",
    "ports",
    "lifeline",
    "labels",
];
/// A rule.
pub(crate) const RULE: &[&str] = &[
    "name", "allow", "deny", "reject", "from", "to", "between", "limit", "log", "audit", "track", "until",
];
/// Zones chosen by their labels.
pub(crate) const SELECTION: &[&str] = &["label"];
/// A limit of a rule.
pub(crate) const LIMIT: &[&str] = &["packets", "bytes", "new_flows", "flows", "burst", "per"];
/// `link:`
pub(crate) const LINK: &[&str] = &["allow", "dhcp", "router_advertisement", "multicast"];
/// `tcp:`
pub(crate) const TCP: &[&str] = &["invalid", "window", "pickup", "cold_start"];
/// `protect:`
pub(crate) const PROTECT: &[&str] = &[
    "spoofed",
    "invalid",
    "screens",
    "syn_flood",
    "udp_flood",
    "icmp_flood",
    "scan",
    "caps",
    "exempt",
];
/// `protect: { screens: }`, in the order of [`fw_common::abi::Screen::ALL`].
pub(crate) const SCREENS: &[&str] = &[
    "ttl_zero",
    "source_route",
    "tcp_null",
    "tcp_xmas",
    "tcp_syn_fin",
    "tcp_syn_rst",
    "tcp_fin_no_ack",
    "bad_length",
    "land",
    "impossible_source",
    "plane_mismatch",
];
/// `protect: { syn_flood: }`
pub(crate) const SYN_FLOOD: &[&str] = &["above", "burst", "per", "mode", "exempt"];
/// `protect: { udp_flood: }` and `icmp_flood`.
pub(crate) const FLOOD: &[&str] = &["above", "burst", "per", "mode"];
/// `protect: { scan: }`
pub(crate) const SCAN: &[&str] = &["above", "burst", "mode", "ban"];
/// `protect: { caps: }`
pub(crate) const CAPS: &[&str] = &["half_open", "flows"];
/// An item of `isolate:`.
pub(crate) const ISOLATION: &[&str] = &["planes", "zones", "each", "except"];
/// `default:`
pub(crate) const DEFAULT: &[&str] = &["inside", "outside"];
/// An item of `expect:`.
pub(crate) const EXPECTATION: &[&str] = &["flow", "in", "out", "vlan", "self", "is", "rule", "reason"];
