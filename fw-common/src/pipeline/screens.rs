//! Screens: packets that no honest stack sends, each dropped, counted or let alone as the policy's protect section says.

use super::{Outcome, Scratch, Tables, finish};
use crate::abi::{ClassFlags, Mode, Reason, Screen, Side};
use crate::classify;

/// The screens whose bits parsing has set in `meta.screens`. [`Outcome::miss`]: the packet goes on.
#[inline(always)]
pub(super) fn parsed<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> Outcome {
    let bits = s.meta.screens;
    strike(t, s, bits)
}

/// What the screens with these bits do with their packet. It has one reason: that of the lowest bit which drops, else it is
/// counted under the lowest which counts and goes on ([`Outcome::miss`]).
#[inline(always)]
fn strike<'a, T: Tables<'a>>(t: T, s: &mut Scratch, bits: u32) -> Outcome {
    let Some(protect) = t.lines(s.generation).and_then(classify::protect) else {
        return Outcome::drop(Reason::TableCorrupt);
    };
    let drops = bits & protect.w[0];
    if drops != 0 {
        return Outcome::from_word(first(drops));
    }
    let counts = bits & protect.w[1];
    if counts != 0 {
        finish::note(t, s, first(counts));
    }
    Outcome::miss()
}

/// Number of the reason of the lowest bit.
#[inline(always)]
fn first(bits: u32) -> u32 {
    let mut index = 0;
    while index < Screen::ALL.len() as u32 && bits >> index & 1 == 0 {
        index += 1;
    }
    Reason::TtlZero as u32 + index
}

/// The screens that need the addresses and their classes; [`Outcome::miss`]: the packet goes on. Asked of packets that may
/// open a flow; a flow's later packets have the addresses that its first one had.
#[inline(always)]
pub(super) fn addresses<'a, T: Tables<'a>>(t: T, s: &mut Scratch, lines: T::Lines) -> Outcome {
    let (from, to) = (
        ClassFlags::plane(s.class.src.flags),
        ClassFlags::plane(s.class.dst.flags),
    );
    let bit = |found: bool, screen: Screen| if found { screen.bit() } else { 0 };
    let bits = bit(same_ends(s), Screen::Land)
        | bit(impossible(s), Screen::ImpossibleSource)
        | bit(
            from | to != 0 && planes_mismatch::<T>(s, lines, from, to),
            Screen::PlaneMismatch,
        );
    if bits == 0 {
        return Outcome::miss();
    }
    strike(t, s, bits)
}

#[inline(always)]
fn same_ends(s: &Scratch) -> bool {
    let (a, b) = (&s.meta.src, &s.meta.dst);
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
}

/// Sources that no host can have: IPv4 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 and 240.0.0.0/4 (RFC 6890 section 2.2.2, RFC 1122
/// section 3.2.1.3); IPv6 `::`, `::1`, `ff00::/8` and `::ffff:0:0/96` (RFC 4291 section 2.5 and 2.7, RFC 6890 section 2.2.3).
#[inline(always)]
fn impossible(s: &Scratch) -> bool {
    let a = &s.meta.src;
    if s.meta.family == 4 {
        let top = a[0] >> 24;
        return top == 0 || top == 127 || top >= 224;
    }
    if a[0] >> 24 == 0xff {
        return true;
    }
    a[0] | a[1] == 0 && ((a[2] == 0 && a[3] <= 1) || a[2] == 0xffff)
}

/// Plane binding. Mode `inline`: the source's plane must be bound to the role of the port that the packet came by, the
/// destination's to the pair's other port. Mode `host`: the local end's plane must be bound to the port; the far end's too if
/// both lie in one plane or the local end in none. Traffic between planes is routed, so its far end comes by the local end's
/// port. A plane that is bound to no role may use any port.
#[inline(always)]
fn planes_mismatch<'a, T: Tables<'a>>(s: &Scratch, lines: T::Lines, from: u32, to: u32) -> bool {
    let (Some(from_roles), Some(to_roles)) = (
        classify::plane_roles(lines, from),
        classify::plane_roles(lines, to),
    ) else {
        return true;
    };
    let unbound = |roles: u32, role: u8| roles != 0 && roles >> (role & 31) & 1 == 0;
    let own = s.meta.side == Side::Own as u8;
    if s.port.mode == Mode::Inline as u8 && !own && s.class.dst.flags & ClassFlags::OWN == 0 {
        return unbound(from_roles, s.port.role) || unbound(to_roles, s.port.peer_role);
    }
    let ((local, local_roles), (far, far_roles)) = if own {
        ((from, from_roles), (to, to_roles))
    } else {
        ((to, to_roles), (from, from_roles))
    };
    unbound(local_roles, s.port.role) || ((local == 0 || local == far) && unbound(far_roles, s.port.role))
}
