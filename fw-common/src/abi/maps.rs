//! The maps by name, kind and shape: what the loader compares a pinned map with.

use crate::fragment::{Datagram, FragmentKey};

use super::{Event, Flow, Key4, Key6, Line, PortConfig, Shared};

/// What all packets read first: written by the agent, through a mapping of the map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlOf<A32, A64> {
    /// Generation in force; its table set lies in slot `generation & 1`. 0: no policy yet, everything is dropped.
    pub generation: A32,
    /// [`ControlFlags`].
    pub flags: A32,
    /// Used instead of the kernel's clocks where the program was loaded with `CLOCK_OVERRIDE`; ns.
    pub clock: A64,
    /// Coarse monotonic time until which TCP connections that were running before the data plane are adopted, ns; 0:
    /// never; `u64::MAX`: always.
    pub pickup_until: A64,
    /// Denied packets that may be reported per CPU and coarse window of 2^26 ns (67 ms).
    pub events_per_window: A32,
    /// Answers (resets, ICMP errors) that may be sent per CPU and coarse window of 2^26 ns; demands for proof: 256 times as
    /// many.
    pub replies_per_window: A32,
    /// Coarse monotonic time when the agent was last seen at work, ns. While it is older than [`HEARTBEAT_NS`], nobody
    /// ages the tables.
    pub heartbeat: A64,
    /// Random key of all hashes that a stranger must not predict; made once, when the maps are created.
    pub secret: [A64; 2],
    /// [`Presence`]: which half of the bits of flows is read, and which are kept.
    pub presence: A32,
    /// Changes after each change of [`map_names::PORTS`]; 0: nobody may keep what he has read there.
    pub ports: A32,
}

/// The control words as a copy.
pub type Control = ControlOf<u32, u64>;
/// The control words in the map.
pub type LiveControl = ControlOf<Shared<u32>, Shared<u64>>;

/// An agent that was not seen for so long (ns) is dead.
pub const HEARTBEAT_NS: u64 = 10_000_000_000;

/// Bits of [`Control::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlFlags;

impl ControlFlags {
    /// TCP windows are not judged (`tcp: { window: loose }`).
    pub const WINDOW_LOOSE: u32 = 1;
}

/// Bits of [`Control::presence`]: how the two halves of [`map_names::PRESENCE`] are used. 0: not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence;

impl Presence {
    /// The second half is read, else the first.
    pub const SECOND: u32 = 1;
    /// A half is read: a bit that is not set there means that no table has the flow.
    pub const READ: u32 = 1 << 1;
    /// The packet path sets bits in the first half, in the second.
    pub const KEEP: [u32; 2] = [1 << 2, 1 << 3];
    /// In either.
    pub const KEPT: u32 = Self::KEEP[0] | Self::KEEP[1];
}

/// How full the main tables are. The packet path adds, the agent subtracts what it has deleted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LevelsOf<A64> {
    /// Entries of the IPv4 and of the IPv6 table.
    pub used: [A64; 2],
    /// Entries up to which anyone's flow is inserted, likewise; above, lifelines only.
    pub room: [A64; 2],
    /// Always 0.
    pub reserved: [A64; 4],
}

/// Levels that can be copied.
pub type Levels = LevelsOf<u64>;
/// Levels in the map.
pub type LiveLevels = LevelsOf<Shared<u64>>;

/// Key of what is known of a source.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourceKey {
    /// IPv4: the address in word 0; IPv6: the first 64 bits in words 0 and 1 (one site has as many addresses as it likes).
    pub addr: [u32; 4],
    /// Realm.
    pub realm: u32,
    /// 4 or 6.
    pub family: u32,
}

/// What is known of a source that has opened flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceOf<A32, A64> {
    /// Coarse window (time >> 35: 34 s) that `opened` belongs to.
    pub window: A32,
    /// Flows opened in this window and not confirmed.
    pub opened: A32,
    /// Confirmed flows: the packet path adds, the agent writes what it has counted.
    pub flows: A32,
    /// Always 0.
    pub pad: A32,
    /// Coarse time until which the source counts as proved by a SYN proof, ns.
    pub proved_until: A64,
    /// Coarse time of the last completed TCP handshake, ns; 0: none.
    pub completed: A64,
    /// Theoretical arrival time of the limiter of denied packets (2^-8 ns).
    pub denied: A64,
    /// Coarse time until which the source is banned, ns.
    pub banned_until: A64,
}

/// A source that can be copied.
pub type Source = SourceOf<u32, u64>;
/// A source in the map.
pub type LiveSource = SourceOf<Shared<u32>, Shared<u64>>;

impl Source {
    /// The entry that an insertion of this one makes.
    #[must_use]
    pub const fn live(self) -> LiveSource {
        LiveSource {
            window: Shared::new(self.window),
            opened: Shared::new(self.opened),
            flows: Shared::new(self.flows),
            pad: Shared::new(self.pad),
            proved_until: Shared::new(self.proved_until),
            completed: Shared::new(self.completed),
            denied: Shared::new(self.denied),
            banned_until: Shared::new(self.banned_until),
        }
    }
}

/// Key of a limit's bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LimitKey {
    /// Stable id of the limit ([`crate::abi::LimitRecord::id`]).
    pub limit: u32,
    /// Realm | family << 24 where addresses are part of the key; else 0.
    pub realm: u32,
    /// The masked source, or destination; 0 if not part of the key.
    pub a: [u32; 4],
    /// The masked destination of a pair.
    pub b: [u32; 4],
}

/// Buckets of [`map_names::PRESSURE`]: half-open TCP flows and new other flows to a destination, by keyed hash. The last one is for all destinations.
pub const PRESSURE_SLOTS: u32 = 65_536;

/// Bits of the map of sources that have completed a handshake, by keyed hash, so that a flood of denied packets from
/// unknown sources costs no look-up. In words of 64 bits.
pub const SOURCE_WORDS: u32 = 32_768;

/// Slots of the counters: one by reason, and from [`NOTED`] on another by reason.
pub const COUNTER_SLOTS: u32 = 512;
/// First counter of packets that would have been dropped.
pub const NOTED: u32 = 256;

/// Packets and bytes of one reason, one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets; a GSO super-packet counts as its segments.
    pub packets: u64,
    /// Bytes of the frames as on the wire.
    pub bytes: u64,
}

const _: () =
    assert!(size_of::<Control>() == 64 && size_of::<LiveControl>() == 64 && size_of::<Count>() == 16);
const _: () = assert!(size_of::<Levels>() == 64 && size_of::<SourceKey>() == 24);
const _: () =
    assert!(size_of::<Source>() == 48 && size_of::<LiveSource>() == 48 && size_of::<LimitKey>() == 40);

/// Names of the maps, as in the object and in the pin directory.
pub mod map_names {
    /// [`super::Control`], one element.
    pub const CONTROL: &str = "CONTROL";
    /// Two slots of table sets.
    pub const SETS: &str = "SETS";
    /// [`super::PortConfig`] by slot.
    pub const PORTS: &str = "PORTS";
    /// [`super::Count`] by reason, per CPU; from [`super::NOTED`] on: what a screen in mode `count` or a rule with
    /// `audit: true` would have dropped.
    pub const COUNTERS: &str = "COUNTERS";
    /// [`super::Event`] ring buffer.
    pub const EVENTS: &str = "EVENTS";
    /// Confirmed IPv4 flows.
    pub const FLOWS4: &str = "FLOWS4";
    /// Confirmed IPv6 flows.
    pub const FLOWS6: &str = "FLOWS6";
    /// Half-open IPv4 flows.
    pub const HALF4: &str = "HALF4";
    /// Half-open IPv6 flows.
    pub const HALF6: &str = "HALF6";
    /// [`super::Levels`], one element.
    pub const LEVELS: &str = "LEVELS";
    /// [`super::Source`] by [`super::SourceKey`].
    pub const SOURCES: &str = "SOURCES";
    /// One word of 64 bits by hash: bits of sources that have completed a handshake.
    pub const SOURCE_BITS: &str = "SOURCE_BITS";
    /// Words of 64 bits, two halves: by keyed hash, which flows may be in a table. See [`super::Presence`].
    pub const PRESENCE: &str = "PRESENCE";
    /// Theoretical arrival times (2^-8 ns; of flow counts: the count) by [`super::LimitKey`].
    pub const LIMITS: &str = "LIMITS";
    /// Theoretical arrival times of new flows by destination.
    pub const PRESSURE: &str = "PRESSURE";
    /// [`crate::fragment::Datagram`] by [`crate::fragment::FragmentKey`].
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Per-CPU scratch of one packet. Never pinned.
    pub const SCRATCH: &str = "SCRATCH";
    /// Conntrack statistics, per CPU: [`crate::pipeline::FlowStat`] by number.
    pub const FLOW_STATS: &str = "FLOW_STATS";
}

/// Kinds of maps in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// `BPF_MAP_TYPE_ARRAY`.
    Array,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpuArray,
    /// `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
    ArrayOfMaps,
    /// `BPF_MAP_TYPE_HASH`, preallocated.
    Hash,
    /// `BPF_MAP_TYPE_LRU_HASH`, common list.
    LruHash,
    /// `BPF_MAP_TYPE_RINGBUF`.
    RingBuf,
}

/// Shape of one pinned map.
#[derive(Clone, Copy, Debug)]
pub struct MapDef {
    /// Name in the object and in the pin directory.
    pub name: &'static str,
    /// Kind.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
}

const fn def(name: &'static str, kind: MapKind, key: usize, value: usize) -> MapDef {
    MapDef {
        name,
        kind,
        key: key as u32,
        value: value as u32,
    }
}

/// All pinned maps. `max_entries` of the flow maps is the agent's configuration, so it is compared there.
pub const MAPS: &[MapDef] = &[
    def(map_names::CONTROL, MapKind::Array, 4, size_of::<Control>()),
    def(map_names::SETS, MapKind::ArrayOfMaps, 4, 4),
    def(map_names::PORTS, MapKind::Array, 4, size_of::<PortConfig>()),
    def(map_names::COUNTERS, MapKind::PerCpuArray, 4, size_of::<Count>()),
    def(map_names::FLOW_STATS, MapKind::PerCpuArray, 4, size_of::<u64>()),
    def(map_names::EVENTS, MapKind::RingBuf, 0, 0),
    def(
        map_names::FLOWS4,
        MapKind::Hash,
        size_of::<Key4>(),
        size_of::<Flow>(),
    ),
    def(
        map_names::FLOWS6,
        MapKind::Hash,
        size_of::<Key6>(),
        size_of::<Flow>(),
    ),
    def(
        map_names::HALF4,
        MapKind::LruHash,
        size_of::<Key4>(),
        size_of::<Flow>(),
    ),
    def(
        map_names::HALF6,
        MapKind::LruHash,
        size_of::<Key6>(),
        size_of::<Flow>(),
    ),
    def(map_names::LEVELS, MapKind::Array, 4, size_of::<Levels>()),
    def(
        map_names::SOURCES,
        MapKind::LruHash,
        size_of::<SourceKey>(),
        size_of::<Source>(),
    ),
    def(map_names::SOURCE_BITS, MapKind::Array, 4, 8),
    def(map_names::PRESENCE, MapKind::Array, 4, 8),
    def(map_names::LIMITS, MapKind::LruHash, size_of::<LimitKey>(), 8),
    def(map_names::PRESSURE, MapKind::Array, 4, 8),
    def(
        map_names::FRAGMENTS,
        MapKind::LruHash,
        size_of::<FragmentKey>(),
        size_of::<Datagram>(),
    ),
];

const _: () = assert!(size_of::<Line>() == 64 && size_of::<Event>() == 88);
