//! xdp-filter of xdp-tools as a peer: an XDP program without state that drops all whose address is not allowed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{Map, MapData, PerCpuArray};
use aya::programs::loaded_programs;

use super::link::program_by_id;
use super::plane::map_of;
use crate::lab::{End, Namespace, Veth};

/// Name in tables.
pub(super) const NAME: &str = "xdp-filter, one address allowed";
/// What the loader calls its program for a policy that denies, with all features.
const PROGRAM: &str = "xdpfilt_dny_all";
/// Its counters by action: packets and bytes.
const COUNTERS: &str = "xdp_stats_map";
const XDP_DROP: u32 = 1;
/// Where its library pins what it has loaded.
const LEFT: &str = "/sys/fs/bpf/xdp";
/// How long a command may take.
const SOON: Duration = Duration::from_secs(30);

/// The program with its counters, kept by their descriptors alone.
pub(super) struct Filter {
    program: OwnedFd,
    counters: PerCpuArray<MapData, [u64; 2]>,
}

impl Filter {
    /// Lets xdp-filter load its program on an interface of its own, takes it, and lets it unload again: it would not stand on
    /// an interface whose program is exchanged all the time.
    ///
    /// # Errors
    /// If the tool is missing or refuses.
    pub(super) fn load() -> Result<Self> {
        let (namespace, other) = (Namespace::new("filter")?, Namespace::new("peer")?);
        Veth::create(
            &End::new(&namespace, "x0", [2, 0, 0, 0, 0xbf, 1]),
            &End::new(&other, "y0", [2, 0, 0, 0, 0xbf, 2]),
            1500,
        )?;
        let known: Vec<u32> = programs()?;
        namespace
            .check(&["xdp-filter", "load", "-m", "native", "-p", "deny", "x0"], SOON)
            .context("xdp-filter of the package xdp-tools does not load")?;
        let taken = take(&namespace, &known);
        namespace.check(&["xdp-filter", "unload", "x0"], SOON)?;
        // Its library leaves the folder behind. One that holds something is not removed.
        let _ = std::fs::remove_dir(LEFT);
        taken
    }

    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Packets that it has dropped, by CPU.
    pub(super) fn dropped(&self) -> Result<Vec<u64>> {
        let counts = self.counters.get(&XDP_DROP, 0)?;
        Ok(counts.iter().map(|[packets, _bytes]| *packets).collect())
    }
}

/// Ids of the tool's programs.
fn programs() -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for info in loaded_programs() {
        let info = info?;
        if info.name_as_str() == Some(PROGRAM) {
            ids.push(info.id());
        }
    }
    Ok(ids)
}

fn take(namespace: &Namespace, known: &[u32]) -> Result<Filter> {
    // The same addresses as for nftables do not matter: none of the packets may come from them.
    namespace.check(&["xdp-filter", "ip", "192.0.2.1", "-m", "src"], SOON)?;
    let id = programs()?
        .into_iter()
        .find(|id| !known.contains(id))
        .with_context(|| format!("xdp-filter has loaded no program {PROGRAM}"))?;
    Ok(Filter {
        program: program_by_id(id)?,
        counters: PerCpuArray::try_from(Map::PerCpuArray(map_of(id, COUNTERS)?))?,
    })
}
