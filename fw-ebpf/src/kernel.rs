//! [`Tables`] over the kernel's maps and helpers.

use core::arch::asm;
use core::ffi::c_void;
use core::hint::cold_path;
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_or, atomic_xadd, atomic_xchg};
use core::ptr::NonNull;

use aya_ebpf::helpers::{
    bpf_jiffies64, bpf_ktime_get_boot_ns, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_map_delete_elem,
    bpf_map_update_elem, bpf_redirect, bpf_ringbuf_output,
};
use fw_common::abi::{
    CHUNK_LINES, Count, Event, Flow, Key4, Key6, LimitKey, Line, LiveControl, LiveFlow, LiveLevels,
    LiveSource, PortConfig, Shared, Source, SourceKey, port_slot,
};
use fw_common::classify::{Classified, Lines, Search, Walk};
use fw_common::fragment::{Datagram, FragmentKey, LiveDatagram};
use fw_common::pipeline::{FlowMaps, FlowStat, Scratch, Stage, Tables, run};

use crate::maps::{self, lookup, pointer};

/// `BPF_ANY` and `BPF_NOEXIST` of `include/uapi/linux/bpf.h`.
const ANY: u64 = 0;
const NOEXIST: u64 = 1;

/// The kernel around a program. It has no state of its own.
#[derive(Clone, Copy)]
pub struct Kernel;

/// The table set in force: an inner map, and its first chunk if that is read in place.
#[derive(Clone, Copy)]
pub struct Set {
    map: *mut c_void,
    first: Option<NonNull<Line>>,
}

impl<'a> Lines<'a> for Set {
    #[inline(always)]
    fn line(self, number: u32) -> Option<&'a Line> {
        let chunk = number / CHUNK_LINES;
        let lines = match self.first {
            Some(first) if chunk == 0 => first,
            _ => lookup::<u32, Line>(self.map, &chunk)?,
        };
        // SAFETY: a set is immutable while any packet can see it, and the map outlives the packet (RCU), so a shared
        // reference is sound. The mask keeps it inside of the chunk, which the verifier checks.
        Some(unsafe { &*lines.as_ptr().add(in_chunk(number)) })
    }

    #[inline(always)]
    fn classes4(self, out: &mut Classified) {
        // The result lies in the scratch memory, which the stage finds by itself, as it does the set: see `stage`.
        let out = opaque(out);
        dpufw_class4();
        opaque(out);
    }

    #[inline(always)]
    fn class6(self, walk: &mut Walk) {
        // As above.
        let walk = opaque(walk);
        dpufw_class6();
        opaque(walk);
    }

    #[inline(always)]
    fn decide(self, out: &mut Classified) {
        // As above.
        let out = opaque(out);
        dpufw_decide();
        opaque(out);
    }

    #[inline(always)]
    fn vectors(self, search: &mut Search) {
        // As above.
        let search = opaque(search);
        dpufw_vectors();
        opaque(search);
    }
}

/// Number of a line in its chunk. As an instruction that the compiler does not see through: it would leave out the mask where
/// it knows that the number is small, and the verifier does not know.
#[inline(always)]
fn in_chunk(number: u32) -> usize {
    const { assert!(CHUNK_LINES == 0x4000) };
    let mut number = number as usize;
    // SAFETY: the instruction changes the one register.
    unsafe { asm!("{0} &= 0x3fff", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

/// [`core::hint::black_box`] without its way through the stack: `x`, of whose memory the compiler forgets what it knows.
#[inline(always)]
pub fn opaque<T>(x: &mut T) -> &mut T {
    let mut pointer = core::ptr::from_mut(x);
    // A move to itself, because the kernel refuses line information about no instruction.
    // SAFETY: the pointer stays what it was, so the reference that is given back is the one that came.
    unsafe {
        asm!("{0} = {0}", inout(reg) pointer);
        &mut *pointer
    }
}

/// 0, of which the compiler does not know that.
#[inline(always)]
pub fn zero() -> u32 {
    let zero: u64;
    // SAFETY: the instruction writes the one register.
    unsafe { asm!("{0} = 0", out(reg) zero, options(pure, nomem, nostack)) };
    zero as u32
}

/// Sends the packet out of an interface.
#[inline(always)]
pub fn redirect(ifindex: u32) -> i64 {
    // SAFETY: the helper takes numbers only; a bad index makes the kernel drop the packet.
    unsafe { bpf_redirect(ifindex, 0) }
}

/// Copies a port word by word: of a plain copy LLVM makes a call of memmove, which copies byte by byte on this target.
#[inline(always)]
fn copy_port(from: &PortConfig, into: &mut PortConfig) {
    let (from, into) = (
        core::ptr::from_ref(from).cast::<u32>(),
        core::ptr::from_mut(into).cast::<u32>(),
    );
    let mut word = 0;
    while word < size_of::<PortConfig>() / 4 {
        // SAFETY: both are a PortConfig, four aligned words long; the verifier checks the source against the map's value.
        unsafe { into.add(word).write_volatile(from.add(word).read_volatile()) };
        word += 1;
    }
}

/// `bpf_map_update_elem` with the error as an int: before kernel 6.4 the verifier replaces this helper by a map operation
/// that returns one, so the upper half of the register is not the sign.
#[inline(always)]
fn update<K, V>(map: *mut c_void, key: &K, value: &V, flags: u64) -> i32 {
    // SAFETY: key and value have the sizes of the map's definition; the verifier checks both.
    let code = unsafe {
        bpf_map_update_elem(
            map,
            core::ptr::from_ref(key).cast(),
            core::ptr::from_ref(value).cast(),
            flags,
        )
    };
    code as i32
}

#[inline(always)]
fn flow<'a, K>(map: *mut c_void, key: &K) -> Option<&'a LiveFlow> {
    // SAFETY: LiveFlow has the layout of Flow, the map's value. Other CPUs write to it through `Shared` only. An entry
    // deleted meanwhile stays readable until the program ends (RCU); its slot may serve another flow by then, which
    // costs one packet's counters, never a verdict: the agent deletes only what is expired for 2 s.
    lookup::<K, LiveFlow>(map, key).map(|flow| unsafe { &*flow.as_ptr() })
}

/// An element whose words other CPUs write too.
#[inline(always)]
fn shared<'a, K, V>(map: *mut c_void, key: &K) -> Option<&'a V> {
    // SAFETY: V is made of `Shared` words and has the size of the map's value, which the verifier checks; an element lives
    // as long as the map, or (hash maps) until the program ends (RCU).
    lookup::<K, V>(map, key).map(|value| unsafe { &*value.as_ptr() })
}

/// The control words.
#[inline(always)]
fn live<'a>(control: NonNull<LiveControl>) -> &'a LiveControl {
    // SAFETY: the element of an array map lives as long as the map, and has the size of LiveControl.
    unsafe { &*control.as_ptr() }
}

macro_rules! flow_maps {
    ($key:ty, $main:ident, $half:ident) => {
        impl<'a> FlowMaps<'a, $key> for Kernel {
            const V6: bool = size_of::<$key>() == size_of::<Key6>();

            #[inline(always)]
            fn main(self, key: &$key) -> Option<&'a LiveFlow> {
                flow(pointer(&maps::$main), key)
            }

            #[inline(always)]
            fn half_open(self, key: &$key) -> Option<&'a LiveFlow> {
                flow(pointer(&maps::$half), key)
            }

            #[inline(always)]
            fn insert_main(self, key: &$key, flow: &Flow) -> i32 {
                update(pointer(&maps::$main), key, flow, NOEXIST)
            }

            #[inline(always)]
            fn insert_half_open(self, key: &$key, flow: &Flow, replace: bool) -> i32 {
                update(
                    pointer(&maps::$half),
                    key,
                    flow,
                    if replace { ANY } else { NOEXIST },
                )
            }

            #[inline(always)]
            fn delete_half_open(self, key: &$key) {
                // SAFETY: the key has the size of the map's definition. A key that is gone already is no error.
                unsafe { bpf_map_delete_elem(pointer(&maps::$half), core::ptr::from_ref(key).cast()) };
            }
        }
    };
}

flow_maps!(Key4, FLOWS4, HALF4);
flow_maps!(Key6, FLOWS6, HALF6);

impl<'a> Tables<'a> for Kernel {
    type Lines = Set;

    #[inline(always)]
    fn generation(self) -> u32 {
        // SAFETY: the element is a LiveControl; a volatile read, so that it happens once.
        maps::control().map_or(0, |control| unsafe {
            live(control).generation.as_ptr().read_volatile()
        })
    }

    #[inline(always)]
    fn lines(self, generation: u32) -> Option<Set> {
        let slot = generation & 1;
        let map = lookup::<u32, c_void>(pointer(&maps::SETS), &slot)?.as_ptr();
        Some(Set { map, first: None })
    }

    #[inline(always)]
    fn lines_in_place(self, generation: u32) -> Option<Set> {
        let set = self.lines(generation)?;
        let chunk = 0_u32;
        let first = Some(lookup::<u32, Line>(set.map, &chunk)?);
        Some(Set { first, ..set })
    }

    #[inline(always)]
    fn port(self, ifindex: u32, into: &mut PortConfig) -> bool {
        let mut attempt = 0;
        while attempt < 2 {
            if attempt > 0 {
                cold_path();
            }
            let slot = port_slot(ifindex, attempt);
            if let Some(port) = lookup::<u32, PortConfig>(pointer(&maps::PORTS), &slot) {
                // SAFETY: the element has the size of PortConfig; the agent replaces it as a whole.
                let port = unsafe { &*port.as_ptr() };
                if port.ifindex == ifindex {
                    copy_port(port, into);
                    return true;
                }
            }
            attempt += 1;
        }
        false
    }

    #[inline(always)]
    fn now(self) -> u64 {
        if maps::clock_override() {
            return maps::control().map_or(0, |control| live(control).clock.load());
        }
        // SAFETY: the helper takes nothing.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn zero(self) -> u32 {
        zero()
    }

    #[inline(always)]
    fn tick(self) -> u64 {
        if maps::clock_override() {
            return self.now();
        }
        // SAFETY: the helper takes nothing; the verifier makes a load of it.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn precise(self) -> u64 {
        if maps::clock_override() {
            return maps::control().map_or(0, |control| live(control).clock.load());
        }
        // SAFETY: the helper takes nothing.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn boot_seconds(self) -> u32 {
        let now = if maps::clock_override() {
            maps::control().map_or(0, |control| live(control).clock.load())
        } else {
            // SAFETY: the helper takes nothing.
            unsafe { bpf_ktime_get_boot_ns() }
        };
        (now / 1_000_000_000) as u32
    }

    #[inline(always)]
    fn control(self) -> Option<&'a LiveControl> {
        maps::control().map(live)
    }

    #[inline(always)]
    fn levels(self) -> Option<&'a LiveLevels> {
        let key = 0_u32;
        shared(pointer(&maps::LEVELS), &key)
    }

    #[inline(always)]
    fn swap(self, cell: &Shared<u32>, old: u32, new: u32) -> bool {
        // SAFETY: the cell lies in a map value, aligned; sequentially consistent, because a relaxed exchange whose
        // result is used is miscompiled for this target (LLVM 22).
        let (_, done) = unsafe {
            atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                cell.as_ptr(),
                old,
                new,
            )
        };
        done
    }

    #[inline(always)]
    fn dry_run(self) -> bool {
        maps::dry_run()
    }

    #[inline(always)]
    fn swap64(self, cell: &Shared<u64>, old: u64, new: u64) -> bool {
        // SAFETY: as in `swap`.
        let (_, done) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                cell.as_ptr(),
                old,
                new,
            )
        };
        done
    }

    #[inline(always)]
    fn add(self, cell: &Shared<u32>, n: u32) {
        // SAFETY: as in `swap`.
        unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(cell.as_ptr(), n) };
    }

    #[inline(always)]
    fn add64(self, cell: &Shared<u64>, n: u64) -> u64 {
        // SAFETY: as in `swap`.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(cell.as_ptr(), n) }
    }

    #[inline(always)]
    fn or64(self, cell: &Shared<u64>, bits: u64) {
        // SAFETY: as in `swap`.
        unsafe { atomic_or::<u64, u64, { AtomicOrdering::SeqCst }>(cell.as_ptr(), bits) };
    }

    #[inline(always)]
    fn exchange64(self, cell: &Shared<u64>, new: u64) -> u64 {
        // SAFETY: as in `swap`.
        unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(cell.as_ptr(), new) }
    }

    #[inline(always)]
    fn store_first(self, cell: &mut u64, value: u64) {
        // SAFETY: as in `swap`. An exchange is a full barrier (Linux memory model, `Documentation/atomic_t.txt`: value-returning
        // operations are fully ordered; the JITs emit them so), and costs no other CPU anything: the word is this CPU's own.
        unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(cell, value) };
    }

    #[inline(always)]
    fn read_again<N: Copy>(self, cell: &N) -> N {
        // SAFETY: a reference is valid for reads; a volatile one is an ordinary load, which the compiler does not leave out.
        unsafe { core::ptr::from_ref(cell).read_volatile() }
    }

    #[inline(always)]
    fn source(self, key: &SourceKey) -> Option<&'a LiveSource> {
        shared(pointer(&maps::SOURCES), key)
    }

    #[inline(always)]
    fn insert_source(self, key: &SourceKey, source: &Source) -> bool {
        update(pointer(&maps::SOURCES), key, source, NOEXIST) == 0
    }

    #[inline(always)]
    fn source_bits(self, word: u32) -> Option<&'a Shared<u64>> {
        shared(pointer(&maps::SOURCE_BITS), &word)
    }

    #[inline(always)]
    fn presence_words(self) -> u32 {
        maps::presence_words()
    }

    #[inline(always)]
    fn presence(self, word: u32) -> Option<&'a Shared<u64>> {
        shared(pointer(&maps::PRESENCE), &word)
    }

    #[inline(always)]
    fn bucket(self, key: &LimitKey) -> Option<&'a Shared<u64>> {
        shared(pointer(&maps::LIMITS), key)
    }

    #[inline(always)]
    fn insert_bucket(self, key: &LimitKey, value: u64) -> bool {
        update(pointer(&maps::LIMITS), key, &value, NOEXIST) == 0
    }

    #[inline(always)]
    fn pressure(self, slot: u32) -> Option<&'a Shared<u64>> {
        shared(pointer(&maps::PRESSURE), &slot)
    }

    #[inline(always)]
    fn datagram(self, key: &FragmentKey) -> Option<&'a LiveDatagram> {
        shared(pointer(&maps::FRAGMENTS), key)
    }

    #[inline(always)]
    fn insert_datagram(self, key: &FragmentKey, empty: &Datagram) -> bool {
        update(pointer(&maps::FRAGMENTS), key, empty, NOEXIST) == 0
    }

    #[inline(always)]
    fn count_number(self, slot: u32, packets: u32, bytes: u32) {
        if let Some(count) = lookup::<u32, Count>(pointer(&maps::COUNTERS), &slot) {
            // SAFETY: a per-CPU element of the size of Count; only this CPU writes it (see `maps::scratch`).
            let count = unsafe { &mut *count.as_ptr() };
            count.packets += u64::from(packets);
            count.bytes += u64::from(bytes);
        }
    }

    #[inline(always)]
    fn stat(self, stat: FlowStat) {
        if let Some(count) = lookup::<u32, u64>(pointer(&maps::FLOW_STATS), &(stat as u32)) {
            // SAFETY: a per-CPU element of eight bytes; only this CPU writes it.
            unsafe { *count.as_ptr() += 1 };
        }
    }

    #[inline(always)]
    fn emit(self, event: &Event) -> bool {
        let size = size_of::<Event>() as u64;
        // SAFETY: the helper copies `size` bytes of the event, which is that long.
        unsafe {
            bpf_ringbuf_output(
                pointer(&maps::EVENTS),
                core::ptr::from_ref(event).cast_mut().cast(),
                size,
                0,
            ) == 0
        }
    }

    #[inline(always)]
    fn stage(self, stage: Stage, s: &mut Scratch) -> u32 {
        // The stage finds the same scratch memory by itself. Being opaque lets the reference escape, so that the
        // compiler expects the call to change what it points to.
        let s = opaque(s);
        let word = match stage {
            Stage::Open4 => dpufw_open4(),
            Stage::Open6 => dpufw_open6(),
            Stage::Create4 => dpufw_create4(),
            Stage::Create6 => dpufw_create6(),
            Stage::Again4 => dpufw_again4(),
            Stage::Again6 => dpufw_again6(),
            Stage::Link => dpufw_link(),
            Stage::Screens => dpufw_screens(),
            Stage::Fragment => dpufw_fragment(),
            Stage::FragmentDone => dpufw_fragdone(),
            Stage::Admit => dpufw_admit(),
            Stage::Police => dpufw_police(),
            Stage::Denied => dpufw_denied(),
            Stage::Proof => dpufw_proof(),
            Stage::Reply => dpufw_reply(),
            Stage::Class4 => dpufw_class4(),
            Stage::Class6 => dpufw_class6(),
            Stage::Decide => dpufw_decide(),
            Stage::Vectors => dpufw_vectors(),
            Stage::Options => dpufw_options(),
            Stage::Segment => dpufw_segment(),
        };
        opaque(s);
        word
    }
}

/// Stages as global functions: an exported symbol makes the verifier follow each once, by itself. They take no argument
/// but find the scratch memory again, so that it stays a map value for the helpers. A missing scratch memory is a word
/// of 0: a drop without reason.
macro_rules! stages {
    ($($name:ident = $stage:ident,)*) => {$(
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name() -> u32 {
            maps::scratch().map_or(0, |s| run(Kernel, Stage::$stage, s))
        }
    )*};
}

stages! {
    dpufw_open4 = Open4,
    dpufw_open6 = Open6,
    dpufw_create4 = Create4,
    dpufw_create6 = Create6,
    dpufw_again4 = Again4,
    dpufw_again6 = Again6,
    dpufw_link = Link,
    dpufw_screens = Screens,
    dpufw_fragment = Fragment,
    dpufw_fragdone = FragmentDone,
    dpufw_admit = Admit,
    dpufw_police = Police,
    dpufw_denied = Denied,
    dpufw_proof = Proof,
    dpufw_reply = Reply,
    dpufw_class4 = Class4,
    dpufw_class6 = Class6,
    dpufw_decide = Decide,
    dpufw_vectors = Vectors,
    dpufw_options = Options,
    dpufw_segment = Segment,
}
