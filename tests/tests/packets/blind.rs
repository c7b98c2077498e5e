//! A blind attacker: he knows addresses and ports of a living connection, but not its numbers.

use anyhow::{Result, ensure};
use fw_common::abi::{Flow, Reason};
use fw_tests::packet::Packet;

use crate::case::{Connection, Net, POLICY, Way};
use crate::rig::Rig;
use crate::stand::Stand;

/// Segments of each kind, on all stands and in both families together.
const SEGMENTS: u32 = 350_000;

/// What a segment may not change.
fn numbers(flow: &Flow) -> ([[u32; 4]; 2], u32, u32) {
    let half = |number: usize| {
        let sent = &flow.sent[number];
        [sent.seq_end, sent.ack, sent.edge, sent.window]
    };
    ([half(0), half(1)], flow.state, flow.generation)
}

fn open(rig: &mut Rig, c: &Connection) -> Result<()> {
    let mut send = |way, packet: Packet, reason| -> Result<()> {
        let report = rig.send(way, &packet.build())?;
        ensure!(report.reason == reason, "{report:?}");
        Ok(())
    };
    send(Way::Outer, c.c("S", 1000, 0), Reason::Rule)?;
    send(Way::Inner, c.s("SA", 5000, 1001), Reason::Established)?;
    send(
        Way::Outer,
        c.c("A", 1001, 5001).payload(&[7; 100]),
        Reason::Established,
    )?;
    send(
        Way::Inner,
        c.s("A", 5001, 1101).payload(&[7; 100]),
        Reason::Established,
    )
}

/// One kind of segment, at random numbers, from the side that it enters by. Returns how many passed.
fn shoot(rig: &mut Rig, c: &Connection, kind: &str, count: u32, random: &mut fastrand::Rng) -> Result<u32> {
    let mut passed = 0;
    for way in [Way::Outer, Way::Inner] {
        let packet = if way == Way::Outer {
            c.c(kind, 0, 0)
        } else {
            c.s(kind, 0, 0)
        };
        let mut frame = packet.payload(if kind == "PA" { &[9; 8] } else { &[] }).build();
        let tcp = frame.len() - 20 - if kind == "PA" { 8 } else { 0 };
        let hook = rig.prepare(way)?;
        for _ in 0..count / 2 {
            frame[tcp + 4..tcp + 8].copy_from_slice(&random.u32(..).to_be_bytes());
            if kind != "S" {
                frame[tcp + 8..tcp + 12].copy_from_slice(&random.u32(..).to_be_bytes());
            }
            passed += u32::from(rig.judge(hook, &frame)?.reason.allows());
        }
    }
    Ok(passed)
}

/// How many of `each` blind segments may pass. An opener's SYN does, so that the other end may challenge it. A reset does inside
/// the receiver's window of 64 KiB, one of 65,536; data inside the mebibyte and window that old segments may lie in, one of
/// 3,800, but it must also acknowledge what lies in another mebibyte: one of 15,000,000. Both bounds are a multiple of what is
/// expected, which is 0.7 and 0.003 for 43,750.
fn may_pass(kind: &str, each: u32) -> u32 {
    match kind {
        "S" => each / 2,
        "R" => each / 10_000,
        _ => 1,
    }
}

/// 1,050,000 blind segments into living flows change nothing, and what they leave behind is none of the flow's affair.
#[test]
fn a_million_blind_segments_change_no_flow() -> Result<()> {
    let each = SEGMENTS / 8;
    let mut total = 0;
    for stand in Stand::ALL {
        let mut rig = Rig::new(stand)?;
        rig.apply(POLICY)?;
        for ipv6 in [false, true] {
            let c = Net::new(ipv6, stand.inline()).connection(80);
            open(&mut rig, &c)?;
            let mut random = fastrand::Rng::with_seed(7 + u64::from(ipv6));
            for kind in ["R", "S", "PA"] {
                let before: Vec<_> = rig.flows()?.iter().map(numbers).collect();
                let passed = shoot(&mut rig, &c, kind, each, &mut random)?;
                let after: Vec<_> = rig.flows()?.iter().map(numbers).collect();
                ensure!(
                    before == after,
                    "{stand:?}: {kind} changed {before:?} to {after:?}"
                );
                let most = may_pass(kind, each);
                ensure!(
                    passed <= most,
                    "{stand:?}: {passed} of {each} segments {kind} passed"
                );
                total += each;
            }
            let next = c.c("A", 1101, 5101).payload(&[7; 100]).build();
            let report = rig.send(Way::Outer, &next)?;
            ensure!(report.reason == Reason::Established, "{stand:?}: {report:?}");
            let answer = c.s("A", 5101, 1201).payload(&[7; 100]).build();
            let report = rig.send(Way::Inner, &answer)?;
            ensure!(report.reason == Reason::Established, "{stand:?}: {report:?}");
        }
        rig.counters_add_up()?;
    }
    println!("{total} blind segments changed nothing");
    ensure!(total >= 1_000_000);
    Ok(())
}
