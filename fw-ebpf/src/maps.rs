//! The maps and the load-time constants.

use core::ffi::c_void;
use core::ptr::NonNull;

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::helpers::bpf_map_lookup_elem;
use aya_ebpf::macros::btf_map;
use fw_common::abi::{
    COUNTER_SLOTS, Chunk, Control, Count, Event, Flow, Key4, Key6, Levels, LimitKey, LiveControl, PORT_SLOTS,
    PRESSURE_SLOTS, PortConfig, SOURCE_WORDS, Source, SourceKey,
};
use fw_common::fragment::{Datagram, FragmentKey};
use fw_common::pipeline::Scratch;

const SET_FLAGS: usize = (BPF_F_INNER_MAP | BPF_F_MMAPABLE) as usize;

/// Generation in force. Mapped by the agent, so that it changes by one store.
#[btf_map]
pub static CONTROL: Array<Control, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Two slots of table sets.
#[btf_map]
pub static SETS: ArrayOfMaps<Array<Chunk, 1, SET_FLAGS>, 2> = ArrayOfMaps::new();
/// Ports by slot.
#[btf_map]
pub static PORTS: Array<PortConfig, { PORT_SLOTS as usize }> = Array::new();
/// Packets and bytes by reason.
#[btf_map]
pub static COUNTERS: PerCpuArray<Count, { COUNTER_SLOTS as usize }> = PerCpuArray::new();
/// Conntrack statistics.
#[btf_map]
pub static FLOW_STATS: PerCpuArray<u64, 16> = PerCpuArray::new();
/// Events to the agent.
#[btf_map]
pub static EVENTS: RingBuf<Event, 262_144> = RingBuf::new();
/// Confirmed flows. The loader sets the sizes.
#[btf_map]
pub static FLOWS4: HashMap<Key4, Flow, 131_073> = HashMap::new();
/// Confirmed flows, IPv6.
#[btf_map]
pub static FLOWS6: HashMap<Key6, Flow, 131_073> = HashMap::new();
/// Half-open flows.
#[btf_map]
pub static HALF4: LruHashMap<Key4, Flow, 65_536> = LruHashMap::new();
/// Half-open flows, IPv6.
#[btf_map]
pub static HALF6: LruHashMap<Key6, Flow, 65_536> = LruHashMap::new();
/// How full the main maps are. Mapped by the agent, which subtracts what it deletes.
#[btf_map]
pub static LEVELS: Array<Levels, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// What is known of sources.
#[btf_map]
pub static SOURCES: LruHashMap<SourceKey, Source, 65_536> = LruHashMap::new();
/// Bits of sources that have completed a handshake.
#[btf_map]
pub static SOURCE_BITS: Array<u64, { SOURCE_WORDS as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Bits of flows that may be in a table, in two halves. The loader sets the size.
#[btf_map]
pub static PRESENCE: Array<u64, 2, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Buckets of limits.
#[btf_map]
pub static LIMITS: LruHashMap<LimitKey, u64, 65_536> = LruHashMap::new();
/// Buckets of new flows by destination.
#[btf_map]
pub static PRESSURE: Array<u64, { PRESSURE_SLOTS as usize }> = Array::new();
/// Datagrams whose fragments are passing.
#[btf_map]
pub static FRAGMENTS: LruHashMap<FragmentKey, Datagram, 8_192> = LruHashMap::new();
/// Scratch memory of one packet.
#[btf_map]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// 1: nothing is written; the return value is the answer.
#[unsafe(no_mangle)]
static DRY_RUN: Global<u32> = Global::new(0);
/// 1: the return value is the answer; for tests.
#[unsafe(no_mangle)]
static REPORT: Global<u32> = Global::new(0);
/// 1: time comes from [`Control::clock`]; for tests.
#[unsafe(no_mangle)]
static CLOCK_OVERRIDE: Global<u32> = Global::new(0);

/// Words of one half of [`PRESENCE`], a power of two.
#[unsafe(no_mangle)]
static PRESENCE_WORDS: Global<u32> = Global::new(0);

/// Words of one half of the bits of flows.
#[inline(always)]
pub fn presence_words() -> u32 {
    PRESENCE_WORDS.load()
}

/// True if the program was loaded for questions only.
#[inline(always)]
pub fn dry_run() -> bool {
    DRY_RUN.load() != 0
}

/// True if the program returns what [`fw_common::pipeline::Outcome::report`] says.
#[inline(always)]
pub fn reports() -> bool {
    DRY_RUN.load() != 0 || REPORT.load() != 0
}

/// True if time comes from the control map.
#[inline(always)]
pub fn clock_override() -> bool {
    CLOCK_OVERRIDE.load() != 0
}

/// A map as the helpers want it.
#[inline(always)]
pub fn pointer<M>(map: &'static M) -> *mut c_void {
    core::ptr::from_ref(map).cast_mut().cast()
}

/// Looks an element up.
#[inline(always)]
pub fn lookup<K, V>(map: *mut c_void, key: &K) -> Option<NonNull<V>> {
    // SAFETY: the helper reads `key_size` bytes, which is the size of K by the map's definition in this file, and
    // returns null or a pointer to a value of `value_size` bytes; the verifier checks both.
    NonNull::new(unsafe { bpf_map_lookup_elem(map, core::ptr::from_ref(key).cast()) }.cast())
}

/// The scratch memory of this CPU. XDP and TC programs do not interrupt each other on one CPU: both run with bottom
/// halves disabled (`net/core/dev.c`).
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // Not `&0`: that is a constant in memory, and LLVM merges it with another constant of the same bytes, such as
    // CLOCK_OVERRIDE, whose value the loader changes.
    let key = 0_u32;
    // SAFETY: a per-CPU array's element lives as long as the map, and no other program uses it on this CPU until this
    // one returns (see above), so the reference is unique.
    lookup::<u32, Scratch>(pointer(&SCRATCH), &key).map(|pointer| unsafe { &mut *pointer.as_ptr() })
}

/// The control word.
#[inline(always)]
pub fn control() -> Option<NonNull<LiveControl>> {
    // On the stack, as in `scratch`.
    let key = 0_u32;
    lookup(pointer(&CONTROL), &key)
}
