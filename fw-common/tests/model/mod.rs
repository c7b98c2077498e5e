//! The surroundings of the pipeline on the host: maps as hash tables, a clock that tests turn by hand, frames as byte
//! slices.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use fw_common::abi::{
    Action, ClassFlags, Decision, Engine, Event, Flow, FlowOf, Key4, Key6, LINE_WORDS, LimitKey, Line,
    LinkFlags, LinkKind, LiveControl, LiveFlow, LiveHalf, LiveLevels, LiveSent, LiveSource, Mode,
    PROTO_DIRECT, PortConfig, Reason, SET_MAGIC, Screen, SetHeader, Shared, Side, Source, SourceKey, V4_LEAF,
    Verdict,
};
use fw_common::fragment::{Datagram, FragmentKey, LiveDatagram};
use fw_common::pipeline::{self, FlowMaps, FlowStat, Scratch, Stage, Tables, code};
use fw_common::wire::{NO_TAG, Packet, WINDOW_BYTES, Window};

/// A frame, and the port it meets.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub bytes: &'a [u8],
    pub ifindex: u32,
    pub egress: bool,
    pub came_by: u32,
    pub tag: u32,
}

impl<'a> Frame<'a> {
    pub fn new(bytes: &'a [u8], ifindex: u32) -> Self {
        Self {
            bytes,
            ifindex,
            egress: false,
            came_by: 0,
            tag: NO_TAG,
        }
    }
}

impl Packet for Frame<'_> {
    fn len(self) -> u32 {
        self.bytes.len() as u32
    }

    fn load(self, offset: u32, skip: u32, into: &mut Window) -> u32 {
        let Some(rest) = self.bytes.get(offset as usize..) else {
            return 0;
        };
        let count = rest.len().min((WINDOW_BYTES - skip) as usize);
        if count == 0 {
            return 0;
        }
        for (index, byte) in rest[..count].iter().enumerate() {
            let at = index + skip as usize;
            let mut word = into.words[at / 4].to_ne_bytes();
            word[at % 4] = *byte;
            into.words[at / 4] = u32::from_ne_bytes(word);
        }
        skip + count as u32
    }

    fn ifindex(self) -> u32 {
        self.ifindex
    }

    fn tag(self) -> u32 {
        self.tag
    }

    fn segments(self) -> u32 {
        1
    }

    fn wire_bytes(self, _len: u32) -> u32 {
        self.len()
    }

    fn egress(self) -> bool {
        self.egress
    }

    fn came_by(self) -> u32 {
        self.came_by
    }
}

type FlowTable<K> = RefCell<HashMap<K, &'static LiveFlow>>;

/// The maps.
pub struct World {
    pub set: Cell<&'static [Line]>,
    pub generation: Cell<u32>,
    pub ports: RefCell<Vec<PortConfig>>,
    pub now: Cell<u64>,
    pub control: LiveControl,
    pub levels: LiveLevels,
    pub dry_run: Cell<bool>,
    pub counters: RefCell<HashMap<u32, u64>>,
    pub stats: RefCell<HashMap<u32, u64>>,
    pub events: RefCell<Vec<Event>>,
    pub main4: FlowTable<Key4>,
    pub main6: FlowTable<Key6>,
    pub half4: FlowTable<Key4>,
    pub half6: FlowTable<Key6>,
    pub sources: RefCell<HashMap<SourceKey, &'static LiveSource>>,
    pub source_bits: RefCell<HashMap<u32, &'static Shared<u64>>>,
    /// 0: the bits of flows are not used.
    pub presence_words: Cell<u32>,
    pub presence: RefCell<HashMap<u32, &'static Shared<u64>>>,
    pub buckets: RefCell<HashMap<LimitKey, &'static Shared<u64>>>,
    pub pressure: RefCell<HashMap<u32, &'static Shared<u64>>>,
    pub datagrams: RefCell<HashMap<FragmentKey, &'static LiveDatagram>>,
    pub capacity: Cell<usize>,
    /// Codes with which the kernel refuses the next insertions of flows, the next one last.
    pub faults: RefCell<Vec<i32>>,
    pub scratch: RefCell<Scratch>,
}

pub fn live(flow: &Flow) -> &'static LiveFlow {
    let half = |half: &fw_common::abi::Half| LiveHalf {
        packets: Shared::new(half.packets),
        bytes: Shared::new(half.bytes),
        last_seen: Shared::new(half.last_seen),
    };
    let sent = |sent: &fw_common::abi::Sent| LiveSent {
        seq_end: Shared::new(sent.seq_end),
        ack: Shared::new(sent.ack),
        edge: Shared::new(sent.edge),
        window: Shared::new(sent.window),
    };
    // Leaked: a test is short, and the pipeline's references outlive the map's borrow.
    Box::leak(Box::new(FlowOf {
        half: [half(&flow.half[0]), half(&flow.half[1])],
        sent: [sent(&flow.sent[0]), sent(&flow.sent[1])],
        created: Shared::new(flow.created),
        state: Shared::new(flow.state),
        generation: Shared::new(flow.generation),
        rule: Shared::new(flow.rule),
        src_zone: Shared::new(flow.src_zone),
        dst_zone: Shared::new(flow.dst_zone),
        flags: Shared::new(flow.flags),
        policed: Shared::new(flow.policed),
        answer: Shared::new(flow.answer),
        carried_packets: Shared::new(flow.carried_packets),
        carried_bytes: Shared::new(flow.carried_bytes),
    }))
}

fn insert<K: Copy + Eq + Hash>(map: &FlowTable<K>, key: &K, flow: &Flow, replace: bool, room: usize) -> i32 {
    let mut map = map.borrow_mut();
    if map.contains_key(key) && !replace {
        return code::EXISTS;
    }
    if map.len() >= room {
        return code::FULL;
    }
    map.insert(*key, live(flow));
    code::DONE
}

macro_rules! flow_maps {
    ($key:ty, $main:ident, $half:ident) => {
        impl<'a> FlowMaps<'a, $key> for &'a World {
            const V6: bool = size_of::<$key>() == size_of::<Key6>();

            fn main(self, key: &$key) -> Option<&'a LiveFlow> {
                self.$main.borrow().get(key).copied()
            }
            fn half_open(self, key: &$key) -> Option<&'a LiveFlow> {
                self.$half.borrow().get(key).copied()
            }
            fn insert_main(self, key: &$key, flow: &Flow) -> i32 {
                self.fault()
                    .unwrap_or_else(|| insert(&self.$main, key, flow, false, self.capacity.get()))
            }
            fn insert_half_open(self, key: &$key, flow: &Flow, replace: bool) -> i32 {
                self.fault()
                    .unwrap_or_else(|| insert(&self.$half, key, flow, replace, usize::MAX))
            }
            fn delete_half_open(self, key: &$key) {
                self.$half.borrow_mut().remove(key);
            }
        }
    };
}

flow_maps!(Key4, main4, half4);
flow_maps!(Key6, main6, half6);

impl<'a> Tables<'a> for &'a World {
    type Lines = &'a [Line];

    fn generation(self) -> u32 {
        self.generation.get()
    }

    fn lines(self, _generation: u32) -> Option<&'a [Line]> {
        Some(self.set.get())
    }

    fn port(self, ifindex: u32, into: &mut PortConfig) -> bool {
        self.ports
            .borrow()
            .iter()
            .find(|port| port.ifindex == ifindex)
            .is_some_and(|port| {
                *into = *port;
                true
            })
    }

    fn now(self) -> u64 {
        self.now.get()
    }

    fn precise(self) -> u64 {
        self.now.get()
    }

    fn boot_seconds(self) -> u32 {
        (self.now.get() / SECOND) as u32
    }

    fn control(self) -> Option<&'a LiveControl> {
        Some(&self.control)
    }

    fn levels(self) -> Option<&'a LiveLevels> {
        Some(&self.levels)
    }

    fn swap64(self, cell: &Shared<u64>, old: u64, new: u64) -> bool {
        let same = cell.load() == old;
        if same {
            cell.store(new);
        }
        same
    }

    fn add(self, cell: &Shared<u32>, n: u32) {
        cell.store(cell.load().wrapping_add(n));
    }

    fn add64(self, cell: &Shared<u64>, n: u64) -> u64 {
        let was = cell.load();
        cell.store(was.wrapping_add(n));
        was
    }

    fn exchange64(self, cell: &Shared<u64>, new: u64) -> u64 {
        let was = cell.load();
        cell.store(new);
        was
    }

    fn source(self, key: &SourceKey) -> Option<&'a LiveSource> {
        self.sources.borrow().get(key).copied()
    }

    fn insert_source(self, key: &SourceKey, source: &Source) -> bool {
        let mut sources = self.sources.borrow_mut();
        let Entry::Vacant(place) = sources.entry(*key) else {
            return false;
        };
        place.insert(Box::leak(Box::new(source.live())));
        true
    }

    fn source_bits(self, word: u32) -> Option<&'a Shared<u64>> {
        let mut bits = self.source_bits.borrow_mut();
        Some(bits.entry(word).or_insert_with(|| Box::leak(Box::default())))
    }

    fn presence_words(self) -> u32 {
        self.presence_words.get()
    }

    fn presence(self, word: u32) -> Option<&'a Shared<u64>> {
        let mut words = self.presence.borrow_mut();
        Some(words.entry(word).or_insert_with(|| Box::leak(Box::default())))
    }

    fn or64(self, cell: &Shared<u64>, bits: u64) {
        cell.store(cell.load() | bits);
    }

    fn bucket(self, key: &LimitKey) -> Option<&'a Shared<u64>> {
        self.buckets.borrow().get(key).copied()
    }

    fn insert_bucket(self, key: &LimitKey, value: u64) -> bool {
        self.buckets
            .borrow_mut()
            .entry(*key)
            .or_insert_with(|| Box::leak(Box::new(Shared::new(value))));
        true
    }

    fn pressure(self, slot: u32) -> Option<&'a Shared<u64>> {
        let mut slots = self.pressure.borrow_mut();
        Some(slots.entry(slot).or_insert_with(|| Box::leak(Box::default())))
    }

    fn datagram(self, key: &FragmentKey) -> Option<&'a LiveDatagram> {
        self.datagrams.borrow().get(key).copied()
    }

    fn insert_datagram(self, key: &FragmentKey, empty: &Datagram) -> bool {
        self.datagrams.borrow_mut().entry(*key).or_insert_with(|| {
            let datagram: &LiveDatagram = Box::leak(Box::default());
            datagram.created.store(empty.created);
            datagram
        });
        true
    }

    fn swap(self, cell: &Shared<u32>, old: u32, new: u32) -> bool {
        let same = cell.load() == old;
        if same {
            cell.store(new);
        }
        same
    }

    fn dry_run(self) -> bool {
        self.dry_run.get()
    }

    fn count_number(self, reason: u32, packets: u32, _bytes: u32) {
        *self.counters.borrow_mut().entry(reason).or_default() += u64::from(packets);
    }

    fn stat(self, stat: FlowStat) {
        *self.stats.borrow_mut().entry(stat as u32).or_default() += 1;
    }

    fn emit(self, event: &Event) -> bool {
        self.events.borrow_mut().push(*event);
        true
    }

    fn stage(self, stage: Stage, s: &mut Scratch) -> u32 {
        pipeline::run(self, stage, s)
    }
}

/// Second in ns.
pub const SECOND: u64 = 1_000_000_000;

impl World {
    /// One port of mode `host` with index 1, one pair of mode `inline` with indexes 2 (outer) and 3 (inner), and a policy
    /// that allows the protocol numbers in `allowed` from everyone to everyone.
    pub fn new(allowed: &[u8]) -> Self {
        let port = |ifindex, peer_ifindex, mode: Mode, side: Side| PortConfig {
            ifindex,
            peer_ifindex,
            mode: mode as u8,
            engine: Engine::Xdp as u8,
            link: LinkKind::Ethernet as u8,
            side: side as u8,
            realm: 0,
            role: 0,
            peer_role: 0,
            pad: 0,
        };
        let world = Self {
            set: Cell::new(&[]),
            generation: Cell::new(0),
            ports: RefCell::new(vec![
                port(1, 0, Mode::Host, Side::Outer),
                port(2, 3, Mode::Inline, Side::Outer),
                port(3, 2, Mode::Inline, Side::Inner),
            ]),
            now: Cell::new(1000 * SECOND),
            control: LiveControl::default(),
            levels: LiveLevels::default(),
            dry_run: Cell::new(false),
            sources: RefCell::default(),
            source_bits: RefCell::default(),
            presence_words: Cell::new(0),
            presence: RefCell::default(),
            buckets: RefCell::default(),
            pressure: RefCell::default(),
            datagrams: RefCell::default(),
            counters: RefCell::default(),
            stats: RefCell::default(),
            events: RefCell::default(),
            main4: RefCell::default(),
            main6: RefCell::default(),
            half4: RefCell::default(),
            half6: RefCell::default(),
            capacity: Cell::new(usize::MAX),
            faults: RefCell::default(),
            scratch: RefCell::new(Scratch::EMPTY),
        };
        world.control.events_per_window.store(4);
        world.control.replies_per_window.store(4);
        world.control.heartbeat.store(world.now.get());
        for room in &world.levels.room {
            room.store(u64::MAX);
        }
        world.apply(allowed);
        world
    }

    /// Puts the next generation in force: `allowed` protocols pass.
    pub fn apply(&self, allowed: &[u8]) {
        let generation = self.generation.get() + 1;
        self.set.set(set(generation, allowed));
        self.generation.set(generation);
    }

    /// The next insertion's fault, if there is one.
    fn fault(&self) -> Option<i32> {
        self.faults.borrow_mut().pop()
    }

    /// Sends a frame through; verdict and reason.
    pub fn send(&self, frame: Frame<'_>) -> (Verdict, Reason) {
        let outcome = pipeline::judge(frame, self, &mut self.scratch.borrow_mut());
        (
            outcome.verdict(),
            Reason::from_number(outcome.reason()).expect("a known reason"),
        )
    }

    pub fn stat(&self, stat: FlowStat) -> u64 {
        self.stats
            .borrow()
            .get(&(stat as u32))
            .copied()
            .unwrap_or_default()
    }
}

/// Sets by generation and protocols.
type Made = HashMap<(u32, Vec<u8>), &'static [Line]>;

/// [`tiny_set`], made once: a fuzzer makes worlds by the thousand, and sets are leaked for the same reason as the flows.
fn set(generation: u32, allowed: &[u8]) -> &'static [Line] {
    thread_local! {
        static MADE: RefCell<Made> = RefCell::default();
    }
    MADE.with_borrow_mut(|made| {
        *made
            .entry((generation, allowed.to_vec()))
            .or_insert_with(|| Vec::leak(tiny_set(generation, allowed)))
    })
}

/// A set with one address class for everything but this machine's 192.0.2.1 (class 1), no VLANs, one rule (id 77).
#[expect(clippy::too_many_lines, reason = "one table set, line after line")]
fn tiny_set(generation: u32, allowed: &[u8]) -> Vec<Line> {
    let mut lines = vec![Line::default(), Line::default()];
    let table = |words: &[u32], lines: &mut Vec<Line>| {
        let at = lines.len() as u32;
        for chunk in words.chunks(LINE_WORDS) {
            let mut line = Line::default();
            line.w[..chunk.len()].copy_from_slice(chunk);
            lines.push(line);
        }
        at
    };
    let realms = table(&[1], &mut lines);
    let _rest = table(&vec![0; 127 * LINE_WORDS], &mut lines);
    let mut root = vec![V4_LEAF; 65536];
    let nodes = lines.len() as u32;
    for depth in 0..4_u32 {
        let nibble = (0x0201_u32 >> (12 - 4 * depth)) & 0xf;
        let mut node = [V4_LEAF; LINE_WORDS];
        node[nibble as usize] = if depth == 3 {
            V4_LEAF | 1
        } else {
            nodes + depth + 1
        };
        table(&node, &mut lines);
    }
    root[0xc000] = nodes;
    let v4 = table(&root, &mut lines);
    let level = table(
        &[0, 0, u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX],
        &mut lines,
    );
    let values = table(&[0], &mut lines);
    let record = lines.len() as u32 - 1;
    table(&[v4, 1, 1, values, level, 1], &mut lines);
    let classes = table(&[0, 0, 0, 0, 0, 0, 9, ClassFlags::OWN], &mut lines);
    let pairs = table(&[0], &mut lines);
    let mut protos = vec![PROTO_DIRECT; 256];
    for proto in allowed {
        protos[*proto as usize] = PROTO_DIRECT | 1;
    }
    let protos = table(&protos, &mut lines);
    let decisions = table(
        &[
            Decision::new(Action::Deny, 0).0,
            Decision::new(Action::Allow, 1).0,
        ],
        &mut lines,
    );
    let pages = table(&[decisions], &mut lines);
    let rules = table(&[0, 0, 0, 0, 77, 0, 0, 0], &mut lines);
    let limits = table(&[0; 2 * LINE_WORDS], &mut lines);
    let mut protect = [0; LINE_WORDS];
    protect[0] = Screen::ALL.iter().map(|screen| screen.bit()).sum();
    let protect = table(&protect, &mut lines);
    let planes = table(&[0; 2 * LINE_WORDS], &mut lines);
    let header = SetHeader {
        magic: SET_MAGIC,
        abi: fw_common::abi::ABI_VERSION,
        generation,
        lines: lines.len() as u32,
        realms,
        realm_records: record,
        classes,
        pairs,
        pair_columns: 1,
        protos,
        decision_pages: pages,
        pages_per_pair: 1,
        rules,
        link: LinkFlags::ARP | LinkFlags::ND,
        class_count: 2,
        pair_count: 1,
        rule_count: 1,
        limits,
        protect,
        planes,
        ..SetHeader::default()
    };
    let [first, second] = header.to_lines();
    lines[0] = first;
    lines[1] = second;
    lines
}
