//! The bits of flows that may be in a table ([`fw_common::abi::Presence`]): filled anew from time to time, because the packet
//! path clears none.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;

use fw_common::abi::{Presence, map_names};
use fw_common::pipeline::{FlowStat, Hashed, place};

use super::error::{self, DataPlaneError};
use super::flows::{FlowKey, FlowTable};
use super::options::FlowSizes;
use super::sys;
use super::tables::Tables;

/// Bits of a half for each entry that the flow tables can hold, at least: full tables set one of eight to sixteen. More bits
/// would be known for fewer strangers and cost more of them a read from memory.
const BITS: u64 = 8;
/// The bits are filled anew once so many of them may be stale: one of 32.
const STALE: u64 = 32;
/// Flows and bits of a word.
const WORD_BITS: u64 = 64;

/// Words of both halves for tables of these sizes.
pub(super) fn words(sizes: &FlowSizes) -> u32 {
    let entries = [sizes.flows4, sizes.flows6, sizes.half4, sizes.half6];
    let entries: u64 = entries.into_iter().map(u64::from).sum();
    let half = (entries * BITS / WORD_BITS).max(1).next_power_of_two();
    u32::try_from(2 * half).unwrap_or(1 << 31)
}

/// Words of one half of a map of so many, a power of two; 0 if the map does not have two such halves.
pub(super) const fn half(words: u32) -> u32 {
    let half = words / 2;
    if half.is_power_of_two() { half } else { 0 }
}

/// A half that is being filled with the bits of the flows that there are. Dropped without
/// [`Tables::finish_presence`], it changes nothing for packets.
#[derive(Debug)]
pub struct Filling {
    half: u32,
    words: Range<u32>,
    secret: u64,
    opened: u64,
}

impl Tables {
    /// True if so many flows were opened since the bits were filled that it is worth while to do it anew, or if no packet reads
    /// them yet.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a read.
    pub fn presence_is_stale(&self) -> Result<bool, DataPlaneError> {
        let filled_at = self.filled_at.load(Ordering::Relaxed);
        if filled_at == u64::MAX || self.control().presence & Presence::READ == 0 {
            return Ok(true);
        }
        let bits = u64::from(half(self.presence.words())) * WORD_BITS;
        Ok(self.opened()?.wrapping_sub(filled_at) > bits / STALE)
    }

    /// Begins to fill the half that is not read. From here on the packet path sets the bits of new flows in both halves; those
    /// of all others must be told to [`Tables::mark_present`], the half-open table's before the main table's, because
    /// flows go from there to there. `None` where the kernel knows no grace period for user space (`nohz_full` CPUs): then the
    /// bits stay as they are.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a read.
    pub fn begin_presence(&self) -> Result<Option<Filling>, DataPlaneError> {
        let words = half(self.presence.words());
        if words == 0 {
            return Ok(None);
        }
        let control = self.control();
        let reads = control.presence & (Presence::READ | Presence::SECOND);
        let spare = u32::from(reads == Presence::READ);
        let opened = self.opened()?;
        self.control
            .presence()
            .store(reads | Presence::KEPT, Ordering::SeqCst);
        let range = spare * words..(spare + 1) * words;
        self.presence.clear(range.clone());
        // What a packet inserts that has not seen both halves, or whose bit was cleared just now, is in a table once it is
        // through, and the walk over the tables begins after that.
        if sys::grace_period().is_err() {
            return Ok(None);
        }
        Ok(Some(Filling {
            half: spare,
            words: range,
            secret: control.secret[0],
            opened,
        }))
    }

    /// Sets a flow's bit in the half that is being filled.
    pub fn mark_present(&self, filling: &Filling, key: &FlowKey) {
        let hash = match key {
            FlowKey::V4(key) => key.hash(filling.secret),
            FlowKey::V6(key) => key.hash(filling.secret),
        };
        let (word, bit) = place(hash, filling.words.end - filling.words.start);
        self.presence.set(filling.words.start + word, bit);
    }

    /// Lets packets read the half that was filled, and keeps only this one.
    pub fn finish_presence(&self, filling: &Filling) {
        let second = if filling.half == 0 { 0 } else { Presence::SECOND };
        let keep = Presence::KEEP[(filling.half & 1) as usize];
        self.control
            .presence()
            .store(Presence::READ | second | keep, Ordering::SeqCst);
        self.filled_at.store(filling.opened, Ordering::Relaxed);
    }

    /// Fills the bits in one go, outside of ageing.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a read; packets go on reading the bits of before.
    pub fn fill_presence(&self) -> Result<(), DataPlaneError> {
        let Some(filling) = self.begin_presence()? else {
            return Ok(());
        };
        for table in [FlowTable::HalfOpen, FlowTable::Main] {
            self.for_each_flow(table, |key, _| {
                self.mark_present(&filling, &key);
                ControlFlow::Continue(())
            })?;
        }
        self.finish_presence(&filling);
        Ok(())
    }

    /// Share of the bits that are set in the half that packets read, 0 to 1; `None` if they read none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn presence_load(&self) -> Option<f64> {
        let (words, presence) = (half(self.presence.words()), self.control().presence);
        if words == 0 || presence & Presence::READ == 0 {
            return None;
        }
        let first = (presence & Presence::SECOND) * words;
        let ones = self.presence.ones(first..first + words);
        Some(ones as f64 / (u64::from(words) * WORD_BITS) as f64)
    }

    /// Flows opened so far.
    fn opened(&self) -> Result<u64, DataPlaneError> {
        let stat = FlowStat::Opened as u32;
        let cpus = aya::util::nr_cpus().map_err(|(path, source)| error::pin("reading", path)(source))?;
        let mut values = vec![0_u64; cpus];
        let map = map_names::FLOW_STATS;
        sys::lookup_per_cpu(self.fd(map)?, stat, &mut values).map_err(error::map("reading", map))?;
        Ok(values.into_iter().fold(0, u64::wrapping_add))
    }
}

#[cfg(test)]
mod tests {
    use super::{FlowSizes, half, words};

    #[test]
    fn there_are_eight_to_sixteen_bits_for_an_entry() {
        let sizes = FlowSizes::DEFAULT;
        let entries = u64::from(sizes.flows4) * 2 + u64::from(sizes.half4) + u64::from(sizes.half6);
        let bits = u64::from(half(words(&sizes))) * 64;
        assert!(bits >= entries * 8 && bits <= entries * 16);
        let huge = FlowSizes {
            flows4: u32::MAX,
            flows6: u32::MAX,
            ..sizes
        };
        assert!(half(words(&huge)).is_power_of_two());
    }

    #[test]
    fn a_map_without_two_halves_is_not_used() {
        assert_eq!([half(0), half(1), half(2), half(6), half(8)], [0, 0, 1, 0, 4]);
    }
}
