//! The test stand: generator, firewall and sink in namespaces of their own, joined by veth pairs with two queues.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use fw_common::abi::Reason;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::floor::{Counter, Floor, Program};
use super::link::XdpLink;
use super::plane::{Pair, Plane};
use super::watch::{self, hurry};
use crate::lab::{End, Namespace, Veth};

/// Nice value of the generators: a busy machine makes every result wander.
const GENERATOR_NICE: i32 = -19;
/// Packets per second and CPU that a contender is thought to process before it was measured.
const GUESS: f64 = 5e6;
/// How long counters must stand still before they are read, and how often that is tried.
const STILL: Duration = Duration::from_micros(300);
const SETTLE_TRIES: u32 = 1000;
/// How often a slice is repeated, twice as long each time, if it was over too soon to be watched.
const TRIES: u32 = 4;

/// Ethernet address of an end: 1 the generator's, 2 and 3 the firewall's, 4 the sink's.
pub(super) const fn mac(end: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0xbe, end]
}

/// Namespaces and wires.
#[derive(Debug)]
pub struct Wires {
    generator: Namespace,
    /// Where the programs run.
    pub(super) firewall: Namespace,
    sink: Namespace,
    generator_if: u32,
    sink_if: u32,
    /// The firewall's ports.
    pub pair: Pair,
}

impl Wires {
    /// Builds everything.
    ///
    /// # Errors
    /// If a command refuses.
    pub fn new() -> Result<Self> {
        let (generator, firewall, sink) = (
            Namespace::new("gen")?,
            Namespace::new("fw")?,
            Namespace::new("sink")?,
        );
        Veth::create(
            &End::new(&generator, "g0", mac(1)),
            &End::new(&firewall, "f0", mac(2)),
            1500,
        )?;
        Veth::create(
            &End::new(&firewall, "f1", mac(3)),
            &End::new(&sink, "s0", mac(4)),
            1500,
        )?;
        let pair = Pair {
            outer: firewall.ifindex("f0")?,
            inner: firewall.ifindex("f1")?,
        };
        let (generator_if, sink_if) = (generator.ifindex("g0")?, sink.ifindex("s0")?);
        Ok(Self {
            generator,
            firewall,
            sink,
            generator_if,
            sink_if,
            pair,
        })
    }

    /// Runs `f` in the firewall's namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or what `f` returns.
    pub fn in_firewall<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.firewall.enter(f)?
    }

    /// Puts the sink's program at both ends: a redirect reaches an end only while it has one, and the generator's own
    /// interface takes test runs only then.
    pub(super) fn sinks(&self, floor: &Floor) -> Result<[XdpLink; 2]> {
        let sink = self
            .sink
            .enter(|| XdpLink::attach(floor.program(Program::Sink)?, self.sink_if))??;
        let own = self
            .generator
            .enter(|| XdpLink::attach(floor.program(Program::Sink)?, self.generator_if))??;
        Ok([sink, own])
    }

    /// Sends `packets` frames from each of `cpus` pinned threads, and watches a counter by CPU meanwhile. Returns its growth
    /// per second; `None` if that was over too soon to tell.
    pub(super) fn blast(
        &self,
        floor: &Floor,
        cpus: u32,
        packets: u32,
        watched: impl Fn() -> Result<Vec<u64>>,
    ) -> Result<Option<f64>> {
        let finished = AtomicBool::new(false);
        let one = |cpu: u32| {
            let sent = pin(cpu).and_then(|()| floor.generate(self.generator_if, packets));
            finished.store(true, Ordering::Relaxed);
            sent
        };
        std::thread::scope(|scope| {
            let (one, generator) = (&one, &self.generator);
            let threads: Vec<_> = (0..cpus)
                .map(|cpu| scope.spawn(move || generator.enter(move || one(cpu))?))
                .collect();
            let rate = watch::rate(&finished, cpus as usize, watched);
            for thread in threads {
                thread.join().map_err(|_| anyhow!("a generator panicked"))??;
            }
            rate
        })
    }
}

/// Binds the calling thread to a CPU, ahead of what else wants to run there.
fn pin(cpu: u32) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu as usize)?;
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("cannot bind a thread to CPU {cpu}"))?;
    hurry(GENERATOR_NICE)
}

/// What becomes of the packets of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They reach the sink.
    Forwarded,
    /// The firewall drops them.
    Dropped,
}

/// Who processes the packets.
pub enum Contender<'a> {
    /// dpufw.
    Dpufw(&'a mut Plane),
    /// The floor with a look-up.
    Lookup,
    /// The bare floor.
    Bare,
}

impl fmt::Display for Contender<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dpufw(_) => "dpufw",
            Self::Lookup => "the floor with a look-up",
            Self::Bare => "the bare floor",
        })
    }
}

/// What a contender did in one go.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// All packets that it processed.
    pub packets: u64,
    /// Packets per second while all generators were at work.
    pub rate: f64,
}

/// Everything that one case needs, in place; lives in the firewall's namespace.
#[derive(Debug)]
pub struct Stand<'a> {
    wires: &'a Wires,
    floor: &'a Floor,
    fate: Fate,
    cpus: u32,
    port: XdpLink,
    _sinks: [XdpLink; 2],
}

impl<'a> Stand<'a> {
    /// Attaches sinks and the bare floor.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(wires: &'a Wires, floor: &'a Floor, fate: Fate, cpus: u32) -> Result<Self> {
        let sinks = wires.sinks(floor)?;
        let port = XdpLink::attach(floor.program(bare(fate))?, wires.pair.outer)?;
        Ok(Self {
            wires,
            floor,
            fate,
            cpus,
            port,
            _sinks: sinks,
        })
    }

    /// Lets a contender process packets for about this long, given the rate of its last slice.
    ///
    /// # Errors
    /// If the kernel refuses, or no packet was processed.
    pub fn slice(&self, contender: &mut Contender<'_>, length: Duration, last: Option<f64>) -> Result<Slice> {
        self.port.update(match contender {
            Contender::Dpufw(plane) => plane.program(),
            Contender::Lookup => self.floor.program(Program::Lookup)?,
            Contender::Bare => self.floor.program(bare(self.fate))?,
        })?;
        let before = self.processed(contender)?;
        let mut each = last.map_or(GUESS, |rate| rate / f64::from(self.cpus)) * length.as_secs_f64();
        let mut rate = None;
        for _ in 0..TRIES {
            let watched = || self.by_cpu(contender);
            rate = self.wires.blast(self.floor, self.cpus, rounded(each), watched)?;
            if rate.is_some() {
                break;
            }
            each *= 2.0;
        }
        let packets = self.settled(contender)? - before;
        if let Contender::Dpufw(plane) = contender {
            plane.drain();
        }
        ensure!(
            packets > 0,
            "{contender} processed no packet{}",
            self.instead(contender)?
        );
        let rate =
            rate.with_context(|| format!("{contender} was too fast to be watched: make the slices longer"))?;
        Ok(Slice { packets, rate })
    }

    /// What else may have become of the packets, for a message.
    fn instead(&self, contender: &Contender<'_>) -> Result<String> {
        match contender {
            Contender::Dpufw(plane) => Ok(format!("; packets by reason: {:?}", plane.by_reason()?)),
            Contender::Lookup => Ok(format!(
                "; look-ups missed, by CPU: {:?}",
                self.floor.count(Counter::Miss)?
            )),
            Contender::Bare => Ok(String::new()),
        }
    }

    /// Packets that a contender has processed so far.
    fn processed(&self, contender: &Contender<'_>) -> Result<u64> {
        Ok(self.by_cpu(contender)?.iter().sum())
    }

    /// The same by CPU.
    fn by_cpu(&self, contender: &Contender<'_>) -> Result<Vec<u64>> {
        match (self.fate, contender) {
            (Fate::Forwarded, _) => self.floor.count(Counter::Sink),
            (Fate::Dropped, Contender::Dpufw(plane)) => plane.count(Reason::DenyDefault),
            (Fate::Dropped, Contender::Lookup) => self.floor.count(Counter::Miss),
            (Fate::Dropped, Contender::Bare) => self.floor.count(Counter::Bare),
        }
    }

    /// The same once the last packets have left the rings.
    fn settled(&self, contender: &Contender<'_>) -> Result<u64> {
        let mut last = self.processed(contender)?;
        for _ in 0..SETTLE_TRIES {
            std::thread::sleep(STILL);
            let now = self.processed(contender)?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
        Err(anyhow!(
            "packets still arrive long after the generator has stopped"
        ))
    }
}

/// A number of packets.
#[expect(
    clippy::cast_sign_loss,
    reason = "a negative number saturates at 0, which sends nothing"
)]
pub(super) fn rounded(packets: f64) -> u32 {
    packets as u32
}

fn bare(fate: Fate) -> Program {
    match fate {
        Fate::Forwarded => Program::Redirect,
        Fate::Dropped => Program::Drop,
    }
}
