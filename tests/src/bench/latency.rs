//! The table `latency`: how long a small packet of a known flow is on its way through the firewall.
//!
//! A probe writes the time of sending behind the packet's end, the sink's program reads it there: both clocks are the
//! kernel's monotonic one. A probe is sent alone, some thousand a second, on the first CPU; what disturbs it runs on the second.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use fw_common::abi::Reason;
use fw_user::dataplane::FlowSizes;
use nix::time::{ClockId, clock_gettime};

use super::floor::{Counter, Floor, Program};
use super::frames::{self, FRAME_BYTES, Frame, Traffic};
use super::plane::{Plane, Swaps};
use super::report::{Row, Target};
use super::stand::{Wires, bind, pin};
use super::times::Times;
use super::turns::{Contender, Fate, Judge, Line};
use super::{Settings, Table};

/// Flows of the probes.
const FLOWS: u32 = 64;
/// Pause between two probes.
const PAUSE: Duration = Duration::from_micros(150);
/// Shortest slice: a shorter one has too few probes for its hundredth part.
const SLICE: Duration = Duration::from_millis(300);
/// Sources of the flood, and packets in one call of its generator.
const SOURCES: usize = 1000;
const CALL: u32 = 100_000;
/// Policies exchanged in a slice.
const SWAPS: usize = 6;
/// Mark and place of the time; see fw-ebpf/src/bin/floor/main.rs.
const MARK: [u8; 4] = 0x6470_7566_u32.to_be_bytes();
const MARK_AT: usize = FRAME_BYTES - 12;
const STAMP_AT: usize = FRAME_BYTES - 8;
/// One of how many probes may be lost.
const LOSS: u64 = 20;
/// What the bare redirect's time may grow by: the slowest hundredth, idle and under a flood.
const OF_BARE: Target = Target::at_most(1.5);
/// The quantiles in thousandths, with their names.
const QUANTILES: [(u64, &str); 3] = [(500, "p50"), (990, "p99"), (999, "p99.9")];

/// What else happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Idle,
    Flood,
    Swaps,
}

impl Load {
    const ALL: [Self; 3] = [Self::Idle, Self::Flood, Self::Swaps];

    const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Flood => "under a flood that is denied",
            Self::Swaps => "while policies are exchanged",
        }
    }
}

/// What the probes of a contender took under a load: quantiles by round, ns, and all rounds together.
#[derive(Default)]
struct Taken {
    rounds: [Vec<f64>; 3],
    all: Times,
    sent: u64,
    disturbed: u64,
}

/// The table.
///
/// # Errors
/// If something cannot be set up, or probes went another way than meant.
pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for load in Load::ALL {
        if settings.wants(load.name()) {
            rows.extend(under(load, settings)?);
        }
    }
    Ok(rows)
}

/// One load: dpufw, the bare redirect and the look-up, which drops the flood as dpufw does, take turns.
fn under(load: Load, settings: &Settings) -> Result<Vec<Row>> {
    let wires = Wires::new()?;
    let flood = frames::denied(SOURCES)?;
    let mut floor = Floor::load(wires.pair.inner, &flood, &FlowSizes::DEFAULT)?;
    floor.share(flood.len() as u32)?;
    let policy = frames::allowing();
    let mut plane = wires.in_firewall(|| {
        let plane = Plane::open(wires.pair, FlowSizes::DEFAULT, &policy)?;
        plane.prime(Traffic::Udp4, FLOWS)?;
        Ok(plane)
    })?;
    (0..FLOWS).try_for_each(|flow| floor.insert(&Traffic::Udp4.key(flow)))?;
    let (policy, _) = fw_policy::check(&policy, "bench.yaml").map_err(|findings| anyhow!("{findings}"))?;
    let tables = plane.tables();
    let before = plane.by_reason()?;
    let line = Line::ending(&wires, &floor, Fate::Forwarded, Program::Clock)?;
    let mut contenders = [
        Contender::new("dpufw", Judge::Dpufw(&mut plane), &line),
        Contender::new(Fate::Forwarded.floor(), Judge::Bare, &line),
        Contender::new("XDP redirect with parse and one look-up", Judge::Lookup, &line),
    ];
    let mut taken = [const { None }; 3].map(|_: Option<()>| Taken::default());
    for round in 0..=settings.rounds {
        for (contender, taken) in contenders.iter_mut().zip(&mut taken) {
            contender.stand()?;
            let swaps = match load {
                Load::Swaps => Some(Swaps::of(Arc::clone(&tables), &policy, SWAPS)?),
                Load::Idle | Load::Flood => None,
            };
            let one = slice(load, &wires, &floor, swaps, settings.slice.max(SLICE))
                .with_context(|| format!("latency, {}: {}", load.name(), contender.name))?;
            if let Judge::Dpufw(plane) = &mut contender.judge {
                plane.drain();
            }
            if round > 0 {
                taken.note(&one);
            }
        }
    }
    eprintln!("   bench  latency, {}: {} rounds", load.name(), settings.rounds);
    drop(contenders);
    went_through(&plane, &before)?;
    Ok(rows(load, &taken))
}

/// What a slice gave.
struct Slice {
    times: Times,
    sent: u64,
    disturbed: u64,
}

impl Taken {
    fn note(&mut self, slice: &Slice) {
        for ((thousandths, _), rounds) in QUANTILES.iter().zip(&mut self.rounds) {
            rounds.push(slice.times.quantile(*thousandths));
        }
        self.all.add(&slice.times);
        self.sent += slice.sent;
        self.disturbed += slice.disturbed;
    }
}

/// Sends probes for a while, with what disturbs them on the second CPU.
fn slice(load: Load, wires: &Wires, floor: &Floor, swaps: Option<Swaps>, length: Duration) -> Result<Slice> {
    let probes = (0..FLOWS)
        .map(|flow| Ok(mark(Traffic::Udp4.frame(flow)?)))
        .collect::<Result<Vec<_>>>()?;
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (stop, done) = (&stop, &done);
        let other = scope.spawn(move || match (load, swaps) {
            (Load::Flood, _) => wires.flood(floor, 1, CALL, stop),
            (_, Some(swaps)) => exchange(swaps, length / SWAPS as u32, stop, done),
            _ => Ok(()),
        });
        if load == Load::Flood {
            // The kernel waits for grace periods before it generates.
            std::thread::sleep(Duration::from_millis(30));
        }
        let reading = || -> Result<(Vec<u64>, u64)> {
            Ok((floor.times()?, floor.count(Counter::Marked)?.iter().sum()))
        };
        let first = reading()?;
        let sent = scope.spawn(|| send(wires, probes, length)).join();
        let sent = sent.map_err(|_| anyhow!("the probe's thread panicked"));
        std::thread::sleep(Duration::from_millis(2));
        let last = reading()?;
        stop.store(true, Ordering::Relaxed);
        other
            .join()
            .map_err(|_| anyhow!("the disturbing thread panicked"))??;
        let (sent, arrived) = (sent??, last.1 - first.1);
        ensure!(
            arrived <= sent && (sent - arrived) * LOSS <= sent,
            "{arrived} of {sent} probes arrived"
        );
        Ok(Slice {
            times: Times::between(&first.0, &last.0),
            sent,
            disturbed: done.load(Ordering::Relaxed),
        })
    })
}

/// Puts policies into force on the second CPU, one after each pause.
fn exchange(mut swaps: Swaps, pause: Duration, stop: &AtomicBool, done: &AtomicU64) -> Result<()> {
    bind(1)?;
    while !stop.load(Ordering::Relaxed) && swaps.apply_next()? {
        done.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(pause);
    }
    Ok(())
}

/// Gives a frame the mark of a probe that is counted, but not timed.
pub(super) fn mark(mut frame: Frame) -> Frame {
    frame[MARK_AT..STAMP_AT].copy_from_slice(&MARK);
    frame
}

/// Sends probes one by one on the first CPU; how many.
fn send(wires: &Wires, mut probes: Vec<Frame>, length: Duration) -> Result<u64> {
    let mut socket = wires.probe()?;
    pin(0)?;
    let end = Instant::now() + length;
    let (mut sent, all) = (0_u64, probes.len());
    while Instant::now() < end {
        std::thread::sleep(PAUSE);
        let probe = &mut probes[sent as usize % all];
        probe[STAMP_AT..].copy_from_slice(&monotonic()?.to_be_bytes());
        socket.write_all(probe).context("cannot send a probe")?;
        sent += 1;
    }
    Ok(sent)
}

/// Now on the clock of `bpf_ktime_get_ns`, ns.
fn monotonic() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("no monotonic clock")?;
    Ok(now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned())
}

/// All that passed belonged to a flow, and all that was dropped was the flood.
fn went_through(plane: &Plane, before: &[(&'static str, u64)]) -> Result<()> {
    let meant = [Reason::Established, Reason::DenyDefault].map(Reason::name);
    let grown = plane.since(before)?;
    ensure!(
        grown.keys().all(|reason| meant.contains(reason)),
        "packets went another way than meant: {grown:?}"
    );
    Ok(())
}

fn rows(load: Load, [own, bare, lookup]: &[Taken; 3]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (number, (thousandths, quantile)) in QUANTILES.into_iter().enumerate() {
        for (other, peer) in [
            (bare, Fate::Forwarded.floor()),
            (lookup, "XDP redirect with parse and one look-up"),
        ] {
            let us = |taken: &Taken| taken.rounds[number].iter().map(|ns| ns / 1e3).collect::<Vec<_>>();
            let target = (quantile == "p99" && load != Load::Swaps && peer == Fate::Forwarded.floor())
                .then_some(OF_BARE);
            let case = format!("{quantile}, {}", load.name());
            let row = Row::paired(Table::Latency.name(), &case, peer, "µs", &us(own), &us(other));
            #[expect(clippy::cast_precision_loss, reason = "numbers of probes")]
            let row = row
                .wanted(target)
                .with("of all rounds, µs", own.all.quantile(thousandths) / 1e3)
                .with("peer's of all rounds, µs", other.all.quantile(thousandths) / 1e3)
                .with("probes", own.sent as f64);
            #[expect(clippy::cast_precision_loss, reason = "a number of policies")]
            rows.push(if load == Load::Swaps {
                row.with("policies exchanged", own.disturbed as f64)
            } else {
                row
            });
        }
    }
    rows
}
