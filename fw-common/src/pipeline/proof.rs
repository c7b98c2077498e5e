//! Sources: who proves that he exists, and who is denied too often.

use super::{Outcome, Scratch, Tables, admit, answer, finish, source};
use crate::abi::Reason;
use crate::reply;

/// Resets of one source that are looked at for a proof: one in 250 ms (ticks of 2^-8 ns) ...
const LOOK: u64 = 250_000_000 << 8;
/// ... and so many at once. By source, so that a flood of resets of others uses up nobody's.
const LOOKS: u64 = 4;

/// Looks at a reset that belongs to no flow: does it answer a demand for proof? Guesses are limited by source, so that
/// nobody can try all 65,536 numbers.
#[inline(always)]
pub(super) fn judge<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> Outcome {
    if t.dry_run() {
        return Outcome::miss();
    }
    s.reversed = 0;
    source::key(s);
    let slot = source::slot(t, s);
    if !admit::drawn(t, slot, t.precise(), (LOOK, LOOKS * LOOK)) {
        return Outcome::miss();
    }
    let now = t.now();
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

/// Counts a denied packet for its source, which was found [`source::marked`].
#[inline(always)]
pub(super) fn count_denied<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> u32 {
    // A question counts nothing and bans nobody.
    if !t.dry_run() && source::denied(t, s) {
        finish::note(t, s, Reason::Scan as u32);
    }
    0
}
