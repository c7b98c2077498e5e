//! Walks over the flow tables, and ageing.

use std::ops::ControlFlow;

use fw_common::abi::{Flow, Key4, Key6, map_names};
use nix::time::{ClockId, clock_gettime};

use super::error::{self, DataPlaneError};
use super::plain::Plain;
use super::sys::{self, Cursor, Step};
use super::tables::Tables;

/// Entries that one system call reads at first: about 0.5 MB for IPv6.
const BATCH: usize = 4096;
/// Which of the two stages of conntrack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowTable {
    /// Confirmed flows.
    Main,
    /// Flows that the opener has not confirmed.
    HalfOpen,
}

/// Key of a flow of either address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowKey {
    /// An IPv4 flow.
    V4(Key4),
    /// An IPv6 flow.
    V6(Key6),
}

/// The key types of the flow tables.
pub(super) trait TableKey: Plain {
    const MAIN: &'static str;
    const HALF: &'static str;
    /// Index of the family in [`fw_common::abi::Levels`].
    const FAMILY: usize;
    fn wrap(self) -> FlowKey;
}

impl TableKey for Key4 {
    const MAIN: &'static str = map_names::FLOWS4;
    const HALF: &'static str = map_names::HALF4;
    const FAMILY: usize = 0;
    fn wrap(self) -> FlowKey {
        FlowKey::V4(self)
    }
}

impl TableKey for Key6 {
    const MAIN: &'static str = map_names::FLOWS6;
    const HALF: &'static str = map_names::HALF6;
    const FAMILY: usize = 1;
    fn wrap(self) -> FlowKey {
        FlowKey::V6(self)
    }
}

fn map_name<K: TableKey>(table: FlowTable) -> &'static str {
    match table {
        FlowTable::Main => K::MAIN,
        FlowTable::HalfOpen => K::HALF,
    }
}

/// Now on the clock that flows are stamped with (`bpf_ktime_get_coarse_ns`), ns.
#[must_use]
pub fn coarse_now() -> u64 {
    // The clock has existed since Linux 2.6.32; were it missing, 0 would let every flow live on.
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |now| {
        now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned()
    })
}

impl Tables {
    /// Calls `visit` for each entry of both address families until it breaks. Entries that are made or removed meanwhile
    /// may be seen or not; no entry is seen twice. Memory stays below a few megabytes, whatever the table holds.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a read.
    pub fn for_each_flow(
        &self,
        table: FlowTable,
        mut visit: impl FnMut(FlowKey, &Flow) -> ControlFlow<()>,
    ) -> Result<(), DataPlaneError> {
        let mut visit = |keys: &[FlowKey], flows: &[Flow]| {
            keys.iter()
                .zip(flows)
                .try_for_each(|(key, flow)| visit(*key, flow))
        };
        if self.walk_wrapped::<Key4>(table, &mut visit)?.is_continue() {
            let _ = self.walk_wrapped::<Key6>(table, &mut visit)?;
        }
        Ok(())
    }

    fn walk_wrapped<K: TableKey>(
        &self,
        table: FlowTable,
        visit: &mut impl FnMut(&[FlowKey], &[Flow]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, DataPlaneError> {
        let mut wrapped = Vec::new();
        self.walk::<K>(table, |keys, flows| {
            wrapped.clear();
            wrapped.extend(keys.iter().map(|key| key.wrap()));
            Ok(visit(&wrapped, flows))
        })
    }

    /// Calls `visit` with chunks of a flow table.
    pub(super) fn walk<K: TableKey>(
        &self,
        table: FlowTable,
        visit: impl FnMut(&[K], &[Flow]) -> Result<ControlFlow<()>, DataPlaneError>,
    ) -> Result<ControlFlow<()>, DataPlaneError> {
        self.walk_map(map_name::<K>(table), visit)
    }

    /// Calls `visit` with chunks of a hash map, whose types must be those of its definition.
    pub(super) fn walk_map<K: Plain, V: Plain>(
        &self,
        name: &'static str,
        mut visit: impl FnMut(&[K], &[V]) -> Result<ControlFlow<()>, DataPlaneError>,
    ) -> Result<ControlFlow<()>, DataPlaneError> {
        let map = self.fd(name)?;
        let mut keys = vec![K::default(); BATCH];
        let mut values = vec![V::default(); BATCH];
        let mut cursor = Cursor::default();
        loop {
            let step = sys::lookup_batch(map, &mut cursor, &mut keys, &mut values)
                .map_err(error::map("reading", name))?;
            let read = match step {
                Step::More(read) | Step::End(read) => read,
                Step::Grow => {
                    keys.resize(keys.len() * 2, K::default());
                    values.resize(values.len() * 2, V::default());
                    continue;
                }
            };
            let flow = visit(&keys[..read], &values[..read])?;
            if flow.is_break() || matches!(step, Step::End(_)) {
                return Ok(flow);
            }
        }
    }

    /// Removes a flow at once from both tables; its next packet is judged as a new one. Returns what it held, `None` if
    /// there was none.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the deletion.
    pub fn kill(&self, key: &FlowKey) -> Result<Option<Flow>, DataPlaneError> {
        match key {
            FlowKey::V4(key) => self.kill_in_both(key),
            FlowKey::V6(key) => self.kill_in_both(key),
        }
    }

    fn kill_in_both<K: TableKey>(&self, key: &K) -> Result<Option<Flow>, DataPlaneError> {
        let _guard = self.deleting();
        // Half-open first: the other way round, a promotion in between would survive.
        let half = sys::take(self.fd(K::HALF)?, key).map_err(error::map("deleting from", K::HALF))?;
        let main = sys::take(self.fd(K::MAIN)?, key).map_err(error::map("deleting from", K::MAIN))?;
        if main.is_some() {
            self.add_used(K::FAMILY, -1);
        }
        Ok(main.or(half))
    }

    /// One flow, as it is now.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the read.
    pub fn flow(&self, table: FlowTable, key: &FlowKey) -> Result<Option<Flow>, DataPlaneError> {
        match key {
            FlowKey::V4(key) => self.flow_in(table, key),
            FlowKey::V6(key) => self.flow_in(table, key),
        }
    }

    fn flow_in<K: TableKey>(&self, table: FlowTable, key: &K) -> Result<Option<Flow>, DataPlaneError> {
        let name = map_name::<K>(table);
        sys::lookup(self.fd(name)?, key).map_err(error::map("reading", name))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_runs() {
        assert!(super::coarse_now() > 0);
    }
}
