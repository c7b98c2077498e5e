//! Filters of `flows` and `drops`, with conntrack's option names.

use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::telemetry::{DropRecord, FlowInfo, RecordKind, proto_name, proto_number, state_names};

/// Addresses, protocol and ports. Everything that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct PacketFilter {
    /// Protocol: tcp, udp, icmp, icmpv6, or a number
    #[arg(short = 'p', long = "proto", value_name = "PROTO", value_parser = proto)]
    pub proto: Option<String>,
    /// Source address or prefix
    #[arg(short = 's', long = "src", value_name = "ADDR", value_parser = net)]
    pub src: Option<IpNet>,
    /// Destination address or prefix
    #[arg(short = 'd', long = "dst", value_name = "ADDR", value_parser = net)]
    pub dst: Option<IpNet>,
    /// Source port
    #[arg(long, value_name = "PORT")]
    pub sport: Option<u16>,
    /// Destination port
    #[arg(long, value_name = "PORT")]
    pub dport: Option<u16>,
}

/// A [`PacketFilter`] and a kind of record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct EventFilter {
    /// The packet's part.
    #[command(flatten)]
    #[serde(flatten)]
    pub packet: PacketFilter,
    /// Only records of this kind: dropped packets, or those that a rule with `log` or `audit` or a screen in mode
    /// `count` reports
    #[arg(long, value_enum, value_name = "KIND")]
    pub kind: Option<RecordKind>,
}

/// A [`PacketFilter`] and a state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowFilter {
    /// The packet's part.
    #[command(flatten)]
    #[serde(flatten)]
    pub packet: PacketFilter,
    /// State: `SYN_SENT`, `SYN_RECV`, `ESTABLISHED`, `FIN_WAIT`, `CLOSE_WAIT`, `LAST_ACK`, `TIME_WAIT`, `CLOSE`; for
    /// other protocols `UNREPLIED`, `REPLIED`, `ASSURED`
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub state: Option<String>,
}

fn proto(text: &str) -> Result<String, String> {
    proto_number(text).map(proto_name).ok_or_else(|| {
        "not a protocol: give tcp, udp, icmp, icmpv6, igmp, gre, esp, ah, sctp, or a number up to 255"
            .to_owned()
    })
}

fn net(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
        "neither an address nor a prefix: give one like 10.0.0.1, 10.0.0.0/8 or fd00::/8".to_owned()
    })
}

fn state(text: &str) -> Result<String, String> {
    let known = || state_names();
    let name = known().find(|name| name.eq_ignore_ascii_case(text));
    name.map(str::to_owned).ok_or_else(|| {
        let known: Vec<_> = known().collect();
        format!("not a state: give {}", known.join(", "))
    })
}

/// True if nothing is asked, or exactly this is.
fn same<T: PartialEq>(asked: Option<&T>, have: &T) -> bool {
    asked.is_none_or(|asked| asked == have)
}

fn within(asked: Option<&IpNet>, have: Option<IpAddr>) -> bool {
    asked.is_none_or(|net| have.is_some_and(|address| net.contains(&address)))
}

impl PacketFilter {
    /// True if the dropped packet matches.
    #[must_use]
    pub fn matches(&self, drop: &DropRecord) -> bool {
        self.proto
            .as_ref()
            .is_none_or(|proto| drop.proto.as_ref() == Some(proto))
            && within(self.src.as_ref(), drop.src)
            && within(self.dst.as_ref(), drop.dst)
            && same(self.sport.as_ref(), &drop.sport)
            && same(self.dport.as_ref(), &drop.dport)
    }
}

impl EventFilter {
    /// True if the record matches.
    #[must_use]
    pub fn matches(&self, record: &DropRecord) -> bool {
        same(self.kind.as_ref(), &record.kind) && self.packet.matches(record)
    }
}

impl FlowFilter {
    /// True if the flow matches; source is the opener.
    #[must_use]
    pub fn matches(&self, flow: &FlowInfo) -> bool {
        let packet = &self.packet;
        same(packet.proto.as_ref(), &flow.proto)
            && within(packet.src.as_ref(), Some(flow.src))
            && within(packet.dst.as_ref(), Some(flow.dst))
            && same(packet.sport.as_ref(), &flow.sport)
            && same(packet.dport.as_ref(), &flow.dport)
            && same(self.state.as_ref(), &flow.state)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{FlowFilter, PacketFilter};
    use crate::telemetry::{Direction, FlowInfo, Table};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: FlowFilter,
    }

    fn parse(line: &str) -> Result<FlowFilter, String> {
        let words = std::iter::once("flows").chain(line.split_whitespace());
        Line::try_parse_from(words)
            .map(|line| line.filter)
            .map_err(|error| error.to_string())
    }

    fn flow() -> FlowInfo {
        FlowInfo {
            family: 4,
            proto: "tcp".into(),
            src: "10.0.0.5".parse().unwrap(),
            dst: "10.1.0.7".parse().unwrap(),
            sport: 4000,
            dport: 22,
            realm: 0,
            vlan: 0,
            inner_vlan: 0,
            state: "ESTABLISHED".into(),
            table: Table::Main,
            src_zone: None,
            dst_zone: None,
            rule: "admin".into(),
            generation: 1,
            picked_up: false,
            original: Direction::default(),
            reply: Direction::default(),
            start: jiff::Timestamp::UNIX_EPOCH,
            last_seen: jiff::Timestamp::UNIX_EPOCH,
            timeout_s: 60,
        }
    }

    #[test]
    fn each_option_is_a_condition() {
        for yes in [
            "",
            "-p tcp",
            "-p 6",
            "-s 10.0.0.5",
            "-d 10.1.0.0/16",
            "--sport 4000 --dport 22",
            "--state established",
        ] {
            assert!(parse(yes).unwrap().matches(&flow()), "{yes}");
        }
        for no in [
            "-p udp",
            "-s 10.0.0.6",
            "-d 10.0.0.0/16",
            "-s fd00::/8",
            "--dport 23",
            "--state SYN_SENT",
            "-p tcp --sport 1",
        ] {
            assert!(!parse(no).unwrap().matches(&flow()), "{no}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        assert!(parse("-s 10.0.0").unwrap_err().contains("10.0.0.0/8"));
        assert!(parse("-p tpc").unwrap_err().contains("icmpv6"));
        let message = parse("--state ESTABLISHD").unwrap_err();
        assert!(
            message.contains("ESTABLISHED") && message.contains("ASSURED"),
            "{message}"
        );
        assert!(!message.contains("NONE"), "{message}");
        assert!(parse("--dport 70000").is_err());
    }

    #[test]
    fn a_filter_survives_the_protocol() {
        let filter = parse("-p tcp -s 10.0.0.0/8 --state ESTABLISHED").unwrap();
        let text = serde_json::to_string(&filter).unwrap();
        assert_eq!(serde_json::from_str::<FlowFilter>(&text).unwrap(), filter);
        assert_eq!(
            serde_json::from_str::<PacketFilter>("{}").unwrap(),
            PacketFilter::default()
        );
    }
}
