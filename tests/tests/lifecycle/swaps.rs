//! Policies swapped under load: every packet is judged by one of them, whole.
//!
//! The two policies are made so that a mixture of their tables answers some packet as neither of them does, and the test
//! first proves that with mixtures that it makes itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use fw_common::abi::{
    Engine, Ip4, Line, LinkKind, Mode, PortConfig, Proto, Reason, SetHeader, Side, Verdict,
};
use fw_common::classify::{Classified, Service, classify, realm_record};
use fw_policy::{Environment, Policy};
use fw_tests::lab::Namespace;
use fw_tests::packet::Packet;
use fw_user::dataplane::{DataPlane, FlowKey, FlowTable, Hook, Options, Report, Tables, TestContext};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Swaps under load.
const SWAPS: u32 = 150;
/// Index of `lo`.
const PORT: u32 = 1;
/// This machine.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The /16 networks that packets come from, and the ports that they go to.
const NETS: [u8; 3] = [1, 2, 3];
const SERVICES: [u16; 3] = [1001, 1002, 1003];

/// In force with odd generations.
const A: &str = "
version: 1
zones: { x: [10.1.0.0/16], both: [10.3.0.0/16], y: [10.9.0.1] }
rules:
  - { name: x_of_a,    allow: [udp/1001], from: x, to: y }
  - { name: both_of_a, allow: [udp/1003], from: both, to: y }
";
/// In force with even generations: other addresses in `x`, another service, the rules in the other order.
const B: &str = "
version: 1
zones: { x: [10.2.0.0/16], both: [10.3.0.0/16], y: [10.9.0.1] }
rules:
  - { name: both_of_b, allow: [udp/1003], from: both, to: y }
  - { name: x_of_b,    allow: [udp/1002], from: x, to: y }
";

/// A kind of packet: its network and its service, by number.
type Kind = (usize, usize);
/// What becomes of a new flow's packet: verdict, reason, number of the rule; and the rule's id, which the flow keeps.
type Answer = (u8, Reason, u32, u32);
type Answers = BTreeMap<Kind, Answer>;

fn kinds() -> impl Iterator<Item = Kind> {
    (0..NETS.len()).flat_map(|net| (0..SERVICES.len()).map(move |service| (net, service)))
}

fn policies() -> Result<[Policy; 2]> {
    let check = |text| fw_policy::check(text, "swap.yaml").map_err(|findings| anyhow!("{findings}"));
    Ok([check(A)?.0, check(B)?.0])
}

fn compile(policy: &Policy, generation: u32) -> Result<Vec<Line>> {
    let environment = Environment {
        own_addresses: vec![IpAddr::V4(OWN)],
        roles: Vec::new(),
        generation,
        ..Environment::sample()
    };
    Ok(fw_policy::compile(policy, &environment)?.lines)
}

/// What a set says of each kind, as the kernel's report would say it. A damaged set says nothing of some.
fn answers(lines: &[Line]) -> Answers {
    let answer = |(net, service): Kind| {
        let realm = realm_record(lines, (0, 0)).ok()?;
        let addresses = (Ip4(u32::from_be_bytes([10, NETS[net], 0, 7])), Ip4(OWN.to_bits()));
        let port = Service::between(Proto::UDP, 0, SERVICES[service]);
        let mut found = Classified::default();
        let decision = classify(lines, realm, addresses, port, &mut found).ok()?;
        let (verdict, reason) = match (decision.allows(), decision.rule()) {
            (true, _) => (Verdict::Pass, Reason::Rule),
            (false, 0) => (Verdict::Drop, Reason::DenyDefault),
            (false, _) => (Verdict::Drop, Reason::DenyRule),
        };
        Some((verdict as u8, reason, decision.rule(), found.rule_id))
    };
    kinds().filter_map(|kind| Some((kind, answer(kind)?))).collect()
}

/// True if some kind of packet would show that these are not the answers of one of the two policies.
fn is_told(mixed: &Answers, [a, b]: [&Answers; 2]) -> bool {
    kinds().any(|kind| {
        mixed
            .get(&kind)
            .is_none_or(|answer| a.get(&kind) != Some(answer) && b.get(&kind) != Some(answer))
    })
}

/// Takes some tables from one set and the rest from the other, in every way, and checks that the packets of this test tell
/// each such mixture from both. Returns how many there are.
fn mixtures_are_told([a, b]: [&[Line]; 2], told: [&Answers; 2]) -> Result<usize> {
    let tables = tables_of(a);
    ensure!(
        tables == tables_of(b) && a.len() == b.len(),
        "the two sets are laid out differently"
    );
    let of_line = |line: usize| tables.iter().rposition(|first| *first as usize <= line);
    let mut mixtures = BTreeMap::new();
    for choice in 0..1_u32 << tables.len() {
        let from_b = |line: usize| of_line(line).is_some_and(|table| choice & (1 << table) != 0);
        let mixed: Vec<Line> = (0..a.len())
            .map(|line| if from_b(line) { b[line] } else { a[line] })
            .collect();
        // The header tells the generation, which no look-up asks for.
        if mixed[2..] != a[2..] && mixed[2..] != b[2..] {
            mixtures.insert(format!("{:?}", &mixed[2..]), (choice, mixed));
        }
    }
    for (choice, mixed) in mixtures.values() {
        let answers = answers(mixed);
        ensure!(
            is_told(&answers, told),
            "nobody would notice the mixture {choice:#b}: {answers:?}"
        );
    }
    Ok(mixtures.len())
}

/// The first lines of the tables of a set, in order.
fn tables_of(set: &[Line]) -> Vec<u32> {
    let SetHeader {
        realms,
        classes,
        pairs,
        protos,
        decision_pages,
        rules,
        ..
    } = SetHeader::from_lines(&set[0], &set[1]);
    let mut tables = vec![realms, classes, pairs, protos, decision_pages, rules];
    tables.sort_unstable();
    tables
}

/// What one sender has seen.
#[derive(Default)]
struct Seen {
    packets: u64,
    reasons: BTreeMap<u8, u64>,
    /// Packets judged by what only A says, and only B.
    told: [u64; 2],
    /// New flows by number, so that none is the same as another.
    flows: u32,
}

struct Sender<'a> {
    plane: &'a DataPlane,
    number: u8,
    answers: [&'a Answers; 2],
    seen: Seen,
}

impl Sender<'_> {
    /// A packet of a flow that no table knows.
    fn fresh(&mut self, (net, service): Kind) -> Vec<u8> {
        let flow = self.seen.flows;
        self.seen.flows += 1;
        let [_, high, low, port] = flow.to_be_bytes();
        let source = Ipv4Addr::new(10, NETS[net], (high << 1) | self.number, low);
        Packet::udp((source, 20_000 + u16::from(port)), (OWN, SERVICES[service])).build()
    }

    fn send(&mut self, hook: Hook, frame: &[u8]) -> Result<Report> {
        let report = self.plane.test_run(hook, frame, &TestContext::on(PORT))?.report;
        let report = report.context("the program was not loaded to report")?;
        self.seen.packets += 1;
        *self.seen.reasons.entry(report.reason as u8).or_default() += 1;
        Ok(report)
    }

    /// One new flow of each kind: what A or B says of it, nothing else.
    fn new_flows(&mut self) -> Result<()> {
        for kind in kinds() {
            let frame = self.fresh(kind);
            let report = self.send(Hook::XdpIn, &frame)?;
            let answer = (report.verdict as u8, report.reason, report.rule);
            let said = self.answers.map(|answers| {
                answers
                    .get(&kind)
                    .is_some_and(|&(verdict, reason, rule, _)| answer == (verdict, reason, rule))
            });
            ensure!(said != [false; 2], "a third result for {kind:?}: {report:?}");
            if said[0] != said[1] {
                self.seen.told[usize::from(said[1])] += 1;
            }
        }
        Ok(())
    }

    /// A flow that both policies allow, confirmed.
    fn open(&mut self) -> Result<[Vec<u8>; 2]> {
        let packet = Packet::udp(
            (Ipv4Addr::new(10, NETS[2], 255, 250 + self.number), 7),
            (OWN, SERVICES[2]),
        );
        let [request, reply] = [packet.build(), packet.reversed().build()];
        let opened = self.send(Hook::XdpIn, &request)?;
        ensure!(opened.reason == Reason::Rule, "{opened:?}");
        for (hook, frame) in [(Hook::TcOut, &reply), (Hook::XdpIn, &request)] {
            let report = self.send(hook, frame)?;
            ensure!(report.reason == Reason::Established, "{report:?}");
        }
        Ok([request, reply])
    }

    /// Sends on one CPU until it is told to stop.
    fn run(mut self, stop: &AtomicBool) -> Result<Seen> {
        let mut cpus = CpuSet::new();
        cpus.set(usize::from(self.number))?;
        sched_setaffinity(Pid::from_raw(0), &cpus)?;
        let [request, reply] = self.open()?;
        while !stop.load(Ordering::Relaxed) {
            self.new_flows()?;
            for (hook, frame) in [(Hook::XdpIn, &request), (Hook::TcOut, &reply)] {
                let report = self.send(hook, frame)?;
                ensure!(
                    (report.verdict, report.reason) == (Verdict::Pass, Reason::Established),
                    "a flow that both policies allow lost a packet: {report:?}"
                );
            }
        }
        Ok(self.seen)
    }
}

#[test]
fn a_swap_is_atomic_under_load_on_two_cpus() -> Result<()> {
    let namespace = Namespace::new("swaps")?;
    namespace.enter(swap_under_load)?
}

fn swap_under_load() -> Result<()> {
    let plane = DataPlane::open(Options {
        report: true,
        ..Options::default()
    })?;
    let tables = plane.tables();
    tables.set_port(&PortConfig {
        ifindex: PORT,
        mode: Mode::Host as u8,
        engine: Engine::Xdp as u8,
        link: LinkKind::Ethernet as u8,
        side: Side::Outer as u8,
        ..PortConfig::default()
    })?;
    let policies = policies()?;
    let [a, b] = [compile(&policies[0], 1)?, compile(&policies[1], 2)?];
    let told = [&answers(&a), &answers(&b)];
    let mixtures = mixtures_are_told([&a, &b], told)?;
    ensure!(mixtures >= 6, "only {mixtures} mixtures of the two sets exist");
    tables.apply(&a)?;
    let stop = AtomicBool::new(false);
    let (swapped, seen) = std::thread::scope(|scope| {
        let senders = [0, 1].map(|number| {
            let sender = Sender {
                plane: &plane,
                number,
                answers: told,
                seen: Seen::default(),
            };
            let stop = &stop;
            scope.spawn(move || sender.run(stop))
        });
        let swapped = swap(tables, &policies);
        stop.store(true, Ordering::Relaxed);
        let seen = senders.map(|sender| {
            sender
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        (swapped, seen)
    });
    let [first, second] = seen;
    let (time, seen) = (swapped?, [first?, second?]);
    println!(
        "{SWAPS} swaps in {time:.1?}, {} packets on two CPUs, {mixtures} mixtures of tables that never occurred",
        seen[0].packets + seen[1].packets
    );
    for sender in &seen {
        ensure!(
            sender.told.iter().all(|packets| *packets > 100),
            "one policy hardly judged: {:?}",
            sender.told
        );
    }
    counters_add_up(tables, &seen)?;
    generations_fit(tables, &policies)
}

/// Swaps the policies in turn. Returns how long it took.
fn swap(tables: &Tables, policies: &[Policy; 2]) -> Result<Duration> {
    let start = Instant::now();
    for _ in 0..SWAPS {
        let generation = tables.next_generation();
        // A is in force with odd generations.
        tables.apply(&compile(&policies[(generation as usize + 1) % 2], generation)?)?;
    }
    Ok(start.elapsed())
}

/// The kernel has counted exactly the packets that were sent, each by its reason.
fn counters_add_up(tables: &Tables, seen: &[Seen; 2]) -> Result<()> {
    let mut sent: BTreeMap<u8, u64> = BTreeMap::new();
    for (reason, packets) in seen.iter().flat_map(|seen| &seen.reasons) {
        *sent.entry(*reason).or_default() += packets;
    }
    let counted: BTreeMap<u8, u64> = tables
        .counters()?
        .into_iter()
        .map(|(reason, count)| (reason, count.packets))
        .collect();
    ensure!(
        counted == sent,
        "the counters say {counted:?}, sent were {sent:?}"
    );
    Ok(())
}

/// Every flow in the tables carries the generation of the policy whose rule allowed it.
fn generations_fit(tables: &Tables, policies: &[Policy; 2]) -> Result<()> {
    let ids = |policy: &Policy| policy.rules.iter().map(|rule| rule.id).collect::<BTreeSet<u32>>();
    let ids = policies.each_ref().map(ids);
    let (mut wrong, mut by_policy) = (Vec::new(), [0_u32; 2]);
    for table in [FlowTable::Main, FlowTable::HalfOpen] {
        tables.for_each_flow(table, |key: FlowKey, flow| {
            let policy = (flow.generation as usize + 1) % 2;
            by_policy[policy] += 1;
            if !ids[policy].contains(&flow.rule) {
                wrong.push(format!(
                    "{key:?}: rule {:#x}, generation {}",
                    flow.rule, flow.generation
                ));
            }
            ControlFlow::Continue(())
        })?;
    }
    ensure!(
        wrong.is_empty(),
        "{} flows carry another policy's generation: {:?}",
        wrong.len(),
        wrong.first()
    );
    ensure!(
        by_policy.iter().all(|flows| *flows > 100),
        "too few flows: {by_policy:?}"
    );
    Ok(())
}
