//! The decision, and the bucket that CPUs share.

use crate::abi::Shared;

/// How far the clocks of two packets may lie apart when they meet at a bucket, ticks: 17 s. A CPU that read its clock
/// before another one spent the burst finds a bucket further ahead than the burst; were that taken for an impossible
/// value, it would get a burst of its own.
pub const SKEW: u64 = 1 << 42;

/// Compare-and-swap tries for one packet.
pub const TRIES: u32 = 4;

/// Whether `cost` fits at `now` (monotonic, ns) into a bucket with the theoretical arrival time `tat`: `Some` of the new one,
/// never 0. `tat` 0: never used. `cost` and `burst` are ticks of a [`super::Rate`].
///
/// Same decisions as the textbook (`max(tat, now) + cost <= now + burst`), but on differences of wrapping time. A `tat` in
/// the past, or further ahead than `burst` and [`SKEW`], cannot come from this rate and clock and counts as idle: it grants
/// one burst, no more. So what was left by another rate, another clock or 2.28 years ago never locks the bucket for longer
/// than `burst` and [`SKEW`].
#[inline(always)]
#[must_use]
pub fn admit(tat: u64, now: u64, cost: u64, burst: u64) -> Option<u64> {
    let now = now << 8;
    let ahead = tat.wrapping_sub(now);
    let idle = tat == 0 || ahead > burst.wrapping_add(SKEW);
    let used = if idle { cost } else { ahead.wrapping_add(cost) };
    if used > burst {
        return None;
    }
    let next = now.wrapping_add(used);
    // 0 means never used: one tick later is close enough.
    Some(if next == 0 { 1 } else { next })
}

/// What became of a packet at a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Within the rate, and charged.
    Admitted,
    /// Over the rate; nothing is charged.
    Over,
    /// Other CPUs changed the bucket at each of [`TRIES`] tries: denied, nothing is charged.
    Contended,
}

/// Gives back what was charged, unless other CPUs change the bucket at each of [`TRIES`] tries: then it is left to drain.
#[inline(always)]
pub fn give_back(cell: &Shared<u64>, cost: u64, swap: impl Fn(&Shared<u64>, u64, u64) -> bool) {
    let mut tries = 0;
    while tries < TRIES {
        let tat = cell.load();
        // Never used: nothing was charged. A time in the past counts as idle, however far.
        if tat == 0 || swap(cell, tat, tat.wrapping_sub(cost).max(1)) {
            return;
        }
        tries += 1;
    }
}

/// Charges `cost` to the bucket in `cell` at `now` (monotonic, ns; not the coarse clock). `swap` is compare-and-swap: it stores
/// the second number if the cell holds the first, and says whether it did.
#[inline(always)]
pub fn take(
    cell: &Shared<u64>,
    now: u64,
    cost: u64,
    burst: u64,
    swap: impl Fn(&Shared<u64>, u64, u64) -> bool,
) -> Taken {
    let mut tries = 0;
    while tries < TRIES {
        let tat = cell.load();
        let Some(next) = admit(tat, now, cost, burst) else {
            return Taken::Over;
        };
        if swap(cell, tat, next) {
            return Taken::Admitted;
        }
        tries += 1;
    }
    Taken::Contended
}
