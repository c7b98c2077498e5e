//! Damaged sets: what they say is what the whole set says, or that they are damaged.

use fw_common::abi::{BEYOND, Ip4, Ip6, Line, PairEntry, Reason, V6_SUBTREE};
use fw_common::classify::{
    CORRUPT, Classified, Search, Service, allowed_protocols, class_flags, classify, decide, features, limit,
    plane_roles, protect, realm_record, rule_of,
};

use crate::example::{Fixture, class, fixture, without_walk};

/// All bits of protocols between two classes.
fn protocols(lines: &[Line], src: u32, dst: u32) -> u32 {
    allowed_protocols(lines, (src, dst), PairEntry::ANY, &mut Search::default())
}

#[test]
fn numbers_beyond_the_tables() {
    let Fixture { lines, .. } = fixture();
    let far = 4 * lines.len() as u32;
    let mut out = Classified::default();
    assert!(!rule_of(&lines[..], far, &mut out));
    assert_eq!(out, Classified::default());
    assert_eq!((protocols(lines, far, 0), protocols(lines, 0, far)), (0, 0));
    assert_eq!(class_flags(&lines[..], far), 0);
    assert_eq!(limit(&lines[..], far).map(|record| record.word(0)), None);
    for (src, dst) in [(far, 0), (0, far), (CORRUPT, 0), (0, CORRUPT)] {
        let mut out = Classified {
            found: 1,
            src_class: src,
            dst_class: dst,
            service: Service::of(6, 0, 0).word(),
            ..Classified::default()
        };
        decide(&lines[..], &mut out);
        assert_eq!(out.found, 0);
    }
}

/// All that the look-up says of some packets, damage as an error.
fn all_answers(lines: &[Line]) -> Vec<Result<u32, Reason>> {
    let Fixture { model, .. } = fixture();
    let mut all = Vec::new();
    for tags in [(0, 0), (1, 0), (4095, 0), (100, 7), (101, 4095), (2000, 1)] {
        let record = realm_record(lines, tags);
        all.push(record);
        let Ok(record) = record else { continue };
        for (src, dst) in [(0x0a01_3458, 0xc000_0201), (0xffff_ffff, 0x0a01_f001), (5, 6)] {
            let mut out = Classified::default();
            let pair = (Ip4(src), Ip4(dst));
            let decision = classify(lines, record, pair, Service::of(6, dst as u16, 0), &mut out);
            all.push(decision.map(|decision| decision.0));
        }
        for (n, (start, _)) in model.realms[0].v6.iter().enumerate().step_by(7) {
            let addr = |low| Ip6::from_bits(u128::from(*start) << 64 | low);
            let mut out = Classified::default();
            let pair = (addr(0), addr(1 << 63));
            let decision = classify(lines, record, pair, Service::of(1, n as u16, 0), &mut out);
            all.push(decision.map(|decision| decision.0));
        }
    }
    let or_corrupt = |word: Option<u32>| word.ok_or(Reason::TableCorrupt);
    let or_none = |word: u32| {
        if word == 0 {
            Err(Reason::TableCorrupt)
        } else {
            Ok(word)
        }
    };
    all.push(or_corrupt(limit(lines, 8).map(|record| record.word(7))));
    all.push(or_corrupt(protect(lines).map(|line| line.w[3])));
    all.push(or_corrupt(plane_roles(lines, 31)));
    all.push(or_none(features(lines)));
    all.push(or_none(protocols(lines, 22, 21)));
    all.push(or_none(class_flags(lines, 22)));
    let mut out = Classified::default();
    all.push(if rule_of(lines, 37, &mut out) {
        Ok(out.rule_id)
    } else {
        Err(Reason::TableCorrupt)
    });
    all
}

/// A set that is cut off somewhere answers as the whole one or not at all.
#[test]
fn a_set_that_ends_early_gives_nothing_away() {
    let Fixture { lines, header, .. } = fixture();
    let whole = all_answers(lines);
    let most = whole.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(most, whole.len());
    let borders = [
        1,
        2,
        header.realms,
        header.stacks,
        header.stack_tables,
        header.realm_records,
        header.classes,
        header.pairs,
        header.protos,
        header.decision_pages,
        header.rules,
        header.limits,
        header.protect,
        header.planes,
    ];
    let cuts = borders.into_iter().flat_map(|at| [at - 1, at, at + 1]);
    for cut in cuts.chain((0..lines.len() as u32).step_by(331)) {
        let part = &lines[..cut as usize];
        for tags in [(0, 0), (100, 7)] {
            let record = realm_record(part, tags);
            assert!(record == realm_record(&lines[..], tags) || record == Err(Reason::TableCorrupt));
        }
        compare(part, &whole, cut);
    }
}

/// As above, with what the kernel's map has behind the lines: nothing is allowed that the whole set does not allow.
#[test]
fn what_lies_behind_a_set_allows_nothing() {
    let Fixture { lines, header, .. } = fixture();
    let packets = [(0x0a01_3458, 0xc000_0201), (0xffff_ffff, 0x0a01_f001), (5, 6)];
    let decided = |lines: &[Line], (src, dst): (u32, u32), tags| {
        let record = realm_record(lines, tags)?;
        let mut out = Classified::default();
        let service = Service::of(6, dst as u16, 0);
        let decision = classify(lines, record, (Ip4(src), Ip4(dst)), service, &mut out)?;
        Ok::<_, Reason>(decision)
    };
    let mut refused = 0;
    for cut in (1..lines.len())
        .step_by(7)
        .chain([header.rules as usize, header.pairs as usize])
    {
        let mut part = lines[..cut].to_vec();
        part.resize(lines.len() + 64, BEYOND);
        for packet in packets {
            for tags in [(0, 0), (1, 0), (4095, 0), (100, 7)] {
                let (cut_off, whole) = (decided(&part, packet, tags), decided(&lines[..], packet, tags));
                let denied = cut_off.is_ok_and(|decision| !decision.allows());
                assert!(
                    cut_off == whole || cut_off.is_err() || denied,
                    "{cut}: {cut_off:?} {whole:?}"
                );
                refused += usize::from(cut_off != whole);
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

/// Every answer is the whole set's or [`Reason::TableCorrupt`]; `cut` says what is compared.
fn compare(damaged: &[Line], whole: &[Result<u32, Reason>], cut: u32) {
    let answers = all_answers(damaged);
    if answers.len() != whole.len() {
        // Not even the realm: then nothing else is said of it.
        assert!(answers.contains(&Err(Reason::TableCorrupt)), "{cut}");
        return;
    }
    for (answer, whole) in answers.iter().zip(whole) {
        assert!(
            answer == whole || *answer == Err(Reason::TableCorrupt),
            "{cut}: {answer:?} {whole:?}"
        );
    }
}

/// Each line number in the header, one after the other, points outside.
#[test]
fn a_header_that_points_outside_is_damage() {
    let Fixture { lines, .. } = fixture();
    let whole = all_answers(lines);
    for (line, word) in [
        (0, 6),
        (0, 7),
        (0, 8),
        (0, 9),
        (0, 11),
        (0, 12),
        (0, 14),
        (1, 4),
        (1, 5),
        (1, 6),
        (1, 8),
        (1, 9),
    ] {
        for value in [lines.len() as u32, lines.len() as u32 + 1, 1 << 31] {
            let mut damaged = lines.clone();
            damaged[line].w[word] = value;
            let answers = all_answers(&damaged);
            assert!(answers.contains(&Err(Reason::TableCorrupt)), "{line} {word}");
            assert!(!answers.contains(&Err(Reason::UnknownRealm)), "{line} {word}");
            if word != 7 || line != 0 {
                compare(&damaged, &whole, word as u32);
            }
        }
    }
    let mut foreign = lines.clone();
    foreign[0].w[0] ^= 1;
    assert_eq!(realm_record(&foreign[..], (0, 0)), Err(Reason::TableCorrupt));
    assert_eq!(realm_record(&[][..], (0, 0)), Err(Reason::TableCorrupt));
    assert_eq!(features(&[][..]), 0);
}

/// A damaged class of one side leaves no trace of the other one.
#[test]
fn a_damaged_address_map_is_no_class() {
    let Fixture { lines, header, .. } = fixture();
    let record = header.realm_records + 2;
    let root = lines[record as usize].w[0] as usize;
    let mut damaged = lines.clone();
    let outside = lines.len() as u32;
    damaged[root].w[1] = outside;
    // A node that is its own child.
    damaged[root].w[2] = root as u32;
    damaged[root].w[0] = root as u32 + 4096;
    damaged[root + 4096].w = [root as u32 + 4096; 16];
    for bad in [0, 0x1_0000, 0x2_0000] {
        assert_eq!(class(&damaged, record, Ip4(bad)), CORRUPT, "{bad:x}");
        for pair in [(Ip4(bad), Ip4(9 << 16)), (Ip4(9 << 16), Ip4(bad))] {
            let mut out = Classified::default();
            let answer = classify(&damaged[..], record, pair, Service::of(6, 1, 0), &mut out);
            assert_eq!(answer, Err(Reason::TableCorrupt));
            assert_eq!(without_walk(out), Classified::default());
        }
    }
    assert_eq!(class(&damaged, outside, Ip4(1)), CORRUPT);
    assert_eq!(class(&damaged, outside, Ip6::default()), CORRUPT);
    damaged[record as usize].w[0] = outside;
    assert_eq!(class(&damaged, record, Ip4(9 << 16)), CORRUPT);
}

/// Words 1.. of a realm record and a subtree's words, one after the other, point outside.
#[test]
fn a_damaged_tree_is_no_class() {
    let outside = 1 << 20;
    // A realm record with one interval that has a tree of its own.
    let mut lines = vec![Line::default(); 8];
    let low = |start: u32, more: u32| {
        let mut line = Line { w: [u32::MAX; 16] };
        line.w[..4].copy_from_slice(&[0, 0, start, more]);
        line
    };
    lines[1].w[..6].copy_from_slice(&[0, 1, 1, 3, 2, 1]);
    lines[2].w = [u32::MAX; 16];
    lines[2].w[..2].copy_from_slice(&[0, 0]);
    lines[3].w[0] = V6_SUBTREE | 4;
    lines[4].w[..5].copy_from_slice(&[1, 2, 6, 5, 1]);
    lines[5] = low(7, 1);
    lines[6].w[..2].copy_from_slice(&[21, 22]);
    let at = |lines: &[Line], low: u64| class(lines, 1, Ip6::from_bits(u128::from(low)));
    assert_eq!((at(&lines, 6), at(&lines, 1 << 33)), (21, 22));
    for (line, word) in [(1, 3), (1, 4), (4, 2), (4, 3)] {
        let mut damaged = lines.clone();
        damaged[line].w[word] = outside;
        assert_eq!(at(&damaged, 6), CORRUPT, "{line} {word}");
    }
    lines[3].w[0] = V6_SUBTREE | outside;
    assert_eq!(at(&lines, 6), CORRUPT);
}
