//! The table `deny`: a flood that no rule allows.

use anyhow::{Result, ensure};
use fw_common::abi::Reason;
use fw_user::dataplane::FlowSizes;

use super::established::{hot, only};
use super::filter::{self, Filter};
use super::floor::{Counter, Floor, Program};
use super::frames::{self, Traffic};
use super::peers::Router;
use super::plane::Plane;
use super::report::{Row, Target};
use super::stand::Wires;
use super::turns::{Contender, Fate, Judge, Line, Rates};
use super::{Settings, Table};

/// Rules, the fewest first.
const RULES: [u32; 5] = [10, 100, 1000, 10_000, 100_000];
/// Rules in a list of nftables', and in a set of its.
const LISTS: [u32; 3] = [100, 1000, 10_000];
const SETS: [u32; 2] = [100, 10_000];
/// Packets of random sources: more than any cache holds.
const RANDOM: usize = 1 << 18;
/// Live flows.
const LIVE: u32 = 1_000_000;
/// The floor with a look-up.
const LOOKUP: &str = "XDP drop with parse and one look-up";

/// What dpufw's rate should be of the bare drop's: few sources; random ones with a million flows.
const OF_DROP: Target = Target::at_least(0.55);
const OF_DROP_LIVE: Target = Target::at_least(0.40);
/// Of its own with 10 rules.
const FLAT: Target = Target::between(1.0 / 1.2, 1.2);
/// Of nftables' with a list of 100 and of 1,000 rules.
const OF_100: Target = Target::at_least(10.0);
const OF_1000: Target = Target::at_least(60.0);

/// From how many sources, and how many flows live meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    sources: usize,
    live: u32,
    quick: bool,
}

impl Case {
    /// The cases: with `quick` the two that have targets.
    pub(super) fn list(quick: bool) -> Vec<Self> {
        let case = |sources, live| Self { sources, live, quick };
        if quick {
            return vec![case(1000, 0), case(RANDOM, LIVE)];
        }
        [0, LIVE]
            .into_iter()
            .flat_map(|live| [case(1000, live), case(RANDOM, live)])
            .collect()
    }

    pub(super) fn name(self) -> String {
        let sources = if self.sources == RANDOM {
            "random".to_owned()
        } else {
            self.sources.to_string()
        };
        format!("{sources} sources, {} live flows", self.live)
    }

    fn rules(self) -> Vec<u32> {
        match (self.quick, self.live) {
            (false, _) => RULES.to_vec(),
            (true, 0) => vec![10, 10_000],
            (true, _) => vec![10],
        }
    }

    fn target(self) -> Option<Target> {
        match (self.sources == RANDOM, self.live) {
            (false, 0) => Some(OF_DROP),
            (true, LIVE) => Some(OF_DROP_LIVE),
            _ => None,
        }
    }
}

/// A rule set of nftables' on wires of its own.
struct Peer {
    name: String,
    rules: u32,
    target: Option<Target>,
    router: Router,
    floor: Floor,
}

fn peers(case: Case, frames: &[frames::Frame]) -> Result<Vec<Peer>> {
    // The flows of others change nothing for a chain without connection tracking.
    if case.live > 0 {
        return Ok(Vec::new());
    }
    let lists: &[u32] = if case.quick { &LISTS[..2] } else { &LISTS };
    let sets: &[u32] = if case.quick { &[] } else { &SETS };
    let texts = lists
        .iter()
        .map(|rules| ("list", *rules, frames::denying_nft(*rules, zones(*rules))))
        .chain(
            sets.iter()
                .map(|rules| ("set", *rules, frames::denying_nft_set(*rules, zones(*rules)))),
        );
    texts
        .map(|(kind, rules, text)| {
            let router = Router::nftables(&text)?;
            let mut floor = Floor::load(router.wires.pair.inner, frames, &FlowSizes::DEFAULT)?;
            floor.divide(frames.len() as u32, 1)?;
            Ok(Peer {
                name: format!("nftables, raw prerouting, {kind} of {rules} rules"),
                rules,
                target: match (kind, rules) {
                    ("list", 100) => Some(OF_100),
                    ("list", 1000) => Some(OF_1000),
                    _ => None,
                },
                router,
                floor,
            })
        })
        .collect()
}

/// Zones of a policy with this many rules.
const fn zones(rules: u32) -> u32 {
    if rules <= 10 { 10 } else { 100 }
}

/// Measures one case; the XDP programs stand on `wires`.
#[expect(
    clippy::too_many_lines,
    reason = "one case from set-up to rows: contenders borrow what is set up before them"
)]
pub(super) fn measure(case: Case, wires: &Wires, settings: &Settings) -> Result<Vec<Row>> {
    let sizes = FlowSizes {
        flows4: (2 * case.live + 1).max(FlowSizes::DEFAULT.flows4),
        ..FlowSizes::DEFAULT
    };
    let frames = frames::denied(case.sources)?;
    let mut floor = Floor::load(wires.pair.inner, &frames, &sizes)?;
    floor.divide(frames.len() as u32, 1)?;
    for flow in 0..case.live {
        floor.insert(&Traffic::Udp4.key(flow))?;
    }
    let rules = case.rules();
    let open = |rules: u32| -> Result<Plane> {
        let plane = Plane::open(wires.pair, sizes, &frames::denying(rules, zones(rules)))?;
        if case.live > 0 {
            plane.prime(Traffic::Udp4, case.live)?;
        }
        Ok(plane)
    };
    let mut planes =
        wires.in_firewall(|| rules.iter().map(|rules| open(*rules)).collect::<Result<Vec<_>>>())?;
    let before = planes.iter().map(Plane::by_reason).collect::<Result<Vec<_>>>()?;
    let peers = peers(case, &frames)?;
    // What has no target is left out of a quick run.
    let filter = if case.quick { None } else { Some(Filter::load()?) };
    let line = Line::new(wires, &floor, Fate::Dropped)?;
    let peer_lines = peers
        .iter()
        .map(|peer| Line::new(&peer.router.wires, &peer.floor, Fate::Dropped))
        .collect::<Result<Vec<_>>>()?;
    let mut contenders = vec![Contender::new(Fate::Dropped.floor(), Judge::Bare, &line)];
    for (rules, plane) in rules.iter().zip(&mut planes) {
        contenders.push(Contender::new(
            format!("dpufw with {rules} rules"),
            Judge::Dpufw(plane),
            &line,
        ));
    }
    for (peer, line) in peers.iter().zip(&peer_lines) {
        contenders.push(Contender::new(peer.name.clone(), Judge::Kernel, line));
    }
    if let Some(filter) = &filter {
        contenders.push(Contender::new(LOOKUP, Judge::Lookup, &line));
        contenders.push(Contender::new(filter::NAME, Judge::Filter(filter), &line));
    }
    let rates = Rates::measure(&mut contenders, settings, 1, &format!("deny, {}", case.name()))?;
    let names: Vec<String> = contenders.iter().map(|one| one.name.clone()).collect();
    drop(contenders);
    for (plane, before) in planes.iter().zip(&before) {
        only(before, plane, Reason::DenyDefault)?;
    }
    let sunk: u64 = floor.count(Counter::Sink)?.iter().sum();
    ensure!(
        sunk == 0,
        "{sunk} packets that should have been dropped reached the sink"
    );
    let hot = wires.in_firewall(|| hot(wires, &floor, &planes[0], &frames[0], Program::Drop))?;
    let row = |rules: u32, own: usize, other: usize| {
        let compared = rates.compare(own, other);
        Row::new(
            Table::Deny.name(),
            &format!("{rules} rules, {}", case.name()),
            &names[other],
            "Mpps",
            [compared.own / 1e6, compared.peer / 1e6],
        )
        .rounds(compared.ratio, settings.rounds)
        .with("ns above bare", rates.compare(own, 0).above * 1e9)
    };
    let named = |name: &str| names.iter().position(|one| one == name);
    let mut rows = Vec::new();
    for (own, number) in (1..).zip(&rules) {
        rows.push(
            row(*number, own, 0)
                .wanted(case.target())
                .with("hot ns with 10 rules", hot[0]),
        );
        rows.extend(named(LOOKUP).map(|other| row(*number, own, other)));
        if own > 1 {
            rows.push(row(*number, own, 1).wanted(FLAT));
        }
    }
    for (other, peer) in (1 + rules.len()..).zip(&peers) {
        // dpufw with as many rules, or with more.
        let own = rules.iter().position(|rules| *rules >= peer.rules).unwrap_or(0);
        rows.push(row(rules[own], own + 1, other).wanted(peer.target));
    }
    rows.extend(named(filter::NAME).map(|other| row(rules[0], 1, other)));
    Ok(rows)
}
