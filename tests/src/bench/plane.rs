//! dpufw itself as a contender: its own data plane with private maps, an inline pair and a policy.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use aya::maps::{HashMap, Map, MapData, MapInfo, PerCpuArray};
use aya::programs::loaded_programs;
use fw_common::abi::{Engine, LinkKind, Mode, PortConfig, Reason, Side, StateWord, map_names};
use fw_policy::{Environment, Policy};
use fw_user::dataplane::{
    DataPlane, EventReader, FlowKey, FlowSizes, FlowTable, Hook, Options, Tables, TestContext,
    generation_after,
};

use super::floor::{FLOW_WORDS, key_bytes};
use super::frames::{Frame, Traffic};
use super::link::{XdpLink, program_by_id};

/// Denied packets reported per CPU and 67 ms: as the agent has it.
const EVENTS_PER_WINDOW: u32 = 32;
/// Flows that are opened by their own packets.
const BY_PACKETS: u32 = 1000;

/// The firewall's two ports.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Towards the generator.
    pub outer: u32,
    /// Towards the sink.
    pub inner: u32,
}

/// A loaded data plane that guards the pair as soon as its program is put there.
pub struct Plane {
    loaded: DataPlane,
    program: OwnedFd,
    counters: PerCpuArray<MapData, [u64; 2]>,
    events: EventReader,
    pair: Pair,
    hook: Hook,
    id: u32,
    /// Instructions that the verifier walked through.
    pub verified: u32,
}

impl Plane {
    /// Loads the programs and puts a policy into force.
    ///
    /// # Errors
    /// If the policy does not compile, or the kernel refuses.
    pub fn open(pair: Pair, sizes: FlowSizes, policy: &str) -> Result<Self> {
        let (policy, _warnings) =
            fw_policy::check(policy, "bench.yaml").map_err(|findings| anyhow!("{findings}"))?;
        Self::of(pair, sizes, &policy)
    }

    /// The same at TC.
    ///
    /// # Errors
    /// As [`Plane::open`].
    pub fn at_tc(pair: Pair, sizes: FlowSizes, policy: &str) -> Result<Self> {
        Self::at(Hook::TcIn, pair, sizes, policy)
    }

    /// The same at a hook.
    ///
    /// # Errors
    /// As [`Plane::open`].
    pub fn at(hook: Hook, pair: Pair, sizes: FlowSizes, policy: &str) -> Result<Self> {
        let (policy, _warnings) =
            fw_policy::check(policy, "bench.yaml").map_err(|findings| anyhow!("{findings}"))?;
        Self::with(pair, sizes, &policy, hook)
    }

    /// The same with a policy that was read already.
    ///
    /// # Errors
    /// As [`Plane::open`].
    pub fn of(pair: Pair, sizes: FlowSizes, policy: &Policy) -> Result<Self> {
        Self::with(pair, sizes, policy, Hook::XdpIn)
    }

    fn with(pair: Pair, sizes: FlowSizes, policy: &Policy, hook: Hook) -> Result<Self> {
        let options = Options {
            sizes,
            events_per_window: EVENTS_PER_WINDOW,
            ..Options::default()
        };
        let mut loaded = DataPlane::open(options)?;
        let tables = loaded.tables();
        for (ifindex, peer, side) in [
            (pair.outer, pair.inner, Side::Outer),
            (pair.inner, pair.outer, Side::Inner),
        ] {
            tables.set_port(&port(ifindex, peer, side, hook))?;
        }
        let environment = Environment {
            own_addresses: Vec::new(),
            roles: Vec::new(),
            generation: tables.next_generation(),
            ..Environment::sample()
        };
        tables.apply(&fw_policy::compile(policy, &environment)?.lines)?;
        // As the agent does while it ages; here nobody does.
        tables.fill_presence()?;
        let sizes = loaded.program_sizes()?;
        let own = sizes
            .iter()
            .find(|size| size.hook == hook)
            .with_context(|| format!("no program for {hook:?} is loaded"))?;
        let (program, counters) = (program_by_id(own.id)?, counters(own.id)?);
        let events = loaded.events()?;
        Ok(Self {
            loaded,
            program,
            counters,
            events,
            pair,
            hook,
            id: own.id,
            verified: own.verified,
        })
    }

    /// The program that a port runs.
    #[must_use]
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Brings flows into the main table, and returns their keys: the first thousand by their own packets, the others as copies
    /// of the first, since a million openings within a second are a flood to a firewall. Whether their packets meet
    /// them is seen when they are measured.
    ///
    /// # Errors
    /// If one of them does not end up there, confirmed.
    pub fn prime(&self, traffic: Traffic, flows: u32) -> Result<Vec<FlowKey>> {
        let opened = flows.min(BY_PACKETS);
        let mut keys = self.open_flows(traffic, opened)?;
        if flows > opened {
            let copied: Vec<FlowKey> = (opened..flows).map(|flow| traffic.key(flow)).collect();
            self.copy(&traffic.key(0), &copied)?;
            keys.extend(copied);
        }
        // The copies were not made by packets.
        self.loaded.tables().fill_presence()?;
        Ok(keys)
    }

    /// The program's id in the kernel.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Gives flows the entry of another one.
    fn copy(&self, from: &FlowKey, to: &[FlowKey]) -> Result<()> {
        match from {
            FlowKey::V4(_) => copy::<16>(self.map(map_names::FLOWS4)?, from, to),
            FlowKey::V6(_) => copy::<40>(self.map(map_names::FLOWS6)?, from, to),
        }
    }

    /// A map of the program.
    fn map(&self, name: &str) -> Result<MapData> {
        map_of(self.id, name)
    }

    /// Opens flows by their packets.
    fn open_flows(&self, traffic: Traffic, flows: u32) -> Result<Vec<FlowKey>> {
        // A port takes XDP test runs only while it has a program.
        let _links = match self.hook {
            Hook::XdpIn => [self.pair.inner, self.pair.outer]
                .map(|ifindex| XdpLink::attach(self.program(), ifindex))
                .into_iter()
                .collect::<Result<Vec<_>>>()?,
            Hook::TcIn | Hook::TcOut => Vec::new(),
        };
        for flow in 0..flows {
            let packets = traffic.opening(flow);
            for (packet, ifindex) in packets
                .iter()
                .zip([self.pair.outer, self.pair.inner, self.pair.outer])
            {
                self.loaded
                    .test_run(self.hook, &packet.build(), &TestContext::on(ifindex))?;
            }
        }
        let mut keys = Vec::new();
        self.loaded.tables().for_each_flow(FlowTable::Main, |key, flow| {
            if StateWord(flow.state).has(StateWord::CONFIRMED) {
                keys.push(key);
            }
            ControlFlow::Continue(())
        })?;
        ensure!(
            keys.len() == flows as usize,
            "{} of {flows} flows are confirmed; packets by reason: {:?}",
            keys.len(),
            self.by_reason()?
        );
        Ok(keys)
    }

    /// Packets by reason.
    ///
    /// # Errors
    /// If the kernel refuses a read.
    pub fn by_reason(&self) -> Result<Vec<(&'static str, u64)>> {
        let counters = self.loaded.tables().counters()?;
        let name = |number| Reason::from_number(number).map_or("unknown", Reason::name);
        Ok(counters
            .into_iter()
            .map(|(number, count)| (name(number), count.packets))
            .collect())
    }

    /// Packets by reason since an earlier reading, where there were any.
    ///
    /// # Errors
    /// If the kernel refuses a read.
    pub fn since(&self, before: &[(&'static str, u64)]) -> Result<BTreeMap<&'static str, u64>> {
        let before: BTreeMap<_, _> = before.iter().copied().collect();
        let grown = |(name, packets): (&'static str, u64)| {
            let grown = packets - before.get(name).unwrap_or(&0);
            (grown > 0).then_some((name, grown))
        };
        Ok(self.by_reason()?.into_iter().filter_map(grown).collect())
    }

    /// Packets with this reason, by CPU.
    ///
    /// # Errors
    /// If the kernel refuses the read.
    pub fn count(&self, reason: Reason) -> Result<Vec<u64>> {
        Ok(self
            .counters
            .get(&(reason as u32), 0)?
            .iter()
            .map(|[packets, _bytes]| *packets)
            .collect())
    }

    /// Takes events out of the ring, as an agent would, so that it does not fill up.
    pub fn drain(&mut self) {
        while self.events.next_event().is_some() {}
    }

    /// Mean time of the program on one frame, repeated: everything in the caches.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn time(&self, frame: &Frame, repeat: u32) -> Result<Duration> {
        self.time_on(self.pair.outer, frame, repeat)
    }

    /// The same on a frame of any length that came in by one of the ports.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn time_on(&self, ifindex: u32, frame: &[u8], repeat: u32) -> Result<Duration> {
        let context = TestContext {
            repeat,
            ..TestContext::on(ifindex)
        };
        Ok(self.loaded.test_run(self.hook, frame, &context)?.duration)
    }

    /// Its tables, for a thread that exchanges the policy meanwhile.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        Arc::clone(self.loaded.tables())
    }

    /// Sets how many denied packets may be reported per CPU and 67 ms.
    pub fn report(&self, events: u32) {
        self.loaded.tables().set_events_per_window(events);
    }
}

/// Policies, compiled, that can be put into force one after the other.
pub struct Swaps {
    tables: Arc<Tables>,
    ready: std::collections::VecDeque<fw_policy::TableSet>,
}

impl Swaps {
    /// Compiles the same policy `count` times, for generations that follow the one in force.
    ///
    /// # Errors
    /// If it does not compile.
    pub fn of(tables: Arc<Tables>, policy: &Policy, count: usize) -> Result<Self> {
        let mut generation = tables.next_generation();
        let mut ready = std::collections::VecDeque::new();
        for _ in 0..count {
            let environment = Environment {
                own_addresses: Vec::new(),
                roles: Vec::new(),
                generation,
                ..Environment::sample()
            };
            ready.push_back(fw_policy::compile(policy, &environment)?);
            generation = generation_after(generation);
        }
        Ok(Self { tables, ready })
    }

    /// Puts the next one into force; false if none is left.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn apply_next(&mut self) -> Result<bool> {
        let Some(set) = self.ready.pop_front() else {
            return Ok(false);
        };
        self.tables.apply(&set.lines)?;
        Ok(true)
    }
}

/// Writes a flow's value under other keys.
fn copy<const N: usize>(map: MapData, from: &FlowKey, to: &[FlowKey]) -> Result<()> {
    let mut map = HashMap::<_, [u8; N], [u64; FLOW_WORDS]>::try_from(Map::HashMap(map))?;
    let value = map.get(&key_bytes(from)?, 0)?;
    to.iter()
        .try_for_each(|key| Ok(map.insert(key_bytes(key)?, value, 0)?))
}

/// Writes the value of an IPv4 flow in one map under keys of another map.
pub(super) fn copy4(from: MapData, flow: &FlowKey, into: MapData, keys: &[FlowKey]) -> Result<()> {
    let from = HashMap::<_, [u8; 16], [u64; FLOW_WORDS]>::try_from(Map::HashMap(from))?;
    let value = from.get(&key_bytes(flow)?, 0)?;
    let mut into = HashMap::<_, [u8; 16], [u64; FLOW_WORDS]>::try_from(Map::HashMap(into))?;
    keys.iter()
        .try_for_each(|key| Ok(into.insert(key_bytes(key)?, value, 0)?))
}

/// The counters of the program with this id: `Tables::counters` reads all of them, which is too slow while packets flow.
fn counters(program: u32) -> Result<PerCpuArray<MapData, [u64; 2]>> {
    let map = map_of(program, map_names::COUNTERS)?;
    Ok(PerCpuArray::try_from(Map::PerCpuArray(map))?)
}

/// A map that the program with this id uses.
pub(super) fn map_of(program: u32, name: &str) -> Result<MapData> {
    for info in loaded_programs() {
        let info = info?;
        if info.id() != program {
            continue;
        }
        for id in info.map_ids()?.unwrap_or_default() {
            if MapInfo::from_id(id)?.name_as_str() == Some(name) {
                return Ok(MapData::from_id(id)?);
            }
        }
    }
    bail!("program {program} has no map {name}")
}

fn port(ifindex: u32, peer_ifindex: u32, side: Side, hook: Hook) -> PortConfig {
    PortConfig {
        ifindex,
        peer_ifindex,
        mode: Mode::Inline as u8,
        engine: if hook == Hook::XdpIn {
            Engine::Xdp
        } else {
            Engine::Tc
        } as u8,
        link: LinkKind::Ethernet as u8,
        side: side as u8,
        ..PortConfig::default()
    }
}
