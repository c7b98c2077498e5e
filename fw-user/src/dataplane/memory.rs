//! Kernel memory of the maps: how much each takes, and whether it is there.

use std::fs;

use fw_common::abi::{MAPS, MapDef, MapKind, map_names};

use super::error::{self, DataPlaneError};
use super::options::FlowSizes;
use super::shape;

/// `sizeof(struct htab_elem)` without key and value (kernel/bpf/hashtab.c).
const ELEMENT: u64 = 48;
/// `sizeof(struct bucket)`, without lock debugging.
const BUCKET: u64 = 16;
/// Spare elements and rounding, generously.
const SPARE: u64 = 1 << 20;
/// A tenth of the available memory is left for programs, table sets and everyone else.
const LEFT_FREE: u64 = 10;

/// What one map costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapMemory {
    /// The map.
    pub name: &'static str,
    /// Entries that it can hold.
    pub entries: u32,
    /// Bytes of an entry, used or not; without its share of the buckets.
    pub per_entry: u64,
    /// Bytes of the map.
    pub bytes: u64,
}

impl MapMemory {
    /// Of a map of this definition on a machine with so many possible CPUs.
    fn new(def: &MapDef, entries: u32, cpus: u64) -> Self {
        let (key, value) = (round8(def.key), round8(def.value));
        let (per_entry, bytes) = match def.kind {
            MapKind::Hash | MapKind::LruHash => {
                let element = ELEMENT + key + value;
                // A plain hash has a spare element for each CPU; an LRU list is rounded up to a multiple of them.
                let elements = u64::from(entries) + cpus;
                let buckets = u64::from(entries).next_power_of_two() * BUCKET;
                (element, elements * element + buckets)
            }
            MapKind::PerCpuArray => (value * cpus, u64::from(entries) * value * cpus),
            MapKind::RingBuf => (1, u64::from(entries)),
            MapKind::Array | MapKind::ArrayOfMaps => (value, u64::from(entries) * value),
        };
        Self {
            name: def.name,
            entries,
            per_entry,
            bytes,
        }
    }

    /// Of a map of this definition, here.
    pub(super) fn of(def: &MapDef, entries: u32) -> Result<Self, DataPlaneError> {
        Ok(Self::new(def, entries, cpus()?))
    }

    /// The key of agent.yaml's `tables` that sets its size.
    #[must_use]
    pub fn setting(&self) -> Option<&'static str> {
        Some(match self.name {
            map_names::FLOWS4 | map_names::FLOWS6 => "main",
            map_names::HALF4 | map_names::HALF6 => "half_open",
            map_names::SOURCES => "sources",
            map_names::LIMITS => "limits",
            map_names::FRAGMENTS => "fragments",
            _ => return None,
        })
    }
}

fn round8(bytes: u32) -> u64 {
    u64::from(bytes).next_multiple_of(8)
}

/// What the maps of configured size cost.
pub(super) fn of_sizes(sizes: &FlowSizes) -> Result<Vec<MapMemory>, DataPlaneError> {
    let cpus = cpus()?;
    let sized = MAPS.iter().filter_map(|def| {
        let entries = shape::configured(def.name, sizes)?;
        Some(MapMemory::new(def, entries, cpus))
    });
    Ok(sized.collect())
}

fn cpus() -> Result<u64, DataPlaneError> {
    let cpus = aya::util::nr_cpus().map_err(|(path, source)| error::pin("reading", path)(source))?;
    Ok(cpus as u64)
}

/// Refuses tables that do not fit into the memory that is available now. `exists` tells those that are pinned already.
pub(super) fn check(sizes: &FlowSizes, exists: impl Fn(&str) -> bool) -> Result<(), DataPlaneError> {
    const MEMINFO: &str = "/proc/meminfo";
    let meminfo = fs::read_to_string(MEMINFO).map_err(error::pin("reading", MEMINFO))?;
    let Some(available) = available_in(&meminfo) else {
        // Kernels before 3.14 do not say; they cannot run the programs either.
        return Ok(());
    };
    let wanted: Vec<_> = of_sizes(sizes)?
        .into_iter()
        .filter(|map| !exists(map.name))
        .collect();
    fits(&wanted, available)
}

/// `MemAvailable` in bytes.
fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn fits(wanted: &[MapMemory], available: u64) -> Result<(), DataPlaneError> {
    let needed: u64 = wanted.iter().map(|map| map.bytes).sum();
    let budget = available - available / LEFT_FREE;
    let Some(biggest) = wanted.iter().max_by_key(|map| map.bytes) else {
        return Ok(());
    };
    if needed <= budget {
        return Ok(());
    }
    // Both families' tables have one size; an entry has at most two buckets.
    let twins = wanted.iter().filter(|map| map.setting() == biggest.setting());
    let (bytes, each) = twins.fold((0, 0), |(bytes, each), map| {
        (bytes + map.bytes, each + map.per_entry + 2 * BUCKET)
    });
    let spare = (budget + bytes).saturating_sub(needed);
    let largest = spare.saturating_sub(SPARE) / each.max(1);
    Err(DataPlaneError::NoMemory {
        needed: mebibytes(needed),
        available: mebibytes(available),
        map: biggest.name,
        entries: biggest.entries,
        per_entry: biggest.per_entry,
        bytes: mebibytes(biggest.bytes),
        setting: biggest.setting().unwrap_or("main"),
        largest,
    })
}

const fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use fw_common::abi::{MAPS, map_names};

    use super::{FlowSizes, MapMemory, available_in, fits, of_sizes};

    fn memory(name: &str, entries: u32) -> MapMemory {
        let def = MAPS.iter().find(|def| def.name == name).unwrap();
        MapMemory::new(def, entries, 4)
    }

    #[test]
    fn flows_take_what_the_documents_say() {
        let four = memory(map_names::FLOWS4, (1 << 17) + 1);
        assert_eq!(four.per_entry, 192);
        assert_eq!(four.bytes, 192 * ((1 << 17) + 5) + 16 * (1 << 18));
        assert_eq!(memory(map_names::FLOWS6, 1).per_entry, 216);
        assert_eq!(memory(map_names::SOURCES, 1).per_entry, 120);
        assert_eq!(memory(map_names::LIMITS, 1).per_entry, 96);
        assert_eq!(memory(map_names::FRAGMENTS, 1).per_entry, 176);
        assert_eq!(memory(map_names::SOURCE_BITS, 32_768).bytes, 256 << 10);
        assert_eq!(memory(map_names::COUNTERS, 512).bytes, 512 * 16 * 4);
    }

    #[test]
    fn the_available_memory_is_read() {
        assert_eq!(
            available_in("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(available_in("MemTotal: 9 kB\n"), None);
    }

    #[test]
    fn tables_that_do_not_fit_are_refused_with_the_biggest_and_the_way_out() {
        let sizes = FlowSizes {
            flows4: 100_000_000,
            flows6: 100_000_000,
            ..FlowSizes::DEFAULT
        };
        let wanted = of_sizes(&sizes).unwrap();
        let available = 8_u64 << 30;
        let message = fits(&wanted, available).unwrap_err().to_string();
        assert!(message.contains("FLOWS6"), "{message}");
        assert!(message.contains("216 bytes"), "{message}");
        assert!(message.contains("main: "), "{message}");
        assert!(fits(&wanted, 1 << 40).is_ok());
        // What the message offers does fit.
        let offered = message.split("main: ").nth(1).unwrap();
        let offered: u32 = offered.split(' ').next().unwrap().parse().unwrap();
        let sizes = FlowSizes {
            flows4: offered,
            flows6: offered,
            ..sizes
        };
        assert!(offered > 10_000_000, "{message}");
        assert!(fits(&of_sizes(&sizes).unwrap(), available).is_ok(), "{message}");
    }

    #[test]
    fn the_default_sizes_are_modest() {
        let bytes: u64 = of_sizes(&FlowSizes::DEFAULT)
            .unwrap()
            .iter()
            .map(|map| map.bytes)
            .sum();
        assert!(bytes < 128 << 20, "{bytes}");
    }
}
