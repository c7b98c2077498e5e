//! Contenders that take turns at the firewall's first port, and what a packet costs each of them.

use anyhow::{Context, Result, ensure};
use fw_common::abi::Reason;

use super::super::floor::{Counter, Floor, Program};
use super::super::link::XdpLink;
use super::super::plane::Plane;
use super::super::stand::{Fate, Wires, rounded};
use super::super::stats::Summary;
use super::super::{Settings, watch};
use super::nft::Ruleset;

/// How often a slice is repeated, twice as long each time, if it was over too soon to be watched.
const TRIES: u32 = 8;
/// One of how many packets may meet another reason than the one that is measured: flows that are still in the table.
const STRAYS: u64 = 50;

/// Who judges the packets.
pub enum Judge<'a> {
    /// dpufw.
    Dpufw(&'a mut Plane),
    /// A bare redirect or drop.
    Bare,
    /// nftables on a router.
    Nft(&'a Ruleset<'a>),
}

/// A contender: who judges, and the packets that it gets.
pub struct Contender<'a> {
    /// Name in tables.
    pub name: String,
    /// Who judges.
    pub judge: Judge<'a>,
    /// The generator with its list of packets.
    pub source: &'a Floor,
}

impl Judge<'_> {
    /// Packets per second that are thought to be processed before it was measured.
    fn guess(&self) -> f64 {
        match self {
            Self::Dpufw(_) => 1e6,
            Self::Bare => 5e6,
            Self::Nft(_) => 2e4,
        }
    }
}

/// Packets per second, by contender and round.
#[derive(Debug)]
pub struct Costs {
    rates: Vec<Vec<f64>>,
}

/// Two contenders compared.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// Median cost of the first, ns per packet.
    pub own: f64,
    /// Of the second.
    pub peer: f64,
    /// Cost of the first over cost of the second, round by round.
    pub ratio: Summary,
}

impl Costs {
    /// Lets the contenders take turns: a round that warms up, then those that count. Says on stderr where it stands.
    ///
    /// # Errors
    /// If the kernel refuses, or packets went another way than meant.
    pub fn measure(
        wires: &Wires,
        fate: Fate,
        contenders: &mut [Contender<'_>],
        settings: &Settings,
        name: &str,
    ) -> Result<Self> {
        let mut turns = Turns::new(wires, contenders[0].source, fate, settings)?;
        let before: Vec<_> = contenders.iter().map(by_reason).collect::<Result<_>>()?;
        let mut rates = vec![Vec::new(); contenders.len()];
        let mut last: Vec<f64> = contenders.iter().map(|one| one.judge.guess()).collect();
        for round in 0..=settings.rounds {
            for (number, contender) in contenders.iter_mut().enumerate() {
                let rate = turns
                    .slice(contender, last[number])
                    .with_context(|| contender.name.clone())?;
                last[number] = rate;
                if round > 0 {
                    rates[number].push(rate);
                }
            }
            if round % 10 == 0 || round == settings.rounds {
                eprintln!("   bench  {name}: round {round} of {}", settings.rounds);
            }
        }
        for (contender, before) in contenders.iter().zip(&before) {
            went_as_meant(contender, before, fate)?;
        }
        Ok(Self { rates })
    }

    /// Compares two contenders by their numbers.
    #[must_use]
    pub fn compare(&self, own: usize, peer: usize) -> Compared {
        let (own, peer) = (&self.rates[own], &self.rates[peer]);
        let ns = |rates: &[f64]| Summary::of(rates.iter().map(|rate| 1e9 / rate)).median;
        Compared {
            own: ns(own),
            peer: ns(peer),
            ratio: Summary::of(own.iter().zip(peer).map(|(own, peer)| peer / own)),
        }
    }
}

fn by_reason(contender: &Contender<'_>) -> Result<Vec<(&'static str, u64)>> {
    match &contender.judge {
        Judge::Dpufw(plane) => plane.by_reason(),
        Judge::Bare | Judge::Nft(_) => Ok(Vec::new()),
    }
}

/// Nearly all packets must have met the reason that is measured.
fn went_as_meant(contender: &Contender<'_>, before: &[(&'static str, u64)], fate: Fate) -> Result<()> {
    let Judge::Dpufw(_) = contender.judge else {
        return Ok(());
    };
    let meant = match fate {
        Fate::Forwarded => Reason::Rule.name(),
        Fate::Dropped => Reason::DenyDefault.name(),
    };
    let earlier = |name| {
        before
            .iter()
            .find(|(known, _)| *known == name)
            .map_or(0, |(_, count)| *count)
    };
    let since: Vec<_> = by_reason(contender)?
        .into_iter()
        .map(|(name, count)| (name, count - earlier(name)))
        .filter(|(_, count)| *count > 0)
        .collect();
    let all: u64 = since.iter().map(|(_, count)| count).sum();
    let strays: u64 = since
        .iter()
        .filter(|(name, _)| *name != meant)
        .map(|(_, count)| count)
        .sum();
    ensure!(
        all > 0 && strays * STRAYS <= all,
        "{}: packets by reason should nearly all be {meant}: {since:?}",
        contender.name
    );
    Ok(())
}

/// The stand between two slices.
struct Turns<'a> {
    wires: &'a Wires,
    /// Whose programs are the sinks and the bare contender.
    floor: &'a Floor,
    fate: Fate,
    settings: &'a Settings,
    port: Option<XdpLink>,
    _sinks: [XdpLink; 2],
}

impl<'a> Turns<'a> {
    fn new(wires: &'a Wires, floor: &'a Floor, fate: Fate, settings: &'a Settings) -> Result<Self> {
        Ok(Self {
            wires,
            floor,
            fate,
            settings,
            port: None,
            _sinks: wires.sinks(floor)?,
        })
    }

    /// Lets a contender process packets for about one slice; packets per second.
    fn slice(&mut self, contender: &mut Contender<'_>, last: f64) -> Result<f64> {
        self.put(&contender.judge)?;
        let mut packets = last * self.settings.slice.as_secs_f64();
        let mut rate = None;
        for _ in 0..TRIES {
            let watched = || self.processed(&contender.judge);
            rate = self.wires.blast(contender.source, 1, rounded(packets), watched)?;
            if rate.is_some_and(|rate| rate > 0.0) {
                break;
            }
            packets *= 2.0;
        }
        match &mut contender.judge {
            Judge::Dpufw(plane) => plane.drain(),
            Judge::Nft(ruleset) => ruleset.sleep()?,
            Judge::Bare => {}
        }
        rate.filter(|rate| *rate > 0.0)
            .context("no packet was processed while somebody watched")
    }

    /// Puts a contender in front of the packets. nftables has the port to itself.
    fn put(&mut self, judge: &Judge<'_>) -> Result<()> {
        let bare = match self.fate {
            Fate::Forwarded => Program::Redirect,
            Fate::Dropped => Program::Drop,
        };
        let program = match judge {
            Judge::Dpufw(plane) => plane.program(),
            Judge::Bare => self.floor.program(bare)?,
            Judge::Nft(ruleset) => {
                self.port = None;
                return ruleset.wake();
            }
        };
        if let Some(port) = &self.port {
            return port.update(program);
        }
        self.port = Some(XdpLink::attach(program, self.wires.pair.outer)?);
        Ok(())
    }

    /// Packets that a contender has processed so far.
    fn processed(&self, judge: &Judge<'_>) -> Result<Vec<u64>> {
        match (self.fate, judge) {
            (_, Judge::Nft(_)) => Ok(vec![watch::received("f0")?]),
            (Fate::Forwarded, _) => self.floor.count(Counter::Sink),
            (Fate::Dropped, Judge::Dpufw(plane)) => plane.count(Reason::DenyDefault),
            (Fate::Dropped, Judge::Bare) => self.floor.count(Counter::Bare),
        }
    }
}
