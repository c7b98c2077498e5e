//! The kernel's programs and the host's model beside each other: same tables, same ports, same clock, same packets.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, HashMap as BpfHash, Map, MapData};
use fw_common::abi::{
    Control, ControlFlags, Engine, Flow, Half, LinkKind, LiveFlow, LiveHalf, Mode, PRESSURE_SLOTS,
    PortConfig, Reason, Shared, Side, Source, SourceKey, Verdict, map_names,
};
use fw_common::fragment::{FragmentKey, LiveDatagram};
use fw_common::pipeline::{self, Scratch};
use fw_common::wire::{Packet, Window};
use fw_policy::model::Pickup;
use fw_user::dataplane::{
    DataPlane, EventReader, FlowKey, FlowSizes, FlowTable, GRACE_NS, Hook, Options, TestContext,
};

use crate::model::{Frame, SECOND, World};
use crate::policies::Compiled;

/// Events and answers in a window of 67 ms.
const EVENTS: u32 = 6;
const REPLIES: u32 = 12;
/// Nothing may be evicted while the two are compared: the model forgets nothing.
const SIZES: FlowSizes = FlowSizes {
    flows4: 32_769,
    flows6: 32_769,
    half4: 1 << 16,
    half6: 1 << 16,
    sources: 1 << 18,
    limits: 1 << 17,
    fragments: 1 << 18,
};

/// The ports by number; the last one is an interface without an entry.
pub mod port {
    pub const HOST: usize = 0;
    pub const OUTER: usize = 1;
    pub const INNER: usize = 2;
    pub const RAIL: usize = 3;
    pub const RAW: usize = 4;
    pub const OTHER_REALM: usize = 5;
    pub const UNKNOWN: usize = 6;
    pub const COUNT: usize = 7;
}

/// Where a packet meets the data plane.
#[derive(Clone, Copy, Debug)]
pub struct Via {
    pub port: usize,
    pub egress: bool,
    /// TC instead of XDP judges what comes in.
    pub tc: bool,
    /// What leaves and came in by this port.
    pub came_by: Option<usize>,
    /// TC: a super-packet of so many segments, and its bytes on the wire.
    pub super_packet: Option<(u32, u32)>,
}

impl Via {
    pub const fn into(port: usize) -> Self {
        Self {
            port,
            egress: false,
            tc: false,
            came_by: None,
            super_packet: None,
        }
    }

    pub const fn out_of(port: usize) -> Self {
        Self {
            egress: true,
            tc: true,
            ..Self::into(port)
        }
    }

    fn hook(&self, frame: &[u8]) -> Hook {
        if self.egress {
            Hook::TcOut
        } else if self.tc && tc_takes(frame) {
            Hook::TcIn
        } else {
            Hook::XdpIn
        }
    }
}

/// False for what the kernel's test run refuses at TC hooks: IP packets that end inside of the IP header, and frames larger
/// than a page (`net/bpf/test_run.c`).
pub fn tc_takes(frame: &[u8]) -> bool {
    let least = match frame.get(12..14) {
        Some([0x08, 0x00]) => 34,
        Some([0x86, 0xdd]) => 54,
        _ => 15,
    };
    (least..3000).contains(&frame.len())
}

/// The model's frame, which may be a super-packet.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    frame: Frame<'a>,
    super_packet: Option<(u32, u32)>,
}

impl Packet for Shown<'_> {
    fn len(self) -> u32 {
        self.frame.len()
    }
    fn load(self, offset: u32, skip: u32, into: &mut Window) -> u32 {
        self.frame.load(offset, skip, into)
    }
    fn ifindex(self) -> u32 {
        self.frame.ifindex()
    }
    fn tag(self) -> u32 {
        self.frame.tag()
    }
    fn segments(self) -> u32 {
        self.super_packet.map_or(1, |(segments, _)| segments.max(1))
    }
    fn wire_bytes(self) -> u32 {
        self.super_packet.map_or(0, |(_, wire)| wire).max(self.len())
    }
    fn egress(self) -> bool {
        self.frame.egress()
    }
    fn came_by(self) -> u32 {
        self.frame.came_by()
    }
}

/// What both said of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    pub verdict: Verdict,
    pub reason: Reason,
    /// The number that proves the source, where a proof was demanded.
    pub proof: Option<u32>,
}

pub struct Twin {
    plane: DataPlane,
    questions: DataPlane,
    events: EventReader,
    control: Array<MapData, [u64; 8]>,
    levels: Array<MapData, [u64; 8]>,
    pub world: World,
    asked: Scratch,
    ifindexes: [u32; port::COUNT],
    pub ports: Vec<PortConfig>,
    pub clock: u64,
    pub policy: &'static str,
    sent: u64,
    /// Questions, and those whose answer the packet itself did not get, by both reasons.
    pub questioned: u64,
    pub differed: HashMap<(u8, u8), u64>,
}

fn pin_dir() -> PathBuf {
    PathBuf::from("/sys/fs/bpf/dpufw/agreement")
}

/// A pinned array of one element of eight long words.
fn page(name: &str) -> Result<Array<MapData, [u64; 8]>> {
    let map = Map::from_map_data(MapData::from_pin(pin_dir().join(name))?)?;
    Ok(map.try_into()?)
}

fn config(ifindexes: &[u32; port::COUNT]) -> Vec<PortConfig> {
    let port = |number: usize, mode: Mode, side: Side, role: u8| PortConfig {
        ifindex: ifindexes[number],
        mode: mode as u8,
        engine: Engine::Xdp as u8,
        link: LinkKind::Ethernet as u8,
        side: side as u8,
        role,
        peer_role: role,
        ..PortConfig::default()
    };
    vec![
        port(port::HOST, Mode::Host, Side::Outer, 0),
        PortConfig {
            peer_ifindex: ifindexes[port::INNER],
            peer_role: 1,
            ..port(port::OUTER, Mode::Inline, Side::Outer, 0)
        },
        PortConfig {
            peer_ifindex: ifindexes[port::OUTER],
            peer_role: 0,
            ..port(port::INNER, Mode::Inline, Side::Inner, 1)
        },
        port(port::RAIL, Mode::Host, Side::Outer, 2),
        PortConfig {
            link: LinkKind::Raw as u8,
            ..port(port::RAW, Mode::Host, Side::Outer, 0)
        },
        PortConfig {
            realm: 1,
            ..port(port::OTHER_REALM, Mode::Host, Side::Outer, 0)
        },
    ]
}

impl Twin {
    /// Loads both instances of the programs; `ifindexes` are those of the ports, `secret` the key of all hashes.
    pub fn new(ifindexes: [u32; port::COUNT], secret: [u64; 2]) -> Result<Self> {
        let options = Options {
            pin_dir: Some(pin_dir()),
            sizes: SIZES,
            report: true,
            clock_override: true,
            events_per_window: EVENTS,
            replies_per_window: REPLIES,
            ..Options::default()
        };
        let mut plane = DataPlane::open(options.clone())?;
        let questions = DataPlane::open(Options {
            dry_run: true,
            report: false,
            ..options
        })?;
        let ports = config(&ifindexes);
        for port in &ports {
            plane.tables().set_port(port)?;
        }
        let mut control = page(map_names::CONTROL)?;
        let mut words = control.get(&0, 0)?;
        const SECRET: usize = std::mem::offset_of!(Control, secret) / 8;
        words[SECRET..SECRET + 2].copy_from_slice(&secret);
        control.set(0, words, 0)?;
        ensure!(
            plane.tables().control().secret == secret,
            "the secret lies elsewhere in the control words"
        );
        let world = World::new(&[]);
        world.ports.borrow_mut().clone_from(&ports);
        world.generation.set(0);
        for (word, secret) in world.control.secret.iter().zip(secret) {
            word.store(secret);
        }
        world.control.events_per_window.store(EVENTS);
        world.control.replies_per_window.store(REPLIES);
        world.capacity.set(SIZES.flows4 as usize);
        let mut twin = Self {
            events: plane.events()?,
            plane,
            questions,
            control,
            levels: page(map_names::LEVELS)?,
            world,
            asked: Scratch::EMPTY,
            ifindexes,
            ports,
            clock: 1 << 50,
            policy: "none",
            sent: 0,
            questioned: 0,
            differed: HashMap::new(),
        };
        twin.advance(0);
        twin.beat();
        twin.pick_up_until(0);
        twin.room(u64::from(SIZES.flows4))?;
        Ok(twin)
    }

    /// Turns the clock.
    pub fn advance(&mut self, ns: u64) {
        self.clock += ns;
        self.world.now.set(self.clock);
        self.plane.tables().set_clock(self.clock);
    }

    /// The agent is at work.
    pub fn beat(&mut self) {
        self.world.control.heartbeat.store(self.clock);
        self.plane.tables().beat(self.clock);
    }

    fn pick_up_until(&self, until: u64) {
        self.world.control.pickup_until.store(until);
        self.plane.tables().set_pickup_until(until);
    }

    /// How many flows of each family anyone may have in the main tables.
    pub fn room(&mut self, room: u64) -> Result<()> {
        let mut words = self.levels.get(&0, 0)?;
        words[2] = room;
        words[3] = room;
        self.levels.set(0, words, 0)?;
        for level in &self.world.levels.room {
            level.store(room);
        }
        Ok(())
    }

    /// Puts a policy in force.
    pub fn swap(&mut self, policy: &mut Compiled) -> Result<()> {
        let tables = self.plane.tables();
        let generation = tables.next_generation();
        tables.apply(policy.of_generation(generation))?;
        let flags = if policy.loose {
            ControlFlags::WINDOW_LOOSE
        } else {
            0
        };
        tables.set_flags(flags);
        self.world.control.flags.store(flags);
        self.world.set.set(policy.shared);
        self.world.generation.set(generation);
        self.pick_up_until(match policy.pickup {
            Pickup::Never => 0,
            Pickup::Always => u64::MAX,
            Pickup::ColdStart(seconds) => self.clock + u64::from(seconds / 20) * SECOND,
        });
        self.policy = policy.name;
        Ok(())
    }

    /// The frame as the model sees it.
    pub fn shown<'a>(&self, bytes: &'a [u8], via: &Via) -> Shown<'a> {
        let hook = via.hook(bytes);
        Shown {
            frame: Frame {
                egress: via.egress,
                came_by: via.came_by.map_or(0, |port| self.ifindexes[port]),
                ..Frame::new(bytes, self.ifindexes[via.port])
            },
            super_packet: via.super_packet.filter(|_| hook != Hook::XdpIn),
        }
    }

    fn context(&self, bytes: &[u8], via: &Via) -> TestContext {
        let mut context = TestContext::on(self.ifindexes[via.port]);
        if via.egress {
            context.ingress_ifindex = via.came_by.map_or(0, |port| self.ifindexes[port]);
        }
        if let Some((segments, wire)) = via.super_packet
            && via.hook(bytes) != Hook::XdpIn
        {
            (context.gso_segs, context.wire_len) = (segments, wire.max(bytes.len() as u32));
            context.gso_size = 100;
        }
        context
    }

    /// One packet through both; every 16th is asked about before.
    pub fn send(&mut self, bytes: &[u8], via: &Via) -> Result<Said> {
        let question = if self.sent.is_multiple_of(16) {
            Some(self.ask(bytes, via)?)
        } else {
            None
        };
        self.sent += 1;
        let shown = self.shown(bytes, via);
        let (word, proof) = {
            let mut s = self.world.scratch.borrow_mut();
            let outcome = pipeline::judge(shown, &self.world, &mut s);
            let proof = (outcome.verdict() == Verdict::Reply && outcome.reason() == Reason::SynProof as u8)
                .then(|| u32::from_be(s.reply.words[if s.meta.family == 4 { 7 } else { 12 }]));
            (outcome.report(s.class.decision), proof)
        };
        let kernel = self.by(&self.plane, bytes, via)?;
        if kernel != word {
            bail!("{}", self.difference("judged", bytes, via, word, kernel));
        }
        if let Some(question) = question {
            let (asked, got) = ((question >> 2) as u8, (word >> 2) as u8);
            if asked != got {
                *self.differed.entry((asked, got)).or_default() += 1;
            }
        }
        let reason = Reason::from_number((word >> 2) as u8).context("an unknown reason")?;
        let verdict = [Verdict::Drop, Verdict::Pass, Verdict::Forward, Verdict::Reply][word as usize & 3];
        Ok(Said {
            verdict,
            reason,
            proof,
        })
    }

    fn by(&self, plane: &DataPlane, bytes: &[u8], via: &Via) -> Result<u32> {
        let hook = via.hook(bytes);
        let outcome = plane
            .test_run(hook, bytes, &self.context(bytes, via))
            .with_context(|| format!("{hook}, {} bytes: {bytes:02x?}", bytes.len()))?;
        Ok(outcome.returned)
    }

    /// Asks the instance that writes nothing.
    fn ask(&mut self, bytes: &[u8], via: &Via) -> Result<u32> {
        let shown = self.shown(bytes, via);
        self.world.dry_run.set(true);
        let outcome = pipeline::judge(shown, &self.world, &mut self.asked);
        self.world.dry_run.set(false);
        let word = outcome.report(self.asked.class.decision);
        let kernel = self.by(&self.questions, bytes, via)?;
        ensure!(
            kernel == word,
            "{}",
            self.difference("asked about", bytes, via, word, kernel)
        );
        self.questioned += 1;
        Ok(word)
    }

    fn difference(&self, what: &str, bytes: &[u8], via: &Via, model: u32, kernel: u32) -> String {
        let said = |word: u32| {
            let reason = Reason::from_number((word >> 2) as u8).map_or("no reason", Reason::name);
            let verdict = ["drop", "pass", "forward", "reply"][word as usize & 3];
            format!("{verdict} by {reason}, rule {}", word >> 10)
        };
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "packet {} {what} at {} under the policy {}, {via:?} ({}): the model says {}, the kernel {}: {hex}",
            self.sent,
            self.clock,
            self.policy,
            via.hook(bytes),
            said(model),
            said(kernel)
        )
    }

    /// What the agent does each second: removes what is over.
    pub fn age(&mut self) -> Result<()> {
        let now = self.clock;
        self.plane.tables().age(now, |_, _, _| {})?;
        self.plane.tables().age_half_open(now, |_, _, _| {})?;
        let over = |flow: &Flow| {
            flow.expired(now.saturating_sub(GRACE_NS)) && now.saturating_sub(flow.last_seen()) > GRACE_NS
        };
        let world = &self.world;
        world.main4.borrow_mut().retain(|_, flow| !over(&copy(flow)));
        world.main6.borrow_mut().retain(|_, flow| !over(&copy(flow)));
        world
            .half4
            .borrow_mut()
            .retain(|_, flow| !copy(flow).expired(now));
        world
            .half6
            .borrow_mut()
            .retain(|_, flow| !copy(flow).expired(now));
        let used = [world.main4.borrow().len(), world.main6.borrow().len()];
        for (level, used) in world.levels.used.iter().zip(used) {
            level.store(used as u64);
        }
        Ok(())
    }

    /// What the agent does now and then: writes down how many flows sources and limits really have; here, none.
    pub fn forget_counts(&mut self) -> Result<()> {
        let tables = self.plane.tables();
        for (key, flows) in tables.source_flows()? {
            tables.mend_source(&key, flows, 0)?;
            if let Some(source) = self.world.sources.borrow().get(&key) {
                source.flows.store(0);
            }
        }
        let mut counts = Vec::new();
        tables.for_each_bucket(|key, value| {
            // Counts of flows are small, arrival times are not.
            if value != 0 && value < 1 << 32 {
                counts.push((*key, value));
            }
        })?;
        for (key, count) in counts {
            tables.mend_bucket(&key, count, 0)?;
            self.world.buckets.borrow_mut().remove(&key);
        }
        Ok(())
    }

    /// Compares everything that both have stored.
    pub fn compare(&mut self) -> Result<Stored> {
        let world = &self.world;
        let mut stored = Stored::default();
        for (table, v4, v6) in [
            (FlowTable::Main, &world.main4, &world.main6),
            (FlowTable::HalfOpen, &world.half4, &world.half6),
        ] {
            let mut model: HashMap<FlowKey, Flow> = HashMap::new();
            model.extend(
                v4.borrow()
                    .iter()
                    .map(|(key, flow)| (FlowKey::V4(*key), copy(flow))),
            );
            model.extend(
                v6.borrow()
                    .iter()
                    .map(|(key, flow)| (FlowKey::V6(*key), copy(flow))),
            );
            stored.flows += self.compare_flows(table, model)?;
        }
        stored.sources = self.compare_sources()?;
        stored.buckets = self.compare_buckets()?;
        let levels = self.plane.tables().levels().used;
        let known = [0, 1].map(|family| self.world.levels.used[family].load());
        ensure!(
            levels == known,
            "the kernel counts {levels:?} flows, the model {known:?}"
        );
        self.compare_counters()?;
        stored.events = self.compare_events()?;
        Ok(stored)
    }

    fn compare_flows(&self, table: FlowTable, mut model: HashMap<FlowKey, Flow>) -> Result<usize> {
        let count = model.len();
        let mut different = None;
        self.plane.tables().for_each_flow(table, |key, kernel| {
            let known = model.remove(&key);
            if known.as_ref().map(words) != Some(words(kernel)) {
                different = Some(format!(
                    "{table:?}, {key:?}: the kernel has {kernel:?}, the model {known:?}"
                ));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if let Some(different) = different {
            bail!("{different}");
        }
        ensure!(
            model.is_empty(),
            "{table:?}: the kernel lacks {:?}",
            model.iter().next()
        );
        Ok(count)
    }

    fn compare_sources(&self) -> Result<usize> {
        let tables = self.plane.tables();
        let sources = self.world.sources.borrow();
        let kernel: HashMap<SourceKey, u32> = tables.source_flows()?;
        ensure!(
            kernel.len() == sources.len(),
            "the kernel knows {} sources, the model {}",
            kernel.len(),
            sources.len()
        );
        for (key, live) in sources.iter() {
            let source = tables
                .source(key)?
                .with_context(|| format!("the kernel lacks the source {key:?}"))?;
            let known = Source {
                window: live.window.load(),
                opened: live.opened.load(),
                flows: live.flows.load(),
                pad: live.pad.load(),
                proved_until: live.proved_until.load(),
                completed: live.completed.load(),
                denied: live.denied.load(),
                banned_until: live.banned_until.load(),
            };
            ensure!(
                source_words(&source) == source_words(&known),
                "{key:?}: the kernel has {source:?}, the model {known:?}"
            );
        }
        Ok(sources.len())
    }

    fn compare_buckets(&self) -> Result<usize> {
        let mut kernel = HashMap::new();
        self.plane.tables().for_each_bucket(|key, value| {
            kernel.insert(*key, value);
        })?;
        let model: HashMap<_, _> = self
            .world
            .buckets
            .borrow()
            .iter()
            .map(|(key, value)| (*key, value.load()))
            .collect();
        same("buckets of limits", &kernel, &model)
    }

    fn compare_counters(&self) -> Result<()> {
        let tables = self.plane.tables();
        let (plain, noted) = (tables.counters()?, tables.noted()?);
        let slots = plain
            .into_iter()
            .map(|(reason, count)| (u32::from(reason), count))
            .chain(
                noted
                    .into_iter()
                    .map(|(reason, count)| (u32::from(reason) + fw_common::abi::NOTED, count)),
            );
        let kernel: HashMap<u32, u64> = slots.map(|(slot, count)| (slot, count.packets)).collect();
        same("counters by reason", &kernel, &self.world.counters.borrow())?;
        let stats = tables.flow_stats()?.into_iter().enumerate();
        let kernel: HashMap<u32, u64> = stats
            .filter(|(_, count)| *count != 0)
            .map(|(stat, count)| (stat as u32, count))
            .collect();
        same("conntrack statistics", &kernel, &self.world.stats.borrow()).map(drop)
    }

    /// Compares what is too large to be compared after each sequence: datagrams in pieces and the buckets of destinations.
    /// Returns how many there are.
    pub fn compare_rest(&self) -> Result<(usize, usize)> {
        let map = Map::from_map_data(MapData::from_pin(pin_dir().join(map_names::FRAGMENTS))?)?;
        let kernel: BpfHash<MapData, [u32; 11], [u64; 9]> = map.try_into()?;
        let datagrams = self.world.datagrams.borrow();
        for (key, live) in datagrams.iter() {
            let known = datagram_words(live);
            let found = kernel
                .get(&key_words(key), 0)
                .with_context(|| format!("the kernel lacks {key:?}"))?;
            ensure!(
                found == known,
                "{key:?}: the kernel has {found:x?}, the model {known:x?}"
            );
        }
        let count = kernel.keys().count();
        ensure!(
            count == datagrams.len(),
            "the kernel has {count} datagrams, the model {}",
            datagrams.len()
        );
        let map = Map::from_map_data(MapData::from_pin(pin_dir().join(map_names::PRESSURE))?)?;
        let kernel: Array<MapData, u64> = map.try_into()?;
        let model = self.world.pressure.borrow();
        for slot in 0..PRESSURE_SLOTS {
            let (found, known) = (
                kernel.get(&slot, 0)?,
                model.get(&slot).map_or(0, |cell| cell.load()),
            );
            ensure!(
                found == known,
                "bucket {slot} of destinations: the kernel has {found}, the model {known}"
            );
        }
        Ok((count, model.len()))
    }

    /// Compares the events since the last time, in their order.
    pub fn compare_events(&mut self) -> Result<usize> {
        let model = self.world.events.take();
        for (number, event) in model.iter().enumerate() {
            let kernel = self
                .events
                .next_event()
                .with_context(|| format!("the kernel did not send event {number}: {event:?}"))?;
            let (kernel, known) = (format!("{kernel:?}"), format!("{event:?}"));
            ensure!(
                kernel == known,
                "event {number}: the kernel sent {kernel}, the model {known}"
            );
        }
        if let Some(event) = self.events.next_event() {
            bail!("the model did not send {event:?}");
        }
        Ok(model.len())
    }

    /// Packets counted without verdict because a screen, a threshold or a rule only counts, by reason.
    pub fn noted(&self) -> HashMap<u32, u64> {
        let counters = self.world.counters.borrow();
        let noted = |slot: &u32| slot.checked_sub(fw_common::abi::NOTED);
        counters
            .iter()
            .filter_map(|(slot, count)| Some((noted(slot)?, *count)))
            .collect()
    }

    /// The control words are used through the mapped page; the map's handle is kept so that it lives as long.
    pub fn generation(&self) -> Result<u32> {
        Ok(self.control.get(&0, 0)?[0] as u32)
    }
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    pub flows: usize,
    pub sources: usize,
    pub buckets: usize,
    pub events: usize,
}

impl std::ops::AddAssign for Stored {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.sources += other.sources;
        self.buckets += other.buckets;
        self.events += other.events;
    }
}

fn same<K: Eq + Hash + std::fmt::Debug>(
    what: &str,
    kernel: &HashMap<K, u64>,
    model: &HashMap<K, u64>,
) -> Result<usize> {
    for (key, value) in model {
        let found = kernel.get(key);
        ensure!(
            found == Some(value),
            "{what}, {key:?}: the kernel has {found:?}, the model {value}"
        );
    }
    for key in kernel.keys() {
        ensure!(model.contains_key(key), "{what}: the model lacks {key:?}");
    }
    Ok(model.len())
}

/// An entry as it is now.
pub fn copy(live: &LiveFlow) -> Flow {
    fn at<T: Copy>(word: &Shared<T>) -> T {
        word.load()
    }
    let half = |half: &LiveHalf| Half {
        packets: at(&half.packets),
        bytes: at(&half.bytes),
        last_seen: at(&half.last_seen),
        seq_end: at(&half.seq_end),
        ack: at(&half.ack),
        edge: at(&half.edge),
        window: at(&half.window),
    };
    Flow {
        half: [half(&live.half[0]), half(&live.half[1])],
        state: at(&live.state),
        generation: at(&live.generation),
        flags: at(&live.flags),
        policed: at(&live.policed),
        created: at(&live.created),
        rule: at(&live.rule),
        src_zone: at(&live.src_zone),
        dst_zone: at(&live.dst_zone),
        answer: at(&live.answer),
        carried_packets: at(&live.carried_packets),
        carried_bytes: at(&live.carried_bytes),
    }
}

fn words(flow: &Flow) -> [u64; 25] {
    let [a, b] = flow.half.map(|half| {
        [
            half.packets,
            half.bytes,
            half.last_seen,
            half.seq_end.into(),
            half.ack.into(),
            half.edge.into(),
            half.window.into(),
        ]
    });
    let mut words = [0; 25];
    words[..7].copy_from_slice(&a);
    words[7..14].copy_from_slice(&b);
    words[14..].copy_from_slice(&[
        flow.state.into(),
        flow.generation.into(),
        flow.flags.into(),
        flow.policed.into(),
        flow.created,
        flow.rule.into(),
        flow.src_zone.into(),
        flow.dst_zone.into(),
        flow.answer.into(),
        flow.carried_packets.into(),
        flow.carried_bytes.into(),
    ]);
    words
}

fn source_words(source: &Source) -> [u64; 8] {
    [
        source.window.into(),
        source.opened.into(),
        source.flows.into(),
        source.pad.into(),
        source.proved_until,
        source.completed,
        source.denied,
        source.banned_until,
    ]
}

/// A key as it lies in the map.
fn key_words(key: &FragmentKey) -> [u32; 11] {
    let mut words = [0; 11];
    words[..4].copy_from_slice(&key.src);
    words[4..8].copy_from_slice(&key.dst);
    (words[8], words[9]) = (key.id, key.realm);
    let [a, b] = key.pad.to_ne_bytes();
    words[10] = u32::from_ne_bytes([key.proto, key.family, a, b]);
    words
}

/// A datagram as it lies in the map.
fn datagram_words(live: &LiveDatagram) -> [u64; 9] {
    let mut half = [0; 16];
    for (word, range) in half.iter_mut().zip(&live.ranges) {
        *word = range.load();
    }
    let rest = [
        &live.lock,
        &live.progress,
        &live.end,
        &live.ports,
        &live.first,
        &live.generation,
        &live.rule,
        &live.up,
    ];
    for (word, cell) in half[8..].iter_mut().zip(rest) {
        *word = cell.load();
    }
    let mut words = [live.created.load(), 0, 0, 0, 0, 0, 0, 0, 0];
    for (word, pair) in words[1..].iter_mut().zip(half.chunks_exact(2)) {
        let bytes = [pair[0].to_ne_bytes(), pair[1].to_ne_bytes()].concat();
        *word = bytes.try_into().map_or(0, u64::from_ne_bytes);
    }
    words
}
