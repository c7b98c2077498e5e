//! Pinned maps: checked before anything is loaded, completed afterwards.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::maps::{MapData, MapInfo};
use fw_common::abi::{MAPS, MapDef, map_names};

use super::error::{self, DataPlaneError};
use super::options::{FlowSizes, Options};
use super::{bpffs, inventory, shape, sys};

/// A map that is pinned and fits.
pub(super) struct Pinned {
    pub def: &'static MapDef,
    pub path: PathBuf,
    pub max_entries: u32,
}

/// Checks the pin directory and everything in it, before anything is loaded.
pub(super) fn check(
    pin_dir: &Path,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<Vec<Pinned>, DataPlaneError> {
    if !options.dry_run {
        warnings.extend(bpffs::prepare(pin_dir)?);
        inventory::check_namespace(pin_dir)?;
    }
    let mut pins = Vec::new();
    for def in MAPS.iter().filter(|def| !options.dry_run || is_shared(def.name)) {
        let path = pin_dir.join(def.name);
        if path.exists() {
            pins.push(check_pin(def, path)?);
        } else if options.dry_run {
            return Err(DataPlaneError::NotRunning {
                pin_dir: pin_dir.to_owned(),
            });
        }
    }
    if !options.dry_run {
        warnings.extend(pins.iter().filter_map(|pin| size_warning(pin, &options.sizes)));
    }
    Ok(pins)
}

/// Maps that an instance for questions shares with the running data plane. Counters and events would mix its questions
/// with real packets.
fn is_shared(name: &str) -> bool {
    !matches!(
        name,
        map_names::COUNTERS | map_names::FLOW_STATS | map_names::EVENTS
    )
}

fn check_pin(def: &'static MapDef, path: PathBuf) -> Result<Pinned, DataPlaneError> {
    let info = MapInfo::from_pin(&path);
    let info = info.map_err(|source| DataPlaneError::AyaMap {
        action: "opening",
        map: def.name,
        source: Box::new(source),
    })?;
    shape::check_pinned(def, &info, &path)?;
    Ok(Pinned {
        def,
        path,
        max_entries: info.max_entries(),
    })
}

/// Says that a table keeps its old size.
fn size_warning(pin: &Pinned, sizes: &FlowSizes) -> Option<String> {
    let configured = shape::configured(pin.def.name, sizes)?;
    let (name, pinned) = (pin.def.name, pin.max_entries);
    // The kernel rounds an LRU table up to a multiple of its CPUs.
    let cpus = aya::util::nr_cpus().map_or(1, |cpus| cpus as u32);
    let same = pinned == configured || pinned == configured.next_multiple_of(cpus);
    (!same).then(|| {
        format!(
            "the table {name} is pinned with {pinned} entries and keeps them with its flows; the configured {configured} \
             take effect after `dpufw detach --yes`"
        )
    })
}

/// Pins the maps that were not; on failure unpins those again.
pub(super) fn pin_new(
    pin_dir: &Path,
    maps: &[(&'static str, MapData)],
    pins: &[Pinned],
) -> Result<(), DataPlaneError> {
    let mut made = Vec::new();
    let mut pin_all = || {
        for (name, map) in maps
            .iter()
            .filter(|(name, _)| pins.iter().all(|pin| pin.def.name != *name))
        {
            let path = pin_dir.join(name);
            sys::obj_pin(map.fd().as_fd(), &path).map_err(error::pin("pinning", &path))?;
            made.push(path);
        }
        bpffs::record_netns(pin_dir, &bpffs::own_netns()?)
    };
    let result = pin_all();
    if result.is_err() {
        for path in made {
            // The failure itself is what the caller needs to hear of.
            let _ = bpffs::remove(&path);
        }
    }
    result
}
