//! What is told of a packet: the event's fields, the budgets of events and answers, and super-packets.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use fw_common::abi::{Event, EventKind, Reason, Verdict};
use fw_common::pipeline::FlowStat;
use fw_tests::packet::Packet;
use fw_user::dataplane::{Hook, TestContext};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::case::{Net, Step, Way};
use crate::rig::Rig;
use crate::stand::Stand;

const POLICY: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
  tenant:  { addresses: [10.1.0.0/16, 10.2.0.0/16, "fd00:1::/64", "fd00:2::/64"], vlan: [100, 7] }
protect: { screens: { ttl_zero: count } }
rules:
  - { name: web,    allow: [http], from: clients, to: servers, log: true }
  - { name: telnet, deny: [tcp/23], from: clients, to: servers }
  - { name: refuse, reject: [tcp/24], from: clients, to: servers }
  - { name: slow,   allow: [udp/1000], from: clients, to: servers, limit: [{ packets: 1/s, burst: 5 }] }
"#;

/// Budgets are kept by CPU: this thread stays on the one that it is on.
pub fn stay_on_one_cpu() -> Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let first = (0..CpuSet::count())
        .find(|cpu| allowed.is_set(*cpu) == Ok(true))
        .context("this thread may run nowhere")?;
    let mut one = CpuSet::new();
    one.set(first)?;
    sched_setaffinity(Pid::from_raw(0), &one)?;
    Ok(())
}

fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [address.to_bits(), 0, 0, 0],
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [bits >> 96, bits >> 64, bits >> 32, bits].map(|word| word as u32)
        }
    }
}

/// One packet, and its one event.
fn event(rig: &mut Rig, way: Way, frame: &[u8], reason: Reason) -> Result<Event> {
    let report = rig.send(way, frame)?;
    ensure!(
        report.reason == reason,
        "{} was expected: {report:?}",
        reason.name()
    );
    let events = rig.take_events();
    let [event] = events[..] else {
        anyhow::bail!("one event was expected, found {events:?}");
    };
    ensure!(event.reason == reason as u8, "{event:?}");
    ensure!(event.len as usize == frame.len(), "{event:?}");
    Ok(event)
}

#[test]
fn an_event_tells_the_packet() -> Result<()> {
    for stand in Stand::ALL {
        let mut rig = Rig::new(stand)?;
        rig.apply(POLICY)?;
        for ipv6 in [false, true] {
            let net = Net::new(ipv6, stand.inline());
            fields(&mut rig, &net).with_context(|| format!("{stand:?}, IPv6: {ipv6}"))?;
        }
    }
    Ok(())
}

fn fields(rig: &mut Rig, net: &Net) -> Result<()> {
    let allowed = net.connection(80);
    let logged = event(rig, Way::Outer, &allowed.c("S", 1, 0).build(), Reason::Rule)?;
    ensure!(logged.kind == EventKind::Log as u8);
    ensure!(
        (logged.src, logged.dst) == (words(net.client), words(net.server)),
        "{logged:?}"
    );
    ensure!((logged.sport, logged.dport) == (40_000, 80), "{logged:?}");
    ensure!(
        (logged.proto, logged.tcp_flags, logged.egress) == (6, 2, 0),
        "{logged:?}"
    );
    let (family, ethertype) = if net.ipv6() { (6, 0x86dd) } else { (4, 0x0800) };
    ensure!(
        (logged.family, logged.ethertype) == (family, ethertype),
        "{logged:?}"
    );
    ensure!(
        logged.time == rig.now() && logged.ifindex == 1 && logged.realm == 0,
        "{logged:?}"
    );
    ensure!(
        logged.generation == rig.plane().tables().control().generation,
        "{logged:?}"
    );
    let flow = rig.flows()?.pop().context("no flow")?;
    ensure!(logged.rule == flow.rule && flow.rule != 0, "{logged:?}, {flow:?}");
    ensure!(
        (logged.src_zone, logged.dst_zone) == (flow.src_zone, flow.dst_zone) && flow.src_zone != 0,
        "{logged:?}, {flow:?}"
    );
    drops(rig, net, logged)
}

/// The same of packets that are dropped, beside the one that was let through.
fn drops(rig: &mut Rig, net: &Net, logged: Event) -> Result<()> {
    let (allowed, denied) = (net.connection(80), net.connection(23));
    let dropped = event(rig, Way::Outer, &denied.c("S", 1, 0).build(), Reason::DenyRule)?;
    ensure!(
        dropped.kind == EventKind::Drop as u8 && dropped.dport == 23,
        "{dropped:?}"
    );
    ensure!(dropped.rule != 0 && dropped.rule != logged.rule, "{dropped:?}");
    ensure!(dropped.src_zone == logged.src_zone, "{dropped:?}");
    let stranger = Packet::tcp((net.stranger, 7), (net.server, 80)).flags("S");
    let default = event(rig, Way::Outer, &stranger.build(), Reason::DenyDefault)?;
    // The source lies in the built-in zone `outside`.
    ensure!(
        default.rule == 0 && default.src_zone != logged.src_zone && default.dst_zone == logged.dst_zone,
        "{default:?}"
    );
    let echo = Packet::echo_request(net.client, net.server, 77, 1);
    let ping = event(rig, Way::Outer, &echo.build(), Reason::DenyDefault)?;
    let kind = if net.ipv6() { 128 } else { 8 };
    ensure!((ping.sport, ping.dport) == (77, kind << 8), "{ping:?}");
    let own = Packet::udp((net.own, 5), (net.client, 6));
    let out = event(rig, Way::Own, &own.build(), Reason::DenyDefault)?;
    ensure!((out.egress, out.proto) == (1, 17), "{out:?}");
    let nested = allowed.c("S", 1, 0).tags(&[100, 7]);
    let nested = event(rig, Way::Outer, &nested.build(), Reason::DenyDefault)?;
    ensure!(nested.inner_vlan == 7 && nested.realm != 0, "{nested:?}");
    let faded = net.connection(25).c("S", 1, 0).hops(0);
    let report = rig.send(Way::Outer, &faded.build())?;
    ensure!(report.reason == Reason::DenyDefault, "{report:?}");
    let noted = rig.take_events();
    ensure!(
        noted.len() == 1
            && noted[0].kind == EventKind::Noted as u8
            && noted[0].reason == Reason::TtlZero as u8,
        "{noted:?}"
    );
    Ok(())
}

/// In a window of 67 ms so many events are sent and no more; matches of rules with `log` have a budget of their own.
#[test]
fn events_have_a_budget() -> Result<()> {
    stay_on_one_cpu()?;
    for stand in [Stand::HostXdp, Stand::InlineTc] {
        let mut rig = Rig::new(stand)?;
        rig.apply(POLICY)?;
        rig.plane().tables().set_events_per_window(3);
        let net = Net::new(false, stand.inline());
        let suppressed = |rig: &Rig| -> Result<u64> {
            Ok(rig.plane().tables().flow_stats()?[FlowStat::EventsSuppressed as usize])
        };
        for window in 1..4 {
            for _ in 0..10 {
                rig.send(Way::Outer, &net.connection(23).c("S", 1, 0).build())?;
            }
            let events = rig.take_events();
            ensure!(
                events.len() == 3,
                "{stand:?}: {} events in a window",
                events.len()
            );
            ensure!(suppressed(&rig)? == window * 7);
            let mut c = net.connection(80);
            c.client.1 += window as u16;
            rig.send(Way::Outer, &c.c("S", 1, 0).build())?;
            let logged = rig.take_events();
            ensure!(
                logged.len() == 1 && logged[0].kind == EventKind::Log as u8,
                "{stand:?}: drops have hidden {logged:?}"
            );
            rig.other(&Step::Wait(1 << 26))?;
        }
        rig.counters_add_up()?;
    }
    Ok(())
}

/// The same of answers.
#[test]
fn answers_have_a_budget() -> Result<()> {
    stay_on_one_cpu()?;
    for stand in Stand::ALL {
        let mut rig = Rig::new(stand)?;
        rig.apply(POLICY)?;
        rig.plane().tables().set_replies_per_window(4);
        let net = Net::new(true, stand.inline());
        for window in 1..4 {
            let mut answered = 0;
            for _ in 0..10 {
                let report = rig.send(Way::Outer, &net.connection(24).c("S", 1, 0).build())?;
                ensure!(report.reason == Reason::RejectRule, "{report:?}");
                answered += u32::from(report.verdict == Verdict::Reply);
            }
            ensure!(answered == 4, "{stand:?}: {answered} answers in a window");
            let stats = rig.plane().tables().flow_stats()?;
            ensure!(stats[FlowStat::RepliesSuppressed as usize] == window * 6);
            rig.other(&Step::Wait(1 << 26))?;
        }
        rig.counters_add_up()?;
    }
    Ok(())
}

/// A super-packet counts as its segments, with the headers that each will have; also a guest's, which has their size only.
#[test]
fn super_packets_count_as_their_segments() -> Result<()> {
    for stand in [Stand::HostTc, Stand::InlineTc] {
        let mut rig = Rig::new(stand)?;
        rig.apply(POLICY)?;
        for (ipv6, gso_segs) in [(false, 3), (true, 3), (false, 0), (true, 0)] {
            let net = Net::new(ipv6, stand.inline());
            let packet = Packet::udp((net.client, 5000), (net.server, 1000)).payload(&[7; 1100]);
            let frame = packet.build();
            let hook = rig.prepare(Way::Outer)?;
            ensure!(hook == Hook::TcIn);
            let context = TestContext {
                gso_segs,
                gso_size: 400,
                wire_len: frame.len() as u32 + 2 * 42,
                ..TestContext::on(1)
            };
            let mut reasons = Vec::new();
            for _ in 0..2 {
                let outcome = rig.plane().test_run(hook, &frame, &context)?;
                reasons.push(outcome.report.context("no report")?.reason);
            }
            let single = rig.send(Way::Outer, &frame)?.reason;
            // A burst of five: three, three too many, one.
            ensure!(
                reasons == [Reason::Rule, Reason::LimitPackets] && single == Reason::Established,
                "{stand:?}: {reasons:?}, {single:?}"
            );
            let flow = rig.flows()?.pop().context("no flow")?;
            ensure!(
                (flow.packets(0), flow.bytes(0)) == (4, (2 * frame.len() + 84) as u64),
                "{stand:?}: {} packets, {} bytes",
                flow.packets(0),
                flow.bytes(0)
            );
            rig.forget()?;
        }
    }
    Ok(())
}
