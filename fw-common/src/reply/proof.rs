//! The SYN proof: a stateless question that only the true owner of a source address can answer.
//!
//! A SYN is answered with a SYN-ACK that acknowledges a number below the client's initial one. A client in SYN-SENT
//! refuses such a segment with a reset whose sequence number is that number (RFC 9293 section 3.10.7.3), and keeps
//! trying; Linux sends its SYN again after two ticks (`tcp_rcv_synsent_state_process`). The low 16 bits of the number are
//! a keyed hash of addresses, ports, realm and time, so the reset proves that the client saw the question, and nothing needs
//! to be remembered.
//!
//! The number lies less than 65,536 below the initial one: a client's own `nf_conntrack` lets acknowledgements through
//! that are at most 66,000 behind (`MAXACKWINCONST` in its `nf_conntrack_proto_tcp.c`).

use super::reject::may_answer;
use super::{Reply, siphash, write};
use crate::abi::Proto;
use crate::wire::{Meta, tcp_flag};

/// Time after which questions look different, ns (4.3 s). A question can be answered in its own slot of time and in the
/// next: for 4.3 to 8.6 s.
pub const PROOF_SLOT_NS: u64 = 1 << PROOF_SLOT_SHIFT;
const PROOF_SLOT_SHIFT: u32 = 32;

/// Keyed hash of what a client's SYN and its reset have in common.
#[inline(always)]
fn keyed(m: &Meta, key: [u64; 2], slot: u64) -> u64 {
    let pair = |high: u32, low: u32| (u64::from(high) << 32) | u64::from(low);
    siphash::hash(
        key,
        [
            pair(m.src[0], m.src[1]),
            pair(m.src[2], m.src[3]),
            pair(m.dst[0], m.dst[1]),
            pair(m.dst[2], m.dst[3]),
            (u64::from(m.family) << 56)
                | (u64::from(m.realm) << 32)
                | (u64::from(m.sport) << 16)
                | u64::from(m.dport),
            slot,
        ],
    )
}

/// Writes the SYN-ACK that asks the sender of the captured SYN for a proof. `now` is coarse time, ns.
#[inline(always)]
pub fn ask_for_proof(m: &Meta, key: [u64; 2], now: u64, reply: &mut Reply) {
    use tcp_flag::{ACK, FIN, RST, SYN};
    reply.len = 0;
    if !may_answer(m, reply) || m.proto != Proto::TCP || m.tcp_flags & (SYN | ACK | RST | FIN) != SYN {
        return;
    }
    let hash = keyed(m, key, now >> PROOF_SLOT_SHIFT);
    // The largest number below the initial one whose low half is the cookie.
    let below = m.seq.wrapping_sub(1);
    let ack = below.wrapping_sub(below.wrapping_sub(hash as u32) & 0xffff);
    write::tcp(
        m,
        reply,
        write::Segment {
            seq: (hash >> 32) as u32,
            ack,
            flags: SYN | ACK,
        },
    );
}

/// True if this segment is the reset that answers a question of the last two slots of time. Who guesses is right once in
/// 32,768 tries.
#[inline(always)]
#[must_use]
pub fn proves(m: &Meta, key: [u64; 2], now: u64) -> bool {
    use tcp_flag::{ACK, RST, SYN};
    if m.proto != Proto::TCP || m.tcp_flags & (RST | SYN | ACK) != RST {
        return false;
    }
    let slot = now >> PROOF_SLOT_SHIFT;
    let wrong = |slot| (keyed(m, key, slot) ^ u64::from(m.seq)) & 0xffff;
    wrong(slot) == 0 || wrong(slot.wrapping_sub(1)) == 0
}
