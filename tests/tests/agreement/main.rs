//! The kernel's programs and the host's model of the maps around the same pipeline say the same of a million packets in
//! plausible sequences: verdict, reason and rule of each, and after each packet its flow in both tables (state, numbers,
//! times, counts); after each sequence all flows, sources, buckets, counters and events.
//!
//! `DPUFW_SEED` repeats a run, `DPUFW_PACKETS` sets its length.

mod frame;
#[path = "../../../fw-common/tests/model/mod.rs"]
mod model;
mod odd;
mod pieces;
mod place;
mod policies;
mod talk;
mod tally;
mod tcp;
mod traffic;
mod twin;

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use fw_common::abi::Reason;
use fw_common::pipeline::Scratch;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;

use model::SECOND;
use policies::Compiled;
use tally::Tally;
use traffic::Traffic;
use twin::{Compared, Stored, Twin, port};

/// Packets of a run, and of a sequence, after which all flows are over.
const PACKETS: u64 = 1_000_000;
const SEQUENCE: u64 = 8_000;
/// Between sequences: longer than any flow lives.
const REST: u64 = 6 * 86_400 * SECOND;

#[test]
fn kernel_and_model_agree() -> Result<()> {
    fw_tests::lab::require_root()?;
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is no number")),
        Err(_) => Ok(default),
    };
    let seed = number("DPUFW_SEED", 20_261_122)?;
    let packets = number("DPUFW_PACKETS", PACKETS)?;
    println!("seed {seed}, {packets} packets");
    let run = std::thread::spawn(move || {
        let result = alone().and_then(|()| run(seed, packets));
        result.with_context(|| format!("seed {seed}"))
    });
    run.join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A change of the model that must be noticed, and a part of what is then said.
type Fault = (&'static str, &'static str, fn(&Twin));

const FAULTS: [Fault; 4] = [
    ("a packet too many in a counter", "counters by reason", |twin| {
        *twin.world.counters.borrow_mut().entry(1).or_default() += 1;
    }),
    ("another generation", "left another flow", |twin| {
        twin.world.generation.set(twin.world.generation.get() + 2);
    }),
    ("a port of the other side", "the model says", |twin| {
        twin.world.ports.borrow_mut()[port::OUTER].side = 1;
    }),
    ("windows that are not judged", "the model says", |twin| {
        twin.world.control.flags.store(1);
    }),
];

/// What would be the use of the other test if it found nothing?
#[test]
fn differences_are_found() -> Result<()> {
    fw_tests::lab::require_root()?;
    for (what, said, fault) in FAULTS {
        let run = std::thread::spawn(move || alone().and_then(|()| with_fault(fault)));
        let result = run
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let error = result.err().with_context(|| format!("nobody noticed {what}"))?;
        let text = format!("{error:#}");
        ensure!(text.contains(said), "{what}: {text}");
    }
    Ok(())
}

/// A flow that differs in what decides nothing now is found at its next packet, not only when the sequence is over.
#[test]
fn a_flow_that_differs_is_found_at_its_next_packet() -> Result<()> {
    fw_tests::lab::require_root()?;
    let run = std::thread::spawn(|| alone().and_then(|()| with_another_flow()));
    let error = run
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let text = format!("{error:#}");
    ensure!(
        text.contains("left another flow") && text.contains("the kernel has Some"),
        "{text}"
    );
    Ok(())
}

/// What is said of traffic after each of the model's flows has counted a byte that never was.
fn with_another_flow() -> Result<anyhow::Error> {
    let mut twin = Twin::new(interfaces()?, [1, 2])?;
    twin.swap(&mut Compiled::new("main", 0)?)?;
    let mut traffic = Traffic::new(Rng::with_seed(1));
    for number in 0..2000 {
        if number == 1000 {
            for flow in twin.world.half4.borrow().values() {
                flow.half[0].bytes.store(flow.half[0].bytes.load() + 1);
            }
        }
        twin.advance(1000);
        let shot = traffic.next();
        match twin.send(&shot.bytes, &shot.via) {
            Ok(said) => traffic.hear(&shot, &said),
            Err(error) => return Ok(error),
        }
    }
    bail!("nobody noticed it")
}

/// The inner result is that of a sequence in which the model has this fault.
fn with_fault(fault: fn(&Twin)) -> Result<Result<Stored>> {
    let mut random = Rng::with_seed(1);
    let mut twin = Twin::new(interfaces()?, [1, 2])?;
    let mut tally = Tally::default();
    twin.swap(&mut Compiled::new("main", 0)?)?;
    sequence(&mut twin, None, &mut tally, &mut random, 500)?;
    fault(&twin);
    Ok(sequence(&mut twin, None, &mut tally, &mut random, 2000))
}

/// Namespaces with a BPF file system of their own, so that nothing is left behind; and one CPU, because the model has one.
fn alone() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none)?;
    let mut cpus = CpuSet::new();
    cpus.set(nix::sched::sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    Ok(())
}

/// Interfaces for the ports: a test run wants them to exist.
fn interfaces() -> Result<[u32; port::COUNT]> {
    let mut indexes = [1; port::COUNT];
    for (number, index) in indexes.iter_mut().enumerate().skip(1) {
        let (name, peer) = (format!("port{number}"), format!("peer{number}"));
        let words = ["link", "add", &name, "type", "veth", "peer", "name", &peer];
        let status = Command::new("ip").args(words).status()?;
        ensure!(status.success(), "`ip {}` failed", words.join(" "));
        *index = nix::net::if_::if_nametoindex(name.as_str())?;
    }
    Ok(indexes)
}

/// All policies; each number is as often in the list as it shall be put in force.
struct Library {
    policies: Vec<Compiled>,
    draws: Vec<usize>,
}

impl Library {
    fn new() -> Result<Self> {
        let policies = policies::NAMES
            .iter()
            .map(|(name, _)| Compiled::new(name, 0))
            .collect::<Result<_>>()?;
        let shares = policies::NAMES.iter().enumerate();
        let draws = shares.flat_map(|(number, (_, share))| std::iter::repeat_n(number, (*share).into()));
        Ok(Self {
            policies,
            draws: draws.collect(),
        })
    }

    fn swap(&mut self, twin: &mut Twin, random: &mut Rng) -> Result<()> {
        let number = self.draws[random.usize(..self.draws.len())];
        let policy = &mut self.policies[number];
        if policy.name == "until" {
            let ends = twin.clock / SECOND + random.u64(0..60);
            *policy = Compiled::new("until", ends)?;
        }
        twin.swap(policy)
    }
}

fn run(seed: u64, packets: u64) -> Result<()> {
    let start = Instant::now();
    let mut random = Rng::with_seed(seed);
    let mut twin = Twin::new(interfaces()?, [random.u64(..), random.u64(..)])?;
    let mut library = Library::new()?;
    let mut tally = Tally::default();
    let mut stored = Stored::default();
    // Before the first policy.
    sequence(&mut twin, None, &mut tally, &mut random, 2 * tally::LEAST)?;
    ensure!(twin.generation()? == 0, "a policy is in force already");
    while tally.packets < packets {
        let length = SEQUENCE.min(packets - tally.packets);
        stored += sequence(&mut twin, Some(&mut library), &mut tally, &mut random, length)?;
    }
    let (datagrams, destinations) = twin.compare_rest()?;
    tally.print(&twin);
    let took = start.elapsed();
    println!(
        "{} packets, {} questions, {} flows, {} sources, {} buckets, {} events, {datagrams} datagrams and {destinations} \
         destinations compared in {:.1} s",
        tally.packets,
        twin.questioned,
        stored.flows,
        stored.sources,
        stored.buckets,
        stored.events,
        took.as_secs_f64()
    );
    flows_compared(&twin)?;
    questions(&twin)?;
    tally.check(tally::LEAST * packets.min(PACKETS) / PACKETS)
}

/// Prints after how many packets their flow was compared; each place must have occurred.
fn flows_compared(twin: &Twin) -> Result<()> {
    for place in [
        Compared::NoFlow,
        Compared::HalfOpen,
        Compared::Main,
        Compared::Both,
    ] {
        let count = twin.compared.get(&place).copied().unwrap_or_default();
        println!("flow compared after its packet, {place:?}: {count}");
        ensure!(count > 0, "no packet's flow was compared in {place:?}");
    }
    Ok(())
}

/// A question must be answered by what then happens. A question leaves out what needs writes, which these reasons come from.
fn questions(twin: &Twin) -> Result<()> {
    for ((asked, got), count) in &twin.differed {
        let name = |number: &u8| Reason::from_number(*number).map_or("?", Reason::name);
        println!("asked {}, then {}: {count}", name(asked), name(got));
        let known = |number: &u8| {
            (160..=169).contains(number)
                || [
                    Reason::SynProved as u8,
                    Reason::SynProofOver as u8,
                    Reason::TableFull as u8,
                ]
                .contains(number)
        };
        ensure!(
            known(asked) || known(got),
            "{count} packets were asked about as {} and judged as {}",
            name(asked),
            name(got)
        );
    }
    Ok(())
}

/// How time goes by.
fn pause(random: &mut Rng, hurry: bool, slow: bool) -> u64 {
    const MS: u64 = 1_000_000;
    match random.u32(..10_000) {
        _ if hurry => random.u64(..MS / 4),
        0 if slow => random.u64(..600 * SECOND),
        1..10 if slow => random.u64(..60 * SECOND),
        10..60 => random.u64(..2 * SECOND),
        60..1000 => random.u64(..20 * MS),
        _ => random.u64(..MS),
    }
}

/// Packets from empty tables on, with changes of policy in between.
fn sequence(
    twin: &mut Twin,
    mut library: Option<&mut Library>,
    tally: &mut Tally,
    random: &mut Rng,
    packets: u64,
) -> Result<Stored> {
    let mut spare = Scratch::EMPTY;
    let mut traffic = Traffic::new(random.fork());
    let slow = random.bool();
    let mut events = 0;
    let replies = [0, 1, twin::REPLIES][random.usize(..3)];
    twin.replies(replies);
    // Nobody ages, or the main tables are full, for a part of the sequence.
    let (dead, full) = (random.u8(..8) == 0, random.u8(..6) == 0);
    for number in 0..packets {
        if let Some(library) = &mut library
            && (number == 0 || random.u32(..if twin.policy == "broken" { 100 } else { 3000 }) == 0)
        {
            library.swap(twin, random)?;
        }
        twin.advance(pause(random, traffic.hurries(), slow));
        if number % 64 == 0 && !(dead && number > packets / 2) {
            twin.beat();
        }
        if number % 256 == 0 {
            events += twin.compare_events()?;
        }
        if full && number == packets / 3 {
            twin.room(30)?;
        }
        if random.u32(..2500) == 0 {
            twin.age()?;
        }
        if replies == 1 && twin.policy == "tight" && !traffic.hurries() && random.u32(..2000) == 0 {
            traffic.storm();
        }
        let shot = traffic.next();
        if traffic.damaged {
            tally.note_kind(tally::DAMAGED);
        }
        let met = tally.meet(twin, &shot.bytes, &shot.via, &mut spare);
        let said = twin.send(&shot.bytes, &shot.via)?;
        tally.note(twin, met, &said, &mut spare);
        traffic.hear(&shot, &said);
    }
    let mut stored = twin.compare()?;
    stored.events += events;
    tally.end_of_flows();
    twin.room(8_193)?;
    twin.advance(REST);
    twin.beat();
    twin.age()?;
    ensure!(twin.compare()?.flows == 0, "a flow outlived its time");
    twin.forget_counts()?;
    Ok(stored)
}
