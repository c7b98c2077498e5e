//! What rules say beside who and what: reject, log, audit, until, track.

use fw_common::abi::EventKind::{Audit, Log};
use fw_common::abi::Reason::{
    self, DenyDefault, DenyRule, Established, IcmpNoFlow, PolicyRevoked, RejectDefault, RejectRule, Rule,
    RuleExpired, TcpNoFlow, Untracked,
};
use fw_tests::packet::Packet;

use crate::case::{Case, Net, Step};

const ACTIONS: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules:
  - { name: refuse,        reject: [tcp/1100, udp/1100, icmp/8, icmpv6/128, sctp/1100], from: clients, to: servers, log: true }
  - { name: tried,         deny: [udp/1101], from: clients, to: servers, audit: true }
  - { name: tried_reject,  reject: [tcp/1102], from: clients, to: servers, audit: true }
  - { name: logged,        allow: [udp/1103], from: clients, to: servers, log: true }
  - { name: logged_deny,   deny: [udp/1104], from: clients, to: servers, log: true }
  - { name: stateless,     allow: [udp/1105, tcp/1105], from: clients, to: servers, track: false }
  - { name: stateless_log, allow: [udp/1106], from: clients, to: servers, track: false, log: true }
  - { name: ends,          allow: [tcp/1107, udp/1107], from: clients, to: servers, until: "1970-01-06T22:40:00Z" }
  - { name: after,         allow: [tcp/1107, udp/1107], from: clients, to: servers }
  - { name: stateless_end, allow: [udp/1108], from: clients, to: servers, track: false, until: "1970-01-06T22:40:00Z" }
  - { name: answers,       allow: [udp/1109], from: servers, to: clients, track: false }
  - { name: pings,         allow: [icmp/8, icmpv6/128], from: servers, to: clients, track: false }
default: { inside: reject, outside: drop }
"#;

fn udp(net: &Net, source: u16, port: u16) -> Packet {
    Packet::udp((net.client, source), (net.server, port))
}

pub fn actions(net: &Net) -> Vec<Case> {
    [
        reject(net),
        reports(net),
        end_of_a_trial(net),
        untracked(net),
        deadlines(net),
    ]
    .concat()
}

fn act(name: &str) -> Case {
    Case::new(name).with(ACTIONS)
}

fn reject(net: &Net) -> Vec<Case> {
    let sctp = Packet::other(132, net.client, net.server).payload(&[3, 0, 4, 76, 0, 0, 0, 0, 0, 0, 0, 0]);
    let others = Packet::udp((net.client, 5000), (net.server, 9));
    vec![
        act("rejected")
            .outer(net.connection(1100).c("S", 1000, 0), RejectRule)
            .told(Log, RejectRule),
        act("rejected UDP").outer(udp(net, 5000, 1100), RejectRule),
        act("rejected SCTP").outer(sctp, RejectRule),
        act("a rejected echo").outer(Packet::echo_request(net.client, net.server, 7, 1), RejectRule),
        act("no answers are left: it is dropped")
            .step(Step::Answers(0))
            .unanswered(net.connection(1100).c("S", 1000, 0), RejectRule)
            .unanswered(others.clone(), RejectDefault),
        act("the default rejects what comes from inside").outer(others.clone(), RejectDefault),
        act("the default drops what comes from outside")
            .outer(Packet::udp((net.stranger, 5000), (net.server, 9)), DenyDefault),
        act("a frame for all stations gets no answer")
            .unanswered(others.macs([2; 6], [0xff; 6]), RejectDefault),
        act("a segment in the middle of nothing is not rejected, but dropped")
            .outer(net.connection(1100).c("A", 1000, 7), TcpNoFlow),
        act("this machine's own packet is rejected too")
            .own(Packet::udp((net.own, 5000), (net.client, 9)), RejectDefault),
    ]
}

fn reports(net: &Net) -> Vec<Case> {
    let tried = net.connection(1102);
    vec![
        act("a denied flow is let through for a trial")
            .outer(udp(net, 5000, 1101), Reason::Audit)
            .told(Audit, Reason::Audit)
            .noted(DenyRule, 1)
            .inner(udp(net, 5000, 1101).reversed(), Established)
            .step(Step::Untold)
            .outer(udp(net, 5000, 1101), Established)
            .noted(DenyRule, 1)
            .flows(1, 0),
        act("a rejected flow is let through for a trial")
            .outer(tried.c("S", 1000, 0), Reason::Audit)
            .told(Audit, Reason::Audit)
            .noted(RejectRule, 1)
            .inner(tried.s("SA", 5000, 1001), Established)
            .outer(tried.c("A", 1001, 5001), Established),
        act("an allowed flow is reported once")
            .outer(udp(net, 5000, 1103), Rule)
            .told(Log, Rule)
            .outer(udp(net, 5000, 1103), Established)
            .step(Step::Untold)
            .outer(udp(net, 5001, 1103), Rule)
            .told(Log, Rule),
        act("a denied packet is reported as a match of its rule")
            .outer(udp(net, 5000, 1104), DenyRule)
            .told(Log, DenyRule),
        act("without an entry each packet is reported")
            .outer(udp(net, 5000, 1106), Untracked)
            .told(Log, Untracked)
            .outer(udp(net, 5000, 1106), Untracked)
            .told(Log, Untracked),
        act("without log nothing is reported")
            .outer(udp(net, 5000, 1105), Untracked)
            .step(Step::Untold),
    ]
}

/// What a trial let through ends with a policy that denies it in earnest.
fn end_of_a_trial(net: &Net) -> Vec<Case> {
    const EARNEST: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules: [{ name: tried, deny: [udp/1101], from: clients, to: servers }]
"#;
    let packet = udp(net, 5000, 1101);
    vec![
        act("a trial goes on under the same policy and ends with a stricter one")
            .outer(packet.clone(), Reason::Audit)
            .apply(ACTIONS)
            .outer(packet.clone(), Established)
            .inner(packet.clone().reversed(), Established)
            .apply(EARNEST)
            .inner(packet.clone().reversed(), PolicyRevoked)
            .outer(packet, DenyRule),
    ]
}

fn untracked(net: &Net) -> Vec<Case> {
    let c = net.connection(1105);
    vec![
        act("no entry, both ways")
            .outer(udp(net, 5000, 1105), Untracked)
            .inner(udp(net, 5000, 1105).reversed(), Untracked)
            .flows(0, 0),
        act("no entry for TCP, whatever the segment")
            .outer(c.c("S", 1000, 0), Untracked)
            .inner(c.s("SA", 5000, 1001), Untracked)
            .outer(c.c("A", 1001, 5001), Untracked)
            .inner(c.s("A", 77, 99), Untracked)
            .inner(c.s("R", 77, 0), Untracked)
            .flows(0, 0),
        act("the answering side opens nothing")
            .inner(c.s("S", 1000, 0), RejectDefault)
            .inner(Packet::udp((net.server, 5000), (net.client, 1105)), RejectDefault),
        act("a rule of the other direction")
            .inner(Packet::udp((net.server, 5000), (net.client, 1109)), Untracked)
            .outer(Packet::udp((net.client, 1109), (net.server, 5000)), Untracked)
            .outer(Packet::udp((net.client, 1110), (net.server, 5000)), RejectDefault),
        act("an echo without an entry")
            .inner(Packet::echo_request(net.server, net.client, 7, 1), Untracked)
            .outer(Packet::echo_reply(net.client, net.server, 7, 1), Untracked)
            .inner(Packet::echo_reply(net.server, net.client, 7, 1), IcmpNoFlow),
    ]
}

/// The rig applies a policy at midnight of 1970-01-01: these end 513,600 s later.
fn deadlines(net: &Net) -> Vec<Case> {
    let c = net.connection(1107);
    let week = 7 * 86_400;
    vec![
        c.established(act("a rule that ends ends its flows").apply(ACTIONS))
            .wait(300_000)
            .outer(c.c("A", 1001, 5001).payload(b"x"), Established)
            .wait(300_000)
            .outer(c.c("A", 1002, 5001).payload(b"x"), RuleExpired)
            .inner(c.s("A", 5001, 1002).payload(b"x"), RuleExpired),
        act("a rule that has ended opens nothing, and no later rule is asked")
            .apply(ACTIONS)
            .outer(c.c("S", 1000, 0), Rule)
            .wait(week)
            .outer(c.c("S", 1000, 0), RuleExpired)
            .outer(udp(net, 5000, 1107), RuleExpired),
        act("a rule without entries ends too")
            .apply(ACTIONS)
            .outer(udp(net, 5000, 1108), Untracked)
            .wait(week)
            .outer(udp(net, 5000, 1108), RuleExpired),
    ]
}
