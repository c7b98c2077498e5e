//! The data plane's life in a real kernel: pins, take-over, policies, links, ageing. Needs root and the BPF object.
//!
//! Each test runs in network and mount namespaces of its own, with a BPF file system of its own, so nothing is left behind
//! however it ends.

mod flows;
mod judging;
mod links;
mod pins;
mod ports;

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use aya::maps::{HashMap as BpfHash, Map, MapData};
use aya::util::KernelVersion;
use fw_common::abi::{
    ABI_VERSION, Engine, Flow, Half, Ip4, Ip6, Key4, Key6, Line, LinkKind, Mode, PortConfig, SET_MAGIC,
    SetHeader, StateWord, checksum,
};
use fw_user::dataplane::{DataPlane, FlowSizes, FlowTable, Means, Options, PortPlan, Tables};
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
        self.0.insert(bytes(key), bytes(flow), 0).unwrap();
    }
}

/// A key or a value as it lies in a map.
fn bytes<T: Copy, const N: usize>(value: &T) -> [u8; N] {
    assert_eq!(size_of::<T>(), N);
    // SAFETY: keys and values of maps are made of integers without padding, and this one has exactly this size.
    unsafe { std::ptr::from_ref(value).cast::<[u8; N]>().read() }
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

fn listing(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// A pinned map of any plain key and value.
fn raw<const K: usize, const V: usize>(name: &str) -> BpfHash<MapData, [u8; K], [u8; V]> {
    let map = Map::from_map_data(MapData::from_pin(pin_dir().join(name)).unwrap()).unwrap();
    map.try_into().unwrap()
}
