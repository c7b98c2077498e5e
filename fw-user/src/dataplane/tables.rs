//! The data plane's maps as the agent sees them.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::MapData;
use fw_common::abi::{Control, MAPS, PORT_SLOTS, PortConfig, map_names, port_slot};

use super::error::{self, DataPlaneError};
use super::memory::MapMemory;
use super::mmap::{BitsPage, ControlPage, LevelsPage};
use super::plain::Plain;
use super::{privilege, shape, sys};

/// Open maps of one data plane: policy, ports, counters and flows. The event ring is apart ([`super::EventReader`]).
///
/// Cheap to share behind an `Arc`; reading needs no lock. Only one process may write: the agent.
#[derive(Debug)]
pub struct Tables {
    maps: Vec<(&'static str, MapData)>,
    pub(super) control: ControlPage,
    pub(super) levels: LevelsPage,
    pub(super) bits: BitsPage,
    pub(super) presence: BitsPage,
    /// Flows opened when the bits of flows were filled last; `u64::MAX`: not by this process.
    pub(super) filled_at: AtomicU64,
    /// Held by whoever deletes from the main tables, until the levels say so too.
    pub(super) deleting: Mutex<()>,
    /// Held over every read-modify-write.
    writer: Mutex<()>,
}

impl Tables {
    /// Opens the tables that a running data plane has pinned, for reading; loads and changes nothing.
    ///
    /// # Errors
    ///
    /// [`DataPlaneError::NoPrivilege`], [`DataPlaneError::NotRunning`], [`DataPlaneError::PinnedShape`].
    pub fn open_pinned(pin_dir: &Path) -> Result<Self, DataPlaneError> {
        privilege::check()?;
        let mut maps = Vec::with_capacity(MAPS.len());
        for def in MAPS.iter().filter(|def| def.name != map_names::EVENTS) {
            let path = pin_dir.join(def.name);
            if !path.exists() {
                return Err(DataPlaneError::NotRunning {
                    pin_dir: pin_dir.to_owned(),
                });
            }
            let wrap = |source| DataPlaneError::AyaMap {
                action: "opening",
                map: def.name,
                source: Box::new(source),
            };
            let map = MapData::from_pin(&path).map_err(wrap)?;
            shape::check_pinned(def, &map.info().map_err(wrap)?, &path)?;
            maps.push((def.name, map));
        }
        Self::new(maps)
    }

    /// Takes maps whose shapes were checked.
    pub(super) fn new(maps: Vec<(&'static str, MapData)>) -> Result<Self, DataPlaneError> {
        let control = find(&maps, map_names::CONTROL)?.fd().as_fd();
        let control = ControlPage::new(control).map_err(error::map("mapping", map_names::CONTROL))?;
        let levels = find(&maps, map_names::LEVELS)?.fd().as_fd();
        let levels = LevelsPage::new(levels).map_err(error::map("mapping", map_names::LEVELS))?;
        let bits = |name| {
            let map = find(&maps, name)?.fd().as_fd();
            BitsPage::new(map, entries(&maps, name)?).map_err(error::map("mapping", name))
        };
        let (bits, presence) = (bits(map_names::SOURCE_BITS)?, bits(map_names::PRESENCE)?);
        Ok(Self {
            maps,
            control,
            levels,
            bits,
            presence,
            filled_at: AtomicU64::new(u64::MAX),
            deleting: Mutex::new(()),
            writer: Mutex::new(()),
        })
    }

    /// The descriptor of the map with this name.
    pub(super) fn fd(&self, name: &'static str) -> Result<BorrowedFd<'_>, DataPlaneError> {
        Ok(find(&self.maps, name)?.fd().as_fd())
    }

    /// Entries that a map can hold.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn capacity(&self, name: &'static str) -> Result<u32, DataPlaneError> {
        entries(&self.maps, name)
    }

    /// What each map costs.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn memory(&self) -> Result<Vec<MapMemory>, DataPlaneError> {
        let cost = |(name, _): &(&'static str, MapData)| {
            let def = MAPS.iter().find(|def| def.name == *name)?;
            Some(
                self.capacity(name)
                    .and_then(|entries| MapMemory::of(def, entries)),
            )
        };
        self.maps.iter().filter_map(cost).collect()
    }

    /// Serialises writers of this process.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data of its own, so a writer that panicked left nothing half-written here.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All control words.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.load()
    }

    /// Puts the set in a slot into force.
    pub(super) fn set_generation(&self, generation: u32) {
        self.control.generation().store(generation, Ordering::Release);
    }

    /// Sets how many packets may be reported per CPU and window of 67 ms.
    pub fn set_events_per_window(&self, events: u32) {
        self.control.events_per_window().store(events, Ordering::Relaxed);
    }

    /// Sets how many answers may be sent per CPU and window of 67 ms.
    pub fn set_replies_per_window(&self, replies: u32) {
        self.control
            .replies_per_window()
            .store(replies, Ordering::Relaxed);
    }

    /// Sets the [`fw_common::abi::ControlFlags`].
    pub fn set_flags(&self, flags: u32) {
        self.control.flags().store(flags, Ordering::Relaxed);
    }

    /// Says that the tables are aged; `now` is [`super::coarse_now`]. See [`fw_common::abi::HEARTBEAT_NS`].
    pub fn beat(&self, now: u64) {
        self.control.heartbeat().store(now, Ordering::Relaxed);
    }

    /// Sets until when TCP connections are adopted that were running before the data plane; coarse monotonic ns, 0: never,
    /// `u64::MAX`: always.
    pub fn set_pickup_until(&self, ns: u64) {
        self.control.pickup_until().store(ns, Ordering::Relaxed);
    }

    /// Sets the time of programs that were loaded with [`super::Options::clock_override`]; ns.
    pub fn set_clock(&self, ns: u64) {
        self.control.clock().store(ns, Ordering::Relaxed);
    }

    /// Writes a port's configuration, over an older one of the same interface.
    ///
    /// # Errors
    ///
    /// [`DataPlaneError::PortSlots`] if two other interfaces hold the slots where it may stand.
    pub fn set_port(&self, port: &PortConfig) -> Result<(), DataPlaneError> {
        let _guard = self.lock();
        let holders = self.holders(port.ifindex)?;
        let free = |holder: &PortConfig| holder.ifindex == port.ifindex;
        let slot = holders
            .iter()
            .position(free)
            .or_else(|| holders.iter().position(|holder| holder.ifindex == 0));
        match slot {
            Some(slot) => self.write_port(port_slot(port.ifindex, slot as u32), port),
            None => Err(DataPlaneError::PortSlots {
                ifindex: port.ifindex,
                first: holders[0].ifindex,
                second: holders[1].ifindex,
            }),
        }
    }

    /// Forgets a port: its packets are dropped as `unknown_port` while a program is attached to it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the write.
    pub fn clear_port(&self, ifindex: u32) -> Result<(), DataPlaneError> {
        let _guard = self.lock();
        for (slot, holder) in self.holders(ifindex)?.iter().enumerate() {
            if holder.ifindex == ifindex {
                self.write_port(port_slot(ifindex, slot as u32), &PortConfig::default())?;
            }
        }
        Ok(())
    }

    /// Writes a slot, and then tells the packet path, which keeps the port of its last packet. Under the lock.
    fn write_port(&self, slot: u32, port: &PortConfig) -> Result<(), DataPlaneError> {
        self.write(map_names::PORTS, slot, port)?;
        let changes = self.control.ports();
        let next = changes.load(Ordering::Relaxed).wrapping_add(1);
        changes.store(next.max(1), Ordering::SeqCst);
        Ok(())
    }

    /// What stands in the two slots where a port may stand.
    fn holders(&self, ifindex: u32) -> Result<[PortConfig; 2], DataPlaneError> {
        let first = self.element(map_names::PORTS, port_slot(ifindex, 0))?;
        let second = self.element(map_names::PORTS, port_slot(ifindex, 1))?;
        Ok([first, second])
    }

    /// All configured ports.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a read.
    pub fn ports(&self) -> Result<Vec<PortConfig>, DataPlaneError> {
        let mut ports = Vec::new();
        for slot in 0..PORT_SLOTS {
            let port: PortConfig = self.element(map_names::PORTS, slot)?;
            if port.ifindex != 0 {
                ports.push(port);
            }
        }
        Ok(ports)
    }

    /// One element of an array.
    fn element<V: Plain>(&self, name: &'static str, index: u32) -> Result<V, DataPlaneError> {
        let value = sys::lookup(self.fd(name)?, &index).map_err(error::map("reading", name))?;
        // An element of an array always exists; an index outside of it is the only way to get none.
        value.ok_or_else(|| error::map("reading", name)(std::io::ErrorKind::NotFound.into()))
    }

    /// Writes one element of an array.
    pub(super) fn write<V: Plain>(
        &self,
        name: &'static str,
        index: u32,
        value: &V,
    ) -> Result<(), DataPlaneError> {
        sys::update(self.fd(name)?, &index, value, 0).map_err(error::map("writing", name))
    }
}

/// Entries that a map can hold, as the kernel says.
fn entries(maps: &[(&'static str, MapData)], name: &'static str) -> Result<u32, DataPlaneError> {
    let info = find(maps, name)?.info();
    let info = info.map_err(|source| DataPlaneError::AyaMap {
        action: "reading",
        map: name,
        source: Box::new(source),
    })?;
    Ok(info.max_entries())
}

fn find<'a>(maps: &'a [(&'static str, MapData)], name: &'static str) -> Result<&'a MapData, DataPlaneError> {
    let map = maps.iter().find(|(known, _)| *known == name).map(|(_, map)| map);
    map.ok_or_else(|| DataPlaneError::Missing {
        what: "map",
        name: name.to_owned(),
    })
}
