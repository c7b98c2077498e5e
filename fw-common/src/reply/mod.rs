//! Packets that the firewall itself answers with: resets, ICMP errors, and the SYN-ACK that asks a client to prove its
//! address.
//!
//! A reply is made in two steps, so that the second can be a stage that knows no packet type:
//!
//! 1. [`capture`] reads the head of the rejected frame again (parsing may have moved the window to a later header) and
//!    notes the link header, its addresses swapped.
//! 2. [`reject()`] or [`ask_for_proof`] writes the reply, from the network header on, at fixed words of a [`Reply`].
//!
//! The link header is the frame's own with the addresses swapped, so tags stay as they came. The reply's source address
//! is the rejected packet's destination: a bump in the wire has no address, and a stateful filter on the client's side lets
//! it through.
//!
//! [`Reply::len`] is 0 where no answer may be given.

mod checksum;
mod proof;
mod reject;
mod siphash;
mod write;

pub use proof::{PROOF_SLOT_NS, ask_for_proof, proves};
pub use reject::reject;

use crate::abi::LinkKind;
use crate::wire::{ETHERNET_SKIP, Meta, Packet, WINDOW_WORDS};

/// Words for a reply. The longest has an IPv6 and an ICMPv6 header and the quote of a whole window; a power of two, so
/// that a mask bounds [`Reply::len`].
pub const REPLY_WORDS: usize = 64;

/// A reply, from the network header on, and where it goes in the rejected frame.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// The packet in memory order (network byte order inside each word).
    pub words: [u32; REPLY_WORDS],
    /// The link header, in memory order, from byte [`ETHERNET_SKIP`] on: [`Reply::offset`] bytes of it.
    pub link: [u32; LINK_WORDS],
    /// Byte offset of the network header in the frame, which is the link header's length; 0: the port has none.
    pub offset: u32,
    /// Bytes of the reply from the network header on; 0: there is no answer to this packet.
    pub len: u32,
    /// Bytes of the rejected packet that an ICMP error quotes.
    pub quoted: u32,
    /// 1 if the frame went to a group of stations.
    pub to_group: u32,
    /// Always 0.
    pub pad: [u32; 2],
}

/// Words of an Ethernet header with two tags, and the [`ETHERNET_SKIP`] bytes in front of it.
pub const LINK_WORDS: usize = 6;

const _: () = assert!(size_of::<Reply>() == 304);
const _: () = assert!(write::IPV6_WORDS + 2 + WINDOW_WORDS <= REPLY_WORDS);

impl Reply {
    /// All zero.
    pub const EMPTY: Self = Self {
        words: [0; REPLY_WORDS],
        link: [0; LINK_WORDS],
        offset: 0,
        len: 0,
        quoted: 0,
        to_group: 0,
        pad: [0; 2],
    };
}

/// Loads the window with the frame's head once more, the network header in word 0, and notes the link header.
///
/// Afterwards `m.l3` is 0 and `m.l4` means nothing: call it when nothing but the reply is left to do with the packet.
/// `link` is the port's [`LinkKind`] as a number.
#[inline(always)]
pub fn capture<P: Packet>(pkt: P, link: u8, m: &mut Meta, reply: &mut Reply) {
    reply.len = 0;
    reply.to_group = 0;
    reply.offset = m.l3_offset;
    // The window and where it begins are no longer a plain frame's.
    m.plain = 0;
    if link == LinkKind::Ethernet as u8 {
        m.window_end = pkt.load(0, ETHERNET_SKIP, &mut m.window);
        swap_addresses(m, reply);
    }
    m.window_end = pkt.load(reply.offset, 0, &mut m.window);
    m.l3 = 0;
}

/// The window begins [`ETHERNET_SKIP`] bytes before the destination address, and what is made here likewise.
#[inline(always)]
fn swap_addresses(m: &Meta, reply: &mut Reply) {
    let [to_high, to_low, from_high, last, tag, second_tag] =
        [0, 1, 2, 3, 4, 5].map(|word| m.window.be32(word));
    reply.link[0] = (from_high >> 16).to_be();
    reply.link[1] = (from_high << 16 | last >> 16).to_be();
    reply.link[2] = (to_high << 16 | to_low >> 16).to_be();
    reply.link[3] = (to_low << 16 | last & 0xffff).to_be();
    reply.link[4] = tag.to_be();
    reply.link[5] = second_tag.to_be();
    // IEEE 802 section 8.2.2: the first bit on the wire is the lowest of the first byte.
    reply.to_group = to_high >> 8 & 1;
}
