//! What the bench measures dpufw against, and what it measures with. No part of the firewall.
//!
//! - `floor_redirect`, `floor_drop`: the least a program can do.
//! - `floor_pass`: hands everything to the kernel, for peers that stand there.
//! - `floor_lookup`: parse, one hash look-up with dpufw's key, value and map, one counter; a hit is redirected, a miss
//!   dropped. What any firewall with a flow table pays.
//! - `floor_generate`: writes the next frame of a list, whole, because the kernel recycles pages, and sends it.
//! - `floor_sink`: counts and drops.
#![no_std]
#![no_main]

use core::ffi::c_void;
use core::ptr::NonNull;

use aya_ebpf::Global;
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::helpers::{bpf_map_lookup_elem, bpf_redirect, bpf_xdp_store_bytes};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use fw_common::abi::{Flow, Ip4, Ip6, Key4, Key6, Proto};

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
}

/// Bytes of every generated frame: the least that hold the headers of TCP over IPv6, in whole words.
const FRAME_BYTES: u32 = 80;
/// Ethernet types and header lengths as they lie in memory.
const ETH: usize = 14;

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

/// Packets by [`slot`].
#[btf_map]
static COUNTS: PerCpuArray<u64, 4> = PerCpuArray::new();
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

/// A packet's first bytes, read in place.
#[derive(Clone, Copy)]
struct Header {
    start: usize,
    end: usize,
}

impl Header {
    /// True if the packet has `bytes` bytes.
    #[inline(always)]
    fn holds(self, bytes: usize) -> bool {
        self.start + bytes <= self.end
    }

    /// The 16 bits at an even offset.
    #[inline(always)]
    fn half(self, at: usize) -> Option<u16> {
        if !self.holds(at + 2) {
            return None;
        }
        // SAFETY: checked against the packet's end just now, as the verifier demands; frames begin at even addresses.
        Some(u16::from_be(unsafe { *((self.start + at) as *const u16) }))
    }

    /// The 32 bits at an even offset.
    #[inline(always)]
    fn word(self, at: usize) -> Option<u32> {
        Some((u32::from(self.half(at)?) << 16) | u32::from(self.half(at + 2)?))
    }

    #[inline(always)]
    fn address6(self, at: usize) -> Option<Ip6> {
        Some(Ip6([
            self.word(at)?,
            self.word(at + 4)?,
            self.word(at + 8)?,
            self.word(at + 12)?,
        ]))
    }

    /// The key of a TCP or UDP packet in an IPv4 packet without options.
    #[inline(always)]
    fn key4(self) -> Option<Key4> {
        if !self.holds(ETH + 24) || self.half(ETH)? >> 8 != 0x45 {
            return None;
        }
        let proto = self.half(ETH + 8)? as u8;
        if proto != Proto::TCP && proto != Proto::UDP {
            return None;
        }
        let src = (u64::from(self.word(ETH + 12)?) << 16) | u64::from(self.half(ETH + 20)?);
        let dst = (u64::from(self.word(ETH + 16)?) << 16) | u64::from(self.half(ETH + 22)?);
        let (lo, hi) = if src > dst { (dst, src) } else { (src, dst) };
        Some(Key4 {
            lo: Ip4((lo >> 16) as u32),
            hi: Ip4((hi >> 16) as u32),
            lo_port: lo as u16,
            hi_port: hi as u16,
            realm: 0,
            proto,
            realm_high: 0,
        })
    }

    /// The key of a TCP or UDP packet in an IPv6 packet without extension headers.
    #[inline(always)]
    fn key6(self) -> Option<Key6> {
        if !self.holds(ETH + 44) || self.half(ETH)? >> 12 != 6 {
            return None;
        }
        let proto = (self.half(ETH + 6)? >> 8) as u8;
        if proto != Proto::TCP && proto != Proto::UDP {
            return None;
        }
        let (src, sport) = (self.address6(ETH + 8)?, self.half(ETH + 40)?);
        let (dst, dport) = (self.address6(ETH + 24)?, self.half(ETH + 42)?);
        let from_hi = if src.high() != dst.high() {
            src.high() > dst.high()
        } else if src.low() != dst.low() {
            src.low() > dst.low()
        } else {
            sport > dport
        };
        let ((lo, lo_port), (hi, hi_port)) = if from_hi {
            ((dst, dport), (src, sport))
        } else {
            ((src, sport), (dst, dport))
        };
        Some(Key6 {
            lo,
            hi,
            lo_port,
            hi_port,
            realm: 0,
            proto,
            realm_high: 0,
        })
    }
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
