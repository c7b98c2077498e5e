//! A bulk transfer, with its counters.

use std::ops::ControlFlow;

use anyhow::{Result, ensure};
use fw_common::abi::{Flow, Proto};
use fw_user::dataplane::{FlowKey, FlowTable};

use crate::clients::wait_listening;
use crate::guarded::{Guarded, SOON};

/// 20 MB in each direction: what iperf3 says it has transferred must be in the flows' counters, super-packets
/// counted by their segments.
pub fn iperf3(guarded: &Guarded, ipv6: bool) -> Result<()> {
    const AMOUNT: &str = "20M";
    // iperf3 stops counting when the sender is done: what is on its way then is missing from the receiver's sum.
    const LEAST: u64 = 5_000_000;
    let address = guarded.server(ipv6).to_string();
    for reverse in [false, true] {
        let before = transferred(guarded)?;
        let server = guarded
            .scene
            .server
            .namespace
            .spawn(&["iperf3", "-s", "-1", "-B", &address])?;
        wait_listening(&guarded.scene.server, 5201)?;
        let mut command = vec!["iperf3", "-c", &address, "-n", AMOUNT, "-J"];
        if reverse {
            command.push("-R");
        }
        let report = guarded.scene.client.namespace.check(&command, SOON)?;
        drop(server.stop());
        let received = bytes_received(&report)?;
        ensure!(received > LEAST, "only {received} bytes arrived");
        let after = transferred(guarded)?;
        let way = usize::from(reverse);
        let (bytes, packets) = (after[way].0 - before[way].0, after[way].1 - before[way].1);
        ensure!(
            bytes >= received,
            "iperf3 received {received} bytes, the flows counted {bytes}"
        );
        // MTU 1500: no wire packet holds more than 1448 bytes of payload; acknowledgements come on top.
        let least = received / 1448;
        ensure!(
            packets >= least,
            "{received} bytes are at least {least} packets, the flows counted {packets}"
        );
    }
    Ok(())
}

/// `end.sum_received.bytes` of iperf3's report.
fn bytes_received(report: &str) -> Result<u64> {
    let sum = report
        .rsplit_once("\"sum_received\"")
        .map_or("", |(_, rest)| rest);
    let bytes = sum.split_once("\"bytes\":").map_or("", |(_, rest)| rest);
    let digits: String = bytes
        .trim_start()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    Ok(digits.parse()?)
}

/// (bytes, packets) of all flows to iperf3's port, sent by the opener and by the other side.
fn transferred(guarded: &Guarded) -> Result<[(u64, u64); 2]> {
    let mut sums = [(0, 0); 2];
    for table in [FlowTable::Main, FlowTable::HalfOpen] {
        guarded
            .plane()
            .tables()
            .for_each_flow(table, |key, flow: &Flow| {
                if is_iperf3(&key) {
                    for (sum, half) in sums.iter_mut().zip(&flow.half) {
                        sum.0 += half.bytes;
                        sum.1 += half.packets;
                    }
                }
                ControlFlow::Continue(())
            })?;
    }
    Ok(sums)
}

fn is_iperf3(key: &FlowKey) -> bool {
    let (proto, ports) = match key {
        FlowKey::V4(key) => (key.proto, [key.lo_port, key.hi_port]),
        FlowKey::V6(key) => (key.proto, [key.lo_port, key.hi_port]),
    };
    proto == Proto::TCP && ports.contains(&5201)
}
