//! Fragments: each is tied to its datagram before anything else is asked. The first one is judged like a whole packet; the
//! later ones share its ports, its flow and its fate.

use super::{Outcome, Scratch, Tables, hit};
use crate::abi::{ClassFlags, PairEntry, Proto, Reason, RuleFlags, Side, Verdict};
use crate::classify::{self, CORRUPT};
use crate::fragment::{self, Cover, First, LiveDatagram, Piece};

/// May the bytes of this fragment pass, and what is it a fragment of? [`Outcome::miss`]: the way goes on; a later fragment
/// has the ports of its first one by then.
#[inline(always)]
pub(super) fn judge<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> Outcome {
    s.fragment_key.set(&s.meta);
    // What comes in by another side is another datagram: nobody can spoil one from the wrong side.
    s.fragment_key.pad = u16::from(s.meta.side);
    let Some(lines) = t.lines(s.generation) else {
        return Outcome::drop(Reason::TableCorrupt);
    };
    let Some(protect) = classify::protect(lines) else {
        return Outcome::drop(Reason::TableCorrupt);
    };
    let later = hit::later_fragment(s);
    let early = protect.w[2] != 0;
    s.policed = 0;
    let make = !later || early;
    let Some(datagram) = entry(t, s, make) else {
        if !make {
            return Outcome::drop(Reason::FragmentEarly);
        }
        return if t.dry_run() && !later {
            Outcome::miss()
        } else {
            Outcome::drop(if t.dry_run() {
                Reason::FragmentEarly
            } else {
                Reason::TableMemory
            })
        };
    };
    // What leaves again was covered when it came in, and a question covers nothing.
    if s.meta.forwarded == 0 && !t.dry_run() {
        let refused = cover(t, s, datagram, early);
        if refused != 0 {
            return Outcome::from_word(refused);
        }
    }
    if later {
        follow::<T>(s, lines, datagram, early)
    } else {
        Outcome::miss()
    }
}

/// The datagram's entry, made if need be.
#[inline(always)]
fn entry<'a, T: Tables<'a>>(t: T, s: &mut Scratch, make: bool) -> Option<&'a LiveDatagram> {
    if let Some(datagram) = t.datagram(&s.fragment_key) {
        return Some(datagram);
    }
    if t.dry_run() || !make {
        return None;
    }
    s.datagram.created = t.now();
    let _exists_now = t.insert_datagram(&s.fragment_key, &s.datagram);
    t.datagram(&s.fragment_key)
}

/// 0, or the number of the reason for which these bytes may not pass.
#[inline(always)]
fn cover<'a, T: Tables<'a>>(t: T, s: &mut Scratch, datagram: &LiveDatagram, early: bool) -> u32 {
    let piece = Piece {
        start: s.meta.frag_offset,
        len: s.meta.frag_len,
        more: s.meta.frag_more != 0,
    };
    let family = s.meta.family;
    let cover = fragment::arrive(
        datagram,
        piece,
        (family, early),
        t.now(),
        &mut s.scan,
        |cell, old, new| t.swap(cell, old, new),
    );
    let reason = match cover {
        Cover::New => return 0,
        Cover::Duplicate => Reason::FragmentDuplicate,
        Cover::Overlap => Reason::FragmentOverlap,
        Cover::TooMany => Reason::FragmentRanges,
        Cover::Busy => Reason::TableBusy,
        Cover::Early => Reason::FragmentEarly,
    };
    reason as u32
}

/// A later fragment takes over what its first one was.
#[inline(always)]
fn follow<'a, T: Tables<'a>>(
    s: &mut Scratch,
    lines: T::Lines,
    datagram: &LiveDatagram,
    early: bool,
) -> Outcome {
    let first = datagram.first();
    if first.has(First::ALLOWED) {
        datagram.fill_in(&mut s.meta);
        s.goes_on = u32::from(first.has(First::FITS));
        return Outcome::miss();
    }
    if first.has(First::UNTRACKED) && datagram.generation.load() == s.generation {
        // The rule measures the later fragments too: the caller asks the stage.
        s.policed = datagram.rule.load();
        let to = if datagram.up.load() != 0 {
            Side::Own
        } else {
            through(s)
        };
        return Outcome::deliver(s, to, Reason::FragmentPass);
    }
    if first.known() {
        return Outcome::drop(Reason::FragmentDenied);
    }
    if !early {
        return Outcome::drop(Reason::FragmentEarly);
    }
    match some_rule_allows::<T>(s, lines) {
        Some(to) => Outcome::deliver(s, to, Reason::FragmentEarlyPass),
        None => Outcome::drop(Reason::FragmentEarly),
    }
}

/// Where an early fragment goes if some rule allows a flow of its protocol between the two addresses, either way. It shows
/// no ports; without its first one, which is judged, nobody can put it together.
#[inline(always)]
fn some_rule_allows<'a, T: Tables<'a>>(s: &mut Scratch, lines: T::Lines) -> Option<Side> {
    let Ok(realm) = classify::realm_record(lines, (s.meta.vlan, s.meta.inner_vlan)) else {
        return None;
    };
    let (src, dst) = classes::<T>(s, lines, realm);
    if src == CORRUPT || dst == CORRUPT {
        return None;
    }
    let bits = if s.meta.family == 4 {
        PairEntry::proto_bit(s.meta.proto)
    } else {
        // The next header of a later fragment may be an extension header.
        PairEntry::ANY
    };
    let own = |class| classify::class_flags(lines, class) & ClassFlags::OWN != 0;
    if s.meta.egress == 0 && own(src) {
        return None;
    }
    let search = &mut s.class.search;
    if classify::allowed_protocols(lines, (src, dst), bits, search) == 0
        && classify::allowed_protocols(lines, (dst, src), bits, search) == 0
    {
        return None;
    }
    Some(if own(dst) { Side::Own } else { through(s) })
}

#[inline(always)]
fn classes<'a, T: Tables<'a>>(s: &mut Scratch, lines: T::Lines, realm: u32) -> (u32, u32) {
    use crate::abi::{Ip4, Ip6};
    use crate::classify::Address;
    let (src, dst) = (s.meta.src, s.meta.dst);
    let walk = &mut s.class.walk;
    if s.meta.family == 4 {
        let from = Ip4(src[0]).class(lines, realm, walk);
        (from, Ip4(dst[0]).class(lines, realm, walk))
    } else {
        let from = Ip6(src).class(lines, realm, walk);
        (from, Ip6(dst).class(lines, realm, walk))
    }
}

/// The far side of the port, as for a packet of nobody's flow.
#[inline(always)]
fn through(s: &Scratch) -> Side {
    if s.meta.side == Side::Own as u8 {
        Side::from_bits(u32::from(s.port.side))
    } else if s.port.side == Side::Outer as u8 {
        Side::Inner
    } else {
        Side::Outer
    }
}

/// Notes what became of a first fragment, whose outcome's word is in `s.word`. Returns 0.
#[inline(always)]
pub(super) fn done<'a, T: Tables<'a>>(t: T, s: &mut Scratch) -> u32 {
    if t.dry_run() {
        return 0;
    }
    let outcome = Outcome::from_word(s.word);
    let Some(datagram) = t.datagram(&s.fragment_key) else {
        return 0;
    };
    let passes = matches!(outcome.verdict(), Verdict::Pass | Verdict::Forward);
    let reason = u32::from(outcome.reason());
    let with_flow = reason != Reason::Untracked as u32
        && reason != Reason::Related as u32
        && reason != Reason::LinkDhcp as u32
        && (s.meta.proto != Proto::ICMPV6 || reason != Reason::LinkMulticast as u32);
    let what = if !passes {
        First::DENIED
    } else if with_flow {
        First::ALLOWED
    } else {
        First::UNTRACKED
    };
    datagram.generation.store(s.generation);
    let measured = reason == Reason::Untracked as u32 && s.class.rule_flags & RuleFlags::POLICED != 0;
    datagram.rule.store(if measured { s.policed } else { 0 });
    datagram
        .up
        .store(u32::from(matches!(outcome.verdict(), Verdict::Pass)));
    datagram.note_first(&s.meta, what);
    0
}
