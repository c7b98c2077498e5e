//! Packets of flows whose rule measures each packet: limits on packets and bytes, and a deadline.

use super::limits::{self, Draw};
use super::{Outcome, Scratch, Tables};
use crate::abi::Reason;
use crate::classify;

/// Judges a packet of a flow by the rule with the number `s.policed`. [`Outcome::miss`]: within its measure.
#[inline(always)]
pub(super) fn judge<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> Outcome {
    let Some(lines) = t.lines_in_place(s.generation) else {
        return Outcome::drop(Reason::TableCorrupt);
    };
    if !classify::rule_of(lines, s.policed, &mut s.class) {
        return Outcome::drop(Reason::TableCorrupt);
    }
    if expired(t, s) {
        return Outcome::drop(Reason::RuleExpired);
    }
    let refused = limits::draw(t, s, Draw::Passing);
    if refused == 0 {
        Outcome::miss()
    } else {
        Outcome::from_word(refused)
    }
}

/// True if the rule in `s.class` has passed its deadline.
#[inline(always)]
pub(super) fn expired<'a, T: Tables<'a>>(t: T, s: &Scratch) -> bool {
    s.class.rule_until != 0 && t.boot_seconds() >= s.class.rule_until
}
