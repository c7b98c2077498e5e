//! A job that starts again: 10,000 connections within one second of the clock.

use anyhow::{Result, ensure};
use fw_common::abi::Reason;
use fw_tests::packet::Packet;
use fw_user::dataplane::Options;

use crate::rig::{From, Rig, Sender, counted, packets, turn};

/// A known zone, and protection as it is by default.
const JOB: &str = r#"
version: 1
zones:
  gpu:    [10.1.0.0/16]
  server: [10.2.0.0/16]
rules:
  - { name: job, allow: [tcp/7000], from: gpu, to: server }
"#;

const CONNECTIONS: u32 = 10_000;

/// SYN, answer, acknowledgement of one connection.
fn handshake(number: u32, sources: u32) -> [(From, Vec<u8>); 3] {
    let (source, port) = (number % sources, number / sources);
    let [.., high, low] = (source + 1).to_be_bytes();
    let segment = Packet::tcp(([10, 1, high, low], 20_000 + port as u16), ([10, 2, 0, 1], 7000));
    [
        (From::Outer, segment.clone().flags("S").numbers(1000, 0).build()),
        (
            From::Inner,
            segment.clone().reversed().flags("SA").numbers(5000, 1001).build(),
        ),
        (From::Outer, segment.flags("A").numbers(1001, 5001).build()),
    ]
}

/// Opens them all; `open_at_once` handshakes are under way at any time.
fn restart(sources: u32, open_at_once: u32) -> Result<()> {
    let _turn = turn();
    let options = Options {
        clock_override: true,
        ..Options::default()
    };
    let rig = Rig::new(options, JOB)?;
    let tables = rig.plane.tables();
    let start = 1_u64 << 50;
    tables.beat(start);
    let handshakes: Vec<_> = (0..CONNECTIONS)
        .map(|number| handshake(number, sources))
        .collect();
    let send = |sender: &Sender<'_>| -> Result<()> {
        for (number, waiting) in handshakes.chunks(open_at_once as usize).enumerate() {
            let begun = number as u64 * u64::from(open_at_once);
            tables.set_clock(start + begun * 1_000_000_000 / u64::from(CONNECTIONS));
            for step in 0..3 {
                for handshake in waiting {
                    let (from, frame) = &handshake[step];
                    ensure!(
                        sender.forwarded(*from, frame)?,
                        "step {step} of a handshake is lost: {:?}",
                        counted(&rig.plane)?
                    );
                }
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
        tables.levels().used[0] == opened,
        "{} connections are in the main table",
        tables.levels().used[0]
    );
    Ok(())
}

#[test]
fn a_job_of_250_nodes_starts_again() -> Result<()> {
    restart(250, CONNECTIONS)
}

#[test]
fn a_job_of_8_nodes_starts_again() -> Result<()> {
    restart(8, CONNECTIONS)
}

/// 8,000 of its handshakes at a time: the cap of one source is above that.
#[test]
fn a_job_on_one_node_starts_again() -> Result<()> {
    restart(1, 8000)
}
