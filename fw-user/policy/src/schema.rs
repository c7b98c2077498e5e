//! The policy file as JSON Schema, for editors. The types here have no other use: the checker reads the YAML tree, because
//! its messages need the place of every key and value. A test compares the keys of both.

#![expect(dead_code, reason = "the types are described, never built")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, schema_for};
use serde::Serialize;

/// The JSON Schema (draft 2020-12) of a policy file.
#[must_use]
pub fn schema() -> Schema {
    schema_for!(Policy)
}

/// One thing or a list of things.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum Many<T> {
    One(T),
    List(Vec<T>),
}

/// A dpufw policy. First match wins; what no rule matches is denied.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "dpufw policy", transform = an_included_file_needs_no_rules)]
struct Policy {
    /// The version of the language.
    version: Version,
    /// Files whose zones, services, rules, isolations and expectations come before those of this one. Paths are relative to
    /// this file.
    #[serde(skip_serializing_if = "Option::is_none")]
    include: Option<Many<String>>,
    /// Named sets of addresses.
    zones: Option<BTreeMap<String, ZoneForm>>,
    /// Named lists of protocols and ports.
    services: Option<BTreeMap<String, Many<String>>>,
    /// What passes below and beside the rules.
    link: Option<Link>,
    /// How TCP connections are followed.
    tcp: Option<Tcp>,
    /// What happens to fragments that come before their first.
    fragments: Option<Fragments>,
    /// What is done against attacks.
    protect: Option<Protect>,
    /// Who may open a flow to whom. The first that matches wins.
    rules: Option<Vec<Rule>>,
    /// What must be kept apart, whatever the rules say. Proved for all addresses, protocols and ports.
    isolate: Option<Vec<Isolation>>,
    /// What happens to flows that no rule matches.
    default: Option<Default>,
    /// Flows and what should happen to them: the policy's own tests.
    expect: Option<Vec<Expectation>>,
}

/// An included file may have no rules, so the schema cannot ask for them.
fn an_included_file_needs_no_rules(schema: &mut Schema) {
    schema.insert(
        "$comment".to_owned(),
        "a policy needs `rules`; a file that another includes need not have any".into(),
    );
}

/// 1
struct Version;

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl JsonSchema for Version {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "const": 1 })
    }
}

/// A zone: its addresses, or a mapping that says more.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum ZoneForm {
    /// Prefixes, addresses and ranges.
    Addresses(Many<String>),
    Long(Box<Zone>),
}

/// A zone.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Zone {
    /// Prefixes, addresses and ranges (`10.0.0.5-10.0.0.9`).
    addresses: Option<Many<String>>,
    /// Prefixes, addresses, ranges and zones that the zone does not hold.
    exclude: Option<Many<String>>,
    /// Zones whose addresses the zone holds too.
    zones: Option<Many<String>>,
    /// Files with one prefix, address or range a line; `#` before comments. Relative to this file.
    file: Option<Many<String>>,
    /// A directory whose regular files are read, in the order of their names.
    directory: Option<String>,
    /// The addresses come and go with `dpufw zone add` and `dpufw zone remove`.
    dynamic: Option<bool>,
    /// The VLAN id of its frames; of two tags the outer one first.
    vlan: Option<Vlan>,
    /// What the zone is for. An address in zones of two planes is an error.
    plane: Option<String>,
    /// Roles of the ports that the zone's plane is bound to.
    ports: Option<Many<String>>,
    /// Access survives a full flow table, floods and caps.
    lifeline: Option<bool>,
    /// What rules may select the zone by.
    labels: Option<BTreeMap<String, Word>>,
}

/// A text, or a number that is read as one.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum Word {
    Text(String),
    Number(i64),
    Truth(bool),
}

/// A VLAN id, or two.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Vlan {
    One(#[schemars(range(max = 4094))] u16),
    Two(#[schemars(length(min = 1, max = 2))] Vec<u16>),
}

/// A rule: exactly one of `allow`, `deny`, `reject`, and `from` with `to`, or `between`.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Unique in the policy; counters, logs and records know the rule by it.
    name: String,
    /// Services that may be used: `ssh`, `tcp/8000-8010`, `tcp/2049 from 1-1023`, `icmp/echo-request`, `all`.
    allow: Option<Many<String>>,
    /// Services that are dropped.
    deny: Option<Many<String>>,
    /// Services that are dropped, and the sender told so.
    reject: Option<Many<String>>,
    /// Who opens the flow.
    from: Option<Many<ZoneChoice>>,
    /// To whom.
    to: Option<Many<ZoneChoice>>,
    /// Two sides, either of which may open the flow.
    #[schemars(length(min = 2, max = 2))]
    between: Option<Vec<Many<ZoneChoice>>>,
    /// Limits, all of which hold.
    limit: Option<Many<Limit>>,
    /// Matches are reported.
    log: Option<bool>,
    /// Lets through what the rule matches, and reports it. Of rules that deny or reject.
    audit: Option<bool>,
    /// `false`: no entry in the flow table.
    track: Option<bool>,
    /// When the rule ends (RFC 3339).
    until: Option<String>,
}

/// A zone's name, or a choice by labels.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum ZoneChoice {
    /// A zone of the policy, or `any`, `self`, `outside`, `metadata`, `multicast`, `link_local`.
    Name(String),
    Labelled(Selection),
}

/// Zones chosen by their labels.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Selection {
    /// A label: zones that have it; or labels and their values.
    label: Label,
}

/// A label's name, or labels and values.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum Label {
    Name(String),
    Values(BTreeMap<String, Word>),
}

/// A limit: one of `packets`, `bytes`, `new_flows` and `flows`.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Limit {
    /// Such as `100000/s`.
    packets: Option<String>,
    /// Such as `5 Gbit/s` or `64 KiB/s`.
    bytes: Option<String>,
    /// Such as `50/s` or `600/min`.
    new_flows: Option<String>,
    /// At a time.
    flows: Option<Word>,
    /// How much may come at once.
    burst: Option<Word>,
    /// `rule`, `source`, `destination`, `pair`, or one of the last three with `/LENGTH`.
    per: Option<String>,
}

/// What passes below and beside the rules.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Link {
    /// Which of ARP, neighbour discovery, LLDP and LACP pass.
    allow: Option<Many<LinkProtocol>>,
    dhcp: Option<Dhcp>,
    /// `never`, or the roles of the ports by which they may come.
    router_advertisement: Option<RouterAdvertisement>,
    /// IGMP and MLD.
    multicast: Option<Multicast>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum LinkProtocol {
    Arp,
    Nd,
    Lldp,
    Lacp,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Dhcp {
    Client,
    Never,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum RouterAdvertisement {
    Never(Never),
    Roles(Vec<String>),
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Never {
    Never,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Multicast {
    Never,
    Allow,
}

/// How TCP connections are followed.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tcp {
    invalid: Option<DropOnly>,
    window: Option<Window>,
    /// What happens to segments of connections that are not known.
    pickup: Option<Pickup>,
    /// How long after a start connections are adopted.
    cold_start: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum DropOnly {
    Drop,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Window {
    Strict,
    Loose,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Pickup {
    ColdStart,
    Never,
    Always,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Fragments {
    Strict,
    PassEarly,
}

/// What is done against attacks.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Protect {
    /// The screens `impossible_source` and `plane_mismatch`.
    spoofed: Option<Mode>,
    /// All other screens.
    invalid: Option<Mode>,
    screens: Option<Screens>,
    syn_flood: Option<SynFlood>,
    udp_flood: Option<Flood>,
    icmp_flood: Option<Flood>,
    scan: Option<Scan>,
    caps: Option<Caps>,
    /// Zones that meet no proofs, floods or caps.
    exempt: Option<Many<ZoneChoice>>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Drop,
    Count,
    Skip,
}

/// Single screens.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Screens {
    ttl_zero: Option<Mode>,
    source_route: Option<Mode>,
    tcp_null: Option<Mode>,
    tcp_xmas: Option<Mode>,
    tcp_syn_fin: Option<Mode>,
    tcp_syn_rst: Option<Mode>,
    tcp_fin_no_ack: Option<Mode>,
    bad_length: Option<Mode>,
    land: Option<Mode>,
    impossible_source: Option<Mode>,
    plane_mismatch: Option<Mode>,
}

/// New TCP flows to one destination.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SynFlood {
    above: Option<String>,
    burst: Option<Word>,
    per: Option<Destination>,
    mode: Option<Mode>,
    exempt: Option<Many<ZoneChoice>>,
}

/// New flows to one destination.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Flood {
    above: Option<String>,
    burst: Option<Word>,
    per: Option<Destination>,
    mode: Option<Mode>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Destination {
    Destination,
}

/// Denied packets of one source.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Scan {
    above: Option<String>,
    burst: Option<Word>,
    mode: Option<Mode>,
    /// How long the source may open no flows.
    ban: Option<String>,
}

/// Flows of one source; `none`: no cap.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Caps {
    half_open: Option<Word>,
    flows: Option<Word>,
}

/// What is kept apart: exactly one of `planes`, `zones` and `each`.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Isolation {
    /// Planes, each from every other.
    planes: Option<Vec<String>>,
    /// Zones, or lists of zones, each from every other.
    zones: Option<Vec<Many<ZoneChoice>>>,
    /// Every value of a label from every other.
    each: Option<Each>,
    /// Rules that may cross.
    except: Option<Many<String>>,
}

#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Each {
    /// The label's name.
    label: String,
}

/// What happens to flows that no rule matches.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Default {
    inside: Option<DefaultAction>,
    outside: Option<DefaultAction>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum DefaultAction {
    Drop,
    Reject,
}

/// A flow and what should happen to it.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Expectation {
    /// `PROTOCOL SOURCE DESTINATION[:PORT]`; zones stand for one of their addresses.
    flow: String,
    /// Role of the port that the packet comes in by.
    r#in: Option<String>,
    /// Mode `inline`: role of the pair's other port.
    out: Option<String>,
    /// Tags of the packet; 0: none.
    vlan: Option<Vlan>,
    /// Addresses of the machine that is meant.
    #[serde(rename = "self")]
    own: Option<Many<String>>,
    is: Outcome,
    /// Name of the rule that should decide.
    rule: Option<String>,
    /// Name of the reason that should be given.
    reason: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Allow,
    Deny,
    Reject,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::schema;
    use crate::keys;

    /// Keys of the mapping with this name in the schema; of the whole file for the empty one.
    fn keys_of(schema: &Value, name: &str) -> BTreeSet<String> {
        let mapping = if name.is_empty() {
            schema
        } else {
            &schema["$defs"][name]
        };
        let keys = mapping["properties"]
            .as_object()
            .unwrap_or_else(|| panic!("no mapping {name}"));
        assert_eq!(mapping["additionalProperties"], false, "{name}");
        keys.keys().cloned().collect()
    }

    #[test]
    fn the_schema_has_the_keys_that_the_checker_knows() {
        let schema = serde_json::to_value(schema()).expect("plain data");
        let mut rest: BTreeSet<&str> = schema["$defs"]
            .as_object()
            .expect("definitions")
            .keys()
            .map(String::as_str)
            .collect();
        for (name, own) in [
            ("", keys::POLICY),
            ("Zone", keys::ZONE),
            ("Rule", keys::RULE),
            ("Selection", keys::SELECTION),
            ("Each", keys::SELECTION),
            ("Limit", keys::LIMIT),
            ("Link", keys::LINK),
            ("Tcp", keys::TCP),
            ("Protect", keys::PROTECT),
            ("Screens", keys::SCREENS),
            ("SynFlood", keys::SYN_FLOOD),
            ("Flood", keys::FLOOD),
            ("Scan", keys::SCAN),
            ("Caps", keys::CAPS),
            ("Isolation", keys::ISOLATION),
            ("Default", keys::DEFAULT),
            ("Expectation", keys::EXPECTATION),
        ] {
            let own: BTreeSet<String> = own.iter().map(|key| (*key).to_owned()).collect();
            assert_eq!(keys_of(&schema, name), own, "{name}");
            rest.remove(name);
        }
        rest.retain(|name| schema["$defs"][*name].get("properties").is_some());
        assert!(
            rest.is_empty(),
            "mappings that the checker does not know: {rest:?}"
        );
    }
}
