//! The kernel's programs and the host's model beside each other: same tables, same ports, same clock, same packets.

mod stored;

pub use stored::{Compared, Stored};

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, Map, MapData};
use fw_common::abi::{
    Control, ControlFlags, Engine, Key4, Key6, LinkKind, Mode, PortConfig, Reason, Side, Verdict, map_names,
};
use fw_common::pipeline::{self, Scratch};
use fw_common::wire::{Packet, Window};
use fw_policy::model::Pickup;
use fw_user::dataplane::{DataPlane, EventReader, FlowSizes, Hook, Options, TestContext};

use crate::model::{Frame, SECOND, World};
use crate::policies::Compiled;

/// Bytes of a super-packet's segments.
const SEGMENT: u32 = 100;

/// Events and answers in a window of 67 ms.
const EVENTS: u32 = 6;
pub const REPLIES: u32 = 12;
/// Nothing may be evicted while the two are compared: the model forgets nothing.
const SIZES: FlowSizes = FlowSizes {
    flows4: 8_193,
    flows6: 8_193,
    half4: 1 << 14,
    half6: 1 << 14,
    sources: 1 << 14,
    limits: 1 << 15,
    fragments: 1 << 16,
};

/// Where the key of all hashes lies, in long words.
const SECRET: usize = std::mem::offset_of!(Control, secret) / 8;

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
        match self.super_packet {
            None => 1,
            // A guest's: what lies behind 40 bytes of headers is divided by the size.
            Some((0, _)) => self.len().saturating_sub(40).div_ceil(SEGMENT).max(1),
            Some((segments, _)) => segments,
        }
    }
    fn wire_bytes(self, _len: u32) -> u32 {
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
    /// Packets after which their flow was compared, by where it was.
    pub compared: HashMap<Compared, u64>,
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
    #[expect(clippy::too_many_lines, reason = "one scene, step by step")]
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
        words[SECRET..SECRET + 2].copy_from_slice(&secret);
        control.set(0, words, 0)?;
        ensure!(
            plane.tables().control().secret == secret,
            "the secret lies elsewhere in the control words"
        );
        // The model asks its tables; the kernel asks the bits of flows first. They must agree all the same.
        plane.tables().fill_presence()?;
        ensure!(
            plane.tables().presence_load().is_some(),
            "the kernel does not read the bits of flows"
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
            compared: HashMap::new(),
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

    /// How many answers may be sent in a window of 67 ms, and 256 times as many demands for proof.
    pub fn replies(&self, replies: u32) {
        self.world.control.replies_per_window.store(replies);
        self.plane.tables().set_replies_per_window(replies);
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
            context.gso_size = SEGMENT;
        }
        context
    }

    /// One packet through both; every 16th is asked about before. Its flow is compared after it.
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
            // Not that of an earlier packet, if this one has none.
            (s.key4, s.key6) = (Key4::default(), Key6::default());
            let outcome = pipeline::judge(shown, &self.world, &mut s);
            let proof = (outcome.verdict() == Verdict::Reply && outcome.reason() == Reason::SynProof as u8)
                .then(|| u32::from_be(s.reply.words[if s.meta.family == 4 { 7 } else { 12 }]));
            (outcome.report(s.class.decision), proof)
        };
        let kernel = self.by(&self.plane, bytes, via)?;
        if kernel != word {
            bail!("{}", self.difference("judged", bytes, via, word, kernel));
        }
        let compared = self
            .compare_last_flow()
            .with_context(|| self.difference("left another flow", bytes, via, word, kernel))?;
        if let Some(compared) = compared {
            *self.compared.entry(compared).or_default() += 1;
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
        format!(
            "packet {}, {what} at {} under the policy {}, {via:?} ({}): the model says {}, the kernel {}: {bytes:02x?}",
            self.sent,
            self.clock,
            self.policy,
            via.hook(bytes),
            said(model),
            said(kernel)
        )
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

    /// The generation in force, as the kernel's control words say.
    pub fn generation(&self) -> Result<u32> {
        Ok(self.control.get(&0, 0)?[0] as u32)
    }
}
