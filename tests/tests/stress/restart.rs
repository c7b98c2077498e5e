//! A job that starts again: 10,000 connections within one second of the clock.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use fw_common::abi::Reason;
use fw_tests::packet::Packet;
use fw_user::dataplane::Options;

use crate::rig::{From, Rig, Sender, counted, packets, turn};

/// A known zone, and protection as it is by default.
const JOB: &str = r#"
version: 1
zones:
  gpu:    [10.1.0.0/16, "fd00:1::/64"]
  server: [10.2.0.0/16, "fd00:2::/64"]
rules:
  - { name: job, allow: [tcp/7000], from: gpu, to: server }
"#;

const CONNECTIONS: u32 = 10_000;

/// SYN, answer, acknowledgement of one connection. The IPv6 sources share a /64, so they count as one.
fn handshake(number: u32, sources: u32, ipv6: bool) -> [(From, Vec<u8>); 3] {
    let (source, port) = ((number % sources + 1) as u16, 20_000 + (number / sources) as u16);
    let [high, low] = source.to_be_bytes();
    let (client, server): (IpAddr, IpAddr) = if ipv6 {
        (
            [0xfd00, 1, 0, 0, 0, 0, 0, source].into(),
            [0xfd00, 2, 0, 0, 0, 0, 0, 1].into(),
        )
    } else {
        ([10, 1, high, low].into(), [10, 2, 0, 1].into())
    };
    let segment = Packet::tcp((client, port), (server, 7000));
    [
        (From::Outer, segment.clone().flags("S").numbers(1000, 0).build()),
        (
            From::Inner,
            segment.clone().reversed().flags("SA").numbers(5000, 1001).build(),
        ),
        (From::Outer, segment.flags("A").numbers(1001, 5001).build()),
    ]
}

/// Opens them all within one second: every SYN comes before the first answer, every answer before the first acknowledgement.
fn restart(sources: u32, ipv6: bool) -> Result<()> {
    let _turn = turn();
    let options = Options {
        clock_override: true,
        ..Options::default()
    };
    let rig = Rig::new(options, JOB)?;
    let tables = rig.plane.tables();
    let start = 1_u64 << 50;
    // The clock stands still: nothing that a rate allows in the meantime helps.
    tables.set_clock(start);
    tables.beat(start);
    let handshakes: Vec<_> = (0..CONNECTIONS)
        .map(|number| handshake(number, sources, ipv6))
        .collect();
    let send = |sender: &Sender<'_>| -> Result<()> {
        for step in 0..3 {
            for handshake in &handshakes {
                let (from, frame) = &handshake[step];
                ensure!(
                    sender.forwarded(*from, frame)?,
                    "step {step} of a handshake is lost: {:?}",
                    counted(&rig.plane)?
                );
            }
        }
        Ok(())
    };
    rig.on(0, send)?;
    let opened = packets(&rig.plane, Reason::Rule)?;
    ensure!(
        opened == u64::from(CONNECTIONS),
        "{opened} connections were opened"
    );
    ensure!(
        tables.levels().used[usize::from(ipv6)] == opened,
        "{} connections are in the main table",
        tables.levels().used[usize::from(ipv6)]
    );
    Ok(())
}

#[test]
fn a_job_of_250_nodes_starts_again() -> Result<()> {
    restart(250, false)
}

#[test]
fn a_job_of_8_nodes_starts_again() -> Result<()> {
    restart(8, false)
}

#[test]
fn a_job_on_one_node_starts_again() -> Result<()> {
    restart(1, false)
}

#[test]
fn a_job_of_250_nodes_in_one_ipv6_network_starts_again() -> Result<()> {
    restart(250, true)
}
