//! Flows as people and machines read them: the live view and the record at a flow's end.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fw_common::abi::{Flow, FlowFlags, Ip4, Ip6, Proto, StateWord};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Names, Realm, WallClock, proto_name};
use crate::dataplane::{FlowKey, FlowTable};

/// Which table a flow lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// Not confirmed by its opener yet; may be evicted.
    HalfOpen,
    /// Confirmed; only its timeout, its end or the policy removes it.
    Main,
}

impl Table {
    /// The name in metrics and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half_open",
            Self::Main => "main",
        }
    }
}

impl From<FlowTable> for Table {
    fn from(table: FlowTable) -> Self {
        match table {
            FlowTable::Main => Self::Main,
            FlowTable::HalfOpen => Self::HalfOpen,
        }
    }
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Nothing was sent for as long as its state allows.
    Expired,
    /// TCP closed it: both sides' FIN, or a RST.
    Closed,
    /// A newer policy denies it.
    Revoked,
    /// The operator ended it.
    Killed,
}

impl Ended {
    /// The name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Closed => "closed",
            Self::Revoked => "revoked",
            Self::Killed => "killed",
        }
    }
}

/// What one direction of a flow has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// Packets, segments of a super-packet counted singly.
    pub packets: u64,
    /// Bytes of the frames as on the wire.
    pub bytes: u64,
}

/// One flow. `src` is the opener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowInfo {
    /// 4 or 6.
    pub family: u8,
    /// Protocol name, or number.
    pub proto: String,
    /// The opener.
    pub src: IpAddr,
    /// Whom it opened the flow to.
    pub dst: IpAddr,
    /// The opener's port; the identifier of an ICMP echo; else 0.
    pub sport: u16,
    /// The other side's port, or 0.
    pub dport: u16,
    /// Realm of the port, 0..=15.
    pub realm: u8,
    /// VLAN id; 0: untagged.
    pub vlan: u16,
    /// Of two tags the inner VLAN id; else 0.
    #[serde(default)]
    pub inner_vlan: u16,
    /// State; for TCP the names of the kernel's conntrack.
    pub state: String,
    /// The table it lies in, or lay in.
    pub table: Table,
    /// The source's most specific zone.
    pub src_zone: Option<String>,
    /// The destination's most specific zone.
    pub dst_zone: Option<String>,
    /// The rule that allowed it last.
    pub rule: String,
    /// Generation of the policy that allowed it last.
    pub generation: u32,
    /// True if it was adopted in the middle of its life (a cold start).
    pub picked_up: bool,
    /// Opener to answerer.
    pub original: Direction,
    /// Answerer to opener.
    pub reply: Direction,
    /// First packet, wall clock.
    pub start: Timestamp,
    /// Last packet, wall clock.
    pub last_seen: Timestamp,
    /// Seconds without a packet after which it ends.
    pub timeout_s: u64,
}

/// A flow at its end: one JSON line in the flow log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// The flow.
    #[serde(flatten)]
    pub flow: FlowInfo,
    /// Last packet, wall clock.
    pub end: Timestamp,
    /// Seconds from the first packet to the last.
    pub duration_s: f64,
    /// Why it ended.
    pub ended: Ended,
}

/// Both ends of a key and what else it says.
struct Ends {
    family: u8,
    lo: (IpAddr, u16),
    hi: (IpAddr, u16),
    realm: u32,
    proto: u8,
}

const fn ip4(ip: Ip4) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(ip.0))
}

const fn ip6(ip: Ip6) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits()))
}

const fn ends(key: &FlowKey) -> Ends {
    match key {
        FlowKey::V4(key) => Ends {
            family: 4,
            lo: (ip4(key.lo), key.lo_port),
            hi: (ip4(key.hi), key.hi_port),
            realm: key.full_realm(),
            proto: key.proto,
        },
        FlowKey::V6(key) => Ends {
            family: 6,
            lo: (ip6(key.lo), key.lo_port),
            hi: (ip6(key.hi), key.hi_port),
            realm: key.full_realm(),
            proto: key.proto,
        },
    }
}

/// Family (4 or 6) and IP protocol number of a key.
#[must_use]
pub const fn family_and_proto(key: &FlowKey) -> (u8, u8) {
    match key {
        FlowKey::V4(key) => (4, key.proto),
        FlowKey::V6(key) => (6, key.proto),
    }
}

impl FlowInfo {
    /// A flow as it lies in a table.
    #[must_use]
    pub fn new(key: &FlowKey, flow: &Flow, table: Table, names: &Names, clock: &WallClock) -> Self {
        let ends = ends(key);
        let (src, dst) = if FlowFlags(flow.flags).opener_hi() {
            (ends.hi, ends.lo)
        } else {
            (ends.lo, ends.hi)
        };
        let [original, reply] = [0, 1].map(|direction| Direction {
            packets: flow.packets(direction),
            bytes: flow.bytes(direction),
        });
        let realm = Realm::new(ends.realm);
        Self {
            family: ends.family,
            proto: proto_name(ends.proto),
            src: src.0,
            dst: dst.0,
            sport: src.1,
            dport: dst.1,
            realm: realm.port,
            vlan: realm.vlan,
            inner_vlan: realm.inner_vlan,
            state: state_name(ends.proto, StateWord(flow.state)).to_owned(),
            table,
            src_zone: names.zone(flow.src_zone),
            dst_zone: names.zone(flow.dst_zone),
            rule: names.rule(flow.rule),
            generation: flow.generation,
            picked_up: flow.flags & FlowFlags::PICKED_UP != 0,
            original,
            reply,
            start: clock.at(flow.created),
            last_seen: clock.at(flow.last_seen()),
            timeout_s: StateWord(flow.state).timeout_ns() / 1_000_000_000,
        }
    }

    /// Seconds from the first to the last packet.
    #[must_use]
    pub fn duration_s(&self) -> f64 {
        self.last_seen.duration_since(self.start).as_secs_f64().max(0.0)
    }
}

impl FlowInfo {
    /// The opener's address and port.
    #[must_use]
    pub fn source(&self) -> String {
        endpoint(self.src, self.sport)
    }

    /// The other side's address and port.
    #[must_use]
    pub fn destination(&self) -> String {
        endpoint(self.dst, self.dport)
    }
}

/// Where the flow goes, from whom: `tcp 10.0.0.1:4000 -> 10.0.0.2:22`.
impl fmt::Display for FlowInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.proto, self.source(), self.destination())
    }
}

/// Address and port; an IPv6 address in brackets; no port where it is 0.
pub(super) fn endpoint(address: IpAddr, port: u16) -> String {
    match (address, port) {
        (address, 0) => address.to_string(),
        (IpAddr::V4(address), port) => format!("{address}:{port}"),
        (IpAddr::V6(address), port) => format!("[{address}]:{port}"),
    }
}

impl FlowRecord {
    /// The record of a flow that is over.
    #[must_use]
    pub fn new(flow: FlowInfo, state: StateWord, killed: bool) -> Self {
        let closed = matches!(flow.state.as_str(), "TIME_WAIT" | "CLOSE" | "LAST_ACK");
        let ended = match () {
            () if killed => Ended::Killed,
            () if state.has(StateWord::REVOKED) => Ended::Revoked,
            () if closed => Ended::Closed,
            () => Ended::Expired,
        };
        Self {
            end: flow.last_seen,
            duration_s: flow.duration_s(),
            flow,
            ended,
        }
    }
}

/// The state's name: for TCP as the kernel's conntrack names it, else `UNREPLIED`, `REPLIED` or `ASSURED`.
#[must_use]
pub fn state_name(proto: u8, word: StateWord) -> &'static str {
    if proto == Proto::TCP {
        return fw_common::tcp::State::from_bits(word.state()).name();
    }
    let [unreplied, replied, assured] = OTHER_STATES;
    match () {
        () if word.has(StateWord::CONFIRMED) => assured,
        () if word.has(StateWord::REPLIED) => replied,
        () => unreplied,
    }
}

/// Names of states of other protocols than TCP.
const OTHER_STATES: [&str; 3] = ["UNREPLIED", "REPLIED", "ASSURED"];

/// All names that [`state_name`] gives, without TCP's `NONE`, which no flow has.
pub fn state_names() -> impl Iterator<Item = &'static str> {
    let tcp = (1..16).map(|bits| fw_common::tcp::State::from_bits(bits).name());
    let mut known = std::collections::BTreeSet::new();
    tcp.filter(move |name| *name != "NONE" && known.insert(*name))
        .chain(OTHER_STATES)
}

#[cfg(test)]
mod tests {
    use fw_common::abi::{Flow, FlowFlags, Ip4, Ip6, Key4, Key6, Side, StateWord};

    use super::{Ended, FlowInfo, FlowRecord, Table};
    use crate::dataplane::FlowKey;
    use crate::telemetry::{Kind, Names, WallClock};

    fn clock() -> WallClock {
        WallClock::fixed(100_000_000_000, "2026-03-01T10:01:40Z".parse().unwrap())
    }

    fn flow(opener_hi: bool) -> Flow {
        let mut flow = Flow {
            created: 10_000_000_000,
            flags: FlowFlags::new(opener_hi, Side::Outer, Side::Own, 3).0,
            rule: 7,
            src_zone: 9,
            generation: 2,
            state: StateWord::new(0, StateWord::REPLIED | StateWord::CONFIRMED, 180).0,
            ..Flow::default()
        };
        flow.half[0].packets = 3;
        flow.half[0].bytes = 300;
        flow.half[1].packets = 2;
        flow.half[1].last_seen = 12_500_000_000;
        flow
    }

    #[test]
    fn the_opener_is_the_source_whatever_the_order_of_the_key() {
        let key = FlowKey::V4(Key4 {
            lo: Ip4(0x0a00_0001),
            hi: Ip4(0x0a00_0002),
            lo_port: 53,
            hi_port: 4000,
            realm: 0x2065,
            proto: 17,
            realm_high: 0,
        });
        let mut names = Names::default();
        names.add(Kind::Rule, [(7, "dns")]).unwrap();
        names.add(Kind::Zone, [(9, "gpu")]).unwrap();
        let info = FlowInfo::new(&key, &flow(true), Table::Main, &names, &clock());
        assert_eq!(info.to_string(), "udp 10.0.0.2:4000 -> 10.0.0.1:53");
        assert_eq!((info.realm, info.vlan, info.rule.as_str()), (2, 101, "dns"));
        assert_eq!(
            (info.src_zone.as_deref(), info.dst_zone.as_deref()),
            (Some("gpu"), None)
        );
        assert_eq!(info.state, "ASSURED");
        let info = FlowInfo::new(&key, &flow(false), Table::Main, &names, &clock());
        assert_eq!(info.to_string(), "udp 10.0.0.1:53 -> 10.0.0.2:4000");
    }

    #[test]
    fn a_record_is_one_flat_json_object_with_rfc_3339_times() {
        let key = FlowKey::V6(Key6 {
            lo: Ip6::from_bits(1),
            hi: Ip6::from_bits(2),
            proto: 58,
            ..Key6::default()
        });
        let info = FlowInfo::new(&key, &flow(false), Table::Main, &Names::default(), &clock());
        let record = FlowRecord::new(info, StateWord(StateWord::REVOKED), false);
        assert_eq!(record.ended, Ended::Revoked);
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["src"], "::1");
        assert_eq!(json["start"], "2026-03-01T10:00:10Z");
        assert_eq!(json["end"], "2026-03-01T10:00:12.5Z");
        assert_eq!(json["duration_s"], 2.5);
        assert_eq!(json["original"]["bytes"], 300);
        assert_eq!(json["ended"], "revoked");
        let back: FlowRecord = serde_json::from_value(json).unwrap();
        assert_eq!(back, record);
    }
}
