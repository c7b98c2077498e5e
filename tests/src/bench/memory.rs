//! The table `memory`: what flows take in the kernel, rules and prefixes in the tables, and what the agent holds.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use aya::maps::MapData;
use fw_common::abi::map_names;
use fw_policy::{Environment, Policy};
use fw_user::agent::versioned;
use fw_user::dataplane::{DataPlane, FlowKey, FlowSizes, Options};

use super::classify::policies::{Known, Rules};
use super::frames::{self, Traffic};
use super::plane::{Plane, copy4, map_of};
use super::report::{Row, Target};
use super::stand::Wires;
use super::{Settings, Table};
use crate::lab::{Agent, Leftover};

/// What an IPv4 flow may take, bytes.
const LIMIT: f64 = 256.0;
/// Sizes of the main tables that are compared: what a map takes for itself falls out of the difference.
const SMALL: u32 = (1 << 17) + 1;
const LARGE: u32 = (1 << 20) + 1;
/// Rules and prefixes that are compared.
const RULES: [u32; 2] = [10_000, 100_000];
const PREFIXES: usize = 1_000_000;
const PREFIXES_QUICK: usize = 100_000;
/// Flows in the agent's table.
const FLOWS: u32 = 1_000_000;
/// How long the agent may take to see them, and how often it is asked.
const SOON: Duration = Duration::from_mins(2);
const OFTEN: Duration = Duration::from_millis(500);
/// Passes of the ageing that an agent must have made before it is looked at.
const BEATS: u64 = 3;

/// The table.
///
/// # Errors
/// If something cannot be set up, or the kernel does not say what its maps take.
pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    type Part = fn(&Settings) -> Result<Vec<Row>>;
    let parts: [(&str, Part); 4] = [
        ("a flow", |_| flows()),
        ("a rule", |_| rules()),
        ("a prefix", prefixes),
        ("the agent", |_| agent()),
    ];
    let mut rows = Vec::new();
    for (name, part) in parts {
        if settings.wants(name) {
            eprintln!("   bench  memory: {name}");
            rows.extend(part(settings)?);
        }
    }
    Ok(rows)
}

fn row(case: &str, peer: &str, unit: &str, values: [f64; 2]) -> Row {
    Row::new(Table::Memory.name(), case, peer, unit, values)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a machine's memory")]
const fn number(bytes: u64) -> f64 {
    bytes as f64
}

/// What the kernel has accounted for a map of a program, bytes.
fn memlock(map: &MapData) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .with_context(|| format!("{path} does not say what the map takes: {text}"))
}

/// What the four flow tables of a data plane with main tables of this size take, main IPv4 and IPv6, half-open IPv4 and
/// IPv6, and the bits of flows; bytes.
fn tables(main: u32) -> Result<[u64; 5]> {
    let sizes = FlowSizes {
        flows4: main,
        flows6: main,
        ..FlowSizes::DEFAULT
    };
    let plane = DataPlane::open(Options {
        sizes,
        ..Options::default()
    })?;
    let program = plane.program_sizes()?.first().context("no program is loaded")?.id;
    let of = |name| memlock(&map_of(program, name)?);
    Ok([
        of(map_names::FLOWS4)?,
        of(map_names::FLOWS6)?,
        of(map_names::HALF4)?,
        of(map_names::HALF6)?,
        of(map_names::PRESENCE)?,
    ])
}

/// A flow of each family: by how much its main table grows for one more, and the bits of both families' flows.
fn flows() -> Result<Vec<Row>> {
    let (small, large) = (tables(SMALL)?, tables(LARGE)?);
    let grown = |table: usize| number(large[table] - small[table]) / f64::from(LARGE - SMALL);
    let bits = grown(4) / 2.0;
    let each = |family: usize| grown(family) + bits;
    let half = [FlowSizes::DEFAULT.half4, FlowSizes::DEFAULT.half6];
    let mut rows = Vec::new();
    for (family, name) in ["an IPv4 flow", "an IPv6 flow"].into_iter().enumerate() {
        let of_half = number(small[2 + family]) / f64::from(half[family]);
        let share = number(small[2 + family]) / f64::from(SMALL);
        let more = |row: Row| {
            row.with("of them bytes of bits", bits)
                .with("bytes of an entry of the half-open table", of_half)
                .with("share in a half-open table of the default size, bytes", share)
        };
        let limit = [each(family), LIMIT];
        rows.push(more(
            row(name, "the limit of 256 bytes", "bytes", limit)
                .wanted((family == 0).then_some(Target::at_most(1.0))),
        ));
        // Its slab exists only while the module is loaded.
        if let Some(conntrack) = slab("nf_conntrack") {
            let peer = "nf_conntrack's entry, without its extensions and buckets";
            rows.push(row(name, peer, "bytes", [each(family), conntrack]));
        }
    }
    Ok(rows)
}

/// Bytes of an object in a slab of the kernel's.
fn slab(name: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

fn checked(text: &str) -> Result<Policy> {
    let (policy, _) = fw_policy::check(text, "bench.yaml").map_err(|findings| anyhow!("{findings}"))?;
    Ok(policy)
}

/// Bytes of a policy's tables.
fn compiled(policy: &Policy) -> Result<f64> {
    let tables = fw_policy::compile(policy, &Environment::sample())?;
    Ok(number(tables.stats.bytes))
}

/// A rule: by how much the tables grow.
fn rules() -> Result<Vec<Row>> {
    let texts = RULES.map(|rules| Rules { rules }.text());
    let bytes = [compiled(&checked(&texts[0])?)?, compiled(&checked(&texts[1])?)?];
    let added = f64::from(RULES[1] - RULES[0]);
    let text = number((texts[1].len() - texts[0].len()) as u64) / added;
    let case = format!("a rule, {} to {} of one port each", RULES[0], RULES[1]);
    Ok(vec![
        row(
            &case,
            "its text in the policy",
            "bytes",
            [(bytes[1] - bytes[0]) / added, text],
        )
        .with("all tables, MiB", bytes[1] / f64::from(1 << 20)),
    ])
}

/// A prefix of each family: by how much the tables grow over those of a handful that hold the same addresses.
fn prefixes(settings: &Settings) -> Result<Vec<Row>> {
    let count = if settings.quick { PREFIXES_QUICK } else { PREFIXES };
    let mut rows = Vec::new();
    for ipv6 in [false, true] {
        let known = Known { ipv6 };
        let many = known.many(count);
        let few = known.few();
        let bytes = [compiled(&known.policy(&few)?)?, compiled(&known.policy(&many)?)?];
        let text: usize = many.iter().map(|net| net.to_string().len() + 1).sum();
        let added = number((many.len() - few.len()) as u64);
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        let each = [
            (bytes[1] - bytes[0]) / added,
            number(text as u64) / number(count as u64),
        ];
        let case = format!("a prefix of {count} random ones, {family}");
        rows.push(
            row(&case, "its line in a file", "bytes", each)
                .with("all tables, MiB", bytes[1] / f64::from(1 << 20)),
        );
    }
    Ok(rows)
}

/// The agent's resident size with a million flows in its table, beside that without.
fn agent() -> Result<Vec<Row>> {
    let wires = Wires::new()?;
    let [folder, policy] =
        ["agent.yaml", "policy.yaml"].map(|name| Leftover::claim(&std::env::temp_dir(), "fw-bench-", name));
    fs::write(policy.path(), frames::allowing())?;
    let config = format!(
        "policy: {}\nmode: inline\nports: [{{ name: f0, pair: f1 }}, {{ name: f1 }}]\nmetrics: \"off\"\ntables: {{ main: {} }}\n",
        policy.path().display(),
        2 * FLOWS + 1
    );
    fs::write(folder.path(), config)?;
    let config = folder.path().display().to_string();
    let agent = Agent::start(
        &wires.firewall,
        "fw-bench-",
        "memory",
        &["--config", config.as_str()],
    )?;
    let pid = agent.pid().context("the agent has ended")?;
    passes(&agent)?;
    let empty = resident(pid)?;
    fill(&wires, &versioned(agent.pin_dir()).join(map_names::FLOWS4))?;
    let end = Instant::now() + SOON;
    while seen(&agent)? < u64::from(FLOWS) {
        ensure!(Instant::now() < end, "the agent sees {} flows", seen(&agent)?);
        std::thread::sleep(OFTEN);
    }
    passes(&agent)?;
    let full = resident(pid)?;
    let mib = |bytes: u64| number(bytes) / f64::from(1 << 20);
    let values = [mib(full), mib(empty)];
    Ok(vec![
        row(
            "the agent, resident, 1,000,000 flows",
            "the agent without flows",
            "MiB",
            values,
        )
        .with("largest since its start, MiB", mib(memory(pid, "VmHWM")?))
        .with(
            "bytes for a flow",
            number(full.saturating_sub(empty)) / f64::from(FLOWS),
        ),
    ])
}

/// Puts flows into the agent's table: copies of one that the same policy allowed in a data plane of the bench.
fn fill(wires: &Wires, pin: &Path) -> Result<()> {
    let traffic = Traffic::Tcp4;
    let plane = wires.in_firewall(|| {
        // At TC: the ports have the agent's XDP programs.
        let plane = Plane::at_tc(wires.pair, FlowSizes::DEFAULT, &frames::allowing())?;
        plane.prime(traffic, 1)?;
        Ok(plane)
    })?;
    let keys: Vec<FlowKey> = (0..FLOWS).map(|flow| traffic.key(flow)).collect();
    let into = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
    copy4(
        map_of(plane.id(), map_names::FLOWS4)?,
        &traffic.key(0),
        into,
        &keys,
    )
}

/// Waits until the agent has gone through its tables a few times.
fn passes(agent: &Agent) -> Result<()> {
    let begun = agent.status()?.heartbeat.beats;
    let end = Instant::now() + SOON;
    while agent.status()?.heartbeat.beats < begun + BEATS {
        if Instant::now() > end {
            bail!("the agent does not age its tables");
        }
        std::thread::sleep(OFTEN);
    }
    Ok(())
}

/// Flows that the agent counted.
fn seen(agent: &Agent) -> Result<u64> {
    let status = agent.status()?;
    Ok(status.flows.iter().map(|flows| flows.count).sum())
}

/// Bytes of a process that are in memory.
fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS")
}

/// A size of a process, bytes.
fn memory(pid: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib: Option<u64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    Ok(kib.with_context(|| format!("{path} has no {field}"))? * 1024)
}
