//! Coarse time, read once in a tick.

use super::{Scratch, Tables};

/// [`Tables::now`], ns. It changes with the kernel's tick only (`kernel/time/timekeeping.c`), so the clock is read where
/// [`Tables::tick`] has changed since this CPU's last packet; the tick itself is one load.
#[inline(always)]
pub(super) fn now<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> u64 {
    let tick = t.tick();
    if s.tick != tick {
        core::hint::cold_path();
        s.tick = tick;
        s.now = t.now();
    }
    s.now
}
