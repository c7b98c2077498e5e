//! Sends a [`Reply`](fw_common::reply::Reply) back to where the packet came from: the packet itself is made into it.
//!
//! | hook | way back |
//! | --- | --- |
//! | XDP | redirected to the port it came in by |
//! | TC ingress | redirected to the port it came in by, past our own program at its egress |
//! | TC egress | received by the port it was leaving by, as if the wire had answered |
//!
//! XDP redirects to the same port instead of returning `XDP_TX`: between two veth ends the one reaches a peer that runs
//! XDP or has GRO on (`veth_xdp_xmit` in drivers/net/veth.c), the other only one that runs XDP (`veth_xdp_flush`).

use core::ffi::c_void;
use core::hint::black_box;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::{
    bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_store_bytes, bpf_xdp_adjust_head,
    bpf_xdp_adjust_tail, bpf_xdp_store_bytes,
};
use fw_common::pipeline::Scratch;
use fw_common::reply::{REPLY_WORDS, Reply};
use fw_common::wire::ETHERNET_SKIP;

use crate::{tc_code, xdp_code};

/// `BPF_F_INGRESS`, `BPF_F_RECOMPUTE_CSUM`, `BPF_F_INVALIDATE_HASH` and `BPF_ADJ_ROOM_MAC` of
/// `include/uapi/linux/bpf.h`.
const INGRESS: u64 = 1;
const RECOMPUTE_CSUM: u64 = 1;
const INVALIDATE_HASH: u64 = 2;
const ROOM_MAC: u32 = 1;

/// Bytes that a packet is moved by to leave its half-made checksum behind: more than lie in front of any usual
/// transport header.
const SHIFT: u32 = 256;

/// `tc_index` and `mark` of a reply on its way back, which meets one of our own programs at TC. The index alone could be set
/// in a container and travel over a veth; the kernel clears the mark of what crosses network namespaces
/// (`skb_scrub_packet` in net/core/skbuff.c), so only who may rewrite this namespace's packets anyway can set both.
const REPLIED: u32 = 0xdf3b;
const REPLIED_MARK: u32 = 0xdf3b_7e91;

/// True if this packet is a reply that [`tc_in`] or [`tc_out`] has sent; takes the marks away. Both programs of TC ask
/// before they judge.
#[inline(always)]
pub fn take_replied(skb: *mut __sk_buff) -> bool {
    // SAFETY: context fields that the verifier permits to read at TC hooks.
    let (index, mark, came_by, ifindex) = unsafe {
        (
            (*skb).tc_index,
            (*skb).mark,
            (*skb).ingress_ifindex,
            (*skb).ifindex,
        )
    };
    // Both ways back lead through the port that the reply came in by.
    if index != REPLIED || mark != REPLIED_MARK || came_by != ifindex {
        return false;
    }
    // SAFETY: context fields that the verifier permits to write at TC hooks.
    unsafe {
        (*skb).tc_index = 0;
        (*skb).mark = 0;
    }
    true
}

#[inline(always)]
fn mark_replied(skb: *mut __sk_buff) {
    // SAFETY: context fields that the verifier permits to write at TC hooks.
    unsafe {
        (*skb).tc_index = REPLIED;
        (*skb).mark = REPLIED_MARK;
    }
}

/// Makes what a port received into the reply in `s` and sends it back. Returns what the program returns: a drop if there
/// is no reply or the frame cannot be rewritten.
#[inline(always)]
pub fn xdp(ctx: *mut xdp_md, s: &Scratch) -> u32 {
    if rewrite_xdp(ctx, s) {
        redirect(s.meta.ifindex, 0) as u32
    } else {
        xdp_code::DROP
    }
}

/// The same at TC ingress.
#[inline(always)]
pub fn tc_in(skb: *mut __sk_buff, s: &Scratch) -> i32 {
    if !rewrite_skb(skb, s) {
        return tc_code::SHOT;
    }
    mark_replied(skb);
    redirect(s.meta.ifindex, 0) as i32
}

/// The same at TC egress: the reply is received by the port. Its destination address is the one that the packet was sent
/// from, the port's own, so that the stack takes it for its own.
#[inline(always)]
pub fn tc_out(skb: *mut __sk_buff, s: &Scratch) -> i32 {
    if !rewrite_skb(skb, s) {
        return tc_code::SHOT;
    }
    mark_replied(skb);
    redirect(s.meta.ifindex, INGRESS) as i32
}

#[inline(always)]
fn redirect(ifindex: u32, flags: u64) -> i64 {
    // SAFETY: the helper takes numbers only; a bad index makes the kernel drop the packet.
    unsafe { bpf_redirect(ifindex, flags) }
}

/// A length as the helpers want it: not 0, and within a buffer of `ROOM` bytes, a power of two, by a mask that the verifier
/// of 6.1 follows.
#[inline(always)]
fn bounded<const ROOM: u32>(len: u32) -> u32 {
    (black_box(len - 1) & (ROOM - 1)) + 1
}

/// What a reply is made of: place in the frame, memory, length.
type Piece = (u32, *mut c_void, u32);

/// Writes link header and packet through one of the store-bytes helpers.
#[inline(always)]
fn write(reply: &Reply, store: impl Fn(Piece) -> bool) -> bool {
    if reply.offset != 0 {
        // SAFETY: the link header begins two bytes after the array's start. Behind its 24 bytes lie 24 more of the reply,
        // so that the helper stays in it with whatever the mask lets through.
        let link = unsafe { reply.link.as_ptr().cast::<u8>().add(ETHERNET_SKIP as usize) };
        if !store((0, link.cast_mut().cast(), bounded::<32>(reply.offset))) {
            return false;
        }
    }
    let words = reply.words.as_ptr().cast_mut().cast();
    store((
        reply.offset,
        words,
        bounded::<{ 4 * REPLY_WORDS as u32 }>(reply.len),
    ))
}

/// Cuts or grows the frame to the reply's length, fragments of a large one included, and writes the reply. It grows in
/// front: every driver leaves headroom for XDP, but veth leaves no tailroom to a packet that it has copied.
#[inline(always)]
fn rewrite_xdp(ctx: *mut xdp_md, s: &Scratch) -> bool {
    let reply = &s.reply;
    if reply.len == 0 {
        return false;
    }
    let change = (reply.offset + reply.len).wrapping_sub(s.meta.len) as i32;
    // SAFETY: the helpers take the context and a number; they refuse lengths that the buffer has no room for.
    let changed = unsafe {
        if change > 0 {
            bpf_xdp_adjust_head(ctx, -change)
        } else {
            bpf_xdp_adjust_tail(ctx, change)
        }
    };
    changed as i32 == 0
        && write(reply, |(at, from, len)| {
            // SAFETY: the helper only reads `from`, which has `len` bytes; it checks the frame's length.
            unsafe { bpf_xdp_store_bytes(ctx, at, from, len) as i32 == 0 }
        })
}

/// Cuts or grows the packet to the reply's length and writes the reply. `bpf_skb_change_tail` is made for this: it takes
/// clones, fragments and segmentation away.
#[inline(always)]
fn rewrite_skb(skb: *mut __sk_buff, s: &Scratch) -> bool {
    let reply = &s.reply;
    if reply.len == 0 {
        return false;
    }
    let total = reply.offset + reply.len;
    // SAFETY: the helper takes the context and a number; it refuses lengths that are too short or too long.
    if unsafe { bpf_skb_change_tail(skb, total + SHIFT, 0) } as i32 != 0 {
        return false;
    }
    forget_checksum(skb, total);
    write(reply, |(at, from, len)| {
        let flags = RECOMPUTE_CSUM | INVALIDATE_HASH;
        // SAFETY: the helper only reads `from`, which has `len` bytes; it checks the packet's length.
        unsafe { bpf_skb_store_bytes(skb.cast(), at, from, len, flags) as i32 == 0 }
    })
}

/// Takes the surplus of [`SHIFT`] bytes away, if possible in front of the network header. A packet whose transport
/// checksum was left to the hardware (`CHECKSUM_PARTIAL`) would have the reply's finished one spoilt; nothing tells a
/// program so, but the kernel forgets it when the packet's start moves beyond the place where the sum begins
/// (`__skb_postpull_rcsum` in include/linux/skbuff.h).
#[inline(always)]
fn forget_checksum(skb: *mut __sk_buff, total: u32) {
    // SAFETY: the helper takes the context and numbers.
    let moved = unsafe { bpf_skb_adjust_room(skb, -(SHIFT as i32), ROOM_MAC, 0) };
    if moved as i32 != 0 {
        // A protocol that the helper does not know, such as an inner tag: the checksum stays as it was.
        // SAFETY: as above. If it fails the packet has trailing zeros, which the IP header does not count.
        unsafe { bpf_skb_change_tail(skb, total, 0) };
    }
}
