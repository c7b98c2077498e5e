//! The table `ns`: what a packet costs by its way through the program, without wires: the program alone, run by the kernel on
//! given frames (`BPF_PROG_TEST_RUN`).
//!
//! A way that the same packet can go again and again is timed with one packet repeated, everything in the caches. One that
//! only a fresh packet goes (it opens a flow, it is a fragment of a new datagram) is timed with one run for each of many
//! packets, which are colder and hold two readings of the clock; the name of such a case says "one run each", and its peer is
//! timed in the same manner.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use fw_common::abi::{Reason, Side};
use fw_user::dataplane::{FlowKey, FlowSizes, Hook};

use super::counters::Counters;
use super::floor::{Floor, Program};
use super::frames::{SERVICE, Traffic, ZONES};
use super::link::XdpLink;
use super::plane::Plane;
use super::report::{Row, Target};
use super::stand::{Wires, mac, pin};
use super::stats::Summary;
use super::turns::Fate;
use super::{Settings, Table};
use crate::packet::{Packet, Unreachable};

/// Runs of a packet that is repeated, and packets of a way that takes fresh ones.
const REPEAT: u32 = 20_000;
const FRESH: u32 = 400;
/// One of how many packets may end with another reason (a limit lets one through each second).
const STRAYS: u64 = 50;
/// Reports of denied packets per CPU and 67 ms: none; as the agent has it; no limit.
const SILENT: u32 = 0;
const USUAL: u32 = 32;
const EVERY: u32 = u32::MAX;
/// IPv6 beside IPv4.
const OF_IPV4: Target = Target::at_most(1.25);
/// Ports of the rules with limits: packets, bytes, new flows, and one that is over at once.
const BY_PACKETS: u16 = 5001;
const BY_BYTES: u16 = 5002;
const BY_NEW_FLOWS: u16 = 5003;
const OVER: u16 = 5004;
/// A port that no rule has.
const CLOSED: u16 = 9;

/// Rules for each way; limits that no run reaches, but for the last one, and no cap on a source's flows. `nowhere` belongs to a plane without a port here.
fn policy() -> String {
    let services = format!(
        "services:\n  data: [udp/{SERVICE}, tcp/{SERVICE}]\n  packets: [udp/{BY_PACKETS}]\n  bytes: [udp/{BY_BYTES}]\n  \
         new_flows: [udp/{BY_NEW_FLOWS}]\n  over: [udp/{OVER}]\n"
    );
    let limited = |name: &str, limit: &str| {
        format!("  - {{ name: {name}, allow: [{name}], from: a, to: b, limit: [{{ {limit} }}] }}\n")
    };
    format!(
        "version: 1\nzones:\n{ZONES}  nowhere: {{ addresses: [10.64.0.0/16], plane: storage, ports: [rail] }}\nprotect: {{ caps: {{ half_open: none, flows: none }} }}\n{services}rules:\n  \
         - {{ name: data, allow: [data], from: a, to: b }}\n{}{}{}{}",
        limited("packets", "packets: 100000000/s"),
        limited("bytes", "bytes: 400 Gbit/s"),
        limited("new_flows", "new_flows: 1000000/s"),
        limited("over", "packets: 1/s, burst: 1"),
    )
}

/// How often a packet can go the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runs {
    /// Always.
    Same,
    /// Once.
    Fresh,
}

/// A way through the program.
struct Way {
    name: String,
    runs: Runs,
    /// The port by which the measured packets come.
    side: Side,
    reason: Reason,
    fate: Fate,
    /// Packets that make the state which it needs.
    opening: Vec<(Side, Packet)>,
    /// The packets with this number: the last one is measured, the others go ahead by the same port.
    packets: Box<dyn Fn(u32) -> Vec<Packet> + Send + Sync>,
    /// The flow that the floor's look-up finds; without one the peer is the bare program.
    flow: Option<FlowKey>,
    events: u32,
}

impl Way {
    fn new(
        name: impl Into<String>,
        runs: Runs,
        reason: Reason,
        packets: impl Fn(u32) -> Vec<Packet> + Send + Sync + 'static,
    ) -> Self {
        let fate = if reason.allows() {
            Fate::Forwarded
        } else {
            Fate::Dropped
        };
        let mut name = name.into();
        if runs == Runs::Fresh {
            name += ", one run each";
        }
        Self {
            name,
            runs,
            side: Side::Outer,
            reason,
            fate,
            opening: Vec::new(),
            packets: Box::new(packets),
            flow: None,
            events: USUAL,
        }
    }

    fn peer(&self) -> (Program, &'static str) {
        match (self.flow, self.fate) {
            (Some(_), _) => (Program::Lookup, "XDP redirect with parse and one look-up"),
            (None, fate) => (fate.bare(), fate.floor()),
        }
    }
}

/// Packets that open a flow, with the ports that they come by.
fn opened(packets: [Packet; 3]) -> Vec<(Side, Packet)> {
    [Side::Outer, Side::Inner, Side::Outer]
        .into_iter()
        .zip(packets)
        .collect()
}

/// A packet of a flow that is open: with its key, to one of the policy's ports.
fn known(name: String, traffic: Traffic, port: u16, reason: Reason) -> Way {
    let opening = traffic.opening_to(0, port);
    let last = opening[2].clone();
    Way {
        opening: opened(opening),
        flow: Some(traffic.key_to(0, port)),
        ..Way::new(name, Runs::Same, reason, move |_| vec![last.clone()])
    }
}

/// The first packet of the flow with a number, each of its own client.
fn opens(name: String, traffic: Traffic, port: u16) -> Way {
    Way::new(name, Runs::Fresh, Reason::Rule, move |number| {
        let [first, ..] = traffic.opening_to(1 + number, port);
        vec![first]
    })
}

/// All ways, in the order of the rows.
fn ways() -> Vec<Way> {
    const ALL: [Traffic; 4] = [Traffic::Tcp4, Traffic::Tcp6, Traffic::Udp4, Traffic::Udp6];
    let mut ways: Vec<Way> = Vec::new();
    for traffic in ALL {
        ways.push(known(established(traffic), traffic, SERVICE, Reason::Established));
    }
    for traffic in ALL {
        ways.push(opens(
            format!("opens a flow, {}", traffic.name()),
            traffic,
            SERVICE,
        ));
    }
    ways.extend(denials());
    for traffic in [Traffic::Udp4, Traffic::Udp6] {
        ways.extend(fragments(traffic));
        ways.push(error(traffic));
    }
    ways.extend(limits());
    ways.extend(screens());
    ways
}

fn established(traffic: Traffic) -> String {
    format!("established, {}", traffic.name())
}

/// Packets that no rule allows.
fn denials() -> [Way; 4] {
    let closed = |runs, name: &str, events| {
        let ((client, _), (server, _)) = Traffic::Udp4.ends(0);
        let packet = move |number: u32| {
            let port = 1024 + (number % 60_000) as u16;
            vec![Packet::udp((client, port), (server, CLOSED))]
        };
        Way {
            events,
            ..Way::new(name, runs, Reason::DenyDefault, packet)
        }
    };
    [
        closed(Runs::Same, "denied by default, 32 reports in 67 ms", USUAL),
        closed(Runs::Same, "denied by default, no reports", SILENT),
        closed(Runs::Fresh, "denied by default, each reported", EVERY),
        closed(Runs::Fresh, "denied by default, no reports", SILENT),
    ]
}

/// Fragments of datagrams of an open flow, each datagram with a number of its own.
fn fragments(traffic: Traffic) -> [Way; 2] {
    let part = move |number: u32, from, to| {
        let [datagram, ..] = traffic.opening(0);
        datagram.payload(&[7; 40]).fragment(from, to, number + 1)
    };
    let named = |which: &str| format!("{which} fragment, {}", traffic.name());
    let first = Way::new(named("first"), Runs::Fresh, Reason::Established, move |number| {
        vec![part(number, 0, 24)]
    });
    let later = Way::new(named("later"), Runs::Fresh, Reason::Established, move |number| {
        // Other datagrams than those of the first fragments.
        let number = number + (1 << 15);
        vec![part(number, 0, 24), part(number, 24, 9000)]
    });
    [first, later].map(|way| Way {
        opening: opened(traffic.opening(0)),
        ..way
    })
}

/// An ICMP error of the server about the flow.
fn error(traffic: Traffic) -> Way {
    let [asked, ..] = traffic.opening(0);
    let ((client, _), (server, _)) = traffic.ends(0);
    let error = Packet::unreachable(server, client, Unreachable::Port, &asked).macs(mac(4), mac(3));
    Way {
        side: Side::Inner,
        opening: opened(traffic.opening(0)),
        ..Way::new(
            format!("ICMP error about a flow, {}", traffic.name()),
            Runs::Same,
            Reason::Related,
            move |_| vec![error.clone()],
        )
    }
}

/// Rules with limits, within and above.
fn limits() -> [Way; 4] {
    let traffic = Traffic::Udp4;
    let [asked, ..] = traffic.opening_to(0, OVER);
    [
        known(
            "established, within a limit of packets, udp4".to_owned(),
            traffic,
            BY_PACKETS,
            Reason::Established,
        ),
        known(
            "established, within a limit of bytes, udp4".to_owned(),
            traffic,
            BY_BYTES,
            Reason::Established,
        ),
        opens(
            "opens a flow, within a limit of new flows, udp4".to_owned(),
            traffic,
            BY_NEW_FLOWS,
        ),
        Way::new(
            "over a limit of packets, udp4",
            Runs::Same,
            Reason::LimitPackets,
            move |_| vec![asked.clone()],
        ),
    ]
}

/// A packet for each screen.
fn screens() -> Vec<Way> {
    let ((client, _), (server, _)) = Traffic::Tcp4.ends(0);
    let tcp = |flags: &str| {
        Packet::tcp((client, 40_000), (server, SERVICE))
            .flags(flags)
            .numbers(1, 1)
    };
    let udp = Packet::udp((client, 5353), (server, SERVICE)).payload(b"who?");
    let from = |source: [u8; 4]| Packet::udp((source, 5353), (server, SERVICE));
    let packets = [
        (Reason::TtlZero, tcp("S").hops(0)),
        (
            Reason::SourceRoute,
            tcp("S").ip_options(&[131, 7, 4, 10, 0, 0, 9, 0]),
        ),
        (Reason::TcpNull, tcp("")),
        (Reason::TcpXmas, tcp("FPU")),
        (Reason::TcpSynFin, tcp("SF")),
        (Reason::TcpSynRst, tcp("SR")),
        (Reason::TcpFinNoAck, tcp("F")),
        // The UDP header's length, one byte beyond the packet.
        (Reason::BadLength, udp.edit(24, &[0, 13])),
        (
            Reason::Land,
            Packet::tcp((server, 40_000), (server, SERVICE)).flags("S"),
        ),
        (Reason::ImpossibleSource, from([127, 0, 0, 1])),
        (Reason::PlaneMismatch, from([10, 64, 0, 1])),
    ];
    packets
        .into_iter()
        .map(|(reason, packet)| {
            Way::new(
                format!("screen {}", reason.name()),
                Runs::Same,
                reason,
                move |_| vec![packet.clone()],
            )
        })
        .collect()
}

/// What a way took, ns for a packet, by round.
#[derive(Default)]
struct Times {
    own: Vec<f64>,
    peer: Vec<f64>,
    packets: u64,
    met: u64,
    others: BTreeMap<&'static str, u64>,
    /// What the CPU counted for a packet, by round; of packets that are repeated, where the machine has counters.
    own_counts: Counts,
    peer_counts: Counts,
}

type Counts = BTreeMap<&'static str, Vec<f64>>;

/// The table.
///
/// # Errors
/// If something cannot be set up, or packets went another way than meant.
pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let wires = Wires::new()?;
    let mut rows = Vec::new();
    for hook in [Hook::XdpIn, Hook::TcIn] {
        let ways: Vec<Way> = ways()
            .into_iter()
            .filter(|way| settings.wants(&case(hook, &way.name)))
            .collect();
        if !ways.is_empty() {
            rows.extend(wires.in_firewall(|| at(hook, &ways, &wires, settings))?);
        }
    }
    Ok(rows)
}

fn case(hook: Hook, way: &str) -> String {
    let place = if hook == Hook::XdpIn { "XDP" } else { "TC" };
    format!("{way}, at {place}")
}

/// All ways of one program; called on a thread in the firewall's namespace.
fn at(hook: Hook, ways: &[Way], wires: &Wires, settings: &Settings) -> Result<Vec<Row>> {
    let mut plane = Plane::at(hook, wires.pair, FlowSizes::DEFAULT, &policy())?;
    let mut floor = Floor::load(wires.pair.inner, &[[0; 80]], &FlowSizes::DEFAULT)?;
    // A veth end takes XDP test runs only while it has a program.
    let _ports = [wires.pair.outer, wires.pair.inner]
        .map(|port| XdpLink::attach(floor.program(Program::Pass)?, port))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    for way in ways {
        for (side, packet) in &way.opening {
            plane.time_on(port(wires, *side), &packet.build(), 1)?;
        }
        if let Some(flow) = &way.flow {
            floor.insert(flow)?;
        }
    }
    let mut times: Vec<Times> = ways.iter().map(|_| Times::default()).collect();
    // The thread ends with this table's program.
    pin(0)?;
    let mut counters = Counters::of_the_cpu()
        .inspect_err(|error| eprintln!("   bench  ns: the CPU's counters are not to be had: {error}"))
        .ok();
    for round in 0..=settings.rounds {
        for (way, times) in ways.iter().zip(&mut times) {
            let judges = (&mut plane, &floor);
            turn(way, round, times, judges, wires, counters.as_mut())
                .with_context(|| case(hook, &way.name))?;
        }
    }
    eprintln!("   bench  ns: {} ways, {} rounds", ways.len(), settings.rounds);
    for (way, times) in ways.iter().zip(&times) {
        ensure!(
            times.met + times.met / STRAYS >= times.packets,
            "{}: {} of {} packets ended with {}; others: {:?}",
            case(hook, &way.name),
            times.met,
            times.packets,
            way.reason.name(),
            times.others
        );
    }
    Ok(rows(hook, ways, &times, plane.verified))
}

const fn port(wires: &Wires, side: Side) -> u32 {
    match side {
        Side::Inner => wires.pair.inner,
        Side::Outer | Side::Own => wires.pair.outer,
    }
}

/// One round of one way: dpufw, then its peer. The first round warms up.
fn turn(
    way: &Way,
    round: usize,
    times: &mut Times,
    (plane, floor): (&mut Plane, &Floor),
    wires: &Wires,
    mut counters: Option<&mut Counters>,
) -> Result<()> {
    let counted = way.runs == Runs::Same && round > 0;
    let ifindex = port(wires, way.side);
    plane.report(way.events);
    let before: BTreeMap<_, _> = plane.by_reason()?.into_iter().collect();
    let own = once(way, round, |ahead, frame, repeat| {
        for packet in ahead {
            plane.time_on(ifindex, packet, 1)?;
        }
        let time = || plane.time_on(ifindex, frame, repeat);
        let counters = counters.as_deref_mut().filter(|_| counted);
        Ok(count(counters, &mut times.own_counts, repeat, time)??.as_secs_f64())
    })?;
    for (reason, packets) in plane.by_reason()? {
        let grown = packets - before.get(reason).unwrap_or(&0);
        if reason == way.reason.name() {
            times.met += grown;
        } else if grown > 0 {
            *times.others.entry(reason).or_default() += grown;
        }
    }
    plane.drain();
    times.packets += u64::from(if way.runs == Runs::Same { REPEAT } else { FRESH });
    let (program, _) = way.peer();
    let peer = once(way, round, |_, frame, repeat| {
        let time = || floor.time(program, ifindex, frame, repeat);
        let counters = counters.as_deref_mut().filter(|_| counted);
        Ok(count(counters, &mut times.peer_counts, repeat, time)??.as_secs_f64())
    })?;
    if round > 0 {
        times.own.push(own * 1e9);
        times.peer.push(peer * 1e9);
    }
    Ok(())
}

/// Does the work for `repeat` packets, with the CPU's counters around it if there are any.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn count<T>(
    counters: Option<&mut Counters>,
    into: &mut Counts,
    repeat: u32,
    work: impl FnOnce() -> T,
) -> Result<T> {
    let Some(counters) = counters else {
        return Ok(work());
    };
    let (done, counts) = counters.around(work)?;
    for (name, count) in counts {
        into.entry(name)
            .or_default()
            .push(count as f64 / f64::from(repeat));
    }
    Ok(done)
}

/// Seconds for a packet of a way: the mean of a repeated one, the median of fresh ones.
fn once(way: &Way, round: usize, mut time: impl FnMut(&[Vec<u8>], &[u8], u32) -> Result<f64>) -> Result<f64> {
    let (count, repeat) = match way.runs {
        Runs::Same => (1, REPEAT),
        Runs::Fresh => (FRESH, 1),
    };
    let mut seconds = Vec::new();
    for number in 0..count {
        let packets = (way.packets)(round as u32 * count + number);
        let mut frames: Vec<Vec<u8>> = packets.iter().map(Packet::build).collect();
        let frame = frames.pop().context("a way without packets")?;
        seconds.push(time(&frames, &frame, repeat)?);
    }
    Ok(Summary::of(seconds).median)
}

/// The row with what the CPU counted for a packet.
fn with_counts(row: Row, whose: &str, counts: &Counts) -> Row {
    counts.iter().fold(row, |row, (name, rounds)| {
        row.with(&format!("{whose}{name}"), Summary::of(rounds.clone()).median)
    })
}

/// A row for each way beside its peer, and what ways cost beside each other.
fn rows(hook: Hook, ways: &[Way], times: &[Times], verified: u32) -> Vec<Row> {
    let row = |way: &str, peer: &str, own: &[f64], other: &[f64]| {
        Row::paired(Table::Ns.name(), &case(hook, way), peer, "ns/packet", own, other)
            .with("verified instructions", f64::from(verified))
    };
    let mut rows: Vec<Row> = ways
        .iter()
        .zip(times)
        .map(|(way, times)| {
            let row = row(&way.name, way.peer().1, &times.own, &times.peer);
            let row = with_counts(row, "", &times.own_counts);
            with_counts(row, "peer's ", &times.peer_counts)
        })
        .collect();
    let find = |name: &str| ways.iter().zip(times).find(|(way, _)| way.name == name);
    let beside = |own: &str, other: &str, target: Option<Target>| {
        let ((way, own), (than, other)) = (find(own)?, find(other)?);
        let peer = format!("dpufw, {}", than.name);
        Some(row(&way.name, &peer, &own.own, &other.own).wanted(target))
    };
    rows.extend(
        [
            beside(
                &established(Traffic::Tcp6),
                &established(Traffic::Tcp4),
                Some(OF_IPV4),
            ),
            beside(
                &established(Traffic::Udp6),
                &established(Traffic::Udp4),
                Some(OF_IPV4),
            ),
            beside(
                "denied by default, 32 reports in 67 ms",
                "denied by default, no reports",
                None,
            ),
            beside(
                "denied by default, each reported, one run each",
                "denied by default, no reports, one run each",
                None,
            ),
        ]
        .into_iter()
        .flatten(),
    );
    rows
}

#[cfg(test)]
mod tests {
    use fw_policy::check;

    use super::{policy, ways};

    #[test]
    fn the_policy_is_valid_and_names_differ() {
        if let Err(findings) = check(&policy(), "ns") {
            panic!("{findings}");
        }
        let mut names: Vec<String> = ways().into_iter().map(|way| way.name).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
