//! Counters: of packets by reason, and of conntrack.

use fw_common::abi::{Count, NOTED, map_names};

use super::error::{self, DataPlaneError};
use super::sys;
use super::tables::Tables;

impl Tables {
    /// Packets and bytes by reason number, summed over the CPUs; reasons that never occurred are left out.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a read.
    pub fn counters(&self) -> Result<Vec<(u8, Count)>, DataPlaneError> {
        self.counters_from(0)
    }

    /// The same of packets that would have been dropped, had their screen or rule not been told to report only. They count
    /// among [`Tables::counters`] too, by what happened to them.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a read.
    pub fn noted(&self) -> Result<Vec<(u8, Count)>, DataPlaneError> {
        self.counters_from(NOTED)
    }

    fn counters_from(&self, base: u32) -> Result<Vec<(u8, Count)>, DataPlaneError> {
        let mut counters = Vec::new();
        for reason in 0..=u8::MAX {
            let mut sum = Count::default();
            let slot = base + u32::from(reason);
            for cpu in self.per_cpu(map_names::COUNTERS, slot, 2)?.chunks_exact(2) {
                sum.packets = sum.packets.wrapping_add(cpu[0]);
                sum.bytes = sum.bytes.wrapping_add(cpu[1]);
            }
            if sum != Count::default() {
                counters.push((reason, sum));
            }
        }
        Ok(counters)
    }

    /// Conntrack statistics by number ([`fw_common::pipeline::FlowStat`]), summed over the CPUs.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a read.
    pub fn flow_stats(&self) -> Result<Vec<u64>, DataPlaneError> {
        let sum = |words: Vec<u64>| words.into_iter().fold(0, u64::wrapping_add);
        let entries = self.capacity(map_names::FLOW_STATS)?;
        (0..entries)
            .map(|stat| self.per_cpu(map_names::FLOW_STATS, stat, 1).map(sum))
            .collect()
    }

    /// One element's values, `words` for each possible CPU.
    fn per_cpu(&self, name: &'static str, key: u32, words: usize) -> Result<Vec<u64>, DataPlaneError> {
        let cpus = aya::util::nr_cpus().map_err(|(path, source)| error::pin("reading", path)(source))?;
        let mut values = vec![0; cpus * words];
        sys::lookup_per_cpu(self.fd(name)?, key, &mut values).map_err(error::map("reading", name))?;
        Ok(values)
    }
}
