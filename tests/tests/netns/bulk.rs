//! A bulk transfer, with its counters.

use anyhow::{Result, ensure};
use fw_common::abi::Proto;
use fw_tests::lab::Hop;

use crate::clients::wait_listening;
use crate::guarded::{Guarded, SOON};

/// 20 MB in each direction: what iperf3 says it has transferred must be in the flows' counters, super-packets
/// counted by their segments. The sender does send super-packets, and a hop makes wire-sized frames of them.
pub fn iperf3(guarded: &Guarded, ipv6: bool) -> Result<()> {
    const AMOUNT: &str = "20M";
    // iperf3 stops counting when the sender is done: what is on its way then is missing from the receiver's sum.
    const LEAST: u64 = 5_000_000;
    let (address, longest) = (guarded.server(ipv6).to_string(), guarded.longest_frame());
    for reverse in [false, true] {
        let before = transferred(guarded)?;
        let (scene, way) = (&guarded.scene, usize::from(reverse));
        let sender = [&scene.client, &scene.server][way];
        let hop = [&scene.client_hop, &scene.server_hop][way].as_ref();
        let sent = sender.namespace.sent("eth0")?;
        let cut = hop.map(|hop| hop.namespace.sent(Hop::WIRE)).transpose()?;
        let server = scene
            .server
            .namespace
            .spawn(&["iperf3", "-s", "-1", "-B", &address])?;
        wait_listening(&scene.server, 5201)?;
        let mut command = vec!["iperf3", "-c", &address, "-n", AMOUNT, "-J"];
        if reverse {
            command.push("-R");
        }
        let report = scene.client.namespace.check(&command, SOON)?;
        drop(server.stop());
        let received = bytes_received(&report)?;
        ensure!(received > LEAST, "only {received} bytes arrived");
        let after = transferred(guarded)?;
        let (bytes, packets) = (after[way].0 - before[way].0, after[way].1 - before[way].1);
        ensure!(
            bytes >= received,
            "iperf3 received {received} bytes, the flows counted {bytes}"
        );
        // No wire packet holds more payload than this; acknowledgements come on top.
        let least = received / (longest - 66);
        ensure!(
            packets >= least,
            "{received} bytes are at least {least} packets, the flows counted {packets}"
        );
        let mean = sender.namespace.sent("eth0")?.mean_since(sent);
        ensure!(
            mean > longest,
            "{} sends packets of {mean} bytes in the mean: no super-packets",
            sender.namespace.name()
        );
        if let (Some(hop), Some(cut)) = (hop, cut) {
            let mean = hop.namespace.sent(Hop::WIRE)?.mean_since(cut);
            ensure!(
                mean > 0 && mean <= longest,
                "{} sends frames of {mean} bytes in the mean",
                hop.namespace.name()
            );
        }
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
    for (_, flow) in guarded.flows(Proto::TCP, 5201)? {
        for (way, sum) in sums.iter_mut().enumerate() {
            sum.0 += flow.bytes(way);
            sum.1 += flow.packets(way);
        }
    }
    Ok(sums)
}
