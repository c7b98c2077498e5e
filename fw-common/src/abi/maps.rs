//! The maps by name, kind and shape: what the loader compares a pinned map with.

use super::{Event, Flow, Key4, Key6, Line, PortConfig};

/// The word that all packets read first, and the clock of tests.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Generation in force; its table set lies in slot `generation & 1`. 0: no policy yet, everything is dropped.
    pub generation: u32,
    /// Always 0.
    pub pad: u32,
    /// Used instead of the kernel's clocks where the program was loaded with `CLOCK_OVERRIDE`; ns.
    pub clock: u64,
    /// Coarse monotonic time until which TCP connections that were running before the data plane are adopted, ns; 0: never.
    pub pickup_until: u64,
    /// Denied packets that may be reported per CPU and coarse window of 2^26 ns (67 ms).
    pub events_per_window: u32,
    /// Always 0.
    pub pad2: u32,
}

/// Packets and bytes of one reason, one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets; a GSO super-packet counts as its segments.
    pub packets: u64,
    /// Bytes of the frames as on the wire.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Control>() == 32 && size_of::<Count>() == 16);

/// Names of the maps, as in the object and in the pin directory.
pub mod map_names {
    /// [`super::Control`], one element.
    pub const CONTROL: &str = "CONTROL";
    /// Two slots of table sets.
    pub const SETS: &str = "SETS";
    /// [`super::PortConfig`] by slot.
    pub const PORTS: &str = "PORTS";
    /// [`super::Count`] by reason, per CPU.
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
];

const _: () = assert!(size_of::<Line>() == 64 && size_of::<Event>() == 80);
