//! Loads the programs, takes over what is pinned, pins what is new.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use aya::maps::{Map, MapData};
use aya::programs::{Program, ProgramError, ProgramInfo, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use fw_common::abi::{MAPS, MapDef, map_names};

use super::error::{self, DataPlaneError};
use super::events::EventReader;
use super::hook::Hook;
use super::links::Links;
use super::options::Options;
use super::tables::Tables;
use super::{memory, object, pins, presence, privilege, realtime, shape};

/// Lines of the verifier's log that an error shows.
const LOG_TAIL: usize = 20;

/// The firewall in the kernel: loaded programs, their maps, and the links that this process or its predecessor made.
///
/// With a pin directory everything outlives the process: dropping a `DataPlane` changes nothing in the kernel. Without
/// one, links and filters are removed on drop.
#[derive(Debug)]
pub struct DataPlane {
    pub(super) ebpf: Ebpf,
    pub(super) links: Links,
    pub(super) options: Options,
    tables: Arc<Tables>,
    events: Option<MapData>,
    took_over: bool,
    warnings: Vec<String>,
}

/// What a verified program costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramSize {
    /// Which program.
    pub hook: Hook,
    /// The kernel's id of it.
    pub id: u32,
    /// Instructions that the verifier walked through; the kernel's limit is 1,000,000.
    pub verified: u32,
    /// Bytes of BPF after the kernel's rewriting.
    pub translated: u32,
    /// Bytes of machine code; 0 without JIT.
    pub jitted: u32,
}

impl DataPlane {
    /// Loads the programs. With a pin directory: takes over the maps that are pinned there, with all flows and the policy
    /// in force, and pins those that are not. Attaches nothing; a predecessor's links go on running its programs until
    /// [`DataPlane::attach`] replaces them.
    ///
    /// # Errors
    ///
    /// If anything does not fit, nothing has been changed: see [`DataPlaneError`].
    pub fn open(options: Options) -> Result<Self, DataPlaneError> {
        privilege::check()?;
        realtime::check()?;
        let object = object::object()?;
        let mut warnings = Vec::new();
        if !options.dry_run {
            let pin = |name: &str| options.pin_dir.as_ref().map(|pin_dir| pin_dir.join(name));
            memory::check(&options.sizes, |name| pin(name).is_some_and(|path| path.exists()))?;
        }
        let pinned = match &options.pin_dir {
            Some(pin_dir) => pins::check(pin_dir, &options, &mut warnings)?,
            None => Vec::new(),
        };
        let mut ebpf = load_object(object, &options, &pinned)?;
        for hook in Hook::ALL {
            load_program(&mut ebpf, hook)?;
        }
        let maps = take_maps(&mut ebpf)?;
        if let (Some(pin_dir), false) = (&options.pin_dir, options.dry_run) {
            pins::pin_new(pin_dir, &maps, &pinned)?;
        }
        Self::assemble(ebpf, maps, options, !pinned.is_empty(), warnings)
    }

    fn assemble(
        ebpf: Ebpf,
        maps: Vec<(&'static str, MapData)>,
        options: Options,
        took_over: bool,
        warnings: Vec<String>,
    ) -> Result<Self, DataPlaneError> {
        let (mut events, maps): (Vec<_>, Vec<_>) =
            maps.into_iter().partition(|(name, _)| *name == map_names::EVENTS);
        let tables = Arc::new(Tables::new(maps)?);
        if !options.dry_run {
            tables.prepare()?;
            tables.set_events_per_window(options.events_per_window);
            tables.set_replies_per_window(options.replies_per_window);
        }
        let links = Links::new(options.pin_dir.clone());
        let events = events.pop().map(|(_, map)| map);
        Ok(Self {
            ebpf,
            links,
            options,
            tables,
            events,
            took_over,
            warnings,
        })
    }

    /// The maps.
    #[must_use]
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// True if maps of a predecessor were taken over; their flows and policy are in force.
    #[must_use]
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    /// What the operator should know about opening: sentences.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The reader of denied packets. There is one: a second call fails.
    ///
    /// # Errors
    ///
    /// [`DataPlaneError::EventsTaken`], or what the kernel refused.
    pub fn events(&mut self) -> Result<EventReader, DataPlaneError> {
        let map = self.events.take().ok_or(DataPlaneError::EventsTaken)?;
        EventReader::new(map)
    }

    /// Size of each program, as a gauge of the verifier's budget.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn program_sizes(&self) -> Result<Vec<ProgramSize>, DataPlaneError> {
        Hook::ALL
            .into_iter()
            .map(|hook| self.program_size(hook))
            .collect()
    }

    fn program_size(&self, hook: Hook) -> Result<ProgramSize, DataPlaneError> {
        let info: ProgramInfo = self
            .program(hook)?
            .info()
            .map_err(program_error("inspecting", hook))?;
        Ok(ProgramSize {
            hook,
            id: info.id(),
            verified: info.verified_instruction_count().unwrap_or(0),
            translated: info.size_translated().unwrap_or(0),
            jitted: info.size_jitted(),
        })
    }

    /// The program of a hook.
    pub(super) fn program(&self, hook: Hook) -> Result<&Program, DataPlaneError> {
        self.ebpf
            .program(hook.program())
            .ok_or_else(|| missing_program(hook))
    }

    /// The descriptor of a hook's program.
    pub(super) fn program_fd(&self, hook: Hook) -> Result<BorrowedFd<'_>, DataPlaneError> {
        Ok(self
            .program(hook)?
            .fd()
            .map_err(program_error("using", hook))?
            .as_fd())
    }
}

/// Parses the object, makes or opens its maps. Programs are not verified yet.
fn load_object(object: &[u8], options: &Options, pins: &[pins::Pinned]) -> Result<Ebpf, DataPlaneError> {
    let pinned = |name: &str| pins.iter().find(|pin| pin.def.name == name);
    let entries = |name: &str| {
        let configured = shape::configured(name, &options.sizes)?;
        Some(pinned(name).map_or(configured, |pin| pin.max_entries))
    };
    let globals = [
        ("DRY_RUN", u32::from(options.dry_run)),
        ("REPORT", u32::from(options.report)),
        ("CLOCK_OVERRIDE", u32::from(options.clock_override)),
        (
            "PRESENCE_WORDS",
            entries(map_names::PRESENCE).map_or(0, presence::half),
        ),
    ];
    let mut loader = EbpfLoader::new();
    for (name, value) in &globals {
        loader.override_global(name, value, true);
    }
    for def in MAPS {
        let pin = pinned(def.name);
        if let Some(entries) = entries(def.name) {
            loader.map_max_entries(def.name, entries);
        }
        if let Some(pin) = pin {
            loader.map_pin_path(def.name, pin.path.clone());
        }
    }
    loader
        .load(object)
        .map_err(|source| DataPlaneError::Load(Box::new(source)))
}

fn load_program(ebpf: &mut Ebpf, hook: Hook) -> Result<(), DataPlaneError> {
    let program = ebpf
        .program_mut(hook.program())
        .ok_or_else(|| missing_program(hook))?;
    let loaded = if hook == Hook::XdpIn {
        <&mut Xdp>::try_from(program).and_then(Xdp::load)
    } else {
        <&mut SchedClassifier>::try_from(program).and_then(SchedClassifier::load)
    };
    loaded.map_err(|error| match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            DataPlaneError::Refused {
                program: hook.program(),
                tail: tail(&log, LOG_TAIL),
                source: io_error,
            }
        }
        other => program_error("loading", hook)(other),
    })
}

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Takes the maps of the ABI out of the loaded object and checks them.
fn take_maps(ebpf: &mut Ebpf) -> Result<Vec<(&'static str, MapData)>, DataPlaneError> {
    MAPS.iter()
        .map(|def| Ok((def.name, take_map(ebpf, def)?)))
        .collect()
}

fn take_map(ebpf: &mut Ebpf, def: &'static MapDef) -> Result<MapData, DataPlaneError> {
    let Some(
        Map::Array(map)
        | Map::PerCpuArray(map)
        | Map::ArrayOfMaps(map)
        | Map::HashMap(map)
        | Map::LruHashMap(map)
        | Map::RingBuf(map),
    ) = ebpf.take_map(def.name)
    else {
        return Err(DataPlaneError::Missing {
            what: "map",
            name: def.name.to_owned(),
        });
    };
    let aya = |source| DataPlaneError::AyaMap {
        action: "opening",
        map: def.name,
        source: Box::new(source),
    };
    // A copy that knows the kernel's sizes: aya keeps the object's for a map that was pinned.
    let fd = map
        .fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(error::map("opening", def.name))?;
    let map = MapData::from_fd(fd).map_err(aya)?;
    shape::check_own(def, &map.info().map_err(aya)?)?;
    Ok(map)
}

fn missing_program(hook: Hook) -> DataPlaneError {
    DataPlaneError::Missing {
        what: "program",
        name: hook.program().to_owned(),
    }
}

/// Wraps aya's error about a program.
pub(super) fn program_error(action: &'static str, hook: Hook) -> impl FnOnce(ProgramError) -> DataPlaneError {
    move |source| DataPlaneError::Program {
        action,
        program: hook.program(),
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn the_tail_of_a_log_has_its_last_lines() {
        assert_eq!(tail("a\nb\n\nc\n", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
        assert_eq!(tail("", 2), "");
    }
}
