//! TCP connections of six packets: who opens them, and both ends.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_xdp_adjust_tail, bpf_xdp_store_bytes};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use fw_common::abi::Proto;

use super::{ETH, FRAME_BYTES, FRAMES, Frame, TURN, Turn, count, lookup, slot, xdp_code};

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
/// 1 for each of the first connections, by number, that is finished.
#[btf_map]
static FINISHED: Array<u32, 65_536> = Array::new();

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
    // SAFETY: an element of an array of words, each of which only ever becomes 1; a bench, not the firewall, asks.
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
