//! `fw-common`: everything of dpufw that is pure. `no_std`, no aya, no I/O; time is an argument.
//!
//! Three layers, arrows point to the left only:
//!
//! 1. [`abi`]: data shared with the kernel: keys, values, events, the table of reasons. Sizes are asserted.
//! 2. [`wire`], [`tcp`], [`classify`]: parsing, the TCP machine, class look-up: pure functions.
//! 3. [`pipeline`]: the order of steps, generic over [`pipeline::Packet`] and [`pipeline::Tables`], so the same code
//!    runs in the kernel program, in unit tests and under a fuzzer.
#![no_std]
#![forbid(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "a BPF function call costs the verifier a walk of its own; what is a stage is chosen by hand"
)]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod classify;
pub mod fragment;
pub mod limit;
pub mod pipeline;
pub mod reply;
pub mod tcp;
pub mod wire;
