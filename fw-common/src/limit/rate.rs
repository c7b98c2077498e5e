//! What a unit costs in time, as two words and a burst.

use core::fmt;

/// The longest burst, in ticks: 52 days. Far below the 2.28 years after which time wraps.
pub const MAX_BURST: u64 = 1 << 60;
/// The most that one unit may cost, in ticks: 13 days.
const MAX_UNIT: u64 = 1 << 58;
/// A cost that no burst covers; costs saturate here, so that `burst + SKEW + cost` stays below 2^63.
const NEVER: u64 = 1 << 62;
/// Units that cost less than this many ticks (more than 62,500,000 a second) can only be bytes.
const BYTES_BELOW: u64 = 1 << 12;
/// The shortest Ethernet frame.
const FRAME: u64 = 64;
/// From here on a shift goes to the left.
const LEFT: u32 = 32;

/// A rate and its burst, in the form that the kernel computes with. Units are packets (segments of a GSO super-packet),
/// bytes as on the wire, or new flows.
///
/// A unit costs `mantissa / 2^shift` ticks (2^-8 ns), or `mantissa * 2^(shift - 32)` if `shift` is above 31. The mantissa
/// has its highest bit set, so its rounding is at most 2^-31 of the cost, and upwards. All zeros is no rate: it admits
/// nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// 2^31 to 2^32 - 1.
    pub mantissa: u32,
    /// 0 to 31: to the right; above: to the left by `shift - 32`.
    pub shift: u32,
    /// How far the bucket may run ahead of the clock, ticks (2^-8 ns).
    pub burst: u64,
}

impl Rate {
    /// `units` every `per_ns` nanoseconds, of which `burst_units` may come at once.
    ///
    /// The burst is stored as the cost of that many packets of one unit, so that exactly `burst_units` pass at once. For
    /// byte rates above 500 Mbit/s it is the cost of that many bytes in frames of 64.
    ///
    /// # Errors
    /// [`RateError`]: an argument is 0, a unit costs less than a tick or more than 13 days, or the burst lasts longer than
    /// [`MAX_BURST`].
    pub const fn new(units: u64, per_ns: u64, burst_units: u64) -> Result<Self, RateError> {
        if units == 0 || per_ns == 0 {
            return Err(RateError::Zero);
        }
        if burst_units == 0 {
            return Err(RateError::NoBurst);
        }
        let mut rate = match normalise(units, per_ns) {
            Ok((mantissa, shift)) => Self {
                mantissa,
                shift,
                burst: 0,
            },
            Err(error) => return Err(error),
        };
        let unit = rate.cost(1);
        if unit > MAX_UNIT {
            return Err(RateError::TooSlow);
        }
        let (count, each) = if unit < BYTES_BELOW {
            (burst_units.div_ceil(FRAME), rate.cost(FRAME as u32))
        } else {
            (burst_units, unit)
        };
        match count.checked_mul(each) {
            Some(burst) if burst <= MAX_BURST => rate.burst = burst,
            _ => return Err(RateError::BurstTooLong),
        }
        Ok(rate)
    }

    /// What `units` cost, in ticks (2^-8 ns), rounded up; at least 1. A cost above 2^62 is 2^62, which no burst covers.
    #[inline(always)]
    #[must_use]
    pub const fn cost(self, units: u32) -> u64 {
        // Both factors have 32 bits, so the product has 64, and is at most 2^64 - 2^33 + 1: rounding up fits too.
        let product = self.mantissa as u64 * units as u64;
        let shift = self.shift & 31;
        let cost = if self.shift < LEFT {
            (product + ((1 << shift) - 1)) >> shift
        } else if product > NEVER >> shift {
            NEVER
        } else {
            product << shift
        };
        if cost > NEVER {
            NEVER
        } else if cost == 0 {
            1
        } else {
            cost
        }
    }

    /// The rate as it lies in a table set: mantissa, shift, burst (low word, high word).
    #[must_use]
    pub const fn words(self) -> [u32; 4] {
        [
            self.mantissa,
            self.shift,
            self.burst as u32,
            (self.burst >> 32) as u32,
        ]
    }

    /// The opposite of [`Rate::words`].
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self {
            mantissa: words[0],
            shift: words[1],
            burst: words[2] as u64 | (words[3] as u64) << 32,
        }
    }
}

/// Mantissa and shift of `per_ns * 2^8 / units`, rounded up: long division, bit by bit, because the target has no
/// 128-bit arithmetic.
const fn normalise(units: u64, per_ns: u64) -> Result<(u32, u32), RateError> {
    let mut quotient = per_ns / units;
    let mut rest = per_ns % units;
    // The quotient stands for `quotient * 2^exponent` ticks.
    let mut exponent: i32 = 8;
    while quotient < 1 << 31 {
        if exponent == -31 {
            return Err(RateError::TooFast);
        }
        // `2 * rest >= units`, without the overflow.
        let one = rest >= units - rest;
        rest = if one { rest - (units - rest) } else { rest << 1 };
        quotient = quotient << 1 | one as u64;
        exponent -= 1;
    }
    let mut inexact = rest != 0;
    while quotient >> 32 != 0 {
        inexact |= quotient & 1 != 0;
        quotient >>= 1;
        exponent += 1;
    }
    quotient += inexact as u64;
    if quotient >> 32 != 0 {
        quotient >>= 1;
        exponent += 1;
    }
    let shift = if exponent > 0 {
        exponent.unsigned_abs() + LEFT
    } else {
        exponent.unsigned_abs()
    };
    if exponent > 31 {
        return Err(RateError::TooSlow);
    }
    Ok((quotient as u32, shift))
}

/// The smallest burst, in units, at which two CPUs that read the clock apart from each other still reach the rate: what it
/// allows in 10 microseconds, and at least 1, or 2 where a unit lasts less than 20 microseconds.
///
/// A burst of a single unit makes good for no delay: each unit passes only after the one before has been paid for, so what the
/// next packet comes late, a quarter of a microsecond in the mean, is lost. Of 10 microseconds that is 2.7 % (measured at
/// 100,000 packets a second by `tests/tests/stress/limits.rs`), of 20 half as much.
#[must_use]
pub const fn min_burst(units: u64, per_ns: u64) -> u64 {
    const WINDOW_NS: u64 = 10_000;
    if per_ns == 0 {
        return 1;
    }
    let whole = (units / per_ns).saturating_mul(WINDOW_NS);
    let part = (units % per_ns).saturating_mul(WINDOW_NS).div_ceil(per_ns);
    let burst = whole.saturating_add(part);
    let least = if units.saturating_mul(2 * WINDOW_NS) > per_ns {
        2
    } else {
        1
    };
    if burst < least { least } else { burst }
}

/// Why numbers make no [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateError {
    /// No units, or no time.
    Zero,
    /// No unit may ever pass.
    NoBurst,
    /// A unit costs more than 13 days.
    TooSlow,
    /// A unit costs less than 2^-8 ns.
    TooFast,
    /// The burst lasts longer than [`MAX_BURST`].
    BurstTooLong,
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "a rate of 0 lets nothing pass: write a deny rule instead, or at least 1",
            Self::NoBurst => "a burst of 0 lets nothing pass: write at least 1",
            Self::TooSlow => "the rate is too slow to be measured: at least 1 every 13 days is needed",
            Self::TooFast => {
                "the rate is too fast to be measured: at most 256,000,000,000 a second (bytes: 2 Tbit/s)"
            }
            Self::BurstTooLong => {
                "the burst is more than the rate allows in 52 days: make it smaller, or the rate faster"
            }
        })
    }
}

impl core::error::Error for RateError {}
