//! Sources: who proves that he exists, and who is denied too often.

use super::{Outcome, Scratch, Tables, answer, finish, source};
use crate::abi::Reason;
use crate::reply;

/// Resets that are looked at for a proof, per CPU and coarse window of 2^26 ns (67 ms).
const PROOFS_PER_WINDOW: u32 = 256;

/// Looks at a reset that belongs to no flow: does it answer a demand for proof? Guesses are limited per CPU and window, so that
/// nobody can try all 65,536 numbers.
#[inline(always)]
pub(super) fn judge<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> Outcome {
    let now = t.now();
    let window = (now >> 26) as u32;
    if t.dry_run() {
        return Outcome::miss();
    }
    if s.proof_window != window {
        s.proof_window = window;
        s.proofs_left = PROOFS_PER_WINDOW;
    }
    if s.proofs_left == 0 {
        return Outcome::miss();
    }
    s.proofs_left -= 1;
    let Some(key) = answer::secret(t) else {
        return Outcome::miss();
    };
    if !reply::proves(&s.meta, key, now) {
        return Outcome::miss();
    }
    s.reversed = 0;
    source::proves(t, s, now);
    Outcome::drop(Reason::SynProved)
}

/// Counts a denied packet for its source.
#[inline(always)]
pub(super) fn count_denied<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> u32 {
    if source::denied(t, s) {
        finish::note(t, s, Reason::Scan as u32);
    }
    0
}
