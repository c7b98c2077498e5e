//! Source ports in rules: they decide for the opener's packets, whichever side sends.

use fw_common::abi::Reason::{
    DenyDefault, DenyRule, Established, FragmentDenied, PolicyRevoked, Rule, Untracked,
};
use fw_tests::packet::Packet;

use crate::case::{Case, Net};

const PORTS: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules:
  - { name: low,    deny:  [udp/53 from 1-1023], from: clients, to: servers }
  - { name: dns,    allow: [udp/53], from: clients, to: servers }
  - { name: mixed,  allow: [udp/2000 from 5, udp/3000 from 6], from: clients, to: servers }
  - { name: syslog, allow: [udp/514 from 514], from: clients, to: servers, track: false }
  - { name: web,    allow: [tcp/80 from 40000-40009, ping], from: clients, to: servers }
"#;

/// As above, but DNS and web from few ports only.
const FEWER: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules:
  - { name: dns, allow: [udp/53 from 6000-6999], from: clients, to: servers }
  - { name: web, allow: [tcp/80 from 40001-40009, ping], from: clients, to: servers }
"#;

fn udp(net: &Net, from: u16, to: u16) -> Packet {
    Packet::udp((net.client, from), (net.server, to))
}

fn case(name: &str) -> Case {
    Case::new(name).with(PORTS)
}

pub fn cases(net: &Net) -> Vec<Case> {
    [opening(net), again(net), without_entry(net), fragments(net)].concat()
}

fn opening(net: &Net) -> Vec<Case> {
    let mut web = net.connection(80);
    web.client.1 = 40_009;
    let mut other = web;
    other.client.1 = 40_010;
    vec![
        case("the borders of a range")
            .outer(udp(net, 1, 53), DenyRule)
            .outer(udp(net, 1023, 53), DenyRule)
            .outer(udp(net, 1024, 53), Rule)
            .outer(udp(net, 65_535, 53), Rule),
        case("each product of a list for itself")
            .outer(udp(net, 5, 2000), Rule)
            .outer(udp(net, 6, 3000), Rule)
            .outer(udp(net, 5, 3000), DenyDefault)
            .outer(udp(net, 6, 2000), DenyDefault),
        case("TCP, and the answers to it")
            .outer(other.c("S", 1000, 0), DenyDefault)
            .outer(web.c("S", 1000, 0), Rule)
            .inner(web.s("SA", 5000, 1001), Established)
            .outer(web.c("A", 1001, 5001), Established),
        case("an echo's identifier is no port")
            .outer(Packet::echo_request(net.client, net.server, 40_010, 1), Rule)
            .outer(Packet::echo_request(net.client, net.server, 1, 1), Rule),
    ]
}

fn again(net: &Net) -> Vec<Case> {
    let mut web = net.connection(80);
    web.client.1 = 40_000;
    let mut kept = web;
    kept.client.1 = 40_001;
    vec![
        case("a stricter policy: the answering side speaks first")
            .outer(udp(net, 5353, 53), Rule)
            .inner(udp(net, 5353, 53).reversed(), Established)
            .apply(FEWER)
            .inner(udp(net, 5353, 53).reversed(), PolicyRevoked)
            .outer(udp(net, 5353, 53), DenyDefault),
        case("a stricter policy that allows the flow still")
            .outer(udp(net, 6100, 53), Rule)
            .inner(udp(net, 6100, 53).reversed(), Established)
            .apply(FEWER)
            .inner(udp(net, 6100, 53).reversed(), Established)
            .outer(udp(net, 6100, 53), Established),
        case("connections on both sides of a border")
            .outer(web.c("S", 1000, 0), Rule)
            .inner(web.s("SA", 5000, 1001), Established)
            .outer(web.c("A", 1001, 5001), Established)
            .outer(kept.c("S", 1000, 0), Rule)
            .inner(kept.s("SA", 5000, 1001), Established)
            .outer(kept.c("A", 1001, 5001), Established)
            .apply(FEWER)
            .inner(web.s("A", 5001, 1001), PolicyRevoked)
            .inner(kept.s("A", 5001, 1001), Established)
            .outer(kept.c("A", 1001, 5001), Established),
    ]
}

fn without_entry(net: &Net) -> Vec<Case> {
    vec![
        case("no entry: the answer comes from the port that the rule names, to the one that it wants")
            .outer(udp(net, 514, 514), Untracked)
            .inner(udp(net, 514, 514).reversed(), Untracked)
            .outer(udp(net, 515, 514), DenyDefault)
            .inner(udp(net, 515, 514).reversed(), DenyDefault)
            .inner(udp(net, 514, 515).reversed(), DenyDefault)
            .flows(0, 0),
    ]
}

fn fragments(net: &Net) -> Vec<Case> {
    let part =
        |port: u16, from: usize, to: usize| udp(net, port, 53).payload(&[7; 2992]).fragment(from, to, 9);
    vec![
        case("the first fragment's ports serve the later ones")
            .outer(part(5353, 0, 1000), Rule)
            .outer(part(5353, 1000, 2000), Established)
            .outer(part(5353, 2000, 9000), Established),
        case("a first fragment from a port that is denied")
            .outer(part(53, 0, 1000), DenyRule)
            .outer(part(53, 1000, 2000), FragmentDenied),
        case("a later fragment under a stricter policy")
            .outer(part(5353, 0, 1000), Rule)
            .apply(FEWER)
            .outer(part(5353, 1000, 2000), PolicyRevoked),
        case("a later fragment under a stricter policy that allows the flow still")
            .outer(part(6353, 0, 1000), Rule)
            .apply(FEWER)
            .outer(part(6353, 1000, 2000), Established),
    ]
}
