//! [`Tables`] over the kernel's maps and helpers.

use core::ffi::c_void;
use core::hint::black_box;
use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use aya_ebpf::helpers::{
    bpf_ktime_get_coarse_ns, bpf_map_delete_elem, bpf_map_update_elem, bpf_redirect, bpf_ringbuf_output,
};
use fw_common::abi::{Count, Event, Flow, Key4, Key6, Line, LiveFlow, PortConfig, Shared, port_slot};
use fw_common::classify::Lines;
use fw_common::pipeline::{FlowMaps, FlowStat, Insert, Scratch, Stage, Tables, run};

use crate::maps::{self, lookup, pointer};

/// `BPF_ANY` and `BPF_NOEXIST` of `include/uapi/linux/bpf.h`.
const ANY: u64 = 0;
const NOEXIST: u64 = 1;
/// Errors of `include/uapi/asm-generic/errno-base.h`: E2BIG says that a hash map is full, EEXIST that the key is there.
const E2BIG: i32 = -7;
const EEXIST: i32 = -17;

/// The kernel around a program. It has no state of its own.
#[derive(Clone, Copy)]
pub struct Kernel;

/// The table set in force: an inner map.
#[derive(Clone, Copy)]
pub struct Set(*mut c_void);

impl<'a> Lines<'a> for Set {
    #[inline(always)]
    fn line(self, number: u32) -> Option<&'a Line> {
        // SAFETY: a set is immutable while any packet can see it, and the map outlives the packet (RCU), so a shared
        // reference is sound; the verifier checks that the value has 64 bytes.
        lookup::<u32, Line>(self.0, &number).map(|line| unsafe { &*line.as_ptr() })
    }
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

#[inline(always)]
fn insert<K>(map: *mut c_void, key: &K, flow: &Flow, flags: u64) -> Insert {
    // SAFETY: key and value have the sizes of the map's definition; the verifier checks both.
    let code = unsafe {
        bpf_map_update_elem(
            map,
            core::ptr::from_ref(key).cast(),
            core::ptr::from_ref(flow).cast(),
            flags,
        )
    };
    // Before kernel 6.4 the verifier replaces this helper by a map operation that returns an int: the upper half of the
    // register is not the sign then.
    match code as i32 {
        0 => Insert::Done,
        EEXIST => Insert::Exists,
        E2BIG => Insert::Full,
        _ => Insert::Failed,
    }
}

#[inline(always)]
fn flow<'a, K>(map: *mut c_void, key: &K) -> Option<&'a LiveFlow> {
    // SAFETY: LiveFlow has the layout of Flow, the map's value. Other CPUs write to it through `Shared` only. An entry
    // deleted meanwhile stays readable until the program ends (RCU); its slot may serve another flow by then, which
    // costs one packet's counters, never a verdict: the agent deletes only what is expired for 2 s.
    lookup::<K, LiveFlow>(map, key).map(|flow| unsafe { &*flow.as_ptr() })
}

macro_rules! flow_maps {
    ($key:ty, $main:ident, $half:ident) => {
        impl<'a> FlowMaps<'a, $key> for Kernel {
            #[inline(always)]
            fn main(self, key: &$key) -> Option<&'a LiveFlow> {
                flow(pointer(&maps::$main), key)
            }

            #[inline(always)]
            fn half_open(self, key: &$key) -> Option<&'a LiveFlow> {
                flow(pointer(&maps::$half), key)
            }

            #[inline(always)]
            fn insert_main(self, key: &$key, flow: &Flow) -> Insert {
                insert(pointer(&maps::$main), key, flow, NOEXIST)
            }

            #[inline(always)]
            fn insert_half_open(self, key: &$key, flow: &Flow, replace: bool) -> Insert {
                insert(
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

impl Tables<'_> for Kernel {
    type Lines = Set;

    #[inline(always)]
    fn generation(self) -> u32 {
        // SAFETY: the element has the size of Control; a volatile read, so that it happens once.
        maps::control().map_or(0, |control| unsafe {
            (&raw const (*control.as_ptr()).generation).read_volatile()
        })
    }

    #[inline(always)]
    fn lines(self, generation: u32) -> Option<Set> {
        let slot = generation & 1;
        lookup::<u32, c_void>(pointer(&maps::SETS), &slot).map(|set| Set(set.as_ptr()))
    }

    #[inline(always)]
    fn port(self, ifindex: u32, into: &mut PortConfig) -> bool {
        let mut attempt = 0;
        while attempt < 2 {
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
            // SAFETY: the element has the size of Control.
            return maps::control().map_or(0, |control| unsafe { (*control.as_ptr()).clock });
        }
        // SAFETY: the helper takes nothing.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn pickup_until(self) -> u64 {
        // SAFETY: the element has the size of Control.
        maps::control().map_or(0, |control| unsafe { (*control.as_ptr()).pickup_until })
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
    fn count_number(self, reason: u8, packets: u32, bytes: u32) {
        if let Some(count) = lookup::<u32, Count>(pointer(&maps::COUNTERS), &u32::from(reason)) {
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
    fn events_per_window(self) -> u32 {
        // SAFETY: the element has the size of Control.
        maps::control().map_or(0, |control| unsafe { (*control.as_ptr()).events_per_window })
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
        // The stage finds the same scratch memory by itself. The black boxes let the reference escape, so that the
        // compiler expects the call to change what it points to.
        let s = black_box(s);
        let word = match stage {
            Stage::Open4 => dpufw_open4(),
            Stage::Open6 => dpufw_open6(),
            Stage::Again4 => dpufw_again4(),
            Stage::Again6 => dpufw_again6(),
            Stage::Link => dpufw_link(),
        };
        black_box(s);
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
    dpufw_again4 = Again4,
    dpufw_again6 = Again6,
    dpufw_link = Link,
}
