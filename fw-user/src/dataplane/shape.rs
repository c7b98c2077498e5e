//! Compares maps with the ABI: the kernel and aya take over whatever is pinned, sizes unseen.

use std::path::Path;

use aya::maps::{MapInfo, MapType};
use fw_common::abi::{MapDef, MapKind, map_names};

use super::error::DataPlaneError;
use super::options::FlowSizes;
use super::presence;

/// The first property of a map that differs: its name, what was found, what the ABI says.
pub(super) struct Difference {
    pub what: &'static str,
    pub found: String,
    pub wanted: String,
}

/// `BPF_F_MMAPABLE` (include/uapi/linux/bpf.h).
const MMAPABLE: u32 = 1 << 10;
/// Maps that the agent reads and writes through a mapping, word by word.
const MAPPED: [&str; 4] = [
    map_names::CONTROL,
    map_names::LEVELS,
    map_names::SOURCE_BITS,
    map_names::PRESENCE,
];

/// Compares a map with its definition; `max_entries` is left out.
pub(super) fn difference(def: &MapDef, info: &MapInfo) -> Option<Difference> {
    let wanted = map_type(def.kind);
    let found = info.map_type().ok();
    if found != Some(wanted) {
        let found = found.map_or_else(|| "unknown".to_owned(), |found| format!("{found:?}"));
        return Some(Difference {
            what: "type",
            found,
            wanted: format!("{wanted:?}"),
        });
    }
    let flags = info.map_flags();
    if MAPPED.contains(&def.name) && flags & MMAPABLE == 0 {
        return Some(Difference {
            what: "flags",
            found: format!("{flags:#x}"),
            wanted: format!("{MMAPABLE:#x}"),
        });
    }
    let sizes = [
        ("key size", info.key_size(), def.key),
        ("value size", info.value_size(), def.value),
    ];
    let (what, found, wanted) = sizes.into_iter().find(|(_, found, wanted)| found != wanted)?;
    Some(Difference {
        what,
        found: format!("{found} bytes"),
        wanted: format!("{wanted} bytes"),
    })
}

/// Refuses a pinned map that differs from the ABI.
pub(super) fn check_pinned(def: &MapDef, info: &MapInfo, path: &Path) -> Result<(), DataPlaneError> {
    match difference(def, info) {
        None => Ok(()),
        Some(Difference { what, found, wanted }) => Err(DataPlaneError::PinnedShape {
            path: path.to_owned(),
            what,
            found,
            wanted,
        }),
    }
}

/// Refuses a map that the object declares differently from the ABI.
pub(super) fn check_own(def: &MapDef, info: &MapInfo) -> Result<(), DataPlaneError> {
    match difference(def, info) {
        None => Ok(()),
        Some(Difference { what, found, wanted }) => Err(DataPlaneError::ObjectShape {
            map: def.name,
            what,
            found,
            wanted,
        }),
    }
}

/// The configured number of entries, for maps that have one.
pub(super) fn configured(name: &str, sizes: &FlowSizes) -> Option<u32> {
    match name {
        map_names::FLOWS4 => Some(sizes.flows4),
        map_names::FLOWS6 => Some(sizes.flows6),
        map_names::HALF4 => Some(sizes.half4),
        map_names::HALF6 => Some(sizes.half6),
        map_names::SOURCES => Some(sizes.sources),
        map_names::LIMITS => Some(sizes.limits),
        map_names::FRAGMENTS => Some(sizes.fragments),
        map_names::PRESENCE => Some(presence::words(sizes)),
        _ => None,
    }
}

const fn map_type(kind: MapKind) -> MapType {
    match kind {
        MapKind::Array => MapType::Array,
        MapKind::PerCpuArray => MapType::PerCpuArray,
        MapKind::ArrayOfMaps => MapType::ArrayOfMaps,
        MapKind::Hash => MapType::Hash,
        MapKind::LruHash => MapType::LruHash,
        MapKind::RingBuf => MapType::RingBuf,
    }
}
