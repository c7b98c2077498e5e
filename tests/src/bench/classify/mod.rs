//! The table `classify`: what the first packet of a flow costs, and one that is denied, by the size of the policy; the table
//! `policy`: what compiling and applying one costs.
//!
//! The contenders take turns on the same stand. Every packet has a source, a destination and a port of its own, chosen at
//! random, so that the addresses' look-up finds nothing in the caches that an earlier packet of the same flow has left
//! there; a list is longer than the table of unconfirmed flows, so each packet opens a flow anew.

mod costs;
mod nft;
mod policies;
mod rows;
mod turns;

use anyhow::{Result, anyhow};
use fw_user::dataplane::FlowSizes;

pub use rows::{Row, markdown};

use super::floor::Floor;
use super::frames::Frame;
use super::machine::Machine;
use super::plane::Plane;
use super::stand::{Fate, Wires, mac};
use super::{Settings, stand};
use nft::Ruleset;
use policies::{Known, Rules};
use rows::Title;
use turns::{Contender, Costs, Judge};

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

/// Runs both tables.
///
/// # Errors
/// If something cannot be set up, or packets went another way than meant.
pub fn run(settings: &Settings) -> Result<Vec<Row>> {
    let mut rows = costs::measure(PREFIXES)?;
    let wires = Wires::new()?;
    nft::route(&wires.firewall, mac(4))?;
    let bench = Bench {
        wires: &wires,
        settings,
    };
    for fate in [Fate::Forwarded, Fate::Dropped] {
        rows.extend(wires.in_firewall(|| bench.rules(fate))?);
    }
    for ipv6 in [false, true] {
        for fate in [Fate::Forwarded, Fate::Dropped] {
            rows.extend(wires.in_firewall(|| bench.prefixes(Known { ipv6 }, fate))?);
        }
    }
    Ok(rows)
}

/// What all cases share.
struct Bench<'a> {
    wires: &'a Wires,
    settings: &'a Settings,
}

/// What happens to the packets, in words.
const fn happens(fate: Fate) -> &'static str {
    match fate {
        Fate::Forwarded => "opens a flow",
        Fate::Dropped => "denied by default",
    }
}

impl Bench<'_> {
    /// A generator with its own list.
    fn source(&self, frames: &[Frame]) -> Result<Floor> {
        let mut floor = Floor::load(self.wires.pair.inner, frames, &SIZES)?;
        floor.divide(frames.len() as u32, 1)?;
        Ok(floor)
    }

    /// The same policy shape with more and more rules.
    fn rules(&self, fate: Fate) -> Result<Vec<Row>> {
        let name = format!("rules, {}", happens(fate));
        let frames = |rules| Rules { rules }.frames(BY_RULE, fate == Fate::Forwarded);
        let sources = RULES
            .iter()
            .map(|rules| self.source(&frames(*rules)?))
            .collect::<Result<Vec<_>>>()?;
        let source = |rules: u32| &sources[RULES.iter().position(|own| *own == rules).unwrap_or(0)];
        let mut planes = RULES
            .iter()
            .map(|rules| Plane::open(self.wires.pair, SIZES, &Rules { rules: *rules }.text()))
            .collect::<Result<Vec<_>>>()?;
        let firewall = &self.wires.firewall;
        let lists = FLAT.map(|rules| (rules, "list", Rules { rules }.flat()));
        let maps = MAP.map(|rules| (rules, "map", Rules { rules }.map()));
        let tables = lists
            .into_iter()
            .chain(maps)
            .map(|(rules, kind, text)| {
                let table = format!("{kind}{rules}");
                Ok((rules, kind, Ruleset::load(firewall, &table, "", &text)?))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut contenders: Vec<Contender<'_>> = Vec::new();
        for (rules, plane) in RULES.iter().zip(&mut planes) {
            contenders.push(Contender {
                name: format!("dpufw, {rules} rules"),
                judge: Judge::Dpufw(plane),
                source: source(*rules),
            });
        }
        contenders.push(bare(fate, source(RULES[0])));
        for (rules, kind, table) in &tables {
            contenders.push(Contender {
                name: format!("nftables, {kind} of {rules} rules"),
                judge: Judge::Nft(table),
                source: source(*rules),
            });
        }
        let costs = Costs::measure(self.wires, fate, &mut contenders, self.settings, &name)?;
        let names: Vec<String> = contenders.iter().map(|one| one.name.clone()).collect();
        Ok(self.rule_rows(&costs, fate, &names))
    }

    /// Contenders: the planes of [`RULES`], the bare program, nftables' rule sets.
    fn rule_rows(&self, costs: &Costs, fate: Fate, names: &[String]) -> Vec<Row> {
        let floor = RULES.len();
        let mut rows = vec![self.row(
            costs,
            Title::new(format!("10 rules, {}", happens(fate)), &names[floor], None),
            [0, floor, floor],
        )];
        for (number, rules) in RULES.iter().enumerate().skip(1) {
            let title = Title::new(
                format!("{rules} rules, {}", happens(fate)),
                &names[0],
                Some(MORE_RULES),
            );
            rows.push(self.row(costs, title, [number, 0, floor]));
        }
        let peers = FLAT.iter().chain(&MAP).zip(floor + 1..);
        for (rules, peer) in peers {
            let own = RULES.iter().position(|own| own == rules).unwrap_or(0);
            let title = Title::new(format!("{rules} rules, {}", happens(fate)), &names[peer], None);
            rows.push(self.row(costs, title, [own, peer, floor]));
        }
        rows
    }

    /// A million prefixes beside a handful that hold the same addresses.
    fn prefixes(&self, known: Known, fate: Fate) -> Result<Vec<Row>> {
        let family = if known.ipv6 { "IPv6" } else { "IPv4" };
        let (few, many) = (known.few(), known.many(PREFIXES));
        let frames = match fate {
            Fate::Forwarded => known.opening(&many, BY_PREFIX)?,
            Fate::Dropped => known.denied(BY_PREFIX)?,
        };
        let source = self.source(&frames)?;
        let mut small = Plane::of(self.wires.pair, SIZES, &known.policy(&few)?)?;
        let mut large = Plane::of(self.wires.pair, SIZES, &known.policy(&many)?)?;
        let (set, rule) = known.nft_set(&many);
        let table = Ruleset::load(&self.wires.firewall, "prefixes", &set, &rule)?;
        let contender = |name: &str, judge| Contender {
            name: name.to_owned(),
            judge,
            source: &source,
        };
        let mut contenders = [
            contender("dpufw, a handful of prefixes", Judge::Dpufw(&mut small)),
            contender("dpufw, 1,000,000 prefixes", Judge::Dpufw(&mut large)),
            bare(fate, &source),
            contender("nftables, interval set of 1,000,000 prefixes", Judge::Nft(&table)),
        ];
        let name = format!("1,000,000 {family} prefixes, {}", happens(fate));
        let costs = Costs::measure(self.wires, fate, &mut contenders, self.settings, &name)?;
        let target = match (known.ipv6, fate) {
            (true, _) => IPV6,
            (false, Fate::Forwarded) => OPENS,
            (false, Fate::Dropped) => DENIES,
        };
        let row = |own: usize, peer: usize, target| {
            let case = if own == 1 {
                name.clone()
            } else {
                format!("a handful of {family} prefixes, {}", happens(fate))
            };
            self.row(
                &costs,
                Title::new(case, &contenders[peer].name, target),
                [own, peer, 2],
            )
        };
        Ok(vec![row(0, 2, None), row(1, 0, Some(target)), row(1, 3, None)])
    }

    fn row(&self, costs: &Costs, title: Title<'_>, [own, peer, floor]: [usize; 3]) -> Row {
        let compared = costs.compare(own, peer);
        let bare = costs.compare(own, floor).peer;
        title.row(compared, bare, self.settings.rounds)
    }
}

fn bare(fate: Fate, source: &Floor) -> Contender<'_> {
    let name = match fate {
        stand::Fate::Forwarded => "bare XDP redirect",
        stand::Fate::Dropped => "bare XDP drop",
    };
    Contender {
        name: name.to_owned(),
        judge: Judge::Bare,
        source,
    }
}

/// The lines about the machine above the tables.
///
/// # Errors
/// If a file cannot be written.
pub fn write_json(rows: &[Row], path: &std::path::Path) -> Result<()> {
    let machine = Machine::here();
    let text = serde_json::to_string_pretty(&serde_json::json!({
        "kernel": machine.kernel, "cpu": machine.cpu, "commit": machine.commit, "rows": rows,
    }))? + "\n";
    std::fs::write(path, text).map_err(|error| anyhow!("cannot write {}: {error}", path.display()))
}
