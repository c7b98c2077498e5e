//! What the packet path counts by source and by limit, and the agent writes down anew from the flow tables.
//!
//! The packet path adds when a flow begins; it does not hear of most ends. Here the entries are read and corrected.

use std::collections::HashMap;
use std::ops::ControlFlow;

use fw_common::abi::{LimitKey, PRESSURE_SLOTS, Source, SourceKey, map_names};

use super::error::{self, DataPlaneError};
use super::sys;
use super::tables::Tables;

impl Tables {
    /// Confirmed flows of all known sources, as the packet path has counted them.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a read.
    pub fn source_flows(&self) -> Result<HashMap<SourceKey, u32>, DataPlaneError> {
        let mut counts = HashMap::new();
        let _ = self.walk_map::<SourceKey, Source>(map_names::SOURCES, |keys, sources| {
            counts.extend(keys.iter().zip(sources).map(|(key, source)| (*key, source.flows)));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(counts)
    }

    /// What is known of a source.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the read.
    pub fn source(&self, key: &SourceKey) -> Result<Option<Source>, DataPlaneError> {
        let name = map_names::SOURCES;
        sys::lookup(self.fd(name)?, key).map_err(error::map("reading", name))
    }

    /// Writes down how many confirmed flows a source has: `counted` by a walk over the main tables, and what the packet path
    /// has added to `before`, the count at the walk's start. So flows that began during the walk count until the next
    /// one, some of them twice, and none is forgotten. Returns true if the count was wrong.
    ///
    /// An entry of a hash map changes as a whole: what a packet writes into it within the microsecond between reading and
    /// writing is lost, at worst a proof, which the source then gives again.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn mend_source(&self, key: &SourceKey, before: u32, counted: u32) -> Result<bool, DataPlaneError> {
        let Some(mut source) = self.source(key)? else {
            return Ok(false);
        };
        let flows = counted.saturating_add(source.flows.saturating_sub(before));
        if flows == source.flows {
            return Ok(false);
        }
        source.flows = flows;
        let name = map_names::SOURCES;
        match sys::update(self.fd(name)?, key, &source, sys::EXIST) {
            Ok(()) => Ok(true),
            // Evicted meanwhile: nothing is counted of it any more.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error::map("writing", name)(error)),
        }
    }

    /// The bucket of a limit; see [`Tables::for_each_bucket`]. `None`: nobody has used it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the read.
    pub fn bucket(&self, key: &LimitKey) -> Result<Option<u64>, DataPlaneError> {
        let name = map_names::LIMITS;
        sys::lookup(self.fd(name)?, key).map_err(error::map("reading", name))
    }

    /// A bucket of new flows by destination, as [`fw_common::pipeline::pressure_slots`] numbers them: its theoretical arrival
    /// time, 2^-8 ns.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the read.
    pub fn pressure(&self, slot: u32) -> Result<u64, DataPlaneError> {
        let name = map_names::PRESSURE;
        let value = sys::lookup(self.fd(name)?, &(slot % PRESSURE_SLOTS));
        Ok(value.map_err(error::map("reading", name))?.unwrap_or(0))
    }

    /// Calls `visit` for each bucket of a limit: its key, and its theoretical arrival time (2^-8 ns) or number of flows.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a read.
    pub fn for_each_bucket(&self, mut visit: impl FnMut(&LimitKey, u64)) -> Result<(), DataPlaneError> {
        let _ = self.walk_map::<LimitKey, u64>(map_names::LIMITS, |keys, values| {
            keys.iter()
                .zip(values)
                .for_each(|(key, value)| visit(key, *value));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(())
    }

    /// As [`Tables::mend_source`], for the bucket of a limit on flows at a time; `before` is 0 where there was no bucket. A
    /// bucket without flows is removed. Returns true if the count was wrong.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn mend_bucket(&self, key: &LimitKey, before: u64, counted: u64) -> Result<bool, DataPlaneError> {
        let name = map_names::LIMITS;
        let map = self.fd(name)?;
        let now: Option<u64> = sys::lookup(map, key).map_err(error::map("reading", name))?;
        let flows = counted.saturating_add(now.unwrap_or(0).saturating_sub(before));
        if now.unwrap_or(0) == flows {
            return Ok(false);
        }
        if flows == 0 {
            return sys::take::<LimitKey, u64>(map, key)
                .map(|taken| taken.is_some())
                .map_err(error::map("deleting from", name));
        }
        sys::update(map, key, &flows, 0).map_err(error::map("writing", name))?;
        Ok(true)
    }
}
