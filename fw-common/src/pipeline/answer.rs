//! The answers that the firewall sends itself.

use super::{Scratch, Tables};
use crate::abi::Reason;
use crate::reply;

/// Writes the answer for the reason in `s.word` into `s.reply`; the head of the frame was captured. Returns its length, 0 if
/// this packet gets none.
#[inline(always)]
pub(super) fn write<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> u32 {
    if s.word & 0xff == Reason::SynProof as u32 {
        let Some(key) = secret(t) else { return 0 };
        reply::ask_for_proof(&s.meta, key, t.now(), &mut s.reply);
    } else {
        reply::reject(&s.meta, &mut s.reply);
    }
    s.reply.len
}

/// The key of the hashes in proofs.
#[inline(always)]
pub(super) fn secret<'a, T: Tables<'a>>(t: T) -> Option<[u64; 2]> {
    let control = t.control()?;
    Some([control.secret[0].load(), control.secret[1].load()])
}
