//! Rate limits: the generic cell rate algorithm (GCRA) as virtual scheduling, ITU-T I.371 (03/2004) annex A.1; the same in
//! the ATM Forum's Traffic Management Specification 4.0 (af-tm-0056.000).
//!
//! A bucket is one number, the theoretical arrival time (TAT): when the last unit admitted would have come if all had
//! kept to the rate. A packet conforms if the TAT that it leads to is at most a burst ahead of the clock. So there is
//! nothing to refill, and two CPUs agree through one compare-and-swap.
//!
//! **Time** is counted in ticks of 2^-8 ns and wraps every 2.28 years of uptime; only differences mean something. Nothing
//! that a bucket may hold can lock it for longer than a burst and [`SKEW`]; see [`admit`].
//!
//! **Rounding.** A [`Rate`] costs what it says or more, never less: up to 2^-31 of it for the mantissa, and up to one tick
//! a packet. One packet of 64 bytes at 400 Gbit/s costs 327.68 ticks and is charged 328.

mod bucket;
mod rate;

pub use bucket::{SKEW, TRIES, Taken, admit, give_back, take};
pub use rate::{MAX_BURST, Rate, RateError, min_burst};
