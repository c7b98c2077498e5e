//! The table `classify`: what the first packet of a flow costs, and one that is denied, by the size of the policy; the table
//! `policy`: what compiling and applying one costs.
//!
//! The contenders take turns on the same stand. Every packet has a source, a destination and a port of its own, chosen at
//! random, so that the addresses' look-up finds nothing in the caches that an earlier packet of the same flow has left
//! there; a list is longer than the table of unconfirmed flows, so each packet opens a flow anew.

mod costs;
pub(super) mod policies;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use fw_common::abi::Reason;
use fw_user::dataplane::FlowSizes;

use super::floor::Floor;
use super::frames::Frame;
use super::peers;
use super::plane::Plane;
use super::report::{Row, Target};
use super::stand::Wires;
use super::turns::{Contender, Fate, Judge, Line, Rates};
use super::{Settings, Table};
use policies::{Known, Rules};

/// Rules of the policies that are compared, the fewest first.
const RULES: [u32; 5] = [10, 100, 1_000, 10_000, 100_000];
/// Rules of nftables' lists and maps.
const FLAT: [u32; 3] = [10, 1_000, 100_000];
const MAP: [u32; 2] = [10, 100_000];
/// Prefixes of the large zone.
const PREFIXES: usize = 1_000_000;
/// Packets in a list, by rules and by prefixes: several times the entries of the table of unconfirmed flows.
const BY_RULE: usize = 1 << 18;
const BY_PREFIX: usize = 1 << 20;
/// No flow is ever confirmed, so the main tables are small.
const SIZES: FlowSizes = FlowSizes {
    flows4: 1025,
    flows6: 1025,
    half4: 1 << 16,
    half6: 1 << 16,
    ..FlowSizes::DEFAULT
};

/// How much dearer than its peer a case may be: 100,000 rules; a million prefixes for packets that open flows, that are
/// denied, and for IPv6.
const MORE_RULES: f64 = 1.2;
const OPENS: f64 = 2.0;
const DENIES: f64 = 2.5;
const IPV6: f64 = 3.0;

/// One of how many packets may meet another reason than the one that is measured: flows that are still in the table.
const STRAYS: u64 = 20;

/// The table `policy`.
///
/// # Errors
/// If a policy does not compile, or the kernel refuses.
pub(super) fn policies(settings: &Settings) -> Result<Vec<Row>> {
    costs::measure(PREFIXES, settings)
}

/// The table `classify`.
///
/// # Errors
/// If something cannot be set up, or packets went another way than meant.
pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for fate in [Fate::Forwarded, Fate::Dropped] {
        if settings.wants(&format!("rules, {}", happens(fate))) {
            rows.extend(rules(fate, settings)?);
        }
    }
    for known in [false, true].map(|ipv6| Known { ipv6 }) {
        for fate in [Fate::Forwarded, Fate::Dropped] {
            if settings.wants(&prefixes_name(known, fate)) {
                rows.extend(prefixes(known, fate, settings)?);
            }
        }
    }
    Ok(rows)
}

/// What happens to the packets, in words.
const fn happens(fate: Fate) -> &'static str {
    match fate {
        Fate::Forwarded => "opens a flow",
        Fate::Dropped => "denied by default",
    }
}

/// A generator with its own list, on these wires.
fn source(wires: &Wires, frames: &[Frame]) -> Result<Floor> {
    let mut floor = Floor::load(wires.pair.inner, frames, &SIZES)?;
    floor.divide(frames.len() as u32, 1)?;
    Ok(floor)
}

/// A peer on wires of its own.
struct Nft {
    name: String,
    router: peers::Router,
    floor: Floor,
}

impl Nft {
    /// `sets` and `rules` of a forward chain, behind the usual rule for known flows. What no rule accepts is dropped.
    fn new(name: String, sets: &str, rules: &str, frames: &[Frame]) -> Result<Self> {
        let text = format!(
            "table inet fw {{\n{sets}chain forward {{\ntype filter hook forward priority filter; policy drop;\nct state \
             established,related accept\n{rules}}}\n}}\n"
        );
        let router = peers::Router::forgetful(&text)?;
        let floor = source(&router.wires, frames)?;
        Ok(Self { name, router, floor })
    }

    fn line(&self, fate: Fate) -> Result<Line<'_>> {
        Line::new(&self.router.wires, &self.floor, fate)
    }
}

/// The same policy shape with more and more rules.
#[expect(
    clippy::too_many_lines,
    reason = "one case from set-up to rows: contenders borrow what is set up before them"
)]
fn rules(fate: Fate, settings: &Settings) -> Result<Vec<Row>> {
    let name = format!("rules, {}", happens(fate));
    let wires = Wires::new()?;
    let frames = RULES
        .iter()
        .map(|rules| {
            Ok((
                *rules,
                Rules { rules: *rules }.frames(BY_RULE, fate == Fate::Forwarded)?,
            ))
        })
        .collect::<Result<BTreeMap<_, _>>>()?;
    let sources = RULES
        .iter()
        .map(|rules| source(&wires, &frames[rules]))
        .collect::<Result<Vec<_>>>()?;
    let mut planes = wires.in_firewall(|| {
        let plane = |rules: &u32| Plane::open(wires.pair, SIZES, &Rules { rules: *rules }.text());
        RULES.iter().map(plane).collect::<Result<Vec<_>>>()
    })?;
    let lists = FLAT.map(|rules| (rules, "list", Rules { rules }.flat()));
    let maps = MAP.map(|rules| (rules, "map", Rules { rules }.map()));
    let tables = lists.into_iter().chain(maps);
    let peers = tables
        .map(|(rules, kind, text)| {
            let name = format!("nftables, {kind} of {rules} rules");
            Ok((rules, Nft::new(name, "", &text, &frames[&rules])?))
        })
        .collect::<Result<Vec<_>>>()?;
    let line = Line::new(&wires, &sources[0], fate)?;
    let lines = peers
        .iter()
        .map(|(_, peer)| peer.line(fate))
        .collect::<Result<Vec<_>>>()?;
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    for ((rules, plane), source) in RULES.iter().zip(&mut planes).zip(&sources) {
        let judge = Judge::Dpufw(plane);
        contenders.push(Contender::new(format!("dpufw, {rules} rules"), judge, &line).sent(source));
    }
    contenders.push(Contender::new(fate.floor(), Judge::Bare, &line));
    for ((_, peer), line) in peers.iter().zip(&lines) {
        contenders.push(Contender::new(peer.name.clone(), Judge::Kernel, line));
    }
    let rates = measured(&mut contenders, fate, settings, &name)?;
    let names: Vec<String> = contenders.iter().map(|one| one.name.clone()).collect();
    let floor = RULES.len();
    let case = |rules: u32| format!("{rules} rules, {}", happens(fate));
    let mut rows = vec![row(&case(10), &names[floor], &rates, [0, floor, floor], settings)];
    for (number, rules) in RULES.iter().enumerate().skip(1) {
        rows.push(
            row(&case(*rules), &names[0], &rates, [number, 0, floor], settings)
                .wanted(Target::at_most(MORE_RULES)),
        );
    }
    for ((rules, _), peer) in peers.iter().zip(floor + 1..) {
        let own = RULES.iter().position(|own| own == rules).unwrap_or(0);
        rows.push(row(
            &case(*rules),
            &names[peer],
            &rates,
            [own, peer, floor],
            settings,
        ));
    }
    Ok(rows)
}

fn prefixes_name(known: Known, fate: Fate) -> String {
    let family = if known.ipv6 { "IPv6" } else { "IPv4" };
    format!("1,000,000 {family} prefixes, {}", happens(fate))
}

/// A million prefixes beside a handful that hold the same addresses.
fn prefixes(known: Known, fate: Fate, settings: &Settings) -> Result<Vec<Row>> {
    let wires = Wires::new()?;
    let (few, many) = (known.few(), known.many(PREFIXES));
    let frames = match fate {
        Fate::Forwarded => known.opening(&many, BY_PREFIX)?,
        Fate::Dropped => known.denied(BY_PREFIX)?,
    };
    let source = source(&wires, &frames)?;
    let open = |prefixes: &[ipnet::IpNet]| {
        let policy = known.policy(prefixes)?;
        wires.in_firewall(|| Plane::of(wires.pair, SIZES, &policy))
    };
    let (mut small, mut large) = (open(&few)?, open(&many)?);
    let (set, rule) = known.nft_set(&many);
    let peer = Nft::new(
        "nftables, interval set of 1,000,000 prefixes".to_owned(),
        &set,
        &rule,
        &frames,
    )?;
    let line = Line::new(&wires, &source, fate)?;
    let peer_line = peer.line(fate)?;
    let mut contenders = [
        Contender::new("dpufw, a handful of prefixes", Judge::Dpufw(&mut small), &line),
        Contender::new("dpufw, 1,000,000 prefixes", Judge::Dpufw(&mut large), &line),
        Contender::new(fate.floor(), Judge::Bare, &line),
        Contender::new(peer.name.clone(), Judge::Kernel, &peer_line),
    ];
    let name = prefixes_name(known, fate);
    let rates = measured(&mut contenders, fate, settings, &name)?;
    let target = Target::at_most(match (known.ipv6, fate) {
        (true, _) => IPV6,
        (false, Fate::Forwarded) => OPENS,
        (false, Fate::Dropped) => DENIES,
    });
    let handful = name.replace("1,000,000", "a handful of");
    let row = |case: &str, own: usize, peer: usize| {
        row(case, &contenders[peer].name, &rates, [own, peer, 2], settings)
    };
    Ok(vec![
        row(&handful, 0, 2),
        row(&name, 1, 0).wanted(target),
        row(&name, 1, 3),
    ])
}

/// Lets all take turns; nearly all packets of dpufw's must have met the reason that is measured.
fn measured(contenders: &mut [Contender<'_>], fate: Fate, settings: &Settings, name: &str) -> Result<Rates> {
    let reasons = |contenders: &[Contender<'_>]| -> Result<Vec<BTreeMap<_, _>>> {
        let of = |one: &Contender<'_>| match &one.judge {
            Judge::Dpufw(plane) => Ok(plane.by_reason()?.into_iter().collect()),
            _ => Ok(BTreeMap::new()),
        };
        contenders.iter().map(of).collect()
    };
    let before = reasons(contenders)?;
    let rates = Rates::measure(contenders, settings, 1, name)?;
    let meant = match fate {
        Fate::Forwarded => Reason::Rule.name(),
        Fate::Dropped => Reason::DenyDefault.name(),
    };
    for ((since, before), contender) in reasons(contenders)?
        .into_iter()
        .zip(before)
        .zip(contenders.iter())
    {
        let Judge::Dpufw(_) = contender.judge else {
            continue;
        };
        let grown: BTreeMap<_, u64> = since
            .into_iter()
            .map(|(name, count)| (name, count - before.get(name).unwrap_or(&0)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let all: u64 = grown.values().sum();
        let strays = all - grown.get(meant).unwrap_or(&0);
        ensure!(
            all > 0 && strays * STRAYS <= all,
            "{}: packets by reason should nearly all be {meant}: {grown:?}",
            contender.name
        );
    }
    Ok(rates)
}

/// A row in ns for a packet, with what both cost above the bare program.
fn row(case: &str, peer: &str, rates: &Rates, [own, other, floor]: [usize; 3], settings: &Settings) -> Row {
    let compared = rates.costs(own, other);
    let bare = rates.costs(own, floor).peer;
    Row::new(
        Table::Classify.name(),
        case,
        peer,
        "ns/packet",
        [compared.own, compared.peer],
    )
    .rounds(compared.ratio, settings.rounds)
    .with("ns above bare", compared.own - bare)
    .with("peer's ns above bare", compared.peer - bare)
}
