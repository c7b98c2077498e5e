//! Sets and pinned maps: swapped, taken over, refused.

use std::fs;

use aya::maps::{HashMap as BpfHash, MapData};
use fw_common::abi::{Control, Engine};
use fw_user::dataplane::{
    DataPlane, DataPlaneError, FlowKey, FlowSizes, FlowTable, Options, Tables, detach_all,
};

use super::{
    Raw, SIZES, alone, chain, count, flow, host_port, key4, key6, listing, open, pin_dir, pinned, private,
    set,
};

#[test]
fn policies_are_swapped_and_read_back() {
    alone(|| {
        let plane = open(private());
        let tables = plane.tables();
        for (step, extra) in [0, 1, 10_000, 3, 77].into_iter().enumerate() {
            let generation = tables.next_generation();
            assert_eq!(generation, step as u32 + 1);
            let lines = set(generation, extra);
            let start = std::time::Instant::now();
            assert_eq!(tables.apply(&lines).unwrap(), generation);
            println!("{extra} lines: {:?}", start.elapsed());
            assert_eq!(tables.current_set().unwrap().unwrap(), lines);
        }
        let before = tables.current_set().unwrap();
        assert!(
            matches!(tables.apply(&set(5, 1)), Err(DataPlaneError::BadSet { .. })),
            "an old generation was taken"
        );
        let mut damaged = set(6, 4);
        damaged[3].w[9] ^= 1 << 30;
        assert!(
            matches!(tables.apply(&damaged), Err(DataPlaneError::BadSet { .. })),
            "a damaged set was taken"
        );
        assert!(matches!(tables.apply(&[]), Err(DataPlaneError::BadSet { .. })));
        assert_eq!(tables.current_set().unwrap(), before);
        let control = tables.control();
        assert_ne!(control.secret, [0, 0], "made with the map");
        assert_eq!(
            control,
            Control {
                generation: 5,
                secret: control.secret,
                ..Control::default()
            }
        );
    });
}

#[test]
fn a_new_agent_takes_over_policy_flows_and_ports() {
    alone(|| {
        let first = open(pinned());
        assert!(!first.took_over());
        let lines = set(1, 50);
        first.tables().apply(&lines).unwrap();
        first.tables().set_port(&host_port(7, Engine::Tc)).unwrap();
        Raw::<16>::open("FLOWS4").insert(&key4(1), &flow(1, 0, 60));
        Raw::<40>::open("HALF6").insert(&key6(2), &flow(2, 0, 60));
        let secret = first.tables().control().secret;
        drop(first);

        let second = open(pinned());
        assert!(second.took_over());
        assert_eq!(second.warnings(), [""; 0]);
        assert_eq!(
            second.tables().control().secret,
            secret,
            "what was hashed stays so"
        );
        assert_eq!(second.tables().current_set().unwrap().unwrap(), lines);
        assert_eq!(second.tables().ports().unwrap(), [host_port(7, Engine::Tc)]);
        let key = FlowKey::V4(key4(1));
        assert_eq!(
            second.tables().flow(FlowTable::Main, &key).unwrap().unwrap().half[0].bytes,
            300
        );
        assert_eq!(count(second.tables(), FlowTable::HalfOpen), 1);
        assert_eq!(second.tables().apply(&set(2, 3)).unwrap(), 2);
        drop(second);

        let read_only = Tables::open_pinned(&pin_dir()).unwrap();
        assert_eq!(read_only.control().generation, 2);
        assert_eq!(count(&read_only, FlowTable::Main), 1);
        assert_eq!(detach_all(&pin_dir()).unwrap(), []);
        assert!(!pin_dir().exists());
        assert!(matches!(
            Tables::open_pinned(&pin_dir()),
            Err(DataPlaneError::NotRunning { .. })
        ));
        assert!(matches!(
            detach_all(&pin_dir()),
            Err(DataPlaneError::NotRunning { .. })
        ));
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_refused_and_nothing_changes() {
    alone(|| {
        drop(open(pinned()));
        let path = pin_dir().join("FLOWS4");
        fs::remove_file(&path).unwrap();
        fs::remove_file(pin_dir().join("PORTS")).unwrap();
        let foreign = BpfHash::<MapData, [u8; 16], [u8; 64]>::create(16, 0).unwrap();
        foreign.pin(&path).unwrap();
        let before = listing(&pin_dir());
        let error = DataPlane::open(pinned()).unwrap_err();
        assert!(
            matches!(
                error,
                DataPlaneError::PinnedShape {
                    what: "value size",
                    ..
                }
            ),
            "{}",
            chain(&error)
        );
        assert_eq!(listing(&pin_dir()), before);
        assert!(Tables::open_pinned(&pin_dir()).is_err());
    });
}

#[test]
fn another_table_size_keeps_the_flows_and_says_so() {
    alone(|| {
        let first = open(pinned());
        Raw::<16>::open("FLOWS4").insert(&key4(9), &flow(1, 0, 60));
        drop(first);
        let sizes = FlowSizes {
            flows4: 1_025,
            ..SIZES
        };
        let second = open(Options { sizes, ..pinned() });
        assert_eq!(second.warnings().len(), 1, "{:?}", second.warnings());
        assert!(second.warnings()[0].contains("FLOWS4") && second.warnings()[0].contains("1025"));
        assert_eq!(second.tables().capacity("FLOWS4").unwrap(), SIZES.flows4);
        assert_eq!(count(second.tables(), FlowTable::Main), 1);
    });
}

#[test]
fn tables_larger_than_the_memory_are_refused_and_nothing_is_made() {
    alone(|| {
        let sizes = FlowSizes {
            flows4: 4_000_000_000,
            ..SIZES
        };
        let error = DataPlane::open(Options { sizes, ..pinned() }).unwrap_err();
        let text = chain(&error);
        assert!(matches!(error, DataPlaneError::NoMemory { .. }), "{text}");
        assert!(
            text.contains("FLOWS4") && text.contains("192 bytes") && text.contains("main: "),
            "{text}"
        );
        assert!(!pin_dir().exists());
        // A table that exists is not made again, whatever is configured.
        drop(open(pinned()));
        let second = open(Options { sizes, ..pinned() });
        assert_eq!(second.tables().capacity("FLOWS4").unwrap(), SIZES.flows4);
        drop(second);
        detach_all(&pin_dir()).unwrap();
    });
}
