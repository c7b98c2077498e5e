//! Tables that are full, and tables that are not what they should be.

use anyhow::{Context, Result, ensure};
use fw_common::abi::{HEARTBEAT_NS, Reason, SetHeader, Verdict, checksum};
use fw_common::pipeline::FlowStat;
use fw_tests::packet::Packet;
use fw_user::dataplane::{FlowSizes, FlowTable};

use crate::case::{Connection, Net, Step, Way};
use crate::rig::{Rig, SIZES};
use crate::stand::Stand;
use crate::told::stay_on_one_cpu;

const POLICY: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  bastion: { addresses: [10.3.0.1, "fd00:3::1"], lifeline: true }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules: [{ name: web, allow: [http, ssh, dns], from: [clients, bastion], to: servers }]
"#;

/// The kernel gives a preallocated hash a few entries more than asked for, one for each CPU.
const SMALL: FlowSizes = FlowSizes {
    flows4: 64,
    flows6: 64,
    ..SIZES
};

fn bastion(net: &Net) -> Connection {
    let address = if net.ipv6() { "fd00:3::1" } else { "10.3.0.1" };
    Connection {
        client: (address.parse().expect("an address"), 40_000),
        server: (net.server, 22),
    }
}

/// A handshake; the reason of its last packet.
fn handshake(rig: &mut Rig, c: &Connection) -> Result<Reason> {
    for (way, frame) in [
        (Way::Outer, c.c("S", 1000, 0)),
        (Way::Inner, c.s("SA", 5000, 1001)),
        (Way::Outer, c.c("A", 1001, 5001)),
    ] {
        let report = rig.send(way, &frame.build())?;
        if !report.reason.allows() {
            return Ok(report.reason);
        }
        if c.c("A", 1001, 5001).build() == frame.build() {
            return Ok(report.reason);
        }
    }
    Ok(Reason::Unset)
}

/// Established flows go on, new ones are refused, a lifeline gets in, and a flow that ends makes room.
#[test]
fn a_full_table_refuses_new_flows_and_keeps_the_old() -> Result<()> {
    for stand in Stand::ALL {
        for ipv6 in [false, true] {
            let mut rig = Rig::with_sizes(stand, SMALL)?;
            rig.apply(POLICY)?;
            let net = Net::new(ipv6, stand.inline());
            let query = Packet::udp((net.client, 5353), (net.server, 53)).payload(b"who?");
            let ask = |rig: &mut Rig, way, packet: &Packet, wanted| -> Result<()> {
                let report = rig.send(way, &packet.clone().build())?;
                ensure!(report.reason == wanted, "{stand:?}: a datagram: {report:?}");
                Ok(())
            };
            ask(&mut rig, Way::Outer, &query, Reason::Rule)?;
            ask(
                &mut rig,
                Way::Inner,
                &query.clone().reversed(),
                Reason::Established,
            )?;
            let (established, refused) = fill(&mut rig, &net)?;
            // Answered, but not moved to the main table while there was room.
            ask(&mut rig, Way::Outer, &query, Reason::Established)?;
            ask(&mut rig, Way::Outer, &query, Reason::Established)?;
            let room = rig.plane().tables().levels().room[usize::from(ipv6)];
            ensure!(
                established.len() as u64 == room && refused > 0,
                "{stand:?}: {} established, {refused} refused, there is room for {room}",
                established.len()
            );
            ensure!(rig.count(FlowTable::Main)? == established.len());
            for c in &established {
                let report = rig.send(Way::Inner, &c.s("A", 5001, 1001).payload(b"x").build())?;
                ensure!(
                    report.reason == Reason::Established,
                    "{stand:?}: an established flow was cut: {report:?}"
                );
            }
            let admin = handshake(&mut rig, &bastion(&net))?;
            ensure!(
                admin == Reason::Established,
                "{stand:?}: the bastion met {}",
                admin.name()
            );
            ensure!(
                rig.count(FlowTable::Main)? == established.len() + 1,
                "{stand:?}: the bastion's flow is not in the main table"
            );
            makes_room(&mut rig, &net, &established[0])?;
            rig.counters_add_up()?;
        }
    }
    Ok(())
}

fn numbered(net: &Net, number: u16) -> Connection {
    let mut c = net.connection(80);
    c.client.1 = 40_000 + number;
    c
}

/// Opens 100 flows; those that were established, and how many were refused.
fn fill(rig: &mut Rig, net: &Net) -> Result<(Vec<Connection>, usize)> {
    let (mut established, mut refused) = (Vec::new(), 0);
    for number in 0..100 {
        let c = numbered(net, number);
        match handshake(rig, &c)? {
            Reason::Established => established.push(c),
            Reason::TableFull => refused += 1,
            other => anyhow::bail!("flow {number} met {}", other.name()),
        }
    }
    Ok((established, refused))
}

/// Two flows end (the lifeline has taken one's place); the agent removes them; a new one fits.
fn makes_room(rig: &mut Rig, net: &Net, over: &Connection) -> Result<()> {
    let next = numbered(net, 500);
    ensure!(
        handshake(rig, &next)? == Reason::TableFull,
        "the table is not full"
    );
    let ended = rig.send(Way::Inner, &over.s("R", 5002, 0).build())?;
    ensure!(ended.reason == Reason::Established, "{ended:?}");
    let second = numbered(net, 1);
    rig.send(Way::Inner, &second.s("R", 5002, 0).build())?;
    rig.other(&Step::Wait(20_000_000_000))?;
    ensure!(
        handshake(rig, &next)? == Reason::TableFull,
        "an expired entry makes room only when the agent has removed it"
    );
    let now = rig.now();
    let aged = rig.plane().tables().age(now, |_, _, _| {})?;
    ensure!(aged.ended == 2, "two flows are over: {aged:?}");
    let reason = handshake(rig, &next)?;
    ensure!(reason == Reason::Established, "met {}", reason.name());
    Ok(())
}

/// While nobody ages the tables, full ones refuse nobody: new flows live in the half-open table.
#[test]
fn a_full_table_without_an_agent_costs_no_connection() -> Result<()> {
    for stand in [Stand::HostXdp, Stand::InlineTc] {
        for ipv6 in [false, true] {
            let mut rig = Rig::with_sizes(stand, SMALL)?;
            rig.apply(POLICY)?;
            let net = Net::new(ipv6, stand.inline());
            let (established, _) = fill(&mut rig, &net)?;
            // Ten minutes later.
            rig.other(&Step::Agent(false))?;
            rig.other(&Step::Wait(600_000_000_000))?;
            for number in 200..300 {
                let c = numbered(&net, number);
                let reason = handshake(&mut rig, &c)?;
                ensure!(
                    reason == Reason::Established,
                    "flow {number} met {}",
                    reason.name()
                );
                let data = rig.send(Way::Inner, &c.s("A", 5001, 1001).payload(b"x").build())?;
                ensure!(data.reason == Reason::Established, "{data:?}");
            }
            ensure!(rig.count(FlowTable::Main)? == established.len());
            ensure!(rig.count(FlowTable::HalfOpen)? == 100);
        }
    }
    Ok(())
}

/// The agent counts as at work until ten seconds after its last heartbeat: just before, a full table refuses, just after it
/// does not.
#[test]
fn a_heartbeat_lasts_ten_seconds() -> Result<()> {
    const MS: u64 = 1_000_000;
    for stand in Stand::ALL {
        for ipv6 in [false, true] {
            let mut rig = Rig::with_sizes(stand, SMALL)?;
            rig.apply(POLICY)?;
            let net = Net::new(ipv6, stand.inline());
            fill(&mut rig, &net)?;
            rig.other(&Step::Agent(false))?;
            for (number, wait, wanted) in [
                (200, HEARTBEAT_NS - MS, Reason::TableFull),
                (201, 2 * MS, Reason::Established),
            ] {
                rig.other(&Step::Wait(wait))?;
                let reason = handshake(&mut rig, &numbered(&net, number))?;
                ensure!(
                    reason == wanted,
                    "{stand:?}: {} was expected, found {}",
                    wanted.name(),
                    reason.name()
                );
            }
        }
    }
    Ok(())
}

/// A set whose tables point outside of themselves drops what it cannot judge.
#[test]
fn a_corrupt_set_lets_nothing_pass() -> Result<()> {
    for stand in Stand::ALL {
        let mut rig = Rig::new(stand)?;
        rig.apply(POLICY)?;
        for ipv6 in [false, true] {
            let c = Net::new(ipv6, stand.inline()).connection(80);
            ensure!(rig.send(Way::Outer, &c.c("S", 1000, 0).build())?.reason == Reason::Rule);
        }
        for part in 0..5 {
            let mut lines = rig.compile(POLICY)?.lines;
            let mut header = SetHeader::from_lines(&lines[0], &lines[1]);
            let far = lines.len() as u32 + 10_000;
            match part {
                0 => header.realms = far,
                1 => header.classes = far,
                2 => header.pairs = far,
                3 => header.protect = far,
                _ => header.decision_pages = far,
            }
            (header.checksum_lo, header.checksum_hi) = (0, 0);
            lines[..2].copy_from_slice(&header.to_lines());
            let sum = checksum(&lines);
            (header.checksum_lo, header.checksum_hi) = (sum as u32, (sum >> 32) as u32);
            lines[..2].copy_from_slice(&header.to_lines());
            rig.plane().tables().apply(&lines)?;
            for ipv6 in [false, true] {
                let mut c = Net::new(ipv6, stand.inline()).connection(80);
                c.client.1 = 50_000 + part;
                let report = rig.send(Way::Outer, &c.c("S", 1000, 0).build())?;
                ensure!(
                    (report.verdict, report.reason) == (Verdict::Drop, Reason::TableCorrupt),
                    "{stand:?}, part {part}: {report:?}"
                );
            }
        }
    }
    Ok(())
}

const ONE_WAY: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules: [{ name: rdma, allow: [roce], from: clients, to: servers }]
"#;

/// Room for more one-way flows than a CPU may promote in a window of 2^30 ns.
const WIDE: FlowSizes = FlowSizes {
    flows4: 4097,
    flows6: 4097,
    half4: 8192,
    half6: 8192,
    ..SIZES
};
/// One-way promotions of a CPU and window; see `hit.rs`.
const ONE_WAY_PER_WINDOW: u64 = 1024;
const SENDERS: u16 = 1100;

/// What nobody answers is promoted within a limit; what is over it waits for the next window, and goes on passing.
#[test]
fn promotions_of_one_way_flows_have_a_cap() -> Result<()> {
    stay_on_one_cpu()?;
    for stand in [Stand::HostXdp, Stand::InlineTc] {
        for ipv6 in [false, true] {
            let mut rig = Rig::with_sizes(stand, WIDE)?;
            rig.apply(ONE_WAY)?;
            let net = Net::new(ipv6, stand.inline());
            let round = |rig: &mut Rig, reason: Reason| -> Result<()> {
                for port in 0..SENDERS {
                    let write = Packet::udp((net.client, 40_000 + port), (net.server, 4791));
                    let report = rig.send(Way::Outer, &write.build())?;
                    ensure!(report.reason == reason, "{stand:?}, sender {port}: {report:?}");
                }
                Ok(())
            };
            // The clock of a rig begins at the beginning of a window.
            round(&mut rig, Reason::Rule)?;
            for _ in 0..7 {
                round(&mut rig, Reason::Established)?;
            }
            ensure!(rig.count(FlowTable::Main)? == 0, "none is old enough");
            rig.other(&Step::Wait(2 << 30))?;
            round(&mut rig, Reason::Established)?;
            let (main, waits) = (rig.count(FlowTable::Main)? as u64, waits(&rig)?);
            ensure!(
                main == ONE_WAY_PER_WINDOW && waits == u64::from(SENDERS) - main,
                "{stand:?}, IPv6 {ipv6}: {main} flows were promoted, {waits} wait"
            );
            rig.other(&Step::Wait(1 << 30))?;
            round(&mut rig, Reason::Established)?;
            ensure!(
                rig.count(FlowTable::Main)? == usize::from(SENDERS),
                "the next window takes the rest"
            );
            rig.counters_add_up()?;
        }
    }
    Ok(())
}

fn waits(rig: &Rig) -> Result<u64> {
    let stats = rig.plane().tables().flow_stats()?;
    stats
        .get(FlowStat::OneWayWaits as usize)
        .copied()
        .context("no such statistic")
}
