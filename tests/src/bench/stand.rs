//! The test stand: generator, firewall and sink in namespaces of their own, joined by veth pairs with two queues.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::floor::{Floor, Program};
use super::link::XdpLink;
use super::plane::Pair;
use super::watch::{self, hurry};
use crate::lab::{End, Namespace, Veth};

/// Nice value of the generators: a busy machine makes every result wander.
const GENERATOR_NICE: i32 = -19;
/// Ethernet address of an end: 1 the generator's, 2 and 3 the firewall's, 4 the sink's.
pub(super) const fn mac(end: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0xbe, end]
}

/// An end outside the firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    /// Where the measured packets come from.
    Generator,
    /// Where they go.
    Sink,
}

/// Namespaces and wires.
#[derive(Debug)]
pub struct Wires {
    pub(super) generator: Namespace,
    /// Where the programs run.
    pub(super) firewall: Namespace,
    pub(super) sink: Namespace,
    generator_if: u32,
    sink_if: u32,
    /// The firewall's ports.
    pub pair: Pair,
}

impl Wires {
    /// Builds everything.
    ///
    /// # Errors
    /// If a command refuses.
    pub fn new() -> Result<Self> {
        let (generator, firewall, sink) = (
            Namespace::new("gen")?,
            Namespace::new("fw")?,
            Namespace::new("sink")?,
        );
        Veth::create(
            &End::new(&generator, "g0", mac(1)),
            &End::new(&firewall, "f0", mac(2)),
            1500,
        )?;
        Veth::create(
            &End::new(&firewall, "f1", mac(3)),
            &End::new(&sink, "s0", mac(4)),
            1500,
        )?;
        let pair = Pair {
            outer: firewall.ifindex("f0")?,
            inner: firewall.ifindex("f1")?,
        };
        let (generator_if, sink_if) = (generator.ifindex("g0")?, sink.ifindex("s0")?);
        Ok(Self {
            generator,
            firewall,
            sink,
            generator_if,
            sink_if,
            pair,
        })
    }

    /// Runs `f` in the firewall's namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or what `f` returns.
    pub fn in_firewall<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.firewall.enter(f)?
    }

    /// Puts the sink's program at both ends: a redirect reaches an end only while it has one, and the generator's own
    /// interface takes test runs only then.
    pub(super) fn sinks(&self, floor: &Floor) -> Result<[XdpLink; 2]> {
        self.ends(floor, [Program::Sink; 2])
    }

    /// Puts a program at both ports of the firewall.
    pub(super) fn ports(&self, program: BorrowedFd<'_>) -> Result<[XdpLink; 2]> {
        self.in_firewall(|| {
            Ok([
                XdpLink::attach(program, self.pair.outer)?,
                XdpLink::attach(program, self.pair.inner)?,
            ])
        })
    }

    /// The same as [`Wires::sinks`] with other programs at the sink's end and at the generator's.
    pub(super) fn ends(&self, floor: &Floor, [there, here]: [Program; 2]) -> Result<[XdpLink; 2]> {
        let sink = self
            .sink
            .enter(|| XdpLink::attach(floor.program(there)?, self.sink_if))??;
        let own = self
            .generator
            .enter(|| XdpLink::attach(floor.program(here)?, self.generator_if))??;
        Ok([sink, own])
    }

    /// Sends `packets` frames from an end on the calling CPU, and comes back when they were handed over.
    pub(super) fn send(&self, floor: &Floor, end: Outside, packets: u32) -> Result<()> {
        let (namespace, ifindex) = match end {
            Outside::Generator => (&self.generator, self.generator_if),
            Outside::Sink => (&self.sink, self.sink_if),
        };
        namespace.enter(|| pin(0).and_then(|()| floor.generate(ifindex, packets)))?
    }

    /// Opens connections from the generator's end on the first CPU, `batch` at a time.
    pub(super) fn open(&self, floor: &Floor, connections: u32, batch: u32) -> Result<()> {
        self.generator
            .enter(|| pin(0).and_then(|()| floor.open(self.generator_if, connections, batch)))?
    }

    /// Sends frames from the generator's end on a CPU until told to stop, in calls of `packets`.
    pub(super) fn flood(&self, floor: &Floor, cpu: u32, packets: u32, stop: &AtomicBool) -> Result<()> {
        self.generator.enter(|| {
            pin(cpu)?;
            while !stop.load(Ordering::Relaxed) {
                floor.generate(self.generator_if, packets)?;
            }
            Ok(())
        })?
    }

    /// A socket that sends frames out of the generator's end on the CPU that writes to it.
    pub(super) fn probe(&self) -> Result<std::fs::File> {
        self.generator
            .enter(|| super::link::packet_socket(self.generator_if))?
            .map(std::fs::File::from)
    }

    /// Sends `packets` frames from each of `cpus` pinned threads, and watches a counter by CPU meanwhile. Returns its growth
    /// per second; `None` if that was over too soon to tell.
    pub(super) fn blast(
        &self,
        floor: &Floor,
        cpus: u32,
        packets: u32,
        watched: impl Fn() -> Result<Vec<u64>>,
    ) -> Result<Option<f64>> {
        let finished = AtomicBool::new(false);
        let one = |cpu: u32| {
            let sent = pin(cpu).and_then(|()| floor.generate(self.generator_if, packets));
            finished.store(true, Ordering::Relaxed);
            sent
        };
        std::thread::scope(|scope| {
            let (one, generator) = (&one, &self.generator);
            let threads: Vec<_> = (0..cpus)
                .map(|cpu| scope.spawn(move || generator.enter(move || one(cpu))?))
                .collect();
            let rate = watch::rate(&finished, cpus as usize, watched);
            for thread in threads {
                thread.join().map_err(|_| anyhow!("a generator panicked"))??;
            }
            rate
        })
    }
}

/// Binds the calling thread to a CPU, ahead of what else wants to run there.
pub(super) fn pin(cpu: u32) -> Result<()> {
    bind(cpu)?;
    hurry(GENERATOR_NICE)
}

/// Binds the calling thread to a CPU.
pub(super) fn bind(cpu: u32) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu as usize)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot bind a thread to CPU {cpu}"))
}

/// A number of packets.
#[expect(
    clippy::cast_sign_loss,
    reason = "a negative number saturates at 0, which sends nothing"
)]
pub(super) fn rounded(packets: f64) -> u32 {
    packets as u32
}
