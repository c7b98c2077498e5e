//! Ports without Ethernet headers (tun, `WireGuard`), which have programs of TC only.

use fw_common::abi::Reason::{
    BadIpv4, DenyDefault, Established, FragmentEarly, RejectRule, Related, Rule, TcpNoFlow, Truncated,
};
use fw_tests::packet::{Packet, Unreachable};

use crate::case::{Case, Net};

const POLICY: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules:
  - { name: web,    allow: [http, dns, ping], from: clients, to: servers }
  - { name: refuse, reject: [tcp/23], from: clients, to: servers }
"#;

pub fn cases(net: &Net) -> Vec<Case> {
    let c = net.connection(80);
    let (client, server) = (net.client, net.server);
    let query = Packet::udp((client, 5353), (server, 53)).payload(&[7; 2000]);
    let case = |name: &str| Case::new(name).with(POLICY);
    let mut broken = c.c("S", 1, 0).ip_packet();
    broken[0] = 0x50 | (broken[0] & 0xf);
    vec![
        case("a connection")
            .outer(c.c("S", 1000, 0).ip_packet(), Rule)
            .inner(c.s("SA", 5000, 1001).ip_packet(), Established)
            .outer(c.c("A", 1001, 5001).ip_packet(), Established)
            .outer(c.c("A", 1001, 5001).payload(&[7; 1000]).ip_packet(), Established)
            .inner(
                Packet::unreachable(
                    net.stranger,
                    client,
                    Unreachable::TooBig,
                    &c.c("A", 1001, 5001).payload(&[7; 1000]),
                )
                .ip_packet(),
                Related,
            ),
        case("what no rule allows").outer(net.connection(81).c("S", 1, 0).ip_packet(), DenyDefault),
        case("what is rejected").outer(net.connection(23).c("S", 1, 0).ip_packet(), RejectRule),
        case("a segment of nobody's").outer(c.c("A", 1, 1).ip_packet(), TcpNoFlow),
        case("a fragment that comes before its first")
            .outer(query.clone().fragment(1000, 9000, 9).ip_packet(), FragmentEarly)
            .outer(query.clone().fragment(0, 1000, 9).ip_packet(), Rule)
            .outer(query.fragment(1000, 9000, 9).ip_packet(), Established),
        case("neither IPv4 nor IPv6").outer(broken, BadIpv4),
        case("a packet of 19 bytes").outer(c.c("S", 1, 0).ip_packet()[..19].to_vec(), Truncated),
    ]
}
