//! Tables of flows, sources and limits, aged by the agent.

use std::collections::BTreeSet;

use fw_common::abi::{LimitKey, Source, SourceKey, StateWord};
use fw_user::dataplane::{Fate, FlowKey, FlowTable, GRACE_NS};

use super::{Raw, SECOND, alone, bytes, count, flow, key4, key6, open, pinned, private, raw};

#[test]
fn ageing_reports_each_ended_flow_once_and_touches_no_other() {
    alone(|| {
        let plane = open(pinned());
        let tables = plane.tables();
        let now = 1_000 * SECOND;
        let (mut four, mut six) = (Raw::<16>::open("FLOWS4"), Raw::<40>::open("FLOWS6"));
        for number in 0..20_000 {
            // Even ones are idle for long, odd ones live.
            let last = if number % 2 == 0 {
                10 * SECOND
            } else {
                now - SECOND
            };
            four.insert(&key4(number), &flow(last, 0, 60));
        }
        for number in 0..5_000 {
            // A third each: dead for long, dead just now, alive.
            let (last, flags) = [
                (SECOND, StateWord::DEAD),
                (now - SECOND, StateWord::DEAD),
                (now, 0),
            ][number as usize % 3];
            six.insert(&key6(number), &flow(last, flags, 86_400));
        }
        let mut ended = BTreeSet::new();
        let start = std::time::Instant::now();
        let aged = tables
            .age(now, |key, flow, fate| {
                if fate == Fate::End {
                    assert!(ended.insert(format!("{key:?}")), "{key:?} ended twice");
                    assert!(flow.last_seen() < now - GRACE_NS);
                }
            })
            .unwrap();
        println!("25,000 entries in {:?}", start.elapsed());
        let gone = 10_000 + 5_000_u64.div_ceil(3);
        assert_eq!(
            (aged.ended, aged.kept, ended.len() as u64),
            (gone, 25_000 - gone, gone)
        );
        assert_eq!(count(tables, FlowTable::Main) as u64, 25_000 - gone);
        assert_eq!(
            tables
                .age(now, |_, _, fate| assert_eq!(fate, Fate::Keep))
                .unwrap()
                .ended,
            0
        );
        // The test wrote these flows past the packet path, which would have counted them: the walk puts the levels right.
        let kept6 = 5_000 - 5_000_u64.div_ceil(3);
        assert_eq!(tables.levels().used, [10_000, kept6]);
        assert!(tables.kill(&FlowKey::V4(key4(1))).unwrap().is_some());
        assert!(tables.kill(&FlowKey::V4(key4(1))).unwrap().is_none());
        assert_eq!(tables.levels().used, [9_999, kept6]);
        let later = now + 100_000 * SECOND;
        assert_eq!(tables.age(later, |_, _, _| {}).unwrap().kept, 0);
        assert_eq!(tables.levels().used, [0, 0], "it never falls below 0");
    });
}

#[test]
fn lifelines_keep_room_in_the_main_tables() {
    alone(|| {
        let plane = open(private());
        assert_eq!(plane.tables().levels().room, [32_769 - 512, 8_193 - 128]);
    });
}

#[test]
fn counts_of_sources_and_limits_are_written_down_anew_and_nothing_else_is() {
    alone(|| {
        let plane = open(pinned());
        let tables = plane.tables();
        let key = SourceKey {
            addr: [0x0a00_0001, 0, 0, 0],
            realm: 101,
            family: 4,
        };
        assert!(
            !tables.mend_source(&key, 0, 5).unwrap(),
            "unknown sources stay unknown"
        );
        let source = Source {
            window: 1,
            opened: 2,
            flows: 30,
            proved_until: 4,
            completed: 5,
            denied: 6,
            banned_until: 7,
            ..Source::default()
        };
        raw::<24, 48>("SOURCES")
            .insert(bytes::<_, 24>(&key), bytes::<_, 48>(&source), 0)
            .unwrap();
        assert_eq!(tables.source_flows().unwrap()[&key], 30);
        // The walk began at 27, the packet path has added 3 since, and the walk met 10.
        assert!(tables.mend_source(&key, 27, 10).unwrap());
        let after = tables.source(&key).unwrap().unwrap();
        assert_eq!(after.flows, 13);
        assert_eq!(
            format!("{after:?}"),
            format!("{:?}", Source { flows: 13, ..source })
        );

        let bucket = LimitKey {
            limit: 9,
            a: [1, 2, 3, 4],
            ..LimitKey::default()
        };
        let value = || {
            let mut found = None;
            tables
                .for_each_bucket(|key, value| {
                    assert_eq!(*key, bucket);
                    found = Some(value);
                })
                .unwrap();
            found
        };
        assert!(
            tables.mend_bucket(&bucket, 0, 4).unwrap(),
            "one that was evicted is made again"
        );
        assert_eq!(value(), Some(4));
        assert!(!tables.mend_bucket(&bucket, 4, 4).unwrap());
        assert!(tables.mend_bucket(&bucket, 3, 4).unwrap());
        assert_eq!(value(), Some(5), "one was added meanwhile");
        assert!(tables.mend_bucket(&bucket, 5, 0).unwrap());
        assert_eq!(value(), None, "an empty bucket goes");
    });
}

#[test]
fn half_open_flows_that_nobody_answered_are_counted() {
    alone(|| {
        let plane = open(pinned());
        let tables = plane.tables();
        let now = 100 * SECOND;
        let mut half = Raw::<16>::open("HALF4");
        for number in 0..900 {
            let (last, flags) = [(SECOND, 0), (SECOND, StateWord::REPLIED), (now, 0)][number as usize % 3];
            half.insert(&key4(number), &flow(last, flags, 10));
        }
        let aged = tables.age_half_open(now, |_, _, _| {}).unwrap();
        assert_eq!((aged.ended, aged.unanswered, aged.kept), (600, 300, 300));
        assert_eq!(count(tables, FlowTable::HalfOpen), 300);
    });
}
