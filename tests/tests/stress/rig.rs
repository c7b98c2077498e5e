//! A loaded data plane between two ports, and threads that run its programs on frames, each on a CPU of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use fw_common::abi::{Engine, LinkKind, Mode, PortConfig, Reason, Side};
use fw_policy::Environment;
use fw_tests::lab::{End, Namespace, Veth, require_root};
use fw_user::dataplane::{DataPlane, Hook, Options, PortPlan, TestContext};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// One test at a time: they measure.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed left nothing half-done for the next one.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Binds the calling thread to a CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot bind a thread to CPU {cpu}"))
}

/// Lets the calling thread run before all ordinary ones, for a measurement of less than a second on a machine that has other
/// things to do. It ends with the thread.
pub fn urgent() -> Result<()> {
    let first = libc::sched_param { sched_priority: 1 };
    // SAFETY: a plain system call; the parameter lives through it.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first) };
    if done < 0 {
        return Err(std::io::Error::last_os_error()).context("cannot run a thread before others");
    }
    Ok(())
}

/// Compiles a policy and puts it into force.
pub fn apply(plane: &DataPlane, own_addresses: &[IpAddr], policy: &str) -> Result<()> {
    let (policy, _) = fw_policy::check(policy, "stress.yaml").map_err(|findings| anyhow!("{findings}"))?;
    let environment = Environment {
        own_addresses: own_addresses.to_vec(),
        roles: Vec::new(),
        generation: plane.tables().next_generation(),
        ..Environment::sample()
    };
    let lines = fw_policy::compile(&policy, &environment)?.lines;
    plane.tables().apply(&lines)?;
    Ok(())
}

/// What was counted, by reason.
pub fn counted(plane: &DataPlane) -> Result<BTreeMap<&'static str, u64>> {
    let counters = plane.tables().counters()?;
    Ok(counters
        .into_iter()
        .filter(|(_, count)| count.packets > 0)
        .filter_map(|(number, count)| Some((Reason::from_number(number)?.name(), count.packets)))
        .collect())
}

/// Packets that ended with this reason so far.
pub fn packets(plane: &DataPlane, reason: Reason) -> Result<u64> {
    Ok(counted(plane)?.get(reason.name()).copied().unwrap_or(0))
}

/// Mode `inline` on two ports in a namespace of their own.
pub struct Rig {
    namespace: Namespace,
    pub plane: DataPlane,
    /// Index of the port towards the network, and of the one towards the guarded machine.
    pub ports: [u32; 2],
}

impl Rig {
    pub fn new(options: Options, policy: &str) -> Result<Self> {
        require_root()?;
        let namespace = Namespace::new("rig")?;
        // The ports are each other's wire: what would be redirected in a test run goes nowhere.
        let end = |name, last| End::new(&namespace, name, [2, 0, 0, 0, 7, last]);
        Veth::create(&end("outer", 1), &end("inner", 2), 1500)?;
        let ports = [namespace.ifindex("outer")?, namespace.ifindex("inner")?];
        let mut plane = DataPlane::open(options)?;
        for (own, side) in [(0, Side::Outer), (1, Side::Inner)] {
            plane.tables().set_port(&PortConfig {
                ifindex: ports[own],
                peer_ifindex: ports[1 - own],
                mode: Mode::Inline as u8,
                engine: Engine::Xdp as u8,
                link: LinkKind::Ethernet as u8,
                side: side as u8,
                ..PortConfig::default()
            })?;
            let plan = PortPlan {
                name: ["outer", "inner"][own].to_owned(),
                ifindex: ports[own],
                engine: Engine::Xdp,
                egress: false,
            };
            namespace.enter(|| plane.attach(&plan))??;
        }
        apply(&plane, &[], policy)?;
        Ok(Self {
            namespace,
            plane,
            ports,
        })
    }

    /// Runs `f` on a thread in the rig's namespace, bound to a CPU.
    pub fn on<T: Send>(&self, cpu: usize, f: impl FnOnce(&Sender<'_>) -> Result<T> + Send) -> Result<T> {
        self.namespace.enter(|| {
            pin(cpu)?;
            f(&Sender { rig: self })
        })?
    }

    /// Runs `first` on CPU 0 and `second` on CPU 1 at once.
    pub fn on_both<A: Send, B: Send>(
        &self,
        first: impl FnOnce(&Sender<'_>) -> Result<A> + Send,
        second: impl FnOnce(&Sender<'_>) -> Result<B> + Send,
    ) -> Result<(A, B)> {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| self.on(1, second));
            let one = self.on(0, first);
            let other = other.join().map_err(|_| anyhow!("a thread panicked"))?;
            Ok((one?, other?))
        })
    }
}

/// Where a packet comes in.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// The network.
    Outer = 0,
    /// The guarded machine.
    Inner = 1,
}

/// Runs the XDP program; lives on a thread in the rig's namespace.
pub struct Sender<'a> {
    rig: &'a Rig,
}

impl Sender<'_> {
    /// One packet `times` in a row. Returns what the program returned last: an action of XDP.
    pub fn send(&self, from: From, frame: &[u8], times: u32) -> Result<u32> {
        let context = TestContext {
            repeat: times,
            ..TestContext::on(self.rig.ports[from as usize])
        };
        Ok(self.rig.plane.test_run(Hook::XdpIn, frame, &context)?.returned)
    }

    /// One packet; true if it was forwarded.
    pub fn forwarded(&self, from: From, frame: &[u8]) -> Result<bool> {
        const XDP_REDIRECT: u32 = 4;
        Ok(self.send(from, frame, 1)? == XDP_REDIRECT)
    }
}
