//! The class look-up against plain lists: every interesting address, tag, service and rule of a set with all shapes of
//! tables, and sets with holes, which must never let pass what the whole set does not.

mod damage;
mod example;
mod extra;
mod set;

use std::collections::HashMap;

use fw_common::abi::{Ip4, Ip6, Line, PairEntry, Reason};
use fw_common::classify::{
    self, Address, Classified, Lines, Search, Service, Walk, allowed_protocols, class_flags, classify,
    decide, features, limit, plane_roles, protect, realm_record, rule_of,
};
use proptest::prelude::*;

use example::{CLASSES, Fixture, addresses4, addresses6, class, expected, fixture, model, without_walk};
use set::{High, Model, POISON, Realm, class4, class6};

#[test]
fn every_tag_finds_its_realm() {
    let Fixture { model, lines, header } = fixture();
    for vlan in 0..4096_u16 {
        let expected = match model.vlans.get(&vlan) {
            Some(n) => Ok(header.realm_records + u32::from(*n)),
            None => Err(Reason::UnknownRealm),
        };
        // Priority bits are no part of the id.
        for tag in [vlan, vlan | 0xe000, vlan | 0x1000] {
            assert_eq!(realm_record(&lines[..], (tag, 0)), expected, "{tag}");
        }
    }
}

#[test]
fn every_pair_of_tags_finds_its_realm() {
    let Fixture { model, lines, header } = fixture();
    for outer in [0, 1, 2, 99, 100, 101, 102, 1999, 2000, 2001, 4095] {
        for inner in 1..4096_u16 {
            let expected = match model.stacks.get(&(outer, inner)) {
                Some(n) => Ok(header.realm_records + u32::from(*n)),
                None => Err(Reason::UnknownRealm),
            };
            assert_eq!(
                realm_record(&lines[..], (outer, inner)),
                expected,
                "{outer} {inner}"
            );
            assert_eq!(
                realm_record(&lines[..], (outer | 0x3000, inner | 0x9000)),
                expected
            );
        }
    }
}

#[test]
fn a_policy_without_stacks_knows_no_two_tags() {
    let Fixture { lines, .. } = fixture();
    let mut lines = lines[..].to_vec();
    lines[1].w[8] = 0;
    assert_eq!(realm_record(&lines[..], (100, 7)), Err(Reason::UnknownRealm));
}

#[test]
fn every_border_of_the_address_maps() {
    let Fixture { model, lines, header } = fixture();
    for (realm, n) in model.realms.iter().zip(1..) {
        let record = header.realm_records + n;
        for addr in addresses4(realm) {
            assert_eq!(class(lines, record, addr), class4(realm, addr), "{n} {addr:x?}");
        }
        for addr in addresses6(realm) {
            assert_eq!(class(lines, record, addr), class6(realm, addr), "{n} {addr:x?}");
        }
    }
}

#[test]
fn every_pair_of_classes() {
    let Fixture { model, lines, .. } = fixture();
    for src in 0..CLASSES {
        assert_eq!(class_flags(&lines[..], src), model.classes[src as usize].flags);
        for dst in 0..CLASSES {
            for wanted in [PairEntry::ANY, PairEntry::proto_bit(6), 0] {
                let bits = allowed_protocols(&lines[..], (src, dst), wanted, &mut Search::default());
                assert_eq!(bits, model.pair(src, dst) & wanted);
            }
            for (proto, selector) in [(0, 5), (1, 0x0800), (6, 443), (16, 9), (47, 0), (50, 1), (255, 0)] {
                let mut out = Classified::default();
                let service = Service::of(proto, selector, 9);
                (out.src_class, out.dst_class, out.service) = (src, dst, service.word());
                decide(&lines[..], &mut out);
                assert_eq!(without_walk(out), expected(model, (src, dst), proto, selector));
            }
        }
    }
}

#[test]
fn every_selector() {
    let Fixture { model, lines, .. } = fixture();
    for proto in [1, 2, 6, 17, 47, 255] {
        for selector in 0..=u16::MAX {
            let mut out = Classified::default();
            (out.src_class, out.dst_class) = (3, 4);
            out.service = Service::of(proto, selector, 0).word();
            decide(&lines[..], &mut out);
            assert_eq!(
                without_walk(out),
                expected(model, (3, 4), proto, selector),
                "{proto} {selector}"
            );
        }
    }
}

#[test]
fn every_record_beside_the_look_up() {
    let Fixture { model, lines, .. } = fixture();
    for (n, rule) in model.rules.iter().enumerate() {
        let mut out = Classified::default();
        assert!(rule_of(&lines[..], n as u32, &mut out));
        let found = (out.rule_id, out.rule_flags, out.rule_limits, out.rule_until);
        assert_eq!(found, (rule.id, rule.flags, rule.limits, rule.until));
    }
    for (n, word) in model.limits.iter().enumerate() {
        assert_eq!(
            limit(&lines[..], n as u32 / 8).map(|record| record.word(n as u32 % 8)),
            Some(*word)
        );
    }
    assert_eq!(protect(&lines[..]), Some(&model.protect));
    for plane in 0..64 {
        assert_eq!(
            plane_roles(&lines[..], plane),
            Some(model.planes[plane as usize % 32])
        );
    }
    assert_eq!(features(&lines[..]), model.features);
}

/// A tree of all eight levels, one key each but for the last.
#[test]
fn the_deepest_tree() {
    let mut lines = vec![Line { w: [u32::MAX; 16] }; 12];
    lines[1].w = [0, 8, 3, 11, 2, 1, 1, 1, 1, 1, 1, 1, 1, POISON, POISON, POISON];
    for level in &mut lines[2..10] {
        level.w[..2].copy_from_slice(&[0, 0]);
    }
    lines[9].w[2..6].copy_from_slice(&[5, 0, 0, 1]);
    lines[11].w[..3].copy_from_slice(&[31, 32, 33]);
    let at = |high: u64| class(&lines, 1, Ip6::from_bits(u128::from(high) << 64));
    assert_eq!([0, 4, 5, 6, 1 << 32, u64::MAX].map(at), [31, 31, 32, 32, 33, 33]);
}

/// A leaf is a leaf at every depth, also with class 0.
#[test]
fn class_0_is_a_class() {
    let Fixture { lines, header, .. } = fixture();
    assert_eq!(class(lines, header.realm_records + 4, Ip4(1)), 0);
    assert_eq!(class(lines, header.realm_records + 4, Ip4(0)), 18);
}

/// Any sorted starts with any classes; the last may begin at the last number.
fn any_intervals() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let start = prop_oneof![
        any::<u64>(),
        0..20_u64,
        (u64::MAX - 20)..=u64::MAX,
        (1 << 63) - 5..(1 << 63) + 5_u64
    ];
    prop::collection::hash_map(start, 0..CLASSES, 0..120).prop_map(|map: HashMap<u64, u32>| {
        let mut all: Vec<_> = map.into_iter().chain([(0, 1)]).collect();
        all.sort_unstable();
        all.dedup_by_key(|(start, _)| *start);
        all
    })
}

fn any_realm() -> impl Strategy<Value = Realm> {
    let prefix = (any::<u32>(), prop_oneof![0..=32_u32, Just(32)], 0..CLASSES);
    let v4 = prop::collection::vec(prefix, 0..12).prop_map(|mut all| {
        for (base, len, _) in &mut all {
            *base &= u32::MAX.checked_shl(32 - *len).unwrap_or(0);
        }
        all.sort_unstable();
        all.dedup_by_key(|(base, len, _)| (*base, *len));
        all
    });
    (v4, any_intervals(), any_intervals()).prop_map(|(v4, intervals, low)| {
        let value = |class: u32| {
            if class.is_multiple_of(7) {
                High::Low(low.clone())
            } else {
                High::Class(class)
            }
        };
        let v6 = intervals
            .into_iter()
            .map(|(start, class)| (start, value(class)))
            .collect();
        Realm { v4, v6 }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_address_map(realm in any_realm(), random in prop::collection::vec(any::<u32>(), 100)) {
        let model = Model { realms: vec![realm.clone()], vlans: [(9, 1)].into(), ..model() };
        let (lines, _) = model.build();
        let record = realm_record(&lines[..], (9, 0)).unwrap();
        for addr in addresses4(&realm).into_iter().chain(random.into_iter().map(Ip4)) {
            prop_assert_eq!(class(&lines, record, addr), class4(&realm, addr), "{:x?}", addr);
        }
        for addr in addresses6(&realm) {
            prop_assert_eq!(class(&lines, record, addr), class6(&realm, addr), "{:x?}", addr);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The whole look-up, both families, any packet.
    #[test]
    fn any_packet(n in 1..=4_usize, ends in any::<[u64; 4]>(), pick in any::<[prop::sample::Index; 2]>(), proto in any::<u8>(), selector in any::<u16>()) {
        let Fixture { model, lines, header } = fixture();
        let (realm, record) = (&model.realms[n - 1], header.realm_records + n as u32);
        let mut out = Classified::default();
        let borders = addresses4(realm);
        let (src, dst) = (*pick[0].get(&borders), Ip4(ends[0] as u32));
        let answer = classify(&lines[..], record, (src, dst), Service::of(proto, selector, 0), &mut out);
        let right = expected(model, (class4(realm, src), class4(realm, dst)), proto, selector);
        prop_assert_eq!(answer.unwrap().0, right.decision);
        prop_assert_eq!(without_walk(out), right);
        let (start, _) = pick[1].get(&realm.v6);
        let src = Ip6::from_bits(u128::from(*start) << 64 | u128::from(ends[1]));
        let dst = Ip6::from_bits(u128::from(ends[2]) << 64 | u128::from(ends[3]));
        let answer = classify(&lines[..], record, (src, dst), Service::of(proto, selector, 0), &mut out);
        let right = expected(model, (class6(realm, src), class6(realm, dst)), proto, selector);
        prop_assert_eq!(answer.unwrap().0, right.decision);
        prop_assert_eq!(without_walk(out), right);
    }
}

/// The function that a data plane may replace is asked with the address and the realm.
#[test]
fn the_walk_is_handed_over() {
    #[derive(Clone, Copy)]
    struct Other<'a>(&'a [Line]);
    impl<'a> Lines<'a> for Other<'a> {
        fn line(self, number: u32) -> Option<&'a Line> {
            Lines::line(self.0, number)
        }
        fn class6(self, walk: &mut Walk) {
            assert_eq!((walk.x, walk.low), (7, 8));
            classify::walk6(self, walk);
            walk.index += 1;
        }
    }
    let Fixture { lines, header, .. } = fixture();
    let addr = Ip6::from_bits(7 << 64 | 8);
    let record = header.realm_records + 2;
    assert_eq!(addr.class(Other(lines), record, &mut Walk::default()), 14);
}
