//! dpufw's kernel programs: the adapters of [`fw_common::pipeline`] to XDP and TC.
//!
//! `dpufw_xdp` judges what a port receives, natively; `dpufw_tc_in` does the same where a port has no native XDP;
//! `dpufw_tc_out` judges what this machine sends. All rules live in `fw-common`; all unsafe code lives in `kernel.rs`,
//! `maps.rs`, `packet.rs` and `respond.rs`.
#![no_std]
#![no_main]
#![allow(
    internal_features,
    reason = "compare-and-swap exists on the BPF target as an intrinsic only"
)]
#![feature(core_intrinsics, asm_experimental_arch)]

mod kernel;
mod maps;
mod packet;
mod respond;

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
#[cfg(feature = "log")]
use fw_common::abi::Reason;
use fw_common::abi::Verdict;
use fw_common::pipeline::judge;

use crate::kernel::Kernel;
use crate::packet::{TcIn, TcOut, Xdp};

/// Return codes of `include/uapi/linux/bpf.h`, `enum xdp_action`.
mod xdp_code {
    pub const DROP: u32 = 1;
    pub const PASS: u32 = 2;
}

/// Return codes of `include/uapi/linux/pkt_cls.h`: go on with the next program, drop.
mod tc_code {
    pub const NEXT: i32 = -1;
    pub const SHOT: i32 = 2;
}

/// Tells a developer of a state that cannot be. Compiled in by the feature `log` only: a firewall that logs by the packet
/// can be talked to death.
macro_rules! tell {
    ($ctx:expr, $outcome:expr) => {
        #[cfg(feature = "log")]
        if $outcome.reason() == Reason::Unset as u8 || $outcome.reason() == Reason::TableCorrupt as u8 {
            aya_log_ebpf::error!(&$ctx, "the packet path ended with reason {}", $outcome.reason());
        }
    };
}

/// What a port receives, at the driver.
#[xdp(frags)]
#[inline(always)]
pub fn dpufw_xdp(ctx: XdpContext) -> u32 {
    let Some(s) = maps::scratch() else {
        return xdp_code::DROP;
    };
    let outcome = judge(Xdp(ctx.ctx), Kernel, s);
    tell!(ctx, outcome);
    if maps::reports() {
        return outcome.report(s.class.decision);
    }
    match outcome.verdict() {
        Verdict::Drop => xdp_code::DROP,
        Verdict::Pass => xdp_code::PASS,
        Verdict::Forward => kernel::redirect(s.port.peer_ifindex) as u32,
        Verdict::Reply => respond::xdp(ctx.ctx, s),
    }
}

/// What a port receives, where it has no native XDP.
#[classifier]
#[inline(always)]
pub fn dpufw_tc_in(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    if respond::take_replied(skb) {
        return tc_code::NEXT;
    }
    let Some(s) = maps::scratch() else {
        return tc_code::SHOT;
    };
    let outcome = judge(TcIn(skb), Kernel, s);
    tell!(ctx, outcome);
    if maps::reports() {
        return outcome.report(s.class.decision) as i32;
    }
    match outcome.verdict() {
        Verdict::Drop => tc_code::SHOT,
        Verdict::Pass => {
            packet::clear_mark(skb);
            tc_code::NEXT
        }
        Verdict::Forward => {
            packet::mark_judged(skb);
            kernel::redirect(s.port.peer_ifindex) as i32
        }
        Verdict::Reply => respond::tc_in(skb, s),
    }
}

/// What this machine sends or forwards.
#[classifier]
#[inline(always)]
pub fn dpufw_tc_out(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some(s) = maps::scratch() else {
        return tc_code::SHOT;
    };
    if respond::take_replied(skb) || packet::take_judged(skb, s) {
        return tc_code::NEXT;
    }
    let outcome = judge(TcOut(skb), Kernel, s);
    tell!(ctx, outcome);
    if maps::reports() {
        return outcome.report(s.class.decision) as i32;
    }
    match outcome.verdict() {
        Verdict::Drop => tc_code::SHOT,
        Verdict::Pass | Verdict::Forward => tc_code::NEXT,
        Verdict::Reply => respond::tc_out(skb, s),
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No panic can be reached: the verifier would refuse a program with this loop in its way.
    loop {}
}

/// The licence that the kernel reads; helpers that are GPL only need it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
