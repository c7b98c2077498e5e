//! The two directions of many flows on two CPUs at once.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use fw_common::abi::{Proto, Reason};
use fw_common::pipeline::FlowStat;
use fw_tests::packet::Packet;
use fw_user::dataplane::{FlowKey, FlowTable, Options};

use crate::rig::{From, Rig, counted, packets, turn, urgent};

const POLICY: &str = r#"
version: 1
zones:
  a: [10.1.0.0/16, "fd00:1::/32"]
  b: [10.2.0.0/16, "fd00:2::/32"]
rules:
  - { name: data, allow: [udp/7000, tcp/7000], from: a, to: b }
protect:
  exempt: [a]
"#;

const FLOWS: u32 = 2000;
/// Packets of each direction of a flow behind the first.
const EACH: u32 = 2500;

/// The frames of a flow: what opens it, what the opener sends then, what the other side sends.
struct Frames {
    opening: Vec<u8>,
    original: Vec<u8>,
    reply: Vec<u8>,
}

impl Frames {
    /// Half of the flows are UDP over IPv4, a quarter is UDP over IPv6, a quarter TCP.
    fn new(flow: u32) -> Self {
        let port = 10_000 + flow as u16;
        let (a, b): (IpAddr, IpAddr) = if flow % 4 == 1 {
            (
                Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, port).into(),
                Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 1).into(),
            )
        } else {
            (Ipv4Addr::from(0x0a01_0000 + flow).into(), [10, 2, 0, 1].into())
        };
        let (a, b) = ((a, port), (b, 7000));
        if flow % 4 == 3 {
            let segment = Packet::tcp(a, b);
            let answer = segment.clone().reversed().flags("SA").numbers(5000, 1001);
            return Self {
                opening: segment.clone().flags("S").numbers(1000, 0).build(),
                original: segment.flags("A").numbers(1001, 5001).build(),
                reply: answer.build(),
            };
        }
        let asked = Packet::udp(a, b).payload(&flow.to_be_bytes());
        Self {
            opening: asked.build(),
            original: asked.build(),
            reply: asked.reversed().build(),
        }
    }
}

/// 10,000,000 packets of 2,000 flows: the opener's on CPU 0, the replies on CPU 1 at the same time, so that each flow is
/// promoted while its replies run. Every packet that passed is in its flow's counts, and each flow is in exactly one table.
#[test]
fn two_cpus_count_every_packet_once() -> Result<()> {
    let _turn = turn();
    let rig = Rig::new(Options::default(), POLICY)?;
    let frames: Vec<Frames> = (0..FLOWS).map(Frames::new).collect();
    let (ready, opened) = (AtomicU32::new(0), AtomicU32::new(0));
    let begun = Instant::now();
    rig.on_both(
        |sender| {
            urgent()?;
            for (flow, frames) in (1..).zip(&frames) {
                await_flow(&ready, flow);
                sender.send(From::Outer, &frames.opening, 1)?;
                opened.store(flow, Ordering::Release);
                sender.send(From::Outer, &frames.original, EACH)?;
            }
            Ok(())
        },
        |sender| {
            urgent()?;
            for (flow, frames) in (1..).zip(&frames) {
                ready.store(flow, Ordering::Release);
                await_flow(&opened, flow);
                sender.send(From::Inner, &frames.reply, EACH)?;
            }
            Ok(())
        },
    )?;
    let taken = begun.elapsed();
    // What made no difference to a flow while it raced: acknowledgements of answers that had not come yet.
    let counts = counted(&rig.plane)?;
    let sent = u64::from(FLOWS) * u64::from(2 * EACH + 1);
    ensure!(
        counts.values().sum::<u64>() == sent,
        "{sent} packets were sent, counted are {counts:?}"
    );
    let stats = rig.plane.tables().flow_stats()?;
    println!(
        "{sent} packets in {taken:?}: {counts:?}; {} promotions, {} races of state words",
        stats[FlowStat::Promoted as usize],
        stats[FlowStat::StateRaces as usize]
    );
    flows_add_up(&rig)
}

fn await_flow(reached: &AtomicU32, flow: u32) {
    while reached.load(Ordering::Acquire) < flow {
        std::hint::spin_loop();
    }
}

/// The flows' own counts make up what the firewall has let pass; each flow is in one table; of UDP none was lost.
fn flows_add_up(rig: &Rig) -> Result<()> {
    let (mut seen, mut wrong, mut passed) = (HashSet::new(), Vec::new(), [0_u64; 2]);
    let mut promoted = 0;
    for table in [FlowTable::HalfOpen, FlowTable::Main] {
        rig.plane.tables().for_each_flow(table, |key, flow| {
            if !seen.insert(format!("{key:?}")) {
                wrong.push(format!("{key:?} is in both tables"));
            }
            promoted += usize::from(table == FlowTable::Main);
            let proto = match key {
                FlowKey::V4(key) => key.proto,
                FlowKey::V6(key) => key.proto,
            };
            let (original, reply) = (flow.packets(0), flow.packets(1));
            passed[0] += original + reply;
            passed[1] += flow.bytes(0) + flow.bytes(1);
            if proto == Proto::UDP && (original, reply) != (u64::from(EACH) + 1, u64::from(EACH)) {
                wrong.push(format!("{key:?} has {original} packets and {reply} replies"));
            }
            ControlFlow::Continue(())
        })?;
    }
    ensure!(
        wrong.is_empty(),
        "{} flows are wrong, such as {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(3)]
    );
    ensure!(seen.len() == FLOWS as usize, "there are {} flows", seen.len());
    println!("{promoted} of {FLOWS} flows are in the main table");
    ensure!(promoted > FLOWS as usize / 2, "most flows were to be promoted");
    let counters = rig.plane.tables().counters()?;
    let allowed = [Reason::Rule as u8, Reason::Established as u8];
    let counted = counters
        .iter()
        .filter(|(number, _)| allowed.contains(number))
        .fold([0, 0], |sum, (_, count)| {
            [sum[0] + count.packets, sum[1] + count.bytes]
        });
    ensure!(
        passed == counted,
        "the flows have (packets, bytes) {passed:?}, the firewall let {counted:?} pass"
    );
    let opened = packets(&rig.plane, Reason::Rule)?;
    ensure!(opened == u64::from(FLOWS), "{opened} flows were opened");
    Ok(())
}
