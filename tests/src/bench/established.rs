//! The table `established`: small packets of flows that are known, forwarded.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use fw_common::abi::Reason;
use fw_user::dataplane::FlowSizes;

use super::floor::{Counter, Floor, Program};
use super::frames::{self, Frame, Traffic};
use super::peers::Router;
use super::plane::Plane;
use super::report::{Row, Target};
use super::stand::Wires;
use super::turns::{Contender, Fate, Judge, Line, Rates};
use super::{Settings, Table};

/// Runs of the program for the time with warm caches.
const HOT_RUNS: u32 = 1_000_000;
/// One of how many forwarded packets may be lost between firewall and sink (a full ring) before a result is refused.
const LOSS: u64 = 100;

/// What dpufw's rate should be of the floor's with one look-up, for few flows and for a million; and of nftables'.
const OF_LOOKUP: Target = Target::at_least(0.87);
const OF_LOOKUP_MANY: Target = Target::at_least(0.95);
const OF_NFTABLES: Target = Target::at_least(4.0);
/// IPv6 beside IPv4: the cost.
const OF_IPV4: Target = Target::at_most(1.25);

/// Packets of which flows, of how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    traffic: Traffic,
    flows: u32,
    peers: Peers,
}

/// Who stands beside dpufw at XDP and the floors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peers {
    /// Nobody.
    None,
    /// nftables, which has a target.
    Nftables,
    /// The kernel's own ways as well, and dpufw at TC.
    All,
}

impl Case {
    /// The cases: with `quick` those that show each target once.
    pub(super) fn list(quick: bool) -> Vec<Self> {
        const ALL: [Traffic; 4] = [Traffic::Udp4, Traffic::Tcp4, Traffic::Udp6, Traffic::Tcp6];
        let case = |traffic, flows, peers| Self {
            traffic,
            flows,
            peers,
        };
        if quick {
            return vec![
                case(Traffic::Tcp4, 1000, Peers::Nftables),
                case(Traffic::Tcp6, 1000, Peers::None),
                case(Traffic::Udp4, 1_000_000, Peers::None),
            ];
        }
        let flows = [1, 1000, 100_000, 1_000_000];
        ALL.into_iter()
            .flat_map(|traffic| flows.map(|flows| case(traffic, flows, Peers::All)))
            .collect()
    }

    pub(super) fn name(self) -> String {
        format!("{}, {} flows", self.traffic.name(), self.flows)
    }

    fn sizes(self) -> FlowSizes {
        let flows = (2 * self.flows + 1).max(FlowSizes::DEFAULT.flows4);
        FlowSizes {
            flows4: if self.traffic.ipv6() {
                FlowSizes::DEFAULT.flows4
            } else {
                flows
            },
            flows6: if self.traffic.ipv6() {
                flows
            } else {
                FlowSizes::DEFAULT.flows6
            },
            ..FlowSizes::DEFAULT
        }
    }
}

/// Packets that a plane has judged since `before`, which must all have this reason.
pub(super) fn only(before: &[(&'static str, u64)], plane: &Plane, reason: Reason) -> Result<u64> {
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

/// Peers in the kernel, each with wires of its own: none sees what another one has loaded.
struct Kernel {
    name: &'static str,
    target: Option<Target>,
    router: Router,
    floor: Floor,
}

impl Kernel {
    fn new(
        name: &'static str,
        target: Option<Target>,
        router: Result<Router>,
        case: Case,
        frames: &[Frame],
    ) -> Result<Self> {
        let router = router?;
        let mut floor = Floor::load(router.wires.pair.inner, frames, &FlowSizes::DEFAULT)?;
        router.prime(&mut floor, case.traffic, case.flows)?;
        floor.reload(frames)?;
        floor.divide(case.flows, 1)?;
        Ok(Self {
            name,
            target,
            router,
            floor,
        })
    }
}

/// Measures one case; the XDP programs stand on `wires`.
#[expect(
    clippy::too_many_lines,
    reason = "one case from set-up to rows: contenders borrow what is set up before them"
)]
pub(super) fn measure(case: Case, wires: &Wires, settings: &Settings) -> Result<Vec<Row>> {
    let Case { traffic, flows, .. } = case;
    let sizes = case.sizes();
    let frames = (0..flows)
        .map(|flow| traffic.frame(flow))
        .collect::<Result<Vec<_>>>()?;
    let mut floor = Floor::load(wires.pair.inner, &frames, &sizes)?;
    floor.divide(flows, 1)?;
    let open = |plane: Result<Plane>| -> Result<(Plane, Vec<_>)> {
        let plane = plane?;
        let keys = plane.prime(traffic, flows)?;
        Ok((plane, keys))
    };
    let policy = frames::allowing();
    let (mut plane, keys) = wires.in_firewall(|| open(Plane::open(wires.pair, sizes, &policy)))?;
    keys.iter().try_for_each(|key| floor.insert(key))?;
    let mut tc = if case.peers == Peers::All {
        Some(
            wires
                .in_firewall(|| open(Plane::at_tc(wires.pair, sizes, &policy)))?
                .0,
        )
    } else {
        None
    };
    let kernel = kernel(case, &frames)?;
    let before = plane.by_reason()?;
    let tc_before = tc.as_ref().map(Plane::by_reason).transpose()?;
    let line = Line::new(wires, &floor, Fate::Forwarded)?;
    let kernel_lines = kernel
        .iter()
        .map(|peer| Line::new(&peer.router.wires, &peer.floor, Fate::Forwarded))
        .collect::<Result<Vec<_>>>()?;
    let mut contenders = vec![
        Contender::new("dpufw", Judge::Dpufw(&mut plane), &line),
        Contender::new("XDP redirect with parse and one look-up", Judge::Lookup, &line),
        Contender::new(Fate::Forwarded.floor(), Judge::Bare, &line),
    ];
    for (peer, line) in kernel.iter().zip(&kernel_lines) {
        contenders.push(Contender::new(peer.name, Judge::Kernel, line));
    }
    if let Some(tc) = &mut tc {
        contenders.push(Contender::new("dpufw at TC", Judge::DpufwTc(tc), &line));
    }
    let rates = Rates::measure(&mut contenders, settings, 1, &case.name())?;
    let names: Vec<String> = contenders.iter().map(|one| one.name.clone()).collect();
    drop(contenders);
    for (plane, before, number) in [
        (Some(&plane), Some(before), 0),
        (tc.as_ref(), tc_before, names.len() - 1),
    ] {
        let (Some(plane), Some(before)) = (plane, before) else {
            continue;
        };
        let (judged, arrived) = (only(&before, plane, Reason::Established)?, rates.packets(number));
        ensure!(
            arrived <= judged && (judged - arrived) * LOSS <= judged,
            "{} forwarded {judged} packets and {arrived} arrived",
            names[number]
        );
    }
    let missed: u64 = floor.count(Counter::Miss)?.iter().sum();
    ensure!(missed == 0, "the floor's look-up missed {missed} packets");
    let hot = wires.in_firewall(|| hot(wires, &floor, &plane, &frames[0], Program::Redirect))?;
    let targets = [
        Some(if flows >= 1_000_000 {
            OF_LOOKUP_MANY
        } else {
            OF_LOOKUP
        })
        .filter(|_| flows >= 1000 && flows != 100_000),
        None,
    ];
    let targets = targets.into_iter().chain(kernel.iter().map(|peer| peer.target));
    let mut rows = Vec::new();
    for (number, target) in (1..).zip(targets) {
        let row = row(case, &names[number], &rates, [0, number], settings).wanted(target);
        rows.push(match hot.get(number) {
            Some(peer) => row.with("hot ns", hot[0]).with("peer's hot ns", *peer),
            None => row,
        });
    }
    if tc.is_some() {
        let number = names.len() - 1;
        rows.push(row(case, "dpufw at TC", &rates, [0, number], settings));
    }
    Ok(rows)
}

fn row(case: Case, peer: &str, rates: &Rates, [own, other]: [usize; 2], settings: &Settings) -> Row {
    let compared = rates.compare(own, other);
    let bare = rates.compare(own, 2);
    Row::new(
        Table::Established.name(),
        &case.name(),
        peer,
        "Mpps",
        [compared.own / 1e6, compared.peer / 1e6],
    )
    .rounds(compared.ratio, settings.rounds)
    .with("ns above bare", bare.above * 1e9)
    .with("ns above peer", compared.above * 1e9)
}

fn kernel(case: Case, frames: &[Frame]) -> Result<Vec<Kernel>> {
    if case.peers == Peers::None {
        return Ok(Vec::new());
    }
    let nftables = (case.flows == 1000).then_some(OF_NFTABLES);
    let mut peers = vec![Kernel::new(
        "nftables, stateful forward",
        nftables,
        Router::nftables(&frames::allowing_nft()),
        case,
        frames,
    )?];
    if case.peers == Peers::All {
        peers.push(Kernel::new(
            "iptables-nft, stateful forward",
            None,
            Router::iptables(&frames::allowing_iptables()),
            case,
            frames,
        )?);
        peers.push(Kernel::new(
            "kernel forwarding alone",
            None,
            Router::plain(),
            case,
            frames,
        )?);
    }
    Ok(peers)
}

/// ns of a run with warm caches: dpufw, look-up, bare.
pub(super) fn hot(
    wires: &Wires,
    floor: &Floor,
    plane: &Plane,
    frame: &Frame,
    bare: Program,
) -> Result<[f64; 3]> {
    let outer = wires.pair.outer;
    let times = [
        plane.time(frame, HOT_RUNS)?,
        floor.time(Program::Lookup, outer, frame, HOT_RUNS)?,
        floor.time(bare, outer, frame, HOT_RUNS)?,
    ];
    Ok(times.map(|time| time.as_secs_f64() * 1e9))
}

/// IPv6 beside IPv4, from the rows of both: what one packet costs above the bare floor does not count here, the whole does.
pub(super) fn families(rows: &[Row]) -> Vec<Row> {
    let floor = Fate::Forwarded.floor();
    let find = |traffic: Traffic, flows: &str| {
        rows.iter()
            .find(|row| row.case == format!("{}, {flows} flows", traffic.name()) && row.peer == floor)
    };
    let mut found = Vec::new();
    for (v4, v6) in [(Traffic::Udp4, Traffic::Udp6), (Traffic::Tcp4, Traffic::Tcp6)] {
        for flows in ["1", "1000", "100000", "1000000"] {
            let (Some(four), Some(six)) = (find(v4, flows), find(v6, flows)) else {
                continue;
            };
            // Measured one after the other, each beside the floor of its own rounds: the ratio of the ratios.
            let cost = four.ratio / six.ratio;
            let mut row = Row::new(
                Table::Established.name(),
                &format!("{} beside {}, {flows} flows", v6.name(), v4.name()),
                "dpufw with IPv4, both over the bare floor",
                "cost",
                [1.0 / six.ratio, 1.0 / four.ratio],
            )
            .wanted(OF_IPV4);
            (row.ratio, row.spread, row.rounds) = (cost, four.spread + six.spread, four.rounds);
            found.push(row);
        }
    }
    found
}
