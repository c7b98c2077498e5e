//! Contenders that take turns, what each of them did in its slices, and the ratios that this gives.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use fw_common::abi::Reason;

use super::Settings;
use super::filter::Filter;
use super::floor::{Counter, Floor, Program};
use super::link::{TcxLink, XdpLink};
use super::plane::Plane;
use super::stand::{Wires, rounded};
use super::stats::Summary;

/// How long counters must stand still before they are read, and how often that is tried.
const STILL: Duration = Duration::from_micros(300);
const SETTLE_TRIES: u32 = 1000;
/// How often a slice is repeated, twice as long each time, if it was over too soon to be watched.
const TRIES: u32 = 8;

/// What becomes of the packets of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They reach the sink.
    Forwarded,
    /// The firewall drops them.
    Dropped,
}

impl Fate {
    /// The least that a program can do.
    #[must_use]
    pub const fn bare(self) -> Program {
        match self {
            Self::Forwarded => Program::Redirect,
            Self::Dropped => Program::Drop,
        }
    }

    /// Its name in tables.
    #[must_use]
    pub const fn floor(self) -> &'static str {
        match self {
            Self::Forwarded => "bare XDP redirect",
            Self::Dropped => "bare XDP drop",
        }
    }
}

/// Wires with a generator's list, sinks, and a place for programs at the firewall's first port.
#[derive(Debug)]
pub struct Line<'a> {
    wires: &'a Wires,
    floor: &'a Floor,
    fate: Fate,
    port: XdpLink,
    _sinks: [XdpLink; 2],
}

impl<'a> Line<'a> {
    /// Attaches sinks, and to the first port a program that hands everything to the kernel.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(wires: &'a Wires, floor: &'a Floor, fate: Fate) -> Result<Self> {
        Self::ending(wires, floor, fate, Program::Sink)
    }

    /// The same with another program at the sink.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn ending(wires: &'a Wires, floor: &'a Floor, fate: Fate, sink: Program) -> Result<Self> {
        let sinks = wires.ends(floor, [sink, Program::Sink])?;
        let port = wires.in_firewall(|| XdpLink::attach(floor.program(Program::Pass)?, wires.pair.outer))?;
        Ok(Self {
            wires,
            floor,
            fate,
            port,
            _sinks: sinks,
        })
    }
}

/// Who judges the packets.
pub enum Judge<'a> {
    /// dpufw at XDP.
    Dpufw(&'a mut Plane),
    /// dpufw at TC.
    DpufwTc(&'a mut Plane),
    /// The floor with a look-up.
    Lookup,
    /// The bare floor.
    Bare,
    /// xdp-filter.
    Filter(&'a Filter),
    /// What the kernel of the line's firewall does: nothing, or what somebody has loaded there.
    Kernel,
}

/// A contender: who judges, where, and which packets.
pub struct Contender<'a> {
    /// Name in tables.
    pub name: String,
    /// Who judges.
    pub judge: Judge<'a>,
    /// Where.
    pub line: &'a Line<'a>,
    /// The generator with its list of packets.
    pub source: &'a Floor,
}

impl<'a> Contender<'a> {
    /// A contender that gets the line's packets.
    pub fn new(name: impl Into<String>, judge: Judge<'a>, line: &'a Line<'a>) -> Self {
        Self {
            name: name.into(),
            judge,
            line,
            source: line.floor,
        }
    }

    /// One that gets others.
    #[must_use]
    pub fn sent(self, source: &'a Floor) -> Self {
        Self { source, ..self }
    }

    /// Packets per second and CPU that are thought to be processed before it was measured.
    const fn guess(&self) -> f64 {
        match &self.judge {
            Judge::Dpufw(_) | Judge::DpufwTc(_) => 1e6,
            Judge::Lookup | Judge::Bare | Judge::Filter(_) => 4e6,
            Judge::Kernel => 2e3,
        }
    }

    /// Puts it in front of the packets; the second value must live as long as its turn.
    fn put(&self) -> Result<Option<TcxLink>> {
        let Line { wires, floor, .. } = self.line;
        let program = match &self.judge {
            Judge::Dpufw(plane) => plane.program(),
            Judge::DpufwTc(_) | Judge::Kernel => floor.program(Program::Pass)?,
            Judge::Lookup => floor.program(Program::Lookup)?,
            Judge::Bare => floor.program(self.line.fate.bare())?,
            Judge::Filter(filter) => filter.program(),
        };
        self.line.port.update(program)?;
        let Judge::DpufwTc(plane) = &self.judge else {
            return Ok(None);
        };
        let link = wires.in_firewall(|| TcxLink::ingress(plane.program(), wires.pair.outer))?;
        Ok(Some(link))
    }

    /// Puts it in front of the packets until another one takes its place. Not for TC.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn stand(&self) -> Result<()> {
        self.put().map(drop)
    }

    /// Packets that it has processed so far, by CPU.
    fn by_cpu(&self) -> Result<Vec<u64>> {
        let floor = self.line.floor;
        match (self.line.fate, &self.judge) {
            (Fate::Forwarded, _) => floor.count(Counter::Sink),
            (Fate::Dropped, Judge::Dpufw(plane) | Judge::DpufwTc(plane)) => plane.count(Reason::DenyDefault),
            (Fate::Dropped, Judge::Lookup) => floor.count(Counter::Miss),
            (Fate::Dropped, Judge::Bare) => floor.count(Counter::Bare),
            (Fate::Dropped, Judge::Filter(filter)) => filter.dropped(),
            (Fate::Dropped, Judge::Kernel) => floor.count(Counter::Pass),
        }
    }

    fn processed(&self) -> Result<u64> {
        Ok(self.by_cpu()?.iter().sum())
    }

    /// The same once the last packets have left the rings.
    fn settled(&self) -> Result<u64> {
        let mut last = self.processed()?;
        for _ in 0..SETTLE_TRIES {
            std::thread::sleep(STILL);
            let now = self.processed()?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
        Err(anyhow!(
            "packets still arrive long after the generator has stopped"
        ))
    }

    /// Lets it process packets for about this long, given the rate of its last slice.
    ///
    /// # Errors
    /// If the kernel refuses, or no packet was processed.
    pub fn slice(&mut self, length: Duration, cpus: u32, last: Option<f64>) -> Result<Slice> {
        let _link = self.put()?;
        let before = self.processed()?;
        let each = last.map_or_else(|| self.guess(), |rate| rate / f64::from(cpus));
        let mut each = each * length.as_secs_f64();
        let mut watched = None;
        let mut elapsed = Duration::ZERO;
        for _ in 0..TRIES {
            let by_cpu = || self.by_cpu();
            let (line, start) = (self.line, Instant::now());
            watched = line.wires.blast(self.source, cpus, rounded(each), by_cpu)?;
            elapsed += start.elapsed();
            if watched.is_some() {
                break;
            }
            each *= 2.0;
        }
        let packets = self.settled()? - before;
        if let Judge::Dpufw(plane) | Judge::DpufwTc(plane) = &mut self.judge {
            plane.drain();
        }
        ensure!(
            packets > 0,
            "{} processed no packet{}",
            self.name,
            self.instead()?
        );
        let watched = watched
            .with_context(|| format!("{} was too fast to be watched: make the slices longer", self.name))?;
        // Where less than one packet falls into a step of the watch, the whole slice says more.
        #[expect(clippy::cast_precision_loss, reason = "a number of packets")]
        let rate = if watched > 0.0 {
            watched
        } else {
            packets as f64 / elapsed.as_secs_f64()
        };
        Ok(Slice { packets, rate })
    }

    /// What else may have become of the packets, for a message.
    fn instead(&self) -> Result<String> {
        match &self.judge {
            Judge::Dpufw(plane) | Judge::DpufwTc(plane) => {
                Ok(format!("; packets by reason: {:?}", plane.by_reason()?))
            }
            Judge::Lookup => Ok(format!(
                "; look-ups missed, by CPU: {:?}",
                self.line.floor.count(Counter::Miss)?
            )),
            Judge::Kernel => Ok(format!(
                "; it was handed, by CPU: {:?}",
                self.line.floor.count(Counter::Pass)?
            )),
            Judge::Bare | Judge::Filter(_) => Ok(String::new()),
        }
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

/// What the contenders did.
#[derive(Debug)]
pub struct Rates {
    /// Packets per second, by contender and round.
    rates: Vec<Vec<f64>>,
    /// All packets that a contender processed.
    packets: Vec<u64>,
}

/// Two contenders compared.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Median rate of the first, packets per second.
    pub own: f64,
    /// Median rate of the second.
    pub peer: f64,
    /// First over second, round by round.
    pub ratio: Summary,
    /// Time of the first less time of the second for a packet, median of the rounds, seconds of all CPUs together.
    pub above: f64,
}

impl Rates {
    /// Lets the contenders take turns: a round that warms up, then those that count. Says on stderr where it stands.
    ///
    /// # Errors
    /// See [`Contender::slice`].
    pub fn measure(
        contenders: &mut [Contender<'_>],
        settings: &Settings,
        cpus: u32,
        name: &str,
    ) -> Result<Self> {
        let (mut rates, mut packets) = (vec![Vec::new(); contenders.len()], vec![0; contenders.len()]);
        let mut last = vec![None; contenders.len()];
        for round in 0..=settings.rounds {
            for (number, contender) in contenders.iter_mut().enumerate() {
                let slice = contender
                    .slice(settings.slice, cpus, last[number])
                    .with_context(|| format!("{name}: {}", contender.name))?;
                last[number] = Some(slice.rate);
                packets[number] += slice.packets;
                if round > 0 {
                    rates[number].push(slice.rate);
                }
            }
            if round % 10 == 0 || round == settings.rounds {
                eprintln!("   bench  {name}: round {round} of {}", settings.rounds);
            }
        }
        Ok(Self { rates, packets })
    }

    /// All packets that the contender of this number processed, the warm-up's included.
    #[must_use]
    pub fn packets(&self, number: usize) -> u64 {
        self.packets[number]
    }

    /// Compares two contenders by their numbers.
    #[must_use]
    pub fn compare(&self, own: usize, peer: usize) -> Comparison {
        let (own, peer) = (&self.rates[own], &self.rates[peer]);
        let pairs = || own.iter().zip(peer);
        Comparison {
            own: Summary::of(own.iter().copied()).median,
            peer: Summary::of(peer.iter().copied()).median,
            ratio: Summary::of(pairs().map(|(own, peer)| own / peer)),
            above: Summary::of(pairs().map(|(own, peer)| 1.0 / own - 1.0 / peer)).median,
        }
    }

    /// The same in ns for a packet: cost of the first over cost of the second.
    #[must_use]
    pub fn costs(&self, own: usize, peer: usize) -> Comparison {
        let (own, peer) = (&self.rates[own], &self.rates[peer]);
        let pairs = || own.iter().zip(peer);
        let ns = |rates: &[f64]| Summary::of(rates.iter().map(|rate| 1e9 / rate)).median;
        Comparison {
            own: ns(own),
            peer: ns(peer),
            ratio: Summary::of(pairs().map(|(own, peer)| peer / own)),
            above: Summary::of(pairs().map(|(own, peer)| 1.0 / own - 1.0 / peer)).median,
        }
    }
}
