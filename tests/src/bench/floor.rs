//! The floor's programs: loaded, with their maps, and run.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, anyhow, ensure};
use aya::maps::{Array, HashMap, PerCpuArray, PerCpuValues};
use aya::programs::Xdp;
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader, TestRun, TestRunAttrs, TestRunOptions};
use fw_common::abi::Flow;
use fw_user::dataplane::{FlowKey, FlowSizes};

use super::frames::{FRAME_BYTES, Frame};

/// Frames that one pass of the kernel's generator makes before the packets are processed (`struct xdp_test_data`); less
/// than a veth's ring of 256.
const BATCH: u32 = 64;

/// Buckets of times in the object.
const BUCKETS: u32 = 512;

/// A flow as words.
pub(super) const FLOW_WORDS: usize = size_of::<Flow>() / 8;

/// A program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Sends everything on.
    Redirect,
    /// Drops everything.
    Drop,
    /// Hands everything to the kernel, and counts it.
    Pass,
    /// Parse, one look-up, one counter.
    Lookup,
    /// Sends frames.
    Generate,
    /// Counts and drops.
    Sink,
    /// The same, and sorts probes by their time.
    Clock,
    /// The same, and keeps the longest time between two packets.
    Gap,
    /// Opens connections.
    Open,
    /// Their server.
    Server,
    /// Their client.
    Client,
}

impl Program {
    const ALL: [Self; 11] = [
        Self::Redirect,
        Self::Drop,
        Self::Pass,
        Self::Lookup,
        Self::Generate,
        Self::Sink,
        Self::Clock,
        Self::Gap,
        Self::Open,
        Self::Server,
        Self::Client,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Redirect => "floor_redirect",
            Self::Drop => "floor_drop",
            Self::Pass => "floor_pass",
            Self::Lookup => "floor_lookup",
            Self::Generate => "floor_generate",
            Self::Sink => "floor_sink",
            Self::Clock => "floor_clock",
            Self::Gap => "floor_gap",
            Self::Open => "floor_open",
            Self::Server => "floor_server",
            Self::Client => "floor_client",
        }
    }
}

/// What the object counts; the numbers of `slot` in fw-ebpf/src/bin/floor/main.rs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Packets at the sink.
    Sink = 0,
    /// Packets that the bare drop dropped.
    Bare = 1,
    /// Packets whose flow the look-up did not find.
    Miss = 2,
    /// Packets that the kernel was handed.
    Pass = 3,
    /// Packets with a probe's mark at the sink.
    Marked = 4,
    /// Connections whose last packet reached the client.
    Done = 5,
}

/// The loaded object.
#[derive(Debug)]
pub struct Floor(Ebpf);

impl Floor {
    /// Loads the object for an outgoing port, a number of frames, and flow maps of dpufw's sizes.
    ///
    /// # Errors
    /// If the object was not built, or the kernel refuses it.
    pub fn load(out_ifindex: u32, frames: &[Frame], sizes: &FlowSizes) -> Result<Self> {
        let object = object()?;
        let mut ebpf = EbpfLoader::new()
            .override_global("OUT_IFINDEX", &out_ifindex, true)
            .map_max_entries("FRAMES", frames.len() as u32)
            .map_max_entries("FLOWS4", sizes.flows4)
            .map_max_entries("FLOWS6", sizes.flows6)
            .load(&object)
            .context("loading the floor's object")?;
        for program in Program::ALL {
            let xdp = ebpf
                .program_mut(program.name())
                .with_context(|| format!("no program {}", program.name()))?;
            let xdp: &mut Xdp = xdp.try_into()?;
            xdp.load()
                .with_context(|| format!("the verifier refuses {}", program.name()))?;
        }
        let mut floor = Self(ebpf);
        floor.reload(frames)?;
        Ok(floor)
    }

    /// Exchanges all frames; there must be as many as at loading.
    ///
    /// # Errors
    /// If there are more, or the kernel refuses.
    pub fn reload(&mut self, frames: &[Frame]) -> Result<()> {
        let mut list = Array::<_, [u8; FRAME_BYTES]>::try_from(self.map_mut("FRAMES")?)?;
        for (index, frame) in (0..).zip(frames) {
            list.set(index, frame, 0)?;
        }
        Ok(())
    }

    fn map_mut(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.0
            .map_mut(name)
            .with_context(|| format!("the floor's object has no map {name}"))
    }

    fn xdp(&self, program: Program) -> Result<&Xdp> {
        let found = self
            .0
            .program(program.name())
            .with_context(|| format!("no program {}", program.name()))?;
        Ok(found.try_into()?)
    }

    /// The descriptor of a program.
    ///
    /// # Errors
    /// Never, once loaded.
    pub fn program(&self, program: Program) -> Result<BorrowedFd<'_>> {
        Ok(self.xdp(program)?.fd()?.as_fd())
    }

    /// Divides the list of frames among the first `cpus` CPUs, as a NIC's receive-side scaling would: no flow is seen by
    /// two.
    ///
    /// # Errors
    /// If there are fewer frames than CPUs, or the kernel refuses.
    pub fn divide(&mut self, frames: u32, cpus: u32) -> Result<()> {
        let share = frames / cpus;
        ensure!(share > 0, "{frames} frames cannot be divided among {cpus} CPUs");
        self.turns(|cpu| [(cpu % cpus) * share, share, 0, 0])
    }

    /// Gives all frames to every CPU: flows are seen by several.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn share(&mut self, frames: u32) -> Result<()> {
        self.turns(|_| [0, frames, 0, 0])
    }

    /// Lets every CPU open connections from this number on, again where it was there before.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn begin_at(&mut self, connection: u32) -> Result<()> {
        self.turns(|_| [connection, 0, 0, 0])
    }

    fn turns(&mut self, turn: impl Fn(u32) -> [u32; 4]) -> Result<()> {
        let possible = nr_cpus().map_err(|(path, error)| anyhow!(error).context(path))? as u32;
        let turns: Vec<[u32; 4]> = (0..possible).map(turn).collect();
        let mut map = PerCpuArray::<_, [u32; 4]>::try_from(self.map_mut("TURN")?)?;
        Ok(map.set(0, PerCpuValues::try_from(turns)?, 0)?)
    }

    /// Puts a flow into the floor's own table.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn insert(&mut self, key: &FlowKey) -> Result<()> {
        let value = [0_u64; FLOW_WORDS];
        match key {
            FlowKey::V4(_) => HashMap::<_, [u8; 16], [u64; FLOW_WORDS]>::try_from(self.map_mut("FLOWS4")?)?
                .insert(key_bytes(key)?, value, 0)?,
            FlowKey::V6(_) => HashMap::<_, [u8; 40], [u64; FLOW_WORDS]>::try_from(self.map_mut("FLOWS6")?)?
                .insert(key_bytes(key)?, value, 0)?,
        }
        Ok(())
    }

    /// A counter, by CPU.
    ///
    /// # Errors
    /// If the kernel refuses the read.
    pub fn count(&self, counter: Counter) -> Result<Vec<u64>> {
        let map = self
            .0
            .map("COUNTS")
            .context("the floor's object has no map COUNTS")?;
        let counts = PerCpuArray::<_, u64>::try_from(map)?;
        Ok(counts.get(&(counter as u32), 0)?.to_vec())
    }

    /// Probes by bucket of their time, of all CPUs.
    ///
    /// # Errors
    /// If the kernel refuses a read.
    pub fn times(&self) -> Result<Vec<u64>> {
        let map = self
            .0
            .map("TIMES")
            .context("the floor's object has no map TIMES")?;
        let times = PerCpuArray::<_, u64>::try_from(map)?;
        (0..BUCKETS)
            .map(|bucket| Ok(times.get(&bucket, 0)?.iter().sum()))
            .collect()
    }

    /// The longest time between two packets at the sink on any CPU since the last call, which begins anew; ns.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn longest_gap(&mut self) -> Result<u64> {
        let mut map = PerCpuArray::<_, [u64; 2]>::try_from(self.map_mut("GAP")?)?;
        let gaps = map.get(&0, 0)?;
        let nothing = PerCpuValues::try_from(vec![[0; 2]; gaps.len()])?;
        map.set(0, nothing, 0)?;
        Ok(gaps.iter().map(|[_last, longest]| *longest).max().unwrap_or(0))
    }

    /// Sends about `packets` frames out of an interface of the calling thread's namespace, from the calling CPU. Before the
    /// first and after the last one the kernel waits for grace periods, some 10 ms.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn generate(&self, ifindex: u32, packets: u32) -> Result<()> {
        self.live(Program::Generate, ifindex, packets, BATCH)
    }

    /// Opens about as many connections, `batch` at a time; as [`Floor::generate`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open(&self, ifindex: u32, connections: u32, batch: u32) -> Result<()> {
        self.live(Program::Open, ifindex, connections, batch)
    }

    fn live(&self, program: Program, ifindex: u32, packets: u32, batch: u32) -> Result<()> {
        let context = xdp_md(ifindex, FRAME_BYTES);
        let options = TestRunOptions {
            data_in: Some(&[0; FRAME_BYTES]),
            ctx_in: Some(&context),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(batch),
            ..TestRunOptions::new()
        };
        self.xdp(program)?
            .test_run(options)
            .context("generating packets")?;
        Ok(())
    }

    /// Mean time of a program on one frame, repeated: everything in the caches.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn time(&self, program: Program, ifindex: u32, frame: &[u8], repeat: u32) -> Result<Duration> {
        let context = xdp_md(ifindex, frame.len());
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        };
        Ok(self
            .xdp(program)?
            .test_run(options)
            .context("a test run")?
            .duration)
    }
}

/// A flow key as it lies in memory: `Key4` or `Key6`, whose fields follow each other without padding.
///
/// # Errors
/// If it has another size.
pub(super) fn key_bytes<const N: usize>(key: &FlowKey) -> Result<[u8; N]> {
    let (addresses, halves, last): (Vec<u32>, _, _) = match key {
        FlowKey::V4(key) => (
            vec![key.lo.0, key.hi.0],
            [key.lo_port, key.hi_port, key.realm],
            [key.proto, key.realm_high],
        ),
        FlowKey::V6(key) => (
            key.lo.0.into_iter().chain(key.hi.0).collect(),
            [key.lo_port, key.hi_port, key.realm],
            [key.proto, key.realm_high],
        ),
    };
    let mut bytes: Vec<u8> = addresses.into_iter().flat_map(u32::to_ne_bytes).collect();
    bytes.extend(halves.into_iter().flat_map(u16::to_ne_bytes));
    bytes.extend(last);
    bytes
        .try_into()
        .map_err(|_| anyhow!("a flow key of another size than {N} bytes"))
}

/// `struct xdp_md`, six words; the second is `data_end`, the fourth `ingress_ifindex`.
fn xdp_md(ifindex: u32, frame_len: usize) -> [u8; 24] {
    let mut md = [0; 24];
    md[4..8].copy_from_slice(&(frame_len as u32).to_ne_bytes());
    md[12..16].copy_from_slice(&ifindex.to_ne_bytes());
    md
}

/// The object that `cargo xtask build` made.
fn object() -> Result<Vec<u8>> {
    let path = env::var_os("DPUFW_FLOOR_OBJECT").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/floor.bpf.o"),
        PathBuf::from,
    );
    fs::read(&path).with_context(|| format!("{}: run `cargo xtask bench`, which builds it", path.display()))
}
