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

use core::ffi::c_void;
use core::ptr::NonNull;

use aya_ebpf::Global;
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::helpers::{
    bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_redirect, bpf_xdp_adjust_tail, bpf_xdp_store_bytes,
};
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
    /// Packets with the probe's mark that reached a sink.
    pub const MARKED: u32 = 4;
    /// Connections whose last packet reached the client.
    pub const DONE: u32 = 5;
}

/// TCP's flags, as they stand in the header.
mod flag {
    pub const FIN: u16 = 1;
    pub const SYN: u16 = 2;
    pub const RST: u16 = 4;
    pub const PSH: u16 = 8;
    pub const ACK: u16 = 16;
}

/// The flags of a connection's packets between the SYN and the last acknowledgement.
mod kind {
    use super::flag::{ACK, FIN, PSH, SYN};

    pub const ACCEPT: u16 = SYN | ACK;
    pub const REQUEST: u16 = PSH | ACK;
    pub const ANSWER: u16 = FIN | PSH | ACK;
    pub const END: u16 = FIN | ACK;
}

/// Bytes of every generated frame: the least that hold the headers of TCP over IPv6, in whole words.
const FRAME_BYTES: u32 = 80;
/// Ethernet types and header lengths as they lie in memory.
const ETH: usize = 14;
/// Where TCP begins behind an IPv4 header without options.
const TCP: usize = ETH + 20;
/// Bytes of a request and of an answer: zeros, which the padding has.
const DATA: u16 = 8;
/// The server's first sequence number.
const SERVER_ISN: u32 = 5000;
/// Clients and servers of the connections: addresses as in tests/src/bench/frames.rs.
const CLIENTS: u32 = 0x0a80_0000;
const CLIENTS_MASK: u32 = 0x3f_ffff;
const SERVERS: u32 = 0x0afa_0100;
const SERVERS_NUMBER: u32 = 251;
const FIRST_PORT: u32 = 1024;
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
/// 1 for each of the first connections, by number, that is finished.
#[btf_map]
static FINISHED: Array<u32, 65_536> = Array::new();
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

/// Sends the SYN of the next connection: the list's first frame with a client, a port and a server of its own.
#[xdp]
pub fn floor_open(ctx: XdpContext) -> u32 {
    let Some(turn) = lookup::<_, u32, Turn>(&TURN, 0) else {
        return xdp_code::DROP;
    };
    // SAFETY: a per-CPU element of the size of Turn; only this CPU writes it while it generates.
    let turn = unsafe { &mut *turn.as_ptr() };
    let number = turn.first.wrapping_add(turn.next);
    turn.next = turn.next.wrapping_add(1);
    if finished(number).is_some_and(|word| word != 0) {
        return xdp_code::DROP;
    }
    let Some(frame) = lookup::<_, u32, Frame>(&FRAMES, 0) else {
        return xdp_code::DROP;
    };
    // SAFETY: as in floor_generate.
    if unsafe { bpf_xdp_store_bytes(ctx.ctx, 0, frame.as_ptr().cast(), FRAME_BYTES) } != 0 {
        return xdp_code::DROP;
    }
    let Some(whole) = Whole::of(&ctx) else {
        return xdp_code::DROP;
    };
    whole.put_word(ETH + 12, CLIENTS + (number & CLIENTS_MASK));
    whole.put_word(ETH + 16, SERVERS + number % SERVERS_NUMBER);
    whole.put(TCP, (FIRST_PORT + (number >> 22)) as u16);
    whole.sums(20);
    xdp_code::TX
}

/// What [`FINISHED`] says of a connection, if it is one of the first.
#[inline(always)]
fn finished(number: u32) -> Option<u32> {
    // SAFETY: an element of an array of words; only the CPU that opens connections writes it.
    lookup::<_, u32, u32>(&FINISHED, number).map(|word| unsafe { *word.as_ptr() })
}

/// Notes that a connection is finished. False if that is known.
#[inline(always)]
fn finish(number: u32) -> bool {
    let Some(word) = lookup::<_, u32, u32>(&FINISHED, number) else {
        return true;
    };
    // SAFETY: as in `finished`.
    unsafe { core::mem::replace(&mut *word.as_ptr(), 1) == 0 }
}

/// The server: answers a packet of a connection with the next one.
#[xdp]
pub fn floor_server(ctx: XdpContext) -> u32 {
    count(slot::SINK);
    let Some((whole, got)) = Whole::of(&ctx).and_then(Whole::segment) else {
        return xdp_code::DROP;
    };
    let next = match got.flags {
        flag::SYN => Segment {
            flags: kind::ACCEPT,
            seq: SERVER_ISN,
            ack: got.seq.wrapping_add(1),
        },
        kind::REQUEST => Segment {
            flags: kind::ANSWER,
            seq: got.ack,
            ack: got.seq.wrapping_add(DATA.into()),
        },
        kind::END => Segment {
            flags: flag::ACK,
            seq: got.ack,
            ack: got.seq.wrapping_add(1),
        },
        _ => return xdp_code::DROP,
    };
    whole.turn(&next);
    xdp_code::TX
}

/// The client: the same for its side, and counts what is done.
#[xdp]
pub fn floor_client(ctx: XdpContext) -> u32 {
    let Some((whole, got)) = Whole::of(&ctx).and_then(Whole::segment) else {
        return xdp_code::DROP;
    };
    // Others than our clients are somebody's inventions.
    let number = whole.word(ETH + 16).wrapping_sub(CLIENTS);
    if number > CLIENTS_MASK {
        return xdp_code::DROP;
    }
    let next = match got.flags {
        kind::ACCEPT if got.seq != SERVER_ISN => Segment {
            flags: flag::RST,
            seq: got.ack,
            ack: 0,
        },
        kind::ACCEPT => Segment {
            flags: kind::REQUEST,
            seq: got.ack,
            ack: got.seq.wrapping_add(1),
        },
        kind::ANSWER => Segment {
            flags: kind::END,
            seq: got.ack,
            ack: got.seq.wrapping_add(u32::from(DATA) + 1),
        },
        flag::ACK => {
            if finish(number) {
                count(slot::DONE);
            }
            return xdp_code::DROP;
        }
        _ => return xdp_code::DROP,
    };
    whole.turn(&next);
    xdp_code::TX
}

/// What a TCP header says.
struct Segment {
    flags: u16,
    seq: u32,
    ack: u32,
}

/// A packet that has [`FRAME_BYTES`] bytes at least: one comparison is enough for all that is read and written below.
#[derive(Clone, Copy)]
struct Whole(usize);

impl Whole {
    /// A router has cut the padding off: it is put on again.
    #[inline(always)]
    fn of(ctx: &XdpContext) -> Option<Self> {
        if let Some(whole) = Self::long(ctx) {
            return Some(whole);
        }
        let missing = FRAME_BYTES as i32 - (ctx.data_end() - ctx.data()) as i32;
        // SAFETY: the helper takes the context and a number; pointers into the packet are read anew below.
        if unsafe { bpf_xdp_adjust_tail(ctx.ctx, missing) } != 0 {
            return None;
        }
        Self::long(ctx)
    }

    #[inline(always)]
    fn long(ctx: &XdpContext) -> Option<Self> {
        let (start, end) = (ctx.data(), ctx.data_end());
        if start + FRAME_BYTES as usize > end {
            return None;
        }
        Some(Self(start))
    }

    /// The 16 bits at an even offset below [`FRAME_BYTES`].
    #[inline(always)]
    fn half(self, at: usize) -> u16 {
        // SAFETY: compared with the packet's end in `long`, as the verifier demands; frames begin at even addresses.
        u16::from_be(unsafe { *((self.0 + at) as *const u16) })
    }

    #[inline(always)]
    fn word(self, at: usize) -> u32 {
        (u32::from(self.half(at)) << 16) | u32::from(self.half(at + 2))
    }

    #[inline(always)]
    fn put(self, at: usize, value: u16) {
        // SAFETY: as in `half`.
        unsafe { *((self.0 + at) as *mut u16) = value.to_be() };
    }

    #[inline(always)]
    fn put_word(self, at: usize, value: u32) {
        self.put(at, (value >> 16) as u16);
        self.put(at + 2, value as u16);
    }

    /// Exchanges the halves at two places.
    #[inline(always)]
    fn swap(self, one: usize, other: usize) {
        let (first, second) = (self.half(one), self.half(other));
        self.put(one, second);
        self.put(other, first);
    }

    /// The TCP header in an IPv4 packet, both without options.
    #[inline(always)]
    fn segment(self) -> Option<(Self, Segment)> {
        if self.half(12) != 0x0800 || self.half(ETH) >> 8 != 0x45 {
            return None;
        }
        if self.half(ETH + 8) as u8 != Proto::TCP {
            return None;
        }
        let segment = Segment {
            flags: self.half(TCP + 12) & 0x3f,
            seq: self.word(TCP + 4),
            ack: self.word(TCP + 8),
        };
        Some((self, segment))
    }

    /// Makes the packet one of the other side's.
    #[inline(always)]
    fn turn(self, segment: &Segment) {
        for half in [0, 2, 4] {
            self.swap(half, 6 + half);
        }
        for half in [12, 14] {
            self.swap(ETH + half, ETH + 4 + half);
        }
        self.swap(TCP, TCP + 2);
        self.put_word(TCP + 4, segment.seq);
        self.put_word(TCP + 8, segment.ack);
        self.put(TCP + 12, 0x5000 | segment.flags);
        let data = if segment.flags & flag::PSH == 0 { 0 } else { DATA };
        self.put(ETH + 2, 40 + data);
        // A router on the way has taken one away.
        self.put(ETH + 8, 0x4000 | u16::from(Proto::TCP));
        self.sums(20 + data);
    }

    /// Puts right the checksums of IPv4 and of TCP, whose header and data are so long; the data is zeros.
    #[inline(always)]
    fn sums(self, length: u16) {
        self.put(ETH + 10, 0);
        self.put(ETH + 10, folded(self.sum(ETH, 10)));
        self.put(TCP + 16, 0);
        let pseudo = self.sum(ETH + 12, 4) + u32::from(Proto::TCP) + u32::from(length);
        self.put(TCP + 16, folded(pseudo + self.sum(TCP, 10)));
    }

    /// The sum of some halves.
    #[inline(always)]
    fn sum(self, from: usize, halves: usize) -> u32 {
        let mut sum = 0;
        let mut half = 0;
        while half < halves {
            sum += u32::from(self.half(from + 2 * half));
            half += 1;
        }
        sum
    }
}

/// The checksum of a sum (RFC 1071).
#[inline(always)]
const fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
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
