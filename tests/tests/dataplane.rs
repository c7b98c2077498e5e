//! The data plane's life in a real kernel: pins, take-over, policies, links, ageing. Needs root and the BPF object.
//!
//! Each test runs in network and mount namespaces of its own, with a BPF file system of its own, so nothing is left behind
//! however it ends.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use aya::maps::{HashMap as BpfHash, Map, MapData};
use aya::util::KernelVersion;
use fw_common::abi::{
    ABI_VERSION, Control, Engine, Flow, Half, Ip4, Ip6, Key4, Key6, LimitKey, Line, LinkKind, Mode,
    PortConfig, Reason, SET_MAGIC, SetHeader, Source, SourceKey, StateWord, Verdict, checksum, port_slot,
};
use fw_user::dataplane::{
    Change, DataPlane, DataPlaneError, Fate, FlowKey, FlowSizes, FlowTable, GRACE_NS, Hook, HookChange,
    Means, Options, PortPlan, Tables, TcFlavour, TestContext, detach_all, list_attached,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Small tables: the tests fill them.
const SIZES: FlowSizes = FlowSizes {
    flows4: 32_769,
    flows6: 8_193,
    half4: 16_384,
    half6: 8_192,
    ..FlowSizes::DEFAULT
};
const SECOND: u64 = 1_000_000_000;

/// Runs a test in fresh namespaces with an empty BPF file system at the usual place.
fn alone(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("root is needed");
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_PRIVATE | MsFlags::MS_REC,
            None::<&str>,
        )
        .unwrap();
        mount(
            Some("bpf"),
            "/sys/fs/bpf",
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A veth pair; returns the index of its first end.
fn veth() -> u32 {
    ip("link add left type veth peer name right");
    ip("link set left up");
    ip("link set right up");
    ifindex("left")
}

fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

/// How this kernel takes TC programs.
fn tc() -> Means {
    let tcx = KernelVersion::current().unwrap() >= KernelVersion::new(6, 6, 0);
    if tcx { Means::Tcx } else { Means::Clsact }
}

fn pin_dir() -> PathBuf {
    PathBuf::from("/sys/fs/bpf/dpufw/test")
}

fn private() -> Options {
    Options {
        sizes: SIZES,
        ..Options::default()
    }
}

fn pinned() -> Options {
    Options {
        pin_dir: Some(pin_dir()),
        ..private()
    }
}

fn open(options: Options) -> DataPlane {
    DataPlane::open(options).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A set that has a header and `extra` lines of noise: enough for everything but judging.
fn set(generation: u32, extra: u32) -> Vec<Line> {
    let mut header = SetHeader {
        magic: SET_MAGIC,
        abi: ABI_VERSION,
        generation,
        lines: 2 + extra,
        ..SetHeader::default()
    };
    let mut lines = header.to_lines().to_vec();
    lines.extend((0..extra).map(|number| Line {
        w: [number.wrapping_mul(0x9e37_79b9); 16],
    }));
    let sum = checksum(&lines);
    header.checksum_lo = sum as u32;
    header.checksum_hi = (sum >> 32) as u32;
    lines[..2].copy_from_slice(&header.to_lines());
    lines
}

fn host_port(ifindex: u32, engine: Engine) -> PortConfig {
    PortConfig {
        ifindex,
        mode: Mode::Host as u8,
        engine: engine as u8,
        link: LinkKind::Ethernet as u8,
        ..PortConfig::default()
    }
}

fn plan(ifindex: u32, engine: Engine, egress: bool) -> PortPlan {
    PortPlan {
        name: "left".to_owned(),
        ifindex,
        engine,
        egress,
    }
}

/// A TCP SYN over IPv4.
fn syn() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ]);
    frame.extend([
        0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    frame.extend([0; 6]);
    frame
}

fn key4(number: u32) -> Key4 {
    Key4 {
        lo: Ip4(0x0a00_0001),
        hi: Ip4(0x0b00_0000 + number),
        lo_port: 80,
        hi_port: 1,
        proto: 6,
        ..Key4::default()
    }
}

fn key6(number: u32) -> Key6 {
    Key6 {
        lo: Ip6([1, 0, 0, 1]),
        hi: Ip6([2, 0, 0, number]),
        lo_port: 80,
        hi_port: 1,
        proto: 17,
        ..Key6::default()
    }
}

fn flow(last_seen: u64, flags: u32, timeout_s: u32) -> Flow {
    let half = Half {
        packets: 3,
        bytes: 300,
        last_seen,
        ..Half::default()
    };
    let state = StateWord::new(4, flags, timeout_s).0;
    Flow {
        half: [half, Half::default()],
        created: last_seen,
        state,
        ..Flow::default()
    }
}

/// A pinned flow table as bytes, to write flows as the kernel programs would.
struct Raw<const K: usize>(BpfHash<MapData, [u8; K], [u8; FLOW]>);

/// Bytes of a flow.
const FLOW: usize = size_of::<Flow>();

impl<const K: usize> Raw<K> {
    fn open(name: &str) -> Self {
        let map = Map::from_map_data(MapData::from_pin(pin_dir().join(name)).unwrap()).unwrap();
        Self(map.try_into().unwrap())
    }

    fn insert<T: Copy>(&mut self, key: &T, flow: &Flow) {
        assert_eq!(size_of::<T>(), K);
        // SAFETY: keys and flows are made of integers without padding and have exactly these sizes.
        let (key, flow) = unsafe {
            (
                std::ptr::from_ref(key).cast::<[u8; K]>().read(),
                std::ptr::from_ref(flow).cast::<[u8; FLOW]>().read(),
            )
        };
        self.0.insert(key, flow, 0).unwrap();
    }
}

fn count(tables: &Tables, table: FlowTable) -> usize {
    let mut keys = BTreeSet::new();
    tables
        .for_each_flow(table, |key, _| {
            assert!(keys.insert(format!("{key:?}")), "{key:?} was seen twice");
            ControlFlow::Continue(())
        })
        .unwrap();
    keys.len()
}

#[test]
fn a_private_data_plane_starts_closed() {
    alone(|| {
        let plane = open(Options {
            report: true,
            ..private()
        });
        assert!(!plane.took_over());
        assert_eq!(plane.tables().control().generation, 0);
        assert!(plane.tables().current_set().unwrap().is_none());
        for size in plane.program_sizes().unwrap() {
            println!("{size:?}");
            assert!(size.verified > 0 && size.verified <= 500_000, "{size:?}");
        }
        for hook in Hook::ALL {
            let report = plane
                .test_run(hook, &syn(), &TestContext::default())
                .unwrap()
                .report
                .unwrap();
            assert_eq!(
                (report.verdict, report.reason),
                (Verdict::Drop, Reason::UnknownPort),
                "{hook}"
            );
        }
        plane.tables().set_port(&host_port(1, Engine::Xdp)).unwrap();
        for hook in Hook::ALL {
            let outcome = plane.test_run(hook, &syn(), &TestContext::default()).unwrap();
            let report = outcome.report.unwrap();
            assert_eq!(
                (report.verdict, report.reason),
                (Verdict::Drop, Reason::NoPolicy),
                "{hook}"
            );
            assert_eq!(outcome.frame, syn());
        }
        let counters = plane.tables().counters().unwrap();
        let of = |reason: Reason| {
            counters
                .iter()
                .find(|(number, _)| *number == reason as u8)
                .map(|(_, count)| count.packets)
        };
        assert_eq!(
            (of(Reason::UnknownPort), of(Reason::NoPolicy), counters.len()),
            (Some(3), Some(3), 2)
        );
        assert!(!pin_dir().exists());
    });
}

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

fn listing(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
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
fn links_outlive_the_agent_and_are_replaced_in_place() {
    alone(|| {
        let port = veth();
        let both = [(Hook::XdpIn, Means::Xdp), (Hook::TcOut, tc())];
        let mut first = open(pinned());
        let changes = first.attach(&plan(port, Engine::Xdp, true)).unwrap();
        let expected = both.map(|(hook, means)| HookChange {
            hook,
            means,
            change: Change::Attached,
        });
        assert_eq!(changes, expected);
        let before = first.attached().unwrap();
        drop(first);
        assert_eq!(list_attached(&pin_dir()).unwrap(), before);

        ip("link set left down");
        ip("link set left name renamed");
        ip("link set renamed name left");
        let mut second = open(pinned());
        let changes = second.attach(&plan(port, Engine::Xdp, true)).unwrap();
        assert_eq!(
            changes,
            both.map(|(hook, means)| HookChange {
                hook,
                means,
                change: Change::Replaced
            })
        );
        let after = second.attached().unwrap();
        for (old, new) in before.iter().zip(&after) {
            assert_eq!((old.link_id, old.hook, old.ahead), (new.link_id, new.hook, 0));
            assert_ne!(old.prog_id, new.prog_id);
        }
        let ids: Vec<u32> = second
            .program_sizes()
            .unwrap()
            .iter()
            .map(|size| size.id)
            .collect();
        assert_eq!([after[0].prog_id, after[1].prog_id], [ids[0], ids[2]]);
        drop(second);

        assert_eq!(detach_all(&pin_dir()).unwrap(), after);
        assert_eq!(list_attached(&pin_dir()).unwrap(), []);
        assert!(!run("ip", "link show left").contains("xdp"));
    });
}

#[test]
fn a_change_of_engine_takes_the_new_hook_before_it_gives_the_old_one_up() {
    alone(|| {
        let port = veth();
        let mut plane = open(pinned());
        plane.attach(&plan(port, Engine::Xdp, true)).unwrap();
        let changes = plane.attach(&plan(port, Engine::Tc, false)).unwrap();
        let expected = [
            HookChange {
                hook: Hook::TcIn,
                means: tc(),
                change: Change::Attached,
            },
            HookChange {
                hook: Hook::XdpIn,
                means: Means::Xdp,
                change: Change::Removed,
            },
            HookChange {
                hook: Hook::TcOut,
                means: tc(),
                change: Change::Removed,
            },
        ];
        assert_eq!(changes, expected);
        assert_eq!(plane.attached().unwrap().len(), 1);
        plane.detach(port).unwrap();
        assert_eq!(plane.attached().unwrap(), []);
    });
}

#[test]
fn native_xdp_is_refused_by_name_and_what_guarded_the_port_stays() {
    alone(|| {
        let port = veth();
        let mut plane = open(pinned());
        let lo = PortPlan {
            name: "lo".to_owned(),
            ..plan(1, Engine::Xdp, true)
        };
        let error = plane.attach(&lo).unwrap_err();
        assert!(error.suggests_tc(), "{}", chain(&error));
        assert_eq!(plane.attached().unwrap(), []);
        let moved = plane.attach(&plan(port + 1000, Engine::Xdp, true));
        assert!(matches!(moved, Err(DataPlaneError::PortMoved { .. })));

        let mut other = open(private());
        other.attach(&plan(port, Engine::Xdp, false)).unwrap();
        plane.attach(&plan(port, Engine::Tc, true)).unwrap();
        let taken = plane.attach(&plan(port, Engine::Xdp, true)).unwrap_err();
        assert!(
            matches!(taken, DataPlaneError::XdpTaken { .. }) && !taken.suggests_tc(),
            "{}",
            chain(&taken)
        );
        let hooks: Vec<Hook> = plane
            .attached()
            .unwrap()
            .iter()
            .map(|attached| attached.hook)
            .collect();
        assert_eq!(hooks, [Hook::TcIn, Hook::TcOut]);
        drop(other);
        plane.attach(&plan(port, Engine::Xdp, true)).unwrap();
    });
}

#[test]
fn an_index_that_another_interface_got_is_attached_anew() {
    alone(|| {
        let port = veth();
        let mut plane = open(pinned());
        plane.attach(&plan(port, Engine::Xdp, true)).unwrap();
        ip("link del left");
        assert_eq!(plane.attached().unwrap(), []);
        ip(&format!("link add left index {port} type veth peer name right"));
        let changes = plane.attach(&plan(port, Engine::Xdp, true)).unwrap();
        assert!(
            changes.iter().all(|change| change.change == Change::Attached),
            "{changes:?}"
        );
        assert_eq!(plane.attached().unwrap().len(), 2);
    });
}

#[test]
fn a_clsact_filter_stays_and_there_is_one_of_it() {
    alone(|| {
        let port = veth();
        let options = || Options {
            tc: TcFlavour::Clsact,
            ..pinned()
        };
        // One line for each filter, `bpf chain 0 handle ...`.
        let filters = || {
            run("tc", "filter show dev left ingress")
                .matches(" handle ")
                .count()
        };
        let mut first = open(options());
        let changes = first.attach(&plan(port, Engine::Tc, true)).unwrap();
        assert!(changes.iter().all(|change| *change
            == HookChange {
                means: Means::Clsact,
                change: Change::Attached,
                ..*change
            }));
        let before = first.attached().unwrap();
        assert_eq!(before.len(), 2);
        drop(first);
        assert_eq!((filters(), list_attached(&pin_dir()).unwrap()), (1, before));

        let mut second = open(options());
        let changes = second.attach(&plan(port, Engine::Tc, true)).unwrap();
        assert!(
            changes.iter().all(|change| change.change == Change::Replaced),
            "{changes:?}"
        );
        let ids: Vec<u32> = second
            .program_sizes()
            .unwrap()
            .iter()
            .map(|size| size.id)
            .collect();
        let attached: Vec<u32> = second
            .attached()
            .unwrap()
            .iter()
            .map(|attached| attached.prog_id)
            .collect();
        assert_eq!((filters(), attached), (1, ids[1..].to_vec()));
        drop(second);

        let mut third = open(pinned());
        let changes = third.attach(&plan(port, Engine::Tc, true)).unwrap();
        // With TCX the filters are given up for it; without, they are replaced once more.
        let (removed, left) = if tc() == Means::Tcx { (2, 0) } else { (0, 1) };
        let gone = changes
            .iter()
            .filter(|change| change.change == Change::Removed)
            .count();
        assert_eq!((gone, filters()), (removed, left), "{changes:?}");
        drop(third);
        let mut fourth = open(options());
        fourth.attach(&plan(port, Engine::Tc, true)).unwrap();
        drop(fourth);
        assert_eq!(
            (filters(), detach_all(&pin_dir()).unwrap().len(), filters()),
            (1, 2, 0)
        );
    });
}

#[test]
fn a_private_filter_goes_with_its_process() {
    alone(|| {
        let port = veth();
        let mut plane = open(Options {
            tc: TcFlavour::Clsact,
            ..private()
        });
        plane.attach(&plan(port, Engine::Tc, true)).unwrap();
        assert_eq!(plane.attached().unwrap().len(), 2);
        drop(plane);
        assert!(!run("tc", "filter show dev left ingress").contains("dpufw"));
    });
}

#[test]
fn an_attached_port_without_policy_passes_nothing() {
    alone(|| {
        let port = veth();
        ip("addr add 10.9.0.1/24 dev left");
        let mut plane = open(pinned());
        plane.tables().set_port(&host_port(port, Engine::Xdp)).unwrap();
        plane.attach(&plan(port, Engine::Xdp, true)).unwrap();
        let output = Command::new("ping")
            .args(["-c", "1", "-W", "1", "10.9.0.2"])
            .output()
            .unwrap();
        assert!(!output.status.success());
        let counters = plane.tables().counters().unwrap();
        assert!(
            counters
                .iter()
                .any(|(reason, count)| *reason == Reason::NoPolicy as u8 && count.packets > 0),
            "{counters:?}"
        );
    });
}

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

/// A pinned map of any plain key and value.
fn raw<const K: usize, const V: usize>(name: &str) -> BpfHash<MapData, [u8; K], [u8; V]> {
    let map = Map::from_map_data(MapData::from_pin(pin_dir().join(name)).unwrap()).unwrap();
    map.try_into().unwrap()
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
        // SAFETY: both are made of integers without padding and have exactly these sizes.
        let (bytes, value): ([u8; 24], [u8; 48]) =
            unsafe { (std::mem::transmute(key), std::mem::transmute(source)) };
        raw::<24, 48>("SOURCES").insert(bytes, value, 0).unwrap();
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

#[test]
fn ports_share_slots_by_two() {
    alone(|| {
        let plane = open(private());
        let tables = plane.tables();
        let rivals = [5, 5 + 1024, 5 + 2048].map(|ifindex| host_port(ifindex, Engine::Xdp));
        assert_eq!(port_slot(rivals[0].ifindex, 0), port_slot(rivals[2].ifindex, 0));
        tables.set_port(&rivals[0]).unwrap();
        tables.set_port(&rivals[1]).unwrap();
        tables.set_port(&PortConfig { role: 3, ..rivals[1] }).unwrap();
        assert!(matches!(
            tables.set_port(&rivals[2]),
            Err(DataPlaneError::PortSlots { ifindex: 2053, .. })
        ));
        assert_eq!(tables.ports().unwrap().len(), 2);
        tables.clear_port(rivals[0].ifindex).unwrap();
        tables.set_port(&PortConfig { role: 4, ..rivals[1] }).unwrap();
        assert_eq!(tables.ports().unwrap(), [PortConfig { role: 4, ..rivals[1] }]);
    });
}

/// The packet path keeps the port of a CPU's last packet: what changes is seen by the next one.
#[test]
fn a_port_is_kept_until_it_changes() {
    alone(|| {
        let plane = open(Options {
            report: true,
            ..private()
        });
        let tables = plane.tables();
        let meets = |reason: Reason| {
            for _ in 0..3 {
                for hook in Hook::ALL {
                    let outcome = plane.test_run(hook, &syn(), &TestContext::default()).unwrap();
                    assert_eq!(outcome.report.unwrap().reason, reason, "{hook}");
                }
            }
        };
        let before = tables.control().ports;
        meets(Reason::UnknownPort);
        tables.set_port(&host_port(1, Engine::Xdp)).unwrap();
        meets(Reason::NoPolicy);
        tables.set_port(&host_port(2, Engine::Xdp)).unwrap();
        meets(Reason::NoPolicy);
        tables
            .set_port(&PortConfig {
                link: LinkKind::Raw as u8,
                ..host_port(1, Engine::Xdp)
            })
            .unwrap();
        meets(Reason::BadIpv4);
        tables.clear_port(1).unwrap();
        meets(Reason::UnknownPort);
        tables.set_port(&host_port(1, Engine::Xdp)).unwrap();
        meets(Reason::NoPolicy);
        assert_eq!(tables.control().ports, before + 5);
    });
}

#[test]
fn denied_packets_arrive_as_events() {
    alone(|| {
        let mut plane = open(Options {
            events_per_window: 4,
            ..private()
        });
        plane.tables().set_port(&host_port(1, Engine::Tc)).unwrap();
        let mut events = plane.events().unwrap();
        assert!(matches!(plane.events(), Err(DataPlaneError::EventsTaken)));
        assert!(events.next_event().is_none());
        let outcome = plane
            .test_run(Hook::TcIn, &syn(), &TestContext::default())
            .unwrap();
        assert_eq!((outcome.returned, outcome.report), (2, None));
        let event = events.next_event().expect("an event");
        assert_eq!(
            (event.ifindex, event.reason, event.egress),
            (1, Reason::NoPolicy as u8, 0)
        );
        assert!(events.next_event().is_none());
        assert_eq!(events.malformed(), 0);
    });
}

#[test]
fn a_question_changes_nothing() {
    alone(|| {
        assert!(matches!(
            DataPlane::open(Options::questions(&pin_dir())),
            Err(DataPlaneError::NotRunning { .. })
        ));
        assert!(!pin_dir().exists());
        let plane = open(pinned());
        plane.tables().set_port(&host_port(1, Engine::Xdp)).unwrap();
        let before = listing(&pin_dir());
        let mut questions = open(Options::questions(&pin_dir()));
        assert_eq!(questions.warnings(), [""; 0]);
        for hook in Hook::ALL {
            let report = questions
                .test_run(hook, &syn(), &TestContext::default())
                .unwrap()
                .report
                .unwrap();
            assert_eq!(report.reason, Reason::NoPolicy);
        }
        assert_eq!(questions.tables().counters().unwrap(), []);
        let lo = PortPlan {
            name: "lo".to_owned(),
            ..plan(1, Engine::Tc, true)
        };
        assert!(matches!(questions.attach(&lo), Err(DataPlaneError::Reporting)));
        drop(questions);
        assert_eq!(plane.tables().counters().unwrap(), []);
        assert_eq!(listing(&pin_dir()), before);
    });
}

#[test]
fn the_links_of_another_namespace_are_left_alone() {
    alone(|| {
        let port = veth();
        let mut plane = open(pinned());
        plane.attach(&plan(port, Engine::Xdp, true)).unwrap();
        let elsewhere = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            (
                DataPlane::open(pinned()).map(drop),
                detach_all(&pin_dir()).map(drop),
            )
        });
        let (opened, detached) = elsewhere.join().unwrap();
        assert!(matches!(opened, Err(DataPlaneError::OtherNamespace { .. })));
        assert!(matches!(detached, Err(DataPlaneError::OtherNamespace { .. })));
        assert_eq!(plane.attached().unwrap().len(), 2);
    });
}

#[test]
fn a_flood_of_frames_is_judged() {
    alone(|| {
        let port = veth();
        let plane = open(private());
        plane.tables().set_port(&host_port(port, Engine::Xdp)).unwrap();
        plane.flood(&syn(), port, 10_000, 64).unwrap();
        let counters = plane.tables().counters().unwrap();
        assert_eq!(
            counters.iter().map(|(_, count)| count.packets).sum::<u64>(),
            10_000
        );
    });
}
