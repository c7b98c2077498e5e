//! The table `new-flows`: whole TCP connections, six packets each, from the client's SYN to the last acknowledgement, with
//! flows in the background and with ageing at work.
//!
//! Client and server are programs at the wires' ends that answer each packet with the next one, so nothing but the firewall
//! and the wires costs. A closed connection is forgotten after two seconds: nftables is told so, and dpufw's ageing, whose
//! time is an argument, is asked two minutes ahead of the clock, less these seconds.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use fw_common::abi::Reason;
use fw_user::dataplane::{FlowSizes, Tables, coarse_now};

use super::floor::{Counter, Floor, Program};
use super::frames::{self, Traffic, framed};
use super::peers::Router;
use super::plane::Plane;
use super::report::{Row, Target};
use super::stand::{Wires, bind, rounded};
use super::{Settings, Table};

/// How long connections are opened in a round.
const LONG: Duration = Duration::from_secs(30);
const QUICK: Duration = Duration::from_secs(5);
/// Rounds are long, so they are few.
const ROUNDS: usize = 3;
/// Flows in the background.
const LIVE: u32 = 1_000_000;
const LIVE_QUICK: u32 = 100_000;
/// How long one call of the generator takes, about: it waits for grace periods before and after.
const CALL: Duration = Duration::from_millis(500);
/// Connections per second before the rate is known.
const GUESS: f64 = 10_000.0;
/// Connections that are opened at once: all of their packets fit into what the kernel handles in one go.
pub(super) const BATCH: u32 = 8;
/// dpufw remembers a closed connection for 120 s; see [`Tables::age`].
const AHEAD: Duration = Duration::from_secs(118);
/// What ageing is asked for in the end: nothing but the background outlives it.
const MUCH_LATER: Duration = Duration::from_secs(1000);
const NFT_SECONDS: &str = "2";
/// Room for the background and for some seconds of connections.
const SIZES: FlowSizes = FlowSizes {
    flows4: (1 << 22) + 1,
    ..FlowSizes::DEFAULT
};
/// A threshold that is counted but not reached, whatever is under way.
const PROTECT: &str = "protect: { syn_flood: { above: 1000000/s } }\n";
/// One of how many connections may stay unfinished.
const LOSS: u64 = 20;
const OF_NFTABLES: Target = Target::at_least(3.0);

/// Who stands in the middle.
struct Middle<'a> {
    wires: &'a Wires,
    floor: &'a Floor,
    /// dpufw, or the kernel's router.
    plane: Option<&'a Plane>,
    rate: f64,
}

/// What a round gave.
struct Done {
    seconds: f64,
    opened: u64,
    finished: u64,
    highest: u64,
}

/// The table.
///
/// # Errors
/// If something cannot be set up, connections do not finish, or entries stay.
pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    const NAME: &str = "connections of six packets";
    if !settings.wants(NAME) {
        return Ok(Vec::new());
    }
    let (length, live) = if settings.quick {
        (QUICK, LIVE_QUICK)
    } else {
        (LONG, LIVE)
    };
    let rounds = settings.rounds.min(ROUNDS);
    let traffic = Traffic::Tcp4;
    let wires = Wires::new()?;
    let floor = source(&wires)?;
    let plane = wires.in_firewall(|| {
        let plane = Plane::open(wires.pair, SIZES, &(frames::allowing() + PROTECT))?;
        plane.prime(traffic, live)?;
        Ok(plane)
    })?;
    let router = Router::nftables(&frames::allowing_nft())?;
    let mut priming = Floor::load(
        router.wires.pair.inner,
        &vec![[0; frames::FRAME_BYTES]; live as usize],
        &FlowSizes::DEFAULT,
    )?;
    router.prime(&mut priming, traffic, live)?;
    drop(priming);
    router
        .wires
        .firewall
        .sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", NFT_SECONDS)?;
    let peer = source(&router.wires)?;
    let mut ours = Middle::new(&wires, &floor, Some(&plane));
    let mut theirs = Middle::new(&router.wires, &peer, None);
    let (mut own, mut other) = (Vec::new(), Vec::new());
    let before = plane.by_reason()?;
    for round in 0..rounds {
        eprintln!("   bench  new-flows: round {} of {rounds}", round + 1);
        own.push(ours.round(length).context("new-flows: dpufw")?);
        other.push(theirs.round(length).context("new-flows: nftables")?);
    }
    let left = aged(&plane.tables(), MUCH_LATER)?;
    ensure!(
        left == u64::from(live),
        "{left} flows are left, of {live} in the background"
    );
    Ok(rows(NAME, &own, &other, &dropped(&plane, &before)?, live))
}

/// The ends' programs and the SYN that all connections begin with.
fn source(wires: &Wires) -> Result<Floor> {
    let [syn, ..] = Traffic::Tcp4.opening(0);
    let mut floor = Floor::load(wires.pair.inner, &[framed(&syn)?], &FlowSizes::DEFAULT)?;
    // Each CPU counts its connections from 0; only the first one generates.
    floor.share(0)?;
    Ok(floor)
}

impl<'a> Middle<'a> {
    const fn new(wires: &'a Wires, floor: &'a Floor, plane: Option<&'a Plane>) -> Self {
        Self {
            wires,
            floor,
            plane,
            rate: GUESS,
        }
    }

    /// Opens connections for a while, with ageing on the second CPU.
    fn round(&mut self, length: Duration) -> Result<Done> {
        let Self {
            wires, floor, plane, ..
        } = *self;
        let _ends = wires.ends(floor, [Program::Server, Program::Client])?;
        let program = plane.map_or_else(|| floor.program(Program::Pass), |plane| Ok(plane.program()))?;
        let _ports = wires.ports(program)?;
        let (stop, highest) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let ageing =
                scope.spawn(|| plane.map_or(Ok(()), |plane| keep_aging(&plane.tables(), &stop, &highest)));
            let done = self.open(length);
            stop.store(true, Ordering::Relaxed);
            ageing.join().map_err(|_| anyhow!("ageing panicked"))??;
            let (seconds, opened, finished) = done?;
            let highest = highest.load(Ordering::Relaxed);
            ensure!(
                finished > 0 && (opened - finished.min(opened)) * LOSS <= opened,
                "{finished} of {opened} connections were finished; {} packets reached the server{}",
                floor.count(Counter::Sink)?.iter().sum::<u64>(),
                plane
                    .map(Plane::by_reason)
                    .transpose()?
                    .map_or_else(String::new, |reasons| format!(", by reason: {reasons:?}"))
            );
            Ok(Done {
                seconds,
                opened,
                finished,
                highest,
            })
        })
    }

    /// Seconds, connections opened, connections finished.
    fn open(&mut self, length: Duration) -> Result<(f64, u64, u64)> {
        let finished = || -> Result<u64> { Ok(self.floor.count(Counter::Done)?.iter().sum()) };
        let (before, begun, mut opened) = (finished()?, Instant::now(), 0);
        let mut rate = self.rate;
        while begun.elapsed() < length {
            let (call, start) = (rounded(rate * CALL.as_secs_f64()), Instant::now());
            self.wires.open(self.floor, call, BATCH)?;
            opened += u64::from(call);
            rate = f64::from(call) / start.elapsed().as_secs_f64();
        }
        let seconds = begun.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_millis(5));
        let finished = finished()? - before;
        self.rate = rate;
        Ok((seconds, opened, finished))
    }
}

/// Ages once a second on the second CPU, as the agent does; notes the highest level of the main table.
fn keep_aging(tables: &Tables, stop: &AtomicBool, highest: &AtomicU64) -> Result<()> {
    bind(1)?;
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        highest.fetch_max(tables.levels().used[0], Ordering::Relaxed);
        if Instant::now() >= next {
            aged(tables, AHEAD)?;
            next += Duration::from_secs(1);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Removes what is over so long after now; entries that stay in both tables.
fn aged(tables: &Tables, ahead: Duration) -> Result<u64> {
    let now = coarse_now() + u64::try_from(ahead.as_nanos()).context("a time beyond centuries")?;
    let half = tables.age_half_open(now, |_, _, _| ())?;
    let main = tables.age(now, |_, _, _| ())?;
    Ok(half.kept + main.kept)
}

/// Packets that were dropped since, by reason.
fn dropped(plane: &Plane, before: &[(&'static str, u64)]) -> Result<Vec<(&'static str, u64)>> {
    let passes = |name: &str| {
        Reason::ALL
            .iter()
            .any(|reason| reason.name() == name && reason.allows())
    };
    Ok(plane
        .since(before)?
        .into_iter()
        .filter(|(name, _)| !passes(name))
        .collect())
}

#[expect(clippy::cast_precision_loss, reason = "numbers of connections")]
fn rows(name: &str, own: &[Done], other: &[Done], drops: &[(&'static str, u64)], live: u32) -> Vec<Row> {
    let rates = |done: &[Done]| {
        done.iter()
            .map(|done| done.finished as f64 / done.seconds)
            .collect::<Vec<_>>()
    };
    let unfinished = |done: &[Done]| {
        let lost: u64 = done
            .iter()
            .map(|done| done.opened.saturating_sub(done.finished))
            .sum();
        lost as f64 / done.iter().map(|done| done.opened).sum::<u64>() as f64
    };
    let highest = own.iter().map(|done| done.highest).max().unwrap_or(0);
    let row = Row::paired(
        Table::NewFlows.name(),
        &format!("{name}, {live} flows in the background"),
        "nftables, stateful forward",
        "connections/s",
        &rates(own),
        &rates(other),
    )
    .wanted(OF_NFTABLES)
    .with("unfinished, of 1", unfinished(own))
    .with("peer's unfinished, of 1", unfinished(other))
    .with("most entries in the main table", highest as f64)
    .with("seconds of a round", own.first().map_or(0.0, |done| done.seconds));
    let row = drops.iter().fold(row, |row, (reason, packets)| {
        row.with(&format!("packets dropped, {reason}"), *packets as f64)
    });
    vec![row]
}
