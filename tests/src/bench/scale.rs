//! The table `scale`: what two CPUs do beside one, each with flows of its own, as a NIC's receive-side scaling gives them; and
//! what it costs where both meet the same entry.

use anyhow::{Context, Result, ensure};
use fw_common::abi::Reason;
use fw_user::dataplane::FlowSizes;

use super::classify::policies::Rules;
use super::floor::Floor;
use super::frames::{self, Frame, Traffic};
use super::plane::Plane;
use super::report::{Row, Target};
use super::stand::Wires;
use super::stats::Summary;
use super::turns::{Contender, Fate, Judge, Line};
use super::{Settings, Table};

/// Flows and sources of the paths; packets that open flows.
const FLOWS: u32 = 1000;
const SOURCES: usize = 1000;
const OPENING: usize = 1 << 21;
/// Two CPUs beside one, where they share nothing.
const OF_ONE: Target = Target::at_least(1.7);
/// One of how many packets may meet another reason: flows that are still in the table.
const STRAYS: u64 = 20;
/// A generator's own flow maps are not used.
const NO_FLOWS: FlowSizes = FlowSizes {
    flows4: 2,
    flows6: 2,
    ..FlowSizes::DEFAULT
};
/// A list that is longer than the table of unconfirmed flows: each packet opens its flow anew.
const OPENING_SIZES: FlowSizes = FlowSizes {
    flows4: 1025,
    flows6: 1025,
    ..FlowSizes::DEFAULT
};

/// What the CPUs do.
struct Case {
    name: &'static str,
    policy: String,
    frames: Vec<Frame>,
    /// Flows that are open.
    flows: u32,
    sizes: FlowSizes,
    reason: Reason,
    /// True if both CPUs send all frames.
    shared: bool,
}

impl Case {
    fn list() -> Result<Vec<Self>> {
        let known = |flows: u32| {
            (0..flows)
                .map(|flow| Traffic::Udp4.frame(flow))
                .collect::<Result<Vec<_>>>()
        };
        let limited = frames::allowing().replace("to: b }", "to: b, limit: [{ packets: 100000000/s }] }");
        ensure!(
            limited.contains("limit"),
            "the policy's rule has another form than was thought"
        );
        let case = |name, frames, flows, reason, shared| Self {
            name,
            policy: frames::allowing(),
            frames,
            flows,
            sizes: FlowSizes::DEFAULT,
            reason,
            shared,
        };
        let rules = Rules { rules: 10 };
        Ok(vec![
            case("established", known(FLOWS)?, FLOWS, Reason::Established, false),
            case("deny", frames::denied(SOURCES)?, 0, Reason::DenyDefault, false),
            Self {
                policy: rules.text(),
                sizes: OPENING_SIZES,
                ..case(
                    "opens a flow",
                    rules.frames(OPENING, true)?,
                    0,
                    Reason::Rule,
                    false,
                )
            },
            case("both CPUs on one flow", known(1)?, 1, Reason::Established, true),
            Self {
                policy: limited,
                ..case(
                    "both CPUs on one limit",
                    known(FLOWS)?,
                    FLOWS,
                    Reason::Established,
                    false,
                )
            },
            case(
                "both CPUs on one denied source",
                frames::denied(1)?,
                0,
                Reason::DenyDefault,
                true,
            ),
        ])
    }
}

/// The table.
///
/// # Errors
/// If there is one CPU only, something cannot be set up, or packets went another way than meant.
pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    ensure!(cpus >= 2, "the table `scale` needs two CPUs");
    let mut rows = Vec::new();
    for case in Case::list()? {
        if settings.wants(case.name) {
            rows.extend(measure(&case, settings)?);
        }
    }
    Ok(rows)
}

/// A generator for one CPU or for two.
fn source(case: &Case, wires: &Wires, cpus: u32) -> Result<Floor> {
    // Packets that open flows: other ones for one CPU than for two, or they would meet the flows of the last slice.
    let (half, all) = (case.frames.len() / 2, &case.frames[..]);
    let frames = match (case.reason, cpus) {
        (Reason::Rule, 1) => &all[..half],
        (Reason::Rule, _) => &all[half..],
        _ => all,
    };
    let mut source = Floor::load(wires.pair.inner, frames, &NO_FLOWS)?;
    let frames = frames.len() as u32;
    if case.shared {
        source.share(frames)?;
    } else {
        source.divide(frames, cpus)?;
    }
    Ok(source)
}

/// Rates of a contender by round, on one CPU and on two, packets per second.
#[derive(Default)]
struct Both {
    rates: [Vec<f64>; 2],
    last: [Option<f64>; 2],
}

impl Both {
    fn scaled(&self) -> f64 {
        let [one, two] = &self.rates;
        Summary::of(one.iter().zip(two).map(|(one, two)| two / one)).median
    }
}

fn measure(case: &Case, settings: &Settings) -> Result<Vec<Row>> {
    let wires = Wires::new()?;
    let sources = [source(case, &wires, 1)?, source(case, &wires, 2)?];
    let fate = if case.reason.allows() {
        Fate::Forwarded
    } else {
        Fate::Dropped
    };
    let mut plane = wires.in_firewall(|| {
        let plane = Plane::open(wires.pair, case.sizes, &case.policy)?;
        if case.flows > 0 {
            plane.prime(Traffic::Udp4, case.flows)?;
        }
        Ok(plane)
    })?;
    let before = plane.by_reason()?;
    let line = Line::new(&wires, &sources[0], fate)?;
    let mut contenders = [
        Contender::new("dpufw", Judge::Dpufw(&mut plane), &line),
        Contender::new(fate.floor(), Judge::Bare, &line),
    ];
    let mut both = [Both::default(), Both::default()];
    for round in 0..=settings.rounds {
        for (contender, both) in contenders.iter_mut().zip(&mut both) {
            for (number, source) in sources.iter().enumerate() {
                contender.source = source;
                let slice = contender
                    .slice(settings.slice, number as u32 + 1, both.last[number])
                    .with_context(|| format!("scale, {}: {}", case.name, contender.name))?;
                both.last[number] = Some(slice.rate);
                if round > 0 {
                    both.rates[number].push(slice.rate);
                }
            }
        }
    }
    eprintln!("   bench  scale, {}: {} rounds", case.name, settings.rounds);
    let floor = contenders[1].name.clone();
    drop(contenders);
    nearly_all(&plane, &before, case)?;
    Ok(rows(case, &floor, &both))
}

/// Nearly all packets must have met the case's reason.
fn nearly_all(plane: &Plane, before: &[(&'static str, u64)], case: &Case) -> Result<()> {
    let grown = plane.since(before)?;
    let strays: u64 = grown
        .iter()
        .filter(|(reason, _)| **reason != case.reason.name())
        .map(|(_, packets)| packets)
        .sum();
    let all: u64 = grown.values().sum();
    ensure!(
        all > 0 && strays * STRAYS <= all,
        "{}: packets by reason should nearly all be {}: {grown:?}",
        case.name,
        case.reason.name()
    );
    Ok(())
}

fn rows(case: &Case, floor: &str, [own, bare]: &[Both; 2]) -> Vec<Row> {
    let mpps = |rates: &[f64]| rates.iter().map(|rate| rate / 1e6).collect::<Vec<_>>();
    let row = |name: String, peer: &str, rates: [&[f64]; 2]| {
        let (own, other) = (mpps(rates[0]), mpps(rates[1]));
        Row::paired(Table::Scale.name(), &name, peer, "Mpps", &own, &other)
    };
    let alone = !case.name.starts_with("both");
    vec![
        row(
            format!("{}, two CPUs", case.name),
            "dpufw, one CPU",
            [&own.rates[1], &own.rates[0]],
        )
        .wanted(alone.then_some(OF_ONE))
        .with("two over one of the bare program", bare.scaled()),
        row(
            format!("{}, two CPUs", case.name),
            &format!("{floor}, two CPUs"),
            [&own.rates[1], &bare.rates[1]],
        ),
        row(
            format!("{}, one CPU", case.name),
            &format!("{floor}, one CPU"),
            [&own.rates[0], &bare.rates[0]],
        ),
    ]
}
