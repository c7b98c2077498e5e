//! The bookkeeping against a naive model, step by step, and with a second CPU at every point where one can come in.

use std::cell::Cell;
use std::vec::Vec;

use proptest::prelude::*;

use super::{Cover, First, LiveDatagram, MAX_RANGES, Piece, Progress, Scan, arrive, lifetime_ns};
use crate::abi::{Proto, Shared};
use crate::wire::Meta;

const NOW: u64 = 1_000_000_000_000;

fn swap(cell: &Shared<u32>, old: u32, new: u32) -> bool {
    let same = cell.load() == old;
    if same {
        cell.store(new);
    }
    same
}

fn datagram() -> LiveDatagram {
    let d = LiveDatagram::default();
    d.created.store(NOW);
    d
}

fn piece(start: u32, len: u32, more: bool) -> Piece {
    Piece { start, len, more }
}

/// [`arrive`], with what another fragment has left in the scratch memory.
fn judged(
    d: &LiveDatagram,
    piece: Piece,
    mode: (u8, bool),
    now: u64,
    cas: impl Fn(&Shared<u32>, u32, u32) -> bool + Copy,
) -> Cover {
    let mut scan = Scan {
        start: 1,
        end: 2,
        inside: 1,
        shares: 1,
        left: 3,
        right: 5,
        free: 7,
        beyond: 1,
    };
    arrive(d, piece, mode, now, &mut scan, cas)
}

/// A fragment arrives in mode `pass_early`, on one CPU.
fn arrives(d: &LiveDatagram, start: u32, len: u32, more: bool) -> Cover {
    judged(d, piece(start, len, more), (4, true), NOW, swap)
}

/// What has passed of a datagram, byte by byte.
#[derive(Clone, Default)]
struct Naive {
    bytes: Vec<bool>,
    end: Option<u32>,
    poisoned: bool,
    first: bool,
}

impl Naive {
    fn covered(&self, at: u32) -> bool {
        self.bytes.get(at as usize).copied().unwrap_or_default()
    }

    fn units(&self) -> u32 {
        self.bytes.len().div_ceil(8) as u32
    }

    fn complete(&self) -> bool {
        self.end.is_some_and(|end| (0..end).all(|at| self.covered(at)))
    }

    /// Separate ranges, in units of 8 bytes.
    fn ranges(&self) -> usize {
        let unit = |unit: u32| self.covered(unit * 8);
        (0..self.units())
            .filter(|at| unit(*at) && (*at == 0 || !unit(at - 1)))
            .count()
    }

    fn arrive(&mut self, p: Piece, early: bool) -> Cover {
        if self.complete() {
            *self = Self::default();
        }
        if self.poisoned {
            return Cover::Overlap;
        }
        if p.start != 0 && !early && !self.first {
            return Cover::Early;
        }
        let cover = self.add(p);
        self.poisoned = cover == Cover::Overlap;
        cover
    }

    fn add(&mut self, p: Piece) -> Cover {
        let end = p.start + p.len;
        let contradicts = match self.end {
            Some(known) if p.more => end > known,
            Some(known) => end != known,
            None => !p.more && self.bytes.iter().skip(end as usize).any(|byte| *byte),
        };
        if contradicts {
            return Cover::Overlap;
        }
        let passed = (p.start..end).filter(|at| self.covered(*at)).count() as u32;
        if passed == p.len && (p.more || self.end.is_some()) {
            return Cover::Duplicate;
        }
        if passed != 0 {
            return Cover::Overlap;
        }
        let mut next = self.clone();
        next.bytes.resize(next.bytes.len().max(end as usize), false);
        next.bytes[p.start as usize..end as usize].fill(true);
        if !p.more {
            next.end = Some(end);
        }
        if next.ranges() > MAX_RANGES {
            return Cover::TooMany;
        }
        *self = next;
        Cover::New
    }
}

/// The datagram's ranges are the model's, in no order.
fn same_ranges(d: &LiveDatagram, naive: &Naive) -> bool {
    let mut covered = 0;
    for range in &d.ranges {
        let (from, to) = (range.load() >> 16, range.load() & 0xffff);
        if !(from..to).all(|unit| naive.covered(unit * 8)) {
            return false;
        }
        covered += to - from;
    }
    let used = d.ranges.iter().filter(|range| range.load() != 0).count();
    let units = (0..naive.units()).filter(|unit| naive.covered(unit * 8)).count();
    used == naive.ranges() && covered as usize == units
}

/// Fragments of a small datagram, so that many meet.
fn pieces(most: u32) -> impl Strategy<Value = Piece> {
    (0..most, 1..=6_u32, 1..=8_u32, any::<bool>(), 0..5_u32).prop_map(|(at, units, tail, cut, last)| {
        let more = last != 0;
        let len = if more || !cut {
            units * 8
        } else {
            (units - 1) * 8 + tail
        };
        piece(at * 8, len, more)
    })
}

/// A datagram cut into fragments, in any order, some of them twice.
fn honest() -> impl Strategy<Value = Vec<Piece>> {
    (1..=12_usize, 1..=8_u32, prop::collection::vec(1..=4_u32, 12))
        .prop_map(|(count, tail, units)| {
            let mut at = 0;
            let mut list = Vec::new();
            for (index, unit) in units[..count].iter().enumerate() {
                let more = index + 1 != count;
                let len = if more { unit * 8 } else { (unit - 1) * 8 + tail };
                list.push(piece(at, len, more));
                at += len;
            }
            list
        })
        .prop_flat_map(|list| {
            let twice = prop::sample::subsequence(list.clone(), 0..=list.len());
            twice.prop_flat_map(move |twice| Just([list.clone(), twice].concat()).prop_shuffle())
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_step_agrees_with_the_naive_model(list in prop::collection::vec(pieces(40), 1..40), early: bool, first: bool) {
        let (d, mut naive) = (datagram(), Naive::default());
        for p in list {
            let expected = naive.arrive(p, early);
            prop_assert_eq!(judged(&d, p, (4, early), NOW, swap), expected, "{:?}", p);
            prop_assert_eq!(d.lock.load(), 0);
            if expected == Cover::New && p.start == 0 && first {
                naive.first = true;
                d.first.store(First::ALLOWED);
            }
            prop_assert_eq!(d.progress.load() == Progress::COMPLETE, naive.complete());
            prop_assert_eq!(d.progress.load() == Progress::POISONED, naive.poisoned);
            prop_assert!(same_ranges(&d, &naive));
        }
    }

    #[test]
    fn an_honest_datagram_passes_whole_in_any_order(list in honest()) {
        let (d, mut naive) = (datagram(), Naive::default());
        for p in list {
            let done = naive.complete();
            let cover = judged(&d, p, (6, true), NOW, swap);
            prop_assert_eq!(cover, naive.arrive(p, true));
            // Copies that come when all is through begin another datagram.
            prop_assert!(done || matches!(cover, Cover::New | Cover::Duplicate | Cover::TooMany), "{:?}", cover);
        }
    }

    /// Another CPU's fragment comes in before every compare-and-swap of this CPU's. Whatever both pass has no byte twice.
    #[test]
    fn two_cpus_never_pass_one_byte_twice(
        before in prop::collection::vec(pieces(12), 0..6),
        (mine, theirs) in (pieces(12), pieces(12)),
        at in 0..70_u32,
    ) {
        let (d, mut naive) = (datagram(), Naive::default());
        for p in before {
            prop_assert_eq!(arrives(&d, p.start, p.len, p.more), naive.arrive(p, true));
        }
        prop_assume!(!naive.complete());
        let (calls, other) = (Cell::new(0), Cell::new(None));
        let cover = judged(&d, mine, (4, true), NOW, |cell, old, new| {
            if calls.get() == at {
                other.set(Some(judged(&d, theirs, (4, true), NOW, swap)));
            }
            calls.set(calls.get() + 1);
            swap(cell, old, new)
        });
        let other = other.get();
        prop_assert!(calls.get() <= 3);
        match other {
            // While this CPU holds the lock, the other one passes nothing.
            Some(held) if at > 0 => prop_assert_eq!(held, Cover::Busy),
            Some(went_first) => {
                prop_assert_eq!(went_first, naive.arrive(theirs, true));
            }
            None => {}
        }
        prop_assert_eq!(cover, naive.arrive(mine, true));
        prop_assert_eq!(d.lock.load(), 0);
        prop_assert!(same_ranges(&d, &naive));
    }
}

#[test]
fn fragments_in_order_take_one_range() {
    let d = datagram();
    for at in 0..43 {
        assert_eq!(arrives(&d, at * 1480, 1480, true), Cover::New);
        assert_eq!(d.ranges.iter().filter(|range| range.load() != 0).count(), 1);
    }
    assert_eq!(arrives(&d, 43 * 1480, 1895, false), Cover::New);
    assert_eq!(d.progress.load(), Progress::COMPLETE);
    assert!(
        d.ranges
            .iter()
            .any(|range| range.load() == 65_535_u32.div_ceil(8))
    );
}

#[test]
fn a_ninth_range_is_one_too_many_and_a_filled_gap_makes_room() {
    let d = datagram();
    for slot in 0..8 {
        assert_eq!(arrives(&d, slot * 16, 8, true), Cover::New);
    }
    assert_eq!(arrives(&d, 8 * 16, 8, true), Cover::TooMany);
    assert_eq!(arrives(&d, 8, 8, true), Cover::New, "joins the first two");
    assert_eq!(arrives(&d, 8 * 16, 8, true), Cover::New);
    assert_eq!(d.progress.load(), Progress::OPEN);
}

#[test]
fn an_overlap_loses_the_datagram_and_a_copy_does_not() {
    let d = datagram();
    assert_eq!(arrives(&d, 0, 80, true), Cover::New);
    assert_eq!(arrives(&d, 0, 80, true), Cover::Duplicate);
    assert_eq!(arrives(&d, 16, 8, true), Cover::Duplicate);
    assert_eq!(arrives(&d, 80, 8, true), Cover::New);
    assert_eq!(arrives(&d, 72, 32, true), Cover::Overlap);
    for at in [0, 80, 88, 800] {
        assert_eq!(arrives(&d, at, 8, true), Cover::Overlap, "poisoned");
    }
}

#[test]
fn two_different_ends_are_an_overlap() {
    let ends = |second: Piece| {
        let d = datagram();
        assert_eq!(arrives(&d, 80, 20, false), Cover::New);
        judged(&d, second, (4, true), NOW, swap)
    };
    assert_eq!(ends(piece(80, 20, false)), Cover::Duplicate);
    for second in [
        piece(80, 19, false),
        piece(80, 24, false),
        piece(104, 8, false),
        piece(40, 8, false),
        piece(104, 8, true),
        piece(80, 24, true),
        piece(96, 8, true),
    ] {
        assert_eq!(ends(second), Cover::Overlap, "{second:?}");
    }
    // A last fragment before what has passed already, and one that copies what was not the last.
    for last in [piece(40, 8, false), piece(80, 8, false), piece(80, 4, false)] {
        let d = datagram();
        assert_eq!(arrives(&d, 80, 8, true), Cover::New);
        assert_eq!(judged(&d, last, (4, true), NOW, swap), Cover::Overlap, "{last:?}");
    }
}

#[test]
fn a_fragment_before_its_first_waits_for_the_callers_leave() {
    let d = datagram();
    let strict = |start| judged(&d, piece(start, 8, true), (4, false), NOW, swap);
    assert_eq!(strict(8), Cover::Early);
    assert!(d.ranges.iter().all(|range| range.load() == 0));
    assert_eq!(strict(0), Cover::New);
    assert_eq!(strict(8), Cover::Early, "not judged yet");
    d.first.store(First::DENIED);
    assert_eq!(strict(8), Cover::New);
}

#[test]
fn a_datagram_that_is_over_begins_anew() {
    let late = |family, age| {
        let d = datagram();
        d.first.store(First::ALLOWED);
        assert_eq!(arrives(&d, 0, 80, true), Cover::New);
        assert_eq!(arrives(&d, 72, 16, true), Cover::Overlap);
        let cover = judged(&d, piece(72, 16, true), (family, true), NOW + age, swap);
        (cover, d.first().known(), d.created.load() - NOW)
    };
    for family in [4, 6] {
        let life = lifetime_ns(family);
        assert_eq!(late(family, life), (Cover::Overlap, true, 0));
        assert_eq!(late(family, life + 1), (Cover::New, false, life + 1));
    }
    assert_eq!((lifetime_ns(4), lifetime_ns(6)), (30_000_000_000, 60_000_000_000));
    // Another CPU's clock may be a tick behind.
    let d = datagram();
    assert_eq!(
        judged(&d, piece(0, 8, true), (4, true), NOW - 4_000_000, swap),
        Cover::New
    );
    assert_eq!(d.created.load(), NOW);
    // The same identification again: another datagram.
    let d = datagram();
    for _ in 0..3 {
        assert_eq!(arrives(&d, 0, 80, true), Cover::New);
        d.first.store(First::ALLOWED);
        assert_eq!(arrives(&d, 80, 3, false), Cover::New);
    }
    assert_eq!(
        judged(&d, piece(80, 3, false), (4, false), NOW, swap),
        Cover::Early
    );
}

#[test]
fn an_entry_that_is_anothers_by_now_is_left_alone() {
    let d = datagram();
    assert_eq!(arrives(&d, 0, 80, true), Cover::New);
    let calls = Cell::new(0);
    let cover = judged(&d, piece(80, 80, true), (4, true), NOW, |cell, old, new| {
        calls.set(calls.get() + 1);
        if calls.get() == 2 {
            // The map evicts it and gives the memory to another datagram, of which more has passed.
            for range in &d.ranges {
                range.store(185);
            }
            d.lock.store(0);
        }
        swap(cell, old, new)
    });
    assert_eq!((cover, d.lock.load()), (Cover::Busy, 0));
    assert!(d.ranges.iter().all(|range| range.load() == 185));
}

#[test]
fn a_lock_that_another_cpu_holds_is_waited_for_a_while() {
    let d = datagram();
    d.lock.store(1);
    let tries = Cell::new(0);
    let cover = judged(&d, piece(0, 8, true), (4, true), NOW, |cell, old, new| {
        tries.set(tries.get() + 1);
        if tries.get() == 5 {
            cell.store(0);
        }
        swap(cell, old, new)
    });
    assert_eq!(cover, Cover::New);
    d.lock.store(1);
    assert_eq!(arrives(&d, 8, 8, true), Cover::Busy);
    assert_eq!(d.lock.load(), 1, "the other CPU's");
}

#[test]
fn later_fragments_take_over_what_the_first_one_was() {
    let d = datagram();
    let mut first = Meta::EMPTY;
    first.proto = Proto::ICMP;
    first.sport = 0xfffe;
    first.dport = 0xfffd;
    first.selector = 0x0800;
    assert!(!d.first().known());
    for outcome in [First::ALLOWED, First::DENIED, First::UNTRACKED] {
        d.note_first(&first, outcome);
        let mut later = Meta::EMPTY;
        later.proto = 60;
        d.fill_in(&mut later);
        assert_eq!(
            (later.proto, later.sport, later.dport, later.selector),
            (Proto::ICMP, 0xfffe, 0xfffd, 0x0800)
        );
        assert!(d.first().known());
        for bit in [First::ALLOWED, First::DENIED, First::UNTRACKED] {
            assert_eq!(d.first().has(bit), bit == outcome);
        }
    }
}
