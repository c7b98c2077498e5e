//! How a data plane is loaded.

use std::path::{Path, PathBuf};

use fw_common::abi::ABI_VERSION;

/// Where the BPF file system is usually mounted.
pub const BPFFS: &str = "/sys/fs/bpf";

/// The directory of this ABI version's pins: a version never meets the maps of another.
#[must_use]
pub fn default_pin_dir() -> PathBuf {
    Path::new(BPFFS).join("dpufw").join(format!("v{ABI_VERSION}"))
}

/// Entries of the tables whose size is configured.
///
/// The main tables are preallocated hashes; the kernel rounds the number of buckets up to a power of two, so a size just
/// above one has twice the buckets and short chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSizes {
    /// Confirmed IPv4 flows.
    pub flows4: u32,
    /// Confirmed IPv6 flows.
    pub flows6: u32,
    /// Half-open IPv4 flows.
    pub half4: u32,
    /// Half-open IPv6 flows.
    pub half6: u32,
    /// Sources that are remembered for caps, proofs and bans; the one not seen for longest makes room.
    pub sources: u32,
    /// Buckets of rate limits, likewise.
    pub limits: u32,
    /// Fragmented datagrams at a time, likewise.
    pub fragments: u32,
}

impl FlowSizes {
    /// Sizes for a machine of which nothing is known.
    pub const DEFAULT: Self = Self {
        flows4: (1 << 17) + 1,
        flows6: (1 << 17) + 1,
        half4: 1 << 16,
        half6: 1 << 16,
        sources: 1 << 16,
        limits: 1 << 16,
        fragments: 1 << 13,
    };
}

impl Default for FlowSizes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Where the programs stand if TC is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcFlavour {
    /// TCX from kernel 6.6 on, clsact before.
    #[default]
    Auto,
    /// Always clsact: for tests of what older kernels do.
    Clsact,
}

/// How to load a data plane.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Directory on a BPF file system for maps and links. `None`: private maps, and everything ends with this process;
    /// for tests.
    pub pin_dir: Option<PathBuf>,
    /// Sizes of the tables where they do not exist yet.
    pub sizes: FlowSizes,
    /// The programs write nothing and their return value is a report. With `pin_dir`, policy, ports and flows are shared
    /// with the running data plane; counters and events are not.
    pub dry_run: bool,
    /// The programs write as usual, but their return value is a report instead of an action. For tests.
    pub report: bool,
    /// Programs take the time from [`super::Tables::set_clock`]. For tests.
    pub clock_override: bool,
    /// Packets that may be reported per CPU and 67 ms; 0: none.
    pub events_per_window: u32,
    /// Answers (resets, ICMP errors) that may be sent per CPU and 67 ms, and 256 times as many demands for proof; 0: none.
    pub replies_per_window: u32,
    /// Which TC hook to use.
    pub tc: TcFlavour,
}

impl Options {
    /// What the agent uses: pinned in the default directory.
    #[must_use]
    pub fn agent() -> Self {
        Self {
            pin_dir: Some(default_pin_dir()),
            events_per_window: 32,
            replies_per_window: 64,
            ..Self::default()
        }
    }

    /// What a second instance uses to ask the running data plane questions without disturbing it.
    #[must_use]
    pub fn questions(pin_dir: &Path) -> Self {
        Self {
            pin_dir: Some(pin_dir.to_owned()),
            dry_run: true,
            ..Self::default()
        }
    }

    /// True if the return value of the programs is a report.
    #[must_use]
    pub(super) fn reports(&self) -> bool {
        self.dry_run || self.report
    }
}
