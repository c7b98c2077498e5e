//! The surroundings of the packet path on the host: its maps as hash tables, its clock set by hand.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use fw_common::abi::{
    Event, Flow, FlowOf, Half, Key4, Key6, LimitKey, Line, LiveControl, LiveFlow, LiveHalf, LiveLevels,
    LiveSent, LiveSource, PortConfig, Sent, Shared, Source, SourceKey,
};
use fw_common::fragment::{Datagram, FragmentKey, LiveDatagram};
use fw_common::pipeline::{self, FlowMaps, FlowStat, Scratch, Stage, Tables, code};
use typed_arena::Arena;

/// Where the entries of all maps lie. Nothing is freed before the replay ends.
#[derive(Default)]
pub(super) struct Memory {
    flows: Arena<LiveFlow>,
    sources: Arena<LiveSource>,
    words: Arena<Shared<u64>>,
    datagrams: Arena<LiveDatagram>,
    control: LiveControl,
    levels: LiveLevels,
}

type Map<'m, K, V> = RefCell<HashMap<K, &'m V>>;

/// The maps.
pub(super) struct World<'m> {
    memory: &'m Memory,
    lines: &'m [Line],
    generation: u32,
    ports: Vec<PortConfig>,
    now: Cell<u64>,
    dry_run: Cell<bool>,
    main4: Map<'m, Key4, LiveFlow>,
    main6: Map<'m, Key6, LiveFlow>,
    half4: Map<'m, Key4, LiveFlow>,
    half6: Map<'m, Key6, LiveFlow>,
    sources: Map<'m, SourceKey, LiveSource>,
    source_bits: Map<'m, u32, Shared<u64>>,
    buckets: Map<'m, LimitKey, Shared<u64>>,
    pressure: Map<'m, u32, Shared<u64>>,
    datagrams: Map<'m, FragmentKey, LiveDatagram>,
}

impl<'m> World<'m> {
    /// Empty maps under a table set of this generation.
    pub(super) fn new(
        memory: &'m Memory,
        lines: &'m [Line],
        generation: u32,
        ports: Vec<PortConfig>,
    ) -> Self {
        // Each drop is to be told, so no answer is left out.
        memory.control.replies_per_window.store(u32::MAX);
        memory.levels.room.iter().for_each(|room| room.store(u64::MAX));
        Self {
            memory,
            lines,
            generation,
            ports,
            now: Cell::new(0),
            dry_run: Cell::new(false),
            main4: Map::default(),
            main6: Map::default(),
            half4: Map::default(),
            half6: Map::default(),
            sources: Map::default(),
            source_bits: Map::default(),
            buckets: Map::default(),
            pressure: Map::default(),
            datagrams: Map::default(),
        }
    }

    /// Sets the clock, ns.
    pub(super) fn set_now(&self, ns: u64) {
        self.now.set(ns);
    }

    /// While set, nothing is written.
    pub(super) fn set_dry_run(&self, dry: bool) {
        self.dry_run.set(dry);
    }

    /// The entry of the flow that a packet belongs to.
    pub(super) fn flow(&self, s: &Scratch) -> Option<&'m LiveFlow> {
        if s.meta.family == 4 {
            self.main(&s.key4).or_else(|| self.half_open(&s.key4))
        } else {
            self.main(&s.key6).or_else(|| self.half_open(&s.key6))
        }
    }

    fn insert<K: Copy + Eq + Hash>(
        &self,
        map: &Map<'m, K, LiveFlow>,
        key: &K,
        flow: &Flow,
        replace: bool,
    ) -> i32 {
        let mut map = map.borrow_mut();
        if map.contains_key(key) && !replace {
            return code::EXISTS;
        }
        map.insert(*key, self.memory.flows.alloc(live(flow)));
        code::DONE
    }
}

fn live(flow: &Flow) -> LiveFlow {
    let half = |half: &Half| LiveHalf {
        packets: Shared::new(half.packets),
        bytes: Shared::new(half.bytes),
        last_seen: Shared::new(half.last_seen),
    };
    let sent = |sent: &Sent| LiveSent {
        seq_end: Shared::new(sent.seq_end),
        ack: Shared::new(sent.ack),
        edge: Shared::new(sent.edge),
        window: Shared::new(sent.window),
    };
    FlowOf {
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
    }
}

/// Stores a word if the cell still holds the old one: there is one thread.
fn replace<T: Copy + PartialEq>(cell: &Shared<T>, old: T, new: T) -> bool {
    let same = cell.load() == old;
    if same {
        cell.store(new);
    }
    same
}

/// Stores a word and returns what it was.
fn exchange<T: Copy>(cell: &Shared<T>, new: T) -> T {
    let was = cell.load();
    cell.store(new);
    was
}

macro_rules! flow_maps {
    ($key:ty, $main:ident, $half:ident) => {
        impl<'m> FlowMaps<'m, $key> for &World<'m> {
            const V6: bool = size_of::<$key>() == size_of::<Key6>();

            fn main(self, key: &$key) -> Option<&'m LiveFlow> {
                self.$main.borrow().get(key).copied()
            }

            fn half_open(self, key: &$key) -> Option<&'m LiveFlow> {
                self.$half.borrow().get(key).copied()
            }

            fn insert_main(self, key: &$key, flow: &Flow) -> i32 {
                // Nobody ages: what is over makes room at once.
                let over = |old: &&LiveFlow| !old.alive(self.now.get());
                let expired = self.$main.borrow().get(key).is_some_and(over);
                self.insert(&self.$main, key, flow, expired)
            }

            fn insert_half_open(self, key: &$key, flow: &Flow, replace: bool) -> i32 {
                self.insert(&self.$half, key, flow, replace)
            }

            fn delete_half_open(self, key: &$key) {
                self.$half.borrow_mut().remove(key);
            }
        }
    };
}

flow_maps!(Key4, main4, half4);
flow_maps!(Key6, main6, half6);

impl<'m> Tables<'m> for &World<'m> {
    type Lines = &'m [Line];

    fn generation(self) -> u32 {
        self.generation
    }

    fn lines(self, _generation: u32) -> Option<&'m [Line]> {
        Some(self.lines)
    }

    fn port(self, ifindex: u32, into: &mut PortConfig) -> bool {
        let port = self.ports.iter().find(|port| port.ifindex == ifindex);
        port.is_some_and(|port| {
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
        (self.now.get() / 1_000_000_000) as u32
    }

    fn control(self) -> Option<&'m LiveControl> {
        Some(&self.memory.control)
    }

    fn levels(self) -> Option<&'m LiveLevels> {
        Some(&self.memory.levels)
    }

    fn swap(self, cell: &Shared<u32>, old: u32, new: u32) -> bool {
        replace(cell, old, new)
    }

    fn swap64(self, cell: &Shared<u64>, old: u64, new: u64) -> bool {
        replace(cell, old, new)
    }

    fn add(self, cell: &Shared<u32>, n: u32) {
        cell.store(cell.load().wrapping_add(n));
    }

    fn add64(self, cell: &Shared<u64>, n: u64) -> u64 {
        exchange(cell, cell.load().wrapping_add(n))
    }

    fn exchange64(self, cell: &Shared<u64>, new: u64) -> u64 {
        exchange(cell, new)
    }

    fn source(self, key: &SourceKey) -> Option<&'m LiveSource> {
        self.sources.borrow().get(key).copied()
    }

    fn insert_source(self, key: &SourceKey, source: &Source) -> bool {
        let mut sources = self.sources.borrow_mut();
        let Entry::Vacant(place) = sources.entry(*key) else {
            return false;
        };
        place.insert(self.memory.sources.alloc(source.live()));
        true
    }

    fn source_bits(self, word: u32) -> Option<&'m Shared<u64>> {
        let mut bits = self.source_bits.borrow_mut();
        Some(
            bits.entry(word)
                .or_insert_with(|| self.memory.words.alloc(Shared::default())),
        )
    }

    // A replay has few flows: their tables are asked at once.
    fn presence_words(self) -> u32 {
        0
    }

    fn presence(self, _word: u32) -> Option<&'m Shared<u64>> {
        None
    }

    fn or64(self, cell: &Shared<u64>, bits: u64) {
        cell.store(cell.load() | bits);
    }

    fn bucket(self, key: &LimitKey) -> Option<&'m Shared<u64>> {
        self.buckets.borrow().get(key).copied()
    }

    fn insert_bucket(self, key: &LimitKey, value: u64) -> bool {
        let mut buckets = self.buckets.borrow_mut();
        buckets
            .entry(*key)
            .or_insert_with(|| self.memory.words.alloc(Shared::new(value)));
        true
    }

    fn pressure(self, slot: u32) -> Option<&'m Shared<u64>> {
        let mut slots = self.pressure.borrow_mut();
        Some(
            slots
                .entry(slot)
                .or_insert_with(|| self.memory.words.alloc(Shared::default())),
        )
    }

    fn datagram(self, key: &FragmentKey) -> Option<&'m LiveDatagram> {
        self.datagrams.borrow().get(key).copied()
    }

    fn insert_datagram(self, key: &FragmentKey, empty: &Datagram) -> bool {
        let mut datagrams = self.datagrams.borrow_mut();
        datagrams.entry(*key).or_insert_with(|| {
            let datagram = self.memory.datagrams.alloc(LiveDatagram::default());
            datagram.created.store(empty.created);
            datagram
        });
        true
    }

    fn dry_run(self) -> bool {
        self.dry_run.get()
    }

    fn count_number(self, _slot: u32, _packets: u32, _bytes: u32) {}

    fn stat(self, _stat: FlowStat) {}

    fn emit(self, _event: &Event) -> bool {
        true
    }

    fn stage(self, stage: Stage, s: &mut Scratch) -> u32 {
        pipeline::run(self, stage, s)
    }
}
