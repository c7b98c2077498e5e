//! The two tables: what is set up, who competes, and what the counters must say afterwards.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use fw_common::abi::Reason;
use fw_user::dataplane::FlowSizes;

use super::floor::{Counter, Floor, Program};
use super::frames::{self, Frame, Traffic};
use super::plane::Plane;
use super::report::{Row, Target};
use super::rounds::{Comparison, Rates};
use super::stand::{Contender, Fate, Stand, Wires};
use super::{Machine, Settings};

/// Runs of the program for the time with warm caches.
const HOT_RUNS: u32 = 1_000_000;
/// One of how many forwarded packets may be lost between firewall and sink (a full ring) before a result is refused.
const LOSS: u64 = 100;

/// A part of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Packets of flows that are in the main table.
    Established(Traffic),
    /// Packets that no rule allows, with few rules and with many.
    Deny,
}

impl Case {
    /// All cases, in the order of the tables.
    pub const ALL: [Self; 4] = [
        Self::Established(Traffic::Udp4),
        Self::Established(Traffic::Tcp4),
        Self::Established(Traffic::Udp6),
        Self::Deny,
    ];

    /// Name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Established(traffic) => format!("established-{}", traffic.name()),
            Self::Deny => "deny".to_owned(),
        }
    }

    /// Measures it; the calling thread is in the firewall's namespace.
    ///
    /// # Errors
    /// If something cannot be set up, or packets went another way than meant.
    pub(super) fn measure(self, wires: &Wires, settings: &Settings, machine: &Machine) -> Result<Vec<Row>> {
        let bench = Bench {
            wires,
            settings,
            machine,
            name: self.name(),
        };
        match self {
            Self::Established(traffic) => bench.established(traffic),
            Self::Deny => bench.deny(),
        }
    }
}

/// What all cases share.
struct Bench<'a> {
    wires: &'a Wires,
    settings: &'a Settings,
    machine: &'a Machine,
    name: String,
}

/// Packets that a plane has judged since `before`, which must all have this reason.
fn only(before: &[(&'static str, u64)], plane: &Plane, reason: Reason) -> Result<u64> {
    let before: BTreeMap<_, _> = before.iter().copied().collect();
    let since: BTreeMap<_, _> = plane
        .by_reason()?
        .into_iter()
        .map(|(name, packets)| (name, packets - before.get(name).unwrap_or(&0)))
        .filter(|(_, packets)| *packets > 0)
        .collect();
    ensure!(
        since.keys().eq([&reason.name()]),
        "packets by reason should all be {}: {since:?}",
        reason.name()
    );
    Ok(since.values().sum())
}

/// How a row is called.
struct Title {
    table: &'static str,
    case: String,
    peer: &'static str,
    target: Option<Target>,
}

impl Bench<'_> {
    fn established(&self, traffic: Traffic) -> Result<Vec<Row>> {
        let Settings { flows, cpus, .. } = *self.settings;
        let sizes = FlowSizes::default();
        let frames = (0..flows)
            .map(|flow| traffic.frame(flow))
            .collect::<Result<Vec<_>>>()?;
        let mut floor = self.floor(&frames, &sizes)?;
        let mut plane = Plane::open(self.wires.pair, sizes, &frames::allowing())?;
        for key in plane.prime(traffic, flows)? {
            floor.insert(&key)?;
        }
        let before = plane.by_reason()?;
        let stand = Stand::new(self.wires, &floor, Fate::Forwarded, cpus)?;
        let mut contenders = [Contender::Dpufw(&mut plane), Contender::Lookup, Contender::Bare];
        let rates = Rates::measure(&stand, &mut contenders, self.settings, &self.name)?;
        let (judged, arrived) = (only(&before, &plane, Reason::Established)?, rates.packets(0));
        ensure!(
            arrived <= judged && (judged - arrived) * LOSS <= judged,
            "dpufw forwarded {judged} packets and {arrived} arrived"
        );
        let missed: u64 = floor.count(Counter::Miss)?.iter().sum();
        ensure!(missed == 0, "the floor's look-up missed {missed} packets");
        let hot = self.hot(&floor, &plane, &frames[0], Program::Redirect)?;
        let case = format!("{}, {flows} flows", traffic.name());
        let title = |peer, target| Title {
            table: "established",
            case: case.clone(),
            peer,
            target,
        };
        let target = Some(Target {
            at_least: 0.6,
            at_most: None,
        });
        Ok(vec![
            self.row(
                title("XDP redirect with parse and one look-up", target),
                rates.compare(0, 1),
                (hot[0], hot[1]),
            ),
            self.row(
                title("bare XDP redirect", None),
                rates.compare(0, 2),
                (hot[0], hot[2]),
            ),
        ])
    }

    fn deny(&self) -> Result<Vec<Row>> {
        let Settings { flows, cpus, .. } = *self.settings;
        let sizes = FlowSizes::default();
        let frames = frames::denied(flows as usize)?;
        let floor = self.floor(&frames, &sizes)?;
        let mut few = Plane::open(self.wires.pair, sizes, &frames::denying(10, 10))?;
        let mut many = Plane::open(self.wires.pair, sizes, &frames::denying(10_000, 100))?;
        let before = [few.by_reason()?, many.by_reason()?];
        let stand = Stand::new(self.wires, &floor, Fate::Dropped, cpus)?;
        let mut contenders = [
            Contender::Dpufw(&mut few),
            Contender::Dpufw(&mut many),
            Contender::Lookup,
            Contender::Bare,
        ];
        let rates = Rates::measure(&stand, &mut contenders, self.settings, &self.name)?;
        only(&before[0], &few, Reason::DenyDefault)?;
        only(&before[1], &many, Reason::DenyDefault)?;
        let sunk: u64 = floor.count(Counter::Sink)?.iter().sum();
        ensure!(
            sunk == 0,
            "{sunk} packets that should have been dropped reached the sink"
        );
        let hot = [
            self.hot(&floor, &few, &frames[0], Program::Drop)?,
            self.hot(&floor, &many, &frames[0], Program::Drop)?,
        ];
        Ok(self.denied_rows(&rates, hot))
    }

    /// Contenders 0 and 1 are dpufw with few and with many rules, 2 the floor with a look-up, 3 the bare one.
    fn denied_rows(&self, rates: &Rates, [few, many]: [[f64; 3]; 2]) -> Vec<Row> {
        let title = |case: &str, peer, target| Title {
            table: "deny",
            case: format!("{case}, {} sources", self.settings.flows),
            peer,
            target,
        };
        let near = Some(Target {
            at_least: 0.7,
            at_most: Some(1.3),
        });
        let (lookup, bare) = ("XDP drop with parse and one look-up", "bare XDP drop");
        let row = |case, peer, target, (own, other), hot| {
            self.row(title(case, peer, target), rates.compare(own, other), hot)
        };
        vec![
            row("10 rules", lookup, None, (0, 2), (few[0], few[1])),
            row("10 rules", bare, None, (0, 3), (few[0], few[2])),
            row("10,000 rules", lookup, None, (1, 2), (many[0], many[1])),
            row("10,000 rules", bare, None, (1, 3), (many[0], many[2])),
            row(
                "10,000 rules",
                "dpufw with 10 rules",
                near,
                (1, 0),
                (many[0], few[0]),
            ),
        ]
    }

    fn floor(&self, frames: &[Frame], sizes: &FlowSizes) -> Result<Floor> {
        let mut floor = Floor::load(self.wires.pair.inner, frames, sizes)?;
        floor.divide(frames.len() as u32, self.settings.cpus)?;
        Ok(floor)
    }

    /// ns of a run with warm caches: dpufw, look-up, bare.
    fn hot(&self, floor: &Floor, plane: &Plane, frame: &Frame, bare: Program) -> Result<[f64; 3]> {
        let outer = self.wires.pair.outer;
        let times = [
            plane.time(frame, HOT_RUNS)?,
            floor.time(Program::Lookup, outer, frame, HOT_RUNS)?,
            floor.time(bare, outer, frame, HOT_RUNS)?,
        ];
        Ok(times.map(|time| time.as_secs_f64() * 1e9))
    }

    fn row(&self, title: Title, compared: Comparison, (dpufw_ns_hot, peer_ns_hot): (f64, f64)) -> Row {
        Row {
            table: title.table,
            case: title.case,
            peer: title.peer.to_owned(),
            unit: "Mpps",
            dpufw: compared.own / 1e6,
            peer_value: compared.peer / 1e6,
            ratio: compared.ratio.median,
            spread: compared.ratio.spread,
            ns_above_peer: compared.above * 1e9 * f64::from(self.settings.cpus),
            dpufw_ns_hot,
            peer_ns_hot,
            target: title.target,
            rounds: self.settings.rounds,
            cpus: self.settings.cpus,
            kernel: self.machine.kernel.clone(),
            cpu: self.machine.cpu.clone(),
            commit: self.machine.commit.clone(),
        }
    }
}
