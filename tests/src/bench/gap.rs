//! Part of the table `policy`: the longest time without a packet in a steady stream while policies are exchanged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use fw_common::abi::Reason;
use fw_policy::Policy;
use fw_user::dataplane::FlowSizes;

use super::Settings;
use super::floor::{Counter, Floor, Program};
use super::frames::{self, Traffic};
use super::plane::{Plane, Swaps};
use super::report::{Row, Target};
use super::stand::{Outside, Wires, bind, rounded};
use super::turns::{Contender, Fate, Judge, Line};

/// Rules of the policies, and their zones.
const RULES: u32 = 10_000;
const ZONES: u32 = 100;
/// Flows of the stream.
const FLOWS: u32 = 1000;
/// Policies exchanged in a slice, and its length at least.
const SWAPS: usize = 4;
const SLICE: Duration = Duration::from_millis(500);
/// The longest gap, ms.
const LIMIT_MS: f64 = 1.0;
/// Packets per second before the rate is known.
const GUESS: f64 = 500_000.0;
/// One of how many packets may be lost between firewall and sink.
const LOSS: u64 = 100;
/// The case's name.
pub(super) const NAME: &str = "longest gap between two forwarded packets, swaps of 10,000 rules";

/// Streams with and without swaps take turns.
pub(super) fn measure(settings: &Settings) -> Result<Vec<Row>> {
    let wires = Wires::new()?;
    let frames = (0..FLOWS)
        .map(|flow| Traffic::Udp4.frame(flow))
        .collect::<Result<Vec<_>>>()?;
    let mut source = Floor::load(wires.pair.inner, &frames, &FlowSizes::DEFAULT)?;
    source.divide(FLOWS, 1)?;
    let mut sink = Floor::load(wires.pair.inner, &frames[..1], &FlowSizes::DEFAULT)?;
    let text = frames::denying(RULES, ZONES);
    let (policy, _) = fw_policy::check(&text, "bench.yaml").map_err(|findings| anyhow!("{findings}"))?;
    let mut plane = wires.in_firewall(|| {
        let plane = Plane::of(wires.pair, FlowSizes::DEFAULT, &policy)?;
        plane.prime(Traffic::Udp4, FLOWS)?;
        Ok(plane)
    })?;
    let before = plane.by_reason()?;
    let mut seen = Seen {
        rate: GUESS,
        ..Seen::default()
    };
    for round in 0..=settings.rounds {
        for swapping in [false, true] {
            let gap = stream(
                &wires, &source, &mut sink, &mut plane, &policy, swapping, settings, &mut seen,
            )?;
            if round > 0 {
                seen.gaps[usize::from(swapping)].push(gap);
            }
        }
    }
    eprintln!("   bench  policy: {NAME}: {} rounds", settings.rounds);
    super::established::only(&before, &plane, Reason::Established)?;
    Ok(seen.rows())
}

/// What was seen: gaps without and with swaps, ms; swaps in all; the rate of the last stream.
#[derive(Default)]
struct Seen {
    gaps: [Vec<f64>; 2],
    swaps: usize,
    rate: f64,
}

/// One stream; its longest gap, ms.
#[expect(clippy::too_many_arguments, reason = "what is set up once for all streams")]
fn stream(
    wires: &Wires,
    source: &Floor,
    sink: &mut Floor,
    plane: &mut Plane,
    policy: &Policy,
    swapping: bool,
    settings: &Settings,
    seen: &mut Seen,
) -> Result<f64> {
    let length = settings.slice.max(SLICE);
    let tables = plane.tables();
    let count = if swapping { SWAPS } else { 0 };
    let mut swaps = Swaps::of(Arc::clone(&tables), policy, count)?;
    sink.longest_gap()?;
    let arrived = |sink: &Floor| -> Result<u64> { Ok(sink.count(Counter::Sink)?.iter().sum()) };
    let before = arrived(sink)?;
    let packets = rounded(seen.rate * length.as_secs_f64());
    let (spent, done) = {
        let line = Line::ending(wires, sink, Fate::Forwarded, Program::Gap)?;
        Contender::new("dpufw", Judge::Dpufw(plane), &line).stand()?;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let swapping = scope.spawn(|| exchange(&mut swaps, count, length, &over));
            let begun = Instant::now();
            let sent = wires.send(source, Outside::Generator, packets);
            let spent = begun.elapsed();
            over.store(true, Ordering::Relaxed);
            let done = swapping
                .join()
                .map_err(|_| anyhow!("the exchanging thread panicked"))??;
            sent.map(|()| (spent, done))
        })?
    };
    let got = arrived(sink)? - before;
    ensure!(
        got <= u64::from(packets) && (u64::from(packets) - got) * LOSS <= u64::from(packets),
        "{got} of {packets} packets arrived{}",
        if swapping {
            " while policies were exchanged"
        } else {
            ""
        }
    );
    ensure!(
        !swapping || done > 0,
        "the stream was over before a policy was exchanged"
    );
    seen.swaps += done;
    seen.rate = f64::from(packets) / spent.as_secs_f64();
    let gap = u32::try_from(sink.longest_gap()?).context("a gap of more than four seconds")?;
    Ok(f64::from(gap) / 1e6)
}

/// Puts policies into force on the second CPU, spread over the stream, until it is over; how many.
fn exchange(swaps: &mut Swaps, count: usize, length: Duration, over: &AtomicBool) -> Result<usize> {
    bind(1)?;
    let mut done = 0;
    for _ in 0..count {
        std::thread::sleep(length / (SWAPS as u32 + 1));
        if over.load(Ordering::Relaxed) {
            break;
        }
        done += usize::from(swaps.apply_next()?);
    }
    Ok(done)
}

impl Seen {
    #[expect(clippy::cast_precision_loss, reason = "a number of policies")]
    fn rows(&self) -> Vec<Row> {
        let [without, with] = &self.gaps;
        let longest = |gaps: &[f64]| gaps.iter().copied().fold(0.0, f64::max);
        let limit = vec![LIMIT_MS; with.len()];
        let more = |row: Row| {
            row.with("longest of all rounds, ms", longest(with))
                .with("longest of all rounds without swaps, ms", longest(without))
                .with("policies exchanged", self.swaps as f64)
        };
        vec![
            more(Row::paired("policy", NAME, "limit", "ms", with, &limit).wanted(Target::at_most(1.0))),
            more(Row::paired(
                "policy",
                NAME,
                "the same stream without swaps",
                "ms",
                with,
                without,
            )),
        ]
    }
}
