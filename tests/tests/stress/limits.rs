//! Rate limits while both CPUs draw from one bucket as fast as they can, on the kernel's real clock.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fw_common::abi::Reason;
use fw_tests::packet::Packet;
use fw_user::dataplane::Options;

use crate::rig::{From, Rig, Sender, packets, turn, urgent};

/// How far a rate may be missed.
const WITHIN: f64 = 0.02;
/// Measurements. Demand must not pause for longer than the burst lasts; the kernel takes a CPU for other things now and
/// then, so a rate is measured some times and must be reached once. It must not be exceeded in any.
const SLICES: u32 = 12;
/// Between two measurements the rest of the machine gets what the scheduler owes it (50 ms of each second, which it would
/// else take in the middle of one). The bucket gains a burst meanwhile, which is less than a tenth of what is allowed.
const REST: Duration = Duration::from_millis(150);
/// Packets of one call at least: what happens between two calls is a pause.
const CALL: Duration = Duration::from_millis(2);

fn policy(kind: &str, rate: &str, burst: &str) -> String {
    format!(
        "version: 1\n\
         zones:\n  a: [10.1.0.0/16]\n  b: [10.2.0.0/16]\n\
         rules:\n  - {{ name: metered, allow: [udp/7000], from: a, to: b, limit: [{{ {kind}: {rate}, burst: {burst}, per: rule }}] }}\n\
         protect: {{ caps: {{ half_open: none, flows: none }}, udp_flood: {{ above: 100000/s, per: destination, mode: skip }} }}\n"
    )
}

/// Both ends of flow number `flow`.
fn datagram(flow: u32) -> Packet {
    let [a, b, c, _] = flow.to_be_bytes();
    let port = 1024 + (flow & 0xff) as u16;
    Packet::udp(([10, 1, b ^ a, c], port), ([10, 2, 0, 1], 7000)).payload(&[0; 22])
}

/// Sends on both CPUs for a slice; returns (units that passed, seconds).
fn slice<F>(rig: &Rig, length: Duration, passed: impl Fn(&Rig) -> Result<u64>, send: F) -> Result<(u64, f64)>
where
    F: Fn(&Sender<'_>, u32, Instant) -> Result<()> + Sync,
{
    let before = passed(rig)?;
    let both = Barrier::new(2);
    let one = |sender: &Sender<'_>, cpu| {
        urgent()?;
        both.wait();
        let begun = Instant::now();
        send(sender, cpu, begun + length)?;
        Ok((begun, Instant::now()))
    };
    let (a, b) = rig.on_both(|sender| one(sender, 0), |sender| one(sender, 1))?;
    let taken = a.1.max(b.1) - a.0.min(b.0);
    Ok((passed(rig)? - before, taken.as_secs_f64()))
}

/// What was measured, as shares of the configured rate. The bucket is all but empty when a measurement begins: another one
/// went before.
fn judge(name: &str, rate: f64, burst: f64, mut measure: impl FnMut() -> Result<(u64, f64)>) -> Result<()> {
    let mut shares = Vec::new();
    measure()?;
    for _ in 0..SLICES {
        std::thread::sleep(REST);
        let (units, seconds) = measure()?;
        let units = units as f64;
        ensure!(
            units <= rate * seconds + burst + 1.0,
            "{name}: {units} units passed in {seconds:.4} s"
        );
        shares.push(units / (rate * seconds));
        if shares.len() >= 2 && reached(&shares) {
            break;
        }
    }
    println!("{name}: shares of the rate: {shares:.4?}");
    ensure!(
        reached(&shares),
        "{name}: no measurement comes within 2 % of the rate: {shares:.4?}"
    );
    Ok(())
}

fn reached(shares: &[f64]) -> bool {
    shares.iter().any(|share| (share - 1.0).abs() <= WITHIN)
}

/// At 100 a second one unit is 1 % of a second. The kernel gives ordinary threads 50 ms of each second.
fn length(per_second: u32) -> Duration {
    Duration::from_millis(if per_second < 1000 { 920 } else { 400 })
}

/// Sends frames of one flow for each CPU as fast as the program runs, in calls of some milliseconds.
fn repeat(sender: &Sender<'_>, frame: &[u8], end: Instant) -> Result<()> {
    let mut times = 1000;
    while Instant::now() < end {
        let begun = Instant::now();
        sender.send(From::Outer, frame, times)?;
        // As many as fill a call; the last one may overrun the slice, which is measured with it.
        let taken = begun.elapsed().as_secs_f64().max(1e-6);
        times = (f64::from(times) * CALL.as_secs_f64() / taken).clamp(100.0, 1e6) as u32;
    }
    Ok(())
}

/// Packets or bytes of the flow that two CPUs send.
fn passed(rig: &Rig, bytes: bool) -> Result<u64> {
    let counters = rig.plane.tables().counters()?;
    let allowed = [Reason::Established as u8, Reason::Rule as u8];
    let counts = counters.iter().filter(|(number, _)| allowed.contains(number));
    Ok(counts
        .map(|(_, count)| if bytes { count.bytes } else { count.packets })
        .sum())
}

/// Packets of two running flows, one on each CPU, against one bucket.
fn packet_rate(per_second: u32, burst: u32) -> Result<()> {
    let policy = policy("packets", &format!("{per_second}/s"), &burst.to_string());
    let rig = Rig::new(Options::default(), &policy)?;
    let frames = [datagram(0).build(), datagram(1).build()];
    judge(
        &format!("{per_second} packets a second, burst {burst}"),
        per_second.into(),
        burst.into(),
        || {
            slice(
                &rig,
                length(per_second),
                |rig| passed(rig, false),
                |sender, cpu, end| repeat(sender, &frames[cpu as usize], end),
            )
        },
    )?;
    let over = packets(&rig.plane, Reason::LimitPackets)?;
    ensure!(over > 0, "no packet was over the limit");
    Ok(())
}

#[test]
fn packets_100_a_second() -> Result<()> {
    let _turn = turn();
    packet_rate(100, 1)
}

#[test]
fn packets_10_000_a_second() -> Result<()> {
    let _turn = turn();
    packet_rate(10_000, 1)
}

/// The burst is what the rate allows in 10 microseconds, the least that must be enough.
#[test]
fn packets_1_000_000_a_second() -> Result<()> {
    let _turn = turn();
    packet_rate(1_000_000, 10)
}

/// 64 MB a second in frames of 64 bytes are 1,000,000 a second.
#[test]
fn bytes_64_000_000_a_second() -> Result<()> {
    const RATE: f64 = 64e6;
    const BURST: f64 = 9000.0;
    let _turn = turn();
    let rig = Rig::new(Options::default(), &policy("bytes", "64 MB/s", "9000 B"))?;
    let frames = [datagram(0).build(), datagram(1).build()];
    judge("64 MB a second, burst 9,000", RATE, BURST, || {
        slice(
            &rig,
            length(1_000_000),
            |rig| passed(rig, true),
            |sender, cpu, end| repeat(sender, &frames[cpu as usize], end),
        )
    })?;
    ensure!(
        packets(&rig.plane, Reason::LimitBytes)? > 0,
        "no packet was over the limit"
    );
    Ok(())
}

/// Every packet would open a flow of its own.
fn flow_rate(per_second: u32, burst: u32) -> Result<()> {
    let policy = policy("new_flows", &format!("{per_second}/s"), &burst.to_string());
    let rig = Rig::new(Options::default(), &policy)?;
    let next = AtomicU32::new(0);
    judge(
        &format!("{per_second} new flows a second, burst {burst}"),
        per_second.into(),
        burst.into(),
        || {
            slice(
                &rig,
                length(per_second),
                |rig| packets(&rig.plane, Reason::Rule),
                |sender, _, end| {
                    let mut frame = datagram(0).build();
                    while Instant::now() < end {
                        number(&mut frame, next.fetch_add(1, Ordering::Relaxed));
                        sender.send(From::Outer, &frame, 1)?;
                    }
                    Ok(())
                },
            )
        },
    )?;
    let over = packets(&rig.plane, Reason::LimitNewFlows)?;
    ensure!(over > 0, "no flow was over the limit");
    Ok(())
}

/// Makes a frame one of another flow: the low half of its source address, and its source port. No checksum is judged.
fn number(frame: &mut [u8], flow: u32) {
    frame[28..30].copy_from_slice(&(flow as u16).to_be_bytes());
    frame[34..36].copy_from_slice(&(1024 + (flow >> 16) as u16).to_be_bytes());
}

#[test]
fn new_flows_100_a_second() -> Result<()> {
    let _turn = turn();
    flow_rate(100, 1)
}

#[test]
fn new_flows_10_000_a_second() -> Result<()> {
    let _turn = turn();
    flow_rate(10_000, 1)
}
