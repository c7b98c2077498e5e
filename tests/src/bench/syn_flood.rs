//! The table `syn-flood`: what is left for flows that are established while SYNs from sources that do not exist come to an
//! open port: the flows on the first CPU, the flood on the second; and whether new connections come about meanwhile.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use fastrand::Rng;
use fw_common::abi::Reason;
use fw_user::dataplane::{FlowSizes, coarse_now};

use super::floor::{Counter, Floor, Program};
use super::frames::{self, Frame, SERVICE, Traffic, framed};
use super::latency::mark;
use super::new_flows::BATCH;
use super::plane::Plane;
use super::report::{Row, Target};
use super::stand::{Wires, mac, rounded};
use super::stats::Summary;
use super::turns::{Contender, Fate, Judge, Line};
use super::{Settings, Table};
use crate::packet::Packet;

/// Flows that are established.
const FLOWS: u32 = 1000;
/// SYNs of the flood, each from a source of its own; packets in one call of its generator.
const SYNS: usize = 1 << 18;
const CALL: u32 = 200_000;
/// The flood's destination.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 250, 0, 80);
/// Answers per CPU and 67 ms, as the agent has it; 256 times as many demands for proof.
const REPLIES: u32 = 64;
/// Packets per second before the rate is known.
const GUESS: f64 = 500_000.0;
/// How long the flood's generator takes to begin, and the longest time that the last packets take.
const BEGIN: Duration = Duration::from_millis(40);
const SETTLE: Duration = Duration::from_millis(5);
/// Goodput with the flood beside that without.
const OF_QUIET: Target = Target::at_least(0.95);
const NAME: &str = "1,000 established flows";
/// New connections during the flood, each from a source of its own, and how many at once; less than [`Floor`] remembers.
const NEWCOMERS: u32 = 4096;
const AT_ONCE: u32 = 256;
/// SYNs of a connection that does not come about: a client that was asked for a proof sends again after two ticks.
const TRIES: u32 = 3;
const AGAIN_AFTER: Duration = Duration::from_millis(20);
const SUCCESS: Target = Target::at_least(0.99);

/// A contender's goodput without and with the flood by round, packets per second, and what became of the packets.
#[derive(Default)]
struct Seen {
    goodput: [Vec<f64>; 2],
    last: [Option<f64>; 2],
    sent: [u64; 2],
    lost: [u64; 2],
    flood: Vec<f64>,
}

/// The table.
///
/// # Errors
/// If something cannot be set up, or packets went another way than meant.
pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    if !settings.wants(NAME) {
        return Ok(Vec::new());
    }
    let wires = Wires::new()?;
    let known = (0..FLOWS)
        .map(|flow| Ok(mark(Traffic::Tcp4.frame(flow)?)))
        .collect::<Result<Vec<_>>>()?;
    let mut flows = Floor::load(wires.pair.inner, &known, &FlowSizes::DEFAULT)?;
    flows.divide(FLOWS, 1)?;
    let syns = syns(|_random| (SERVER.into(), 80))?;
    let mut flood = Floor::load(wires.pair.inner, &syns, &FlowSizes::DEFAULT)?;
    flood.share(syns.len() as u32)?;
    let policy = format!(
        "{}  - {{ name: web, allow: [tcp/80, tcp/{SERVICE}], from: any, to: b }}\n",
        frames::allowing()
    );
    let mut plane = wires.in_firewall(|| {
        let plane = Plane::open(wires.pair, FlowSizes::DEFAULT, &policy)?;
        plane.prime(Traffic::Tcp4, FLOWS)?;
        Ok(plane)
    })?;
    let tables = plane.tables();
    tables.set_replies_per_window(REPLIES);
    let before = plane.by_reason()?;
    let line = Line::ending(&wires, &flows, Fate::Forwarded, Program::Clock)?;
    let mut contenders = [
        Contender::new("dpufw", Judge::Dpufw(&mut plane), &line),
        Contender::new(Fate::Forwarded.floor(), Judge::Bare, &line),
    ];
    let mut seen = [Seen::default(), Seen::default()];
    for round in 0..=settings.rounds {
        for (contender, seen) in contenders.iter_mut().zip(&mut seen) {
            contender.stand()?;
            for flooding in [false, true] {
                // As the agent does: without a sign of life protection rests.
                tables.beat(coarse_now());
                turn(
                    &wires,
                    contender,
                    flooding.then_some(&flood),
                    settings,
                    round,
                    seen,
                )
                .with_context(|| format!("syn-flood: {}", contender.name))?;
                if let Judge::Dpufw(plane) = &mut contender.judge {
                    plane.drain();
                }
            }
        }
    }
    eprintln!("   bench  syn-flood: {} rounds", settings.rounds);
    drop(contenders);
    drop(line);
    let grown = fates(&plane, &before)?;
    let mut rows = rows(&seen, &grown);
    rows.push(newcomers(&wires, &mut plane, flood)?);
    Ok(rows)
}

/// Opens connections on the first CPU while the flood goes on on the second.
#[expect(clippy::cast_precision_loss, reason = "numbers of packets")]
fn newcomers(wires: &Wires, plane: &mut Plane, mut flood: Floor) -> Result<Row> {
    // To the servers of the new connections, each at the same rate: the flood of all destinations together.
    flood.reload(&syns(|random| Traffic::Tcp4.ends(random.u32(..1 << 16)).1)?)?;
    let [syn, ..] = Traffic::Tcp4.opening(0);
    let mut clients = Floor::load(wires.pair.inner, &[framed(&syn)?], &FlowSizes::DEFAULT)?;
    let _ends = wires.ends(&clients, [Program::Server, Program::Client])?;
    let _ports = wires.ports(plane.program())?;
    let (stop, before) = (AtomicBool::new(false), plane.by_reason()?);
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| wires.flood(&flood, 1, CALL, &stop));
        std::thread::sleep(BEGIN);
        let opened = (0..NEWCOMERS / AT_ONCE).try_for_each(|group| -> Result<()> {
            for _ in 0..TRIES {
                clients.begin_at(group * AT_ONCE)?;
                plane.tables().beat(coarse_now());
                wires.open(&clients, AT_ONCE, BATCH)?;
                plane.drain();
                std::thread::sleep(AGAIN_AFTER);
            }
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        flooding.join().map_err(|_| anyhow!("the flood panicked"))??;
        opened
    })
    .context("syn-flood: new connections")?;
    let finished: u64 = clients.count(Counter::Done)?.iter().sum();
    let grown = plane.since(&before)?;
    let of = |reason: Reason| grown.get(reason.name()).copied().unwrap_or(0) as f64;
    ensure!(
        of(Reason::SynProved) > 0.0,
        "nobody was asked for a proof: {grown:?}"
    );
    let row = Row::new(
        Table::SynFlood.name(),
        "new connections that came about during the flood",
        "connections tried",
        "connections",
        [finished as f64, f64::from(NEWCOMERS)],
    );
    Ok(row.wanted(SUCCESS).with("proofs", of(Reason::SynProved)).with(
        "SYNs of the flood",
        of(Reason::SynProof) + of(Reason::SynProofOver),
    ))
}

/// SYNs of random sources in no zone to these servers.
fn syns(to: impl Fn(&mut Rng) -> (IpAddr, u16)) -> Result<Vec<Frame>> {
    let mut random = Rng::with_seed(0x000f_100d);
    (0..SYNS)
        .map(|_| {
            let from = Ipv4Addr::from_bits(random.u32(0x2000_0000..0x7f00_0000));
            let syn = Packet::tcp((from, random.u16(1024..)), to(&mut random))
                .flags("S")
                .numbers(random.u32(..), 0);
            framed(&syn.macs(mac(1), mac(2)))
        })
        .collect()
}

/// Packets of the flood that a contender has judged so far.
fn judged(contender: &Contender<'_>) -> Result<u64> {
    if let Judge::Dpufw(plane) = &contender.judge {
        let reasons = plane.by_reason()?.into_iter();
        return Ok(reasons
            .filter(|(name, _)| *name != Reason::Established.name())
            .map(|(_, packets)| packets)
            .sum());
    }
    // All others come to the sink.
    let count = |counter| -> Result<u64> { Ok(contender.source.count(counter)?.iter().sum()) };
    Ok(count(Counter::Sink)? - count(Counter::Marked)?)
}

/// The flows' packets for a while, with or without the flood.
fn turn(
    wires: &Wires,
    contender: &Contender<'_>,
    flood: Option<&Floor>,
    settings: &Settings,
    round: usize,
    seen: &mut Seen,
) -> Result<()> {
    let which = usize::from(flood.is_some());
    let packets = rounded(seen.last[which].unwrap_or(GUESS) * settings.slice.as_secs_f64());
    let flows = contender.source;
    let arrived = || flows.count(Counter::Marked);
    let stop = AtomicBool::new(false);
    let (before, flood_before) = (arrived()?.iter().sum::<u64>(), judged(contender)?);
    let begun = Instant::now();
    let rate = std::thread::scope(|scope| {
        let stop = &stop;
        let flooding = flood.map(|flood| scope.spawn(move || wires.flood(flood, 1, CALL, stop)));
        if flooding.is_some() {
            std::thread::sleep(BEGIN);
        }
        let rate = wires.blast(flows, 1, packets, arrived);
        stop.store(true, Ordering::Relaxed);
        if let Some(flooding) = flooding {
            flooding.join().map_err(|_| anyhow!("the flood panicked"))??;
        }
        rate
    })?;
    std::thread::sleep(SETTLE);
    let elapsed = begun.elapsed().as_secs_f64();
    let got = arrived()?.iter().sum::<u64>() - before;
    ensure!(
        got > 0 && got <= u64::from(packets),
        "{got} of {packets} packets arrived"
    );
    // Too short to be watched: the next one is longer.
    let rate = rate.filter(|rate| *rate > 0.0);
    seen.last[which] = Some(rate.unwrap_or(2.0 * f64::from(packets) / settings.slice.as_secs_f64()));
    if round == 0 {
        return Ok(());
    }
    seen.goodput[which].push(rate.context("the stream was too short to be watched: make the slices longer")?);
    seen.sent[which] += u64::from(packets);
    seen.lost[which] += u64::from(packets) - got;
    if which == 1 {
        let flood = u32::try_from(judged(contender)? - flood_before)
            .context("more packets than there is time for")?;
        seen.flood.push(f64::from(flood) / elapsed);
    }
    Ok(())
}

/// What became of the flood, by reason; the flows' packets must all be of their flows.
fn fates(plane: &Plane, before: &[(&'static str, u64)]) -> Result<BTreeMap<&'static str, u64>> {
    let meant = [
        Reason::Established,
        Reason::Rule,
        Reason::SynProof,
        Reason::SynProofOver,
        Reason::TableFull,
        Reason::CapHalfOpen,
    ]
    .map(Reason::name);
    let grown = plane.since(before)?;
    ensure!(
        grown.keys().all(|name| meant.contains(name)),
        "packets went another way than meant: {grown:?}"
    );
    ensure!(
        grown.contains_key(Reason::SynProof.name()) || grown.contains_key(Reason::SynProofOver.name()),
        "the flood was none: {grown:?}"
    );
    Ok(grown)
}

#[expect(clippy::cast_precision_loss, reason = "numbers of packets")]
fn rows([own, bare]: &[Seen; 2], grown: &BTreeMap<&'static str, u64>) -> Vec<Row> {
    let table = Table::SynFlood.name();
    let mpps = |rates: &[f64]| rates.iter().map(|rate| rate / 1e6).collect::<Vec<_>>();
    let goodput = |seen: &Seen, who: &str, peer: &str| {
        let [quiet, flooded] = &seen.goodput;
        let case = format!("{NAME} of {who} during the flood");
        Row::paired(table, &case, peer, "Mpps", &mpps(flooded), &mpps(quiet))
            .with("flood, Mpps", Summary::of(mpps(&seen.flood)).median)
            .with("lost, of 1", seen.lost[1] as f64 / seen.sent[1] as f64)
            .with(
                "lost without the flood, of 1",
                seen.lost[0] as f64 / seen.sent[0] as f64,
            )
    };
    let of_flood: u64 = grown
        .iter()
        .filter(|(name, _)| **name != Reason::Established.name())
        .map(|(_, packets)| packets)
        .sum();
    let ours = goodput(own, "dpufw", "the same without the flood").wanted(OF_QUIET);
    let ours = grown
        .iter()
        .fold(ours, |row, (name, packets)| {
            row.with(&format!("packets {name}"), *packets as f64)
        })
        .with("SYNs judged, all rounds", of_flood as f64);
    let lost = Row::new(
        table,
        "packets of established flows that the flood cost",
        "packets sent",
        "packets",
        [own.lost[1] as f64, own.sent[1] as f64],
    )
    .wanted(Target::at_most(0.0))
    .with("without the flood", own.lost[0] as f64);
    let machine = goodput(bare, "the bare redirect", "the same without the flood");
    vec![ours, lost, machine]
}

/// The port of the established flows is another one than the flood's.
const _: () = assert!(SERVICE != 80);
