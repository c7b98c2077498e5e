//! What the pipeline needs from its surroundings: maps, clock, compare-and-swap.

use super::{Scratch, Stage};
use crate::abi::{
    Event, Flow, Key4, Key6, LimitKey, LiveControl, LiveFlow, LiveLevels, LiveSource, PortConfig, Reason,
    Shared, Source, SourceKey,
};
use crate::classify::Lines;
use crate::fragment::{Datagram, FragmentKey, LiveDatagram};

/// Conntrack statistics: number of the counter in the `FLOW_STATS` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FlowStat {
    /// Entries made in the half-open map.
    Opened = 0,
    /// Entries moved to the main map.
    Promoted = 1,
    /// Promotions that waited for the agent to delete an expired entry of the same key.
    PromotionWaits = 2,
    /// Events not sent because the limit of the window was reached.
    EventsSuppressed = 3,
    /// Events lost because the ring was full.
    EventsLost = 4,
    /// Promotions of one-way flows that waited for the next window.
    OneWayWaits = 5,
    /// Flows that stay half-open because the main table is full: where nobody ages it, a lifeline's, and other ones than TCP's.
    StaysHalfOpen = 6,
    /// Insertions that were tried again because the table was locked or had no free entry at hand.
    InsertRetries = 7,
    /// Answers not sent because the limit of the window was reached.
    RepliesSuppressed = 8,
    /// State changes that another CPU had made meanwhile, judged again.
    StateRaces = 9,
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Insert {
    /// The entry is in the map.
    Done,
    /// The key has an entry already.
    Exists,
    /// The map is full.
    Full,
    /// The map was locked at every try (EBUSY).
    Busy,
    /// No entry was free at every try (ENOMEM).
    Memory,
    /// Any other refusal of the kernel.
    Failed,
}

/// What `bpf_map_update_elem` returns (`include/uapi/asm-generic/errno-base.h`).
pub mod code {
    /// The entry is in the map.
    pub const DONE: i32 = 0;
    /// E2BIG: a hash map is full.
    pub const FULL: i32 = -7;
    /// ENOMEM: of an LRU map, that neither this CPU's list nor the common one has an entry to give (`prealloc_lru_pop` in
    /// `kernel/bpf/hashtab.c`); another CPU may give one back the next instant.
    pub const MEMORY: i32 = -12;
    /// EBUSY: on kernels before 6.15 the bucket is locked by another CPU, or by ageing (`htab_lock_bucket`).
    pub const BUSY: i32 = -16;
    /// EEXIST: the key has an entry already.
    pub const EXISTS: i32 = -17;
}

/// Tries of an insertion that the kernel refuses for the moment only.
pub const INSERT_TRIES: u32 = 3;

/// Makes `attempt` until it is done or refused for good, at most [`INSERT_TRIES`] times. Returns the last code.
#[inline(always)]
pub(super) fn insist<'a, T: Tables<'a>>(t: T, attempt: impl Fn() -> i32) -> i32 {
    let mut last = code::BUSY;
    let mut tries = 0;
    while tries < INSERT_TRIES {
        last = attempt();
        if last != code::BUSY && last != code::MEMORY {
            return last;
        }
        tries += 1;
        if tries < INSERT_TRIES {
            t.stat(FlowStat::InsertRetries);
        }
    }
    last
}

impl Insert {
    /// What a code of the kernel means.
    #[inline(always)]
    pub const fn of(last: i32) -> Self {
        match last {
            code::DONE => Self::Done,
            code::EXISTS => Self::Exists,
            code::FULL => Self::Full,
            code::BUSY => Self::Busy,
            code::MEMORY => Self::Memory,
            _ => Self::Failed,
        }
    }

    /// The reason of a packet whose flow could not be inserted.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Full => Reason::TableFull,
            Self::Busy => Reason::TableBusy,
            Self::Memory => Reason::TableMemory,
            _ => Reason::TableError,
        }
    }
}

/// Flow maps of one address family.
pub trait FlowMaps<'a, K> {
    /// True for the family of IPv6.
    const V6: bool;

    /// The entry in the main map.
    fn main(self, key: &K) -> Option<&'a LiveFlow>;
    /// The entry in the half-open map.
    fn half_open(self, key: &K) -> Option<&'a LiveFlow>;
    /// Inserts into the main map, never over an entry; one try. The kernel's [`code`].
    fn insert_main(self, key: &K, flow: &Flow) -> i32;
    /// Inserts into the half-open map; over an entry only if `replace`; one try. The kernel's [`code`].
    fn insert_half_open(self, key: &K, flow: &Flow, replace: bool) -> i32;
    /// Deletes from the half-open map.
    fn delete_half_open(self, key: &K);
}

/// The surroundings of one packet. A program loaded for questions only leaves out every write.
pub trait Tables<'a>: Copy + FlowMaps<'a, Key4> + FlowMaps<'a, Key6> {
    /// A table set.
    type Lines: Lines<'a>;

    /// The generation in force; read once a packet. 0: none.
    fn generation(self) -> u32;
    /// The table set in this generation's slot.
    fn lines(self, generation: u32) -> Option<Self::Lines>;
    /// The same for a look-up of many lines: those of the first chunk cost no look-up of their own.
    #[inline(always)]
    fn lines_in_place(self, generation: u32) -> Option<Self::Lines> {
        self.lines(generation)
    }
    /// Copies the configuration of the port with this index; false if there is none.
    fn port(self, ifindex: u32, into: &mut PortConfig) -> bool;
    /// Coarse monotonic time, ns (`bpf_ktime_get_coarse_ns`).
    fn now(self) -> u64;
    /// 0, of which the compiler does not know that.
    #[inline(always)]
    fn zero(self) -> u32 {
        core::hint::black_box(0)
    }
    /// A number that changes at least as often as [`Tables::now`] (`bpf_jiffies64`).
    #[inline(always)]
    fn tick(self) -> u64 {
        self.now()
    }
    /// Precise monotonic time, ns (`bpf_ktime_get_ns`): for rate limits.
    fn precise(self) -> u64;
    /// Boot time, seconds (`bpf_ktime_get_boot_ns`): for deadlines.
    fn boot_seconds(self) -> u32;
    /// The agent's words; see [`crate::abi::Control`]. `None` never happens with a map of one element.
    fn control(self) -> Option<&'a LiveControl>;
    /// How full the main tables are.
    fn levels(self) -> Option<&'a LiveLevels>;
    /// Replaces a state word if it still is `old`.
    fn swap(self, cell: &Shared<u32>, old: u32, new: u32) -> bool;
    /// Replaces a long word if it still is `old`.
    fn swap64(self, cell: &Shared<u64>, old: u64, new: u64) -> bool;
    /// Adds to a word.
    fn add(self, cell: &Shared<u32>, n: u32);
    /// Adds to a long word and returns what it was.
    fn add64(self, cell: &Shared<u64>, n: u64) -> u64;
    /// Sets bits of a long word.
    fn or64(self, cell: &Shared<u64>, bits: u64);
    /// Replaces a long word and returns what it was.
    fn exchange64(self, cell: &Shared<u64>, new: u64) -> u64;
    /// Stores a word of this CPU's own memory. What is read afterwards is read after all that was read before.
    #[inline(always)]
    fn store_first(self, cell: &mut u64, value: u64) {
        *cell = value;
    }
    /// Reads a number in this CPU's own memory once more, whatever the compiler knows of it: the verifier follows two ways from
    /// there on as one where neither tells it the number.
    #[inline(always)]
    fn read_again<N: Copy>(self, cell: &N) -> N {
        *cell
    }
    /// What is known of a source.
    fn source(self, key: &SourceKey) -> Option<&'a LiveSource>;
    /// Makes an entry for a source unless there is one; false if the kernel refused.
    fn insert_source(self, key: &SourceKey, source: &Source) -> bool;
    /// The word of source bits with this number (it wraps).
    fn source_bits(self, word: u32) -> Option<&'a Shared<u64>>;
    /// Words of one half of the bits of flows ([`crate::abi::Presence`]), a power of two; 0: there are none.
    fn presence_words(self) -> u32;
    /// The word of these bits with this number.
    fn presence(self, word: u32) -> Option<&'a Shared<u64>>;
    /// A limit's bucket.
    fn bucket(self, key: &LimitKey) -> Option<&'a Shared<u64>>;
    /// Makes a bucket unless there is one; false if the kernel refused.
    fn insert_bucket(self, key: &LimitKey, value: u64) -> bool;
    /// The bucket of new flows to a destination (the number wraps).
    fn pressure(self, slot: u32) -> Option<&'a Shared<u64>>;
    /// What is known of a fragmented datagram.
    fn datagram(self, key: &FragmentKey) -> Option<&'a LiveDatagram>;
    /// Makes an entry for a datagram unless there is one; false if the kernel refused.
    fn insert_datagram(self, key: &FragmentKey, empty: &Datagram) -> bool;
    /// True if nothing may be written: the packet is a question.
    fn dry_run(self) -> bool;
    /// Adds to the counter with this number: a reason's, or [`crate::abi::NOTED`] and a reason's. Called from `finish.rs` only.
    fn count_number(self, slot: u32, packets: u32, bytes: u32);
    /// Adds one to a statistic.
    fn stat(self, stat: FlowStat);
    /// Sends an event; false if the ring is full.
    fn emit(self, event: &Event) -> bool;
    /// Runs a stage over the scratch memory: [`super::run`], or a call of a function that does. In the kernel each stage
    /// is a global function, which the verifier follows once instead of once for every way that leads to it.
    fn stage(self, stage: Stage, s: &mut Scratch) -> u32;
}
