//! What the bench measures dpufw against, and what it measures with. No part of the firewall.
//!
//! - `floor_redirect`, `floor_drop`: the least a program can do.
//! - `floor_pass`: hands everything to the kernel, for peers that stand there.
//! - `floor_lookup`: parse, one hash look-up with dpufw's key, value and map, one counter; a hit is redirected, a miss
//!   dropped. What any firewall with a flow table pays.
//! - `floor_generate`: writes the next frame of a list, whole, because the kernel recycles pages, and sends it.
//! - `floor_sink`: counts and drops.
//! - `floor_clock`: the same, and sorts the packets of a probe by the time that they were on their way.
//! - `floor_gap`: the same, and keeps the longest time between two packets.
//! - `floor_open`, `floor_server`, `floor_client`: TCP connections of six packets. The first sends the SYN of a new one, the
//!   others answer each packet with the next: SYN, SYN-ACK, request, answer with FIN, FIN, ACK. A SYN-ACK that is not the server's is
//!   answered with the reset of RFC 9293 section 3.10.7.3; `floor_open` can be asked again for connections, and leaves out the finished.
#![no_std]
#![no_main]

mod connection;
mod header;

use core::ffi::c_void;
use core::ptr::NonNull;

use aya_ebpf::Global;
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_redirect, bpf_xdp_store_bytes};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use fw_common::abi::{Flow, Key4, Key6};

use crate::header::Header;

/// Return codes of `include/uapi/linux/bpf.h`, `enum xdp_action`.
mod xdp_code {
    pub const DROP: u32 = 1;
    pub const PASS: u32 = 2;
    pub const TX: u32 = 3;
}

/// Elements of [`COUNTS`]; tests/src/bench/floor.rs knows them by number.
mod slot {
    /// Packets that reached the sink.
    pub const SINK: u32 = 0;
    /// Packets that the bare drop has dropped.
    pub const BARE: u32 = 1;
    /// Packets that the look-up did not find.
    pub const MISS: u32 = 2;
    /// Packets that were handed to the kernel.
    pub const PASS: u32 = 3;
    /// Packets with the probe's mark that reached a sink.
    pub const MARKED: u32 = 4;
    /// Connections whose last packet reached the client.
    pub const DONE: u32 = 5;
}

/// Bytes of every generated frame: the least that hold the headers of TCP over IPv6, in whole words.
const FRAME_BYTES: u32 = 80;
/// Ethernet types and header lengths as they lie in memory.
const ETH: usize = 14;
/// Where a probe has its mark, behind the packet's end: like all padding it is nobody's business on the way. Then, up to
/// the frame's end, the time of sending, ns of the monotonic clock, big-endian; 0: not to be timed.
const MARK_AT: usize = 68;
const MARK: u32 = 0x6470_7566;
const STAMP_AT: usize = 72;
/// Buckets of times: 16 for each power of two up to 2^32 ns.
const BUCKETS: usize = 512;

/// A frame to send.
#[repr(C, align(8))]
struct Frame([u64; FRAME_BYTES as usize / 8]);

/// Which frames a CPU sends, in a circle: `first .. first + count`.
#[repr(C)]
struct Turn {
    first: u32,
    count: u32,
    next: u32,
    pad: u32,
}

/// When the last packet came, and the longest time between two, ns.
#[repr(C)]
struct Gap {
    last: u64,
    longest: u64,
}

/// Packets by [`slot`].
#[btf_map]
static COUNTS: PerCpuArray<u64, 8> = PerCpuArray::new();
/// Packets of a probe by [`bucket`].
#[btf_map]
static TIMES: PerCpuArray<u64, BUCKETS> = PerCpuArray::new();
/// Each CPU's gap.
#[btf_map]
static GAP: PerCpuArray<Gap, 1> = PerCpuArray::new();
/// The list of frames. The loader sets the size.
#[btf_map]
static FRAMES: Array<Frame, 1> = Array::new();
/// Each CPU's place in the list.
#[btf_map]
static TURN: PerCpuArray<Turn, 1> = PerCpuArray::new();
/// As dpufw's map of confirmed flows. The loader sets the size.
#[btf_map]
static FLOWS4: HashMap<Key4, Flow, 131_073> = HashMap::new();
/// As dpufw's map of confirmed flows, IPv6.
#[btf_map]
static FLOWS6: HashMap<Key6, Flow, 131_073> = HashMap::new();

/// Where packets leave.
#[unsafe(no_mangle)]
static OUT_IFINDEX: Global<u32> = Global::new(0);

/// Takes the key by value: a promoted constant such as `&0` may be merged with [`OUT_IFINDEX`], which is 0 until the loader
/// changes it.
#[inline(always)]
fn lookup<M, K, V>(map: &'static M, key: K) -> Option<NonNull<V>> {
    let map: *mut c_void = core::ptr::from_ref(map).cast_mut().cast();
    // SAFETY: the helper reads `key_size` bytes, the size of K by the map's definition above, and returns null or a
    // pointer to a value of the size of V; the verifier checks both.
    NonNull::new(unsafe { bpf_map_lookup_elem(map, (&raw const key).cast()) }.cast())
}

#[inline(always)]
fn count(slot: u32) {
    if let Some(count) = lookup::<_, u32, u64>(&COUNTS, slot) {
        // SAFETY: a per-CPU element of eight bytes; only this CPU writes it.
        unsafe { *count.as_ptr() += 1 };
    }
}

#[inline(always)]
fn redirect() -> u32 {
    // SAFETY: the helper takes numbers only.
    unsafe { bpf_redirect(OUT_IFINDEX.load(), 0) as u32 }
}

/// Sends everything on.
#[xdp]
pub fn floor_redirect(_ctx: XdpContext) -> u32 {
    redirect()
}

/// Drops everything.
#[xdp]
pub fn floor_drop(_ctx: XdpContext) -> u32 {
    count(slot::BARE);
    xdp_code::DROP
}

/// Hands everything to the kernel: a veth end takes what the generator sends only while it has a program.
#[xdp]
pub fn floor_pass(_ctx: XdpContext) -> u32 {
    count(slot::PASS);
    xdp_code::PASS
}

/// Counts and drops.
#[xdp]
pub fn floor_sink(_ctx: XdpContext) -> u32 {
    count(slot::SINK);
    xdp_code::DROP
}

/// Counts, sorts probes by the time since they were sent, and drops.
#[xdp]
pub fn floor_clock(ctx: XdpContext) -> u32 {
    count(slot::SINK);
    let header = Header {
        start: ctx.data(),
        end: ctx.data_end(),
    };
    if header.word(MARK_AT) != Some(MARK) {
        return xdp_code::DROP;
    }
    count(slot::MARKED);
    if let (Some(high), Some(low)) = (header.word(STAMP_AT), header.word(STAMP_AT + 4)) {
        let sent = (u64::from(high) << 32) | u64::from(low);
        if sent > 0 {
            sort(now().saturating_sub(sent));
        }
    }
    xdp_code::DROP
}

/// Counts, keeps the longest time since the packet before, and drops.
#[xdp]
pub fn floor_gap(_ctx: XdpContext) -> u32 {
    count(slot::SINK);
    if let Some(gap) = lookup::<_, u32, Gap>(&GAP, 0) {
        // SAFETY: a per-CPU element of the size of Gap; only this CPU writes it while packets flow.
        let gap = unsafe { &mut *gap.as_ptr() };
        let now = now();
        let since = now.saturating_sub(gap.last);
        if gap.last > 0 && since > gap.longest {
            gap.longest = since;
        }
        gap.last = now;
    }
    xdp_code::DROP
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn sort(ns: u64) {
    if let Some(packets) = lookup::<_, u32, u64>(&TIMES, bucket(ns)) {
        // SAFETY: a per-CPU element of eight bytes; only this CPU writes it.
        unsafe { *packets.as_ptr() += 1 };
    }
}

/// Which of 16 equal parts of which power of two; tests/src/bench/times.rs knows the way back.
#[inline(always)]
fn bucket(ns: u64) -> u32 {
    let ns = if ns > u64::from(u32::MAX) {
        u32::MAX
    } else {
        ns as u32
    };
    if ns < 16 {
        return ns;
    }
    let power = ns.ilog2();
    ((power - 3) << 4) + ((ns >> (power - 4)) & 15)
}

/// Sends what belongs to a known flow, drops the rest.
#[xdp]
pub fn floor_lookup(ctx: XdpContext) -> u32 {
    let header = Header {
        start: ctx.data(),
        end: ctx.data_end(),
    };
    let flow = match header.half(12) {
        Some(0x0800) => header
            .key4()
            .and_then(|key| lookup::<_, Key4, Flow>(&FLOWS4, key)),
        Some(0x86dd) => header
            .key6()
            .and_then(|key| lookup::<_, Key6, Flow>(&FLOWS6, key)),
        _ => None,
    };
    let Some(flow) = flow else {
        count(slot::MISS);
        return xdp_code::DROP;
    };
    // SAFETY: the value has the size of Flow; the bench gives each CPU flows of its own.
    unsafe { (*flow.as_ptr()).half[0].packets += 1 };
    redirect()
}

/// Sends the next frame of this CPU's part of the list back out of the interface it "came in" by.
#[xdp]
pub fn floor_generate(ctx: XdpContext) -> u32 {
    let Some(turn) = lookup::<_, u32, Turn>(&TURN, 0) else {
        return xdp_code::DROP;
    };
    // SAFETY: a per-CPU element of the size of Turn; only this CPU writes it while it generates.
    let turn = unsafe { &mut *turn.as_ptr() };
    let index = turn.first + turn.next;
    turn.next = if turn.next + 1 < turn.count {
        turn.next + 1
    } else {
        0
    };
    let Some(frame) = lookup::<_, u32, Frame>(&FRAMES, index) else {
        return xdp_code::DROP;
    };
    // SAFETY: the helper reads FRAME_BYTES bytes of the element, which is that long, and checks the packet's length.
    let stored = unsafe { bpf_xdp_store_bytes(ctx.ctx, 0, frame.as_ptr().cast(), FRAME_BYTES) };
    if stored == 0 { xdp_code::TX } else { xdp_code::DROP }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No panic can be reached: the verifier would refuse a program with this loop in its way.
    loop {}
}

/// The licence that the kernel reads.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
