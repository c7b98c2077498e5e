//! Ageing: what is over is removed from the flow tables.

use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;

use fw_common::abi::{Flow, Key4, Key6, StateWord};

use super::error::{self, DataPlaneError};
use super::flows::{FlowKey, FlowTable, TableKey};
use super::sys;
use super::tables::Tables;

/// An entry in the main table is removed only this long after it ended: by then no packet in flight still writes to it.
pub const GRACE_NS: u64 = 2_000_000_000;

/// What ageing did with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Keep,
    /// It was over and has been removed. Each flow has this fate exactly once.
    End,
}

/// What a walk with ageing found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aged {
    /// Entries that stay.
    pub kept: u64,
    /// Entries removed.
    pub ended: u64,
    /// Half-open table: removed entries that nobody had answered.
    pub unanswered: u64,
    /// Main table: by how much its levels were wrong and have been put right.
    pub mended: u64,
}

impl Tables {
    /// Removes flows from the main table that ended at least [`GRACE_NS`] before `now` ([`super::coarse_now`]), and tells
    /// `report` about every entry, so that one walk also serves the statistics.
    ///
    /// An ended entry is never written again by the packet path, so what is reported is final. The table's level falls by
    /// exactly what was removed, and is put right if it does not fit what was found by a walk.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a read or a deletion; flows removed before that have been reported.
    pub fn age(
        &self,
        now: u64,
        mut report: impl FnMut(FlowKey, &Flow, Fate),
    ) -> Result<Aged, DataPlaneError> {
        let mut aged = Aged::default();
        self.age_main::<Key4>(now, &mut aged, &mut report)?;
        self.age_main::<Key6>(now, &mut aged, &mut report)?;
        Ok(aged)
    }

    fn age_main<K: TableKey>(
        &self,
        now: u64,
        aged: &mut Aged,
        report: &mut impl FnMut(FlowKey, &Flow, Fate),
    ) -> Result<(), DataPlaneError> {
        let map = self.fd(K::MAIN)?;
        let _guard = self.deleting();
        let before = self.used(K::FAMILY);
        let (mut found, mut deleted) = (0_u64, 0_u64);
        let mut over: Vec<(K, Flow)> = Vec::new();
        let _ = self.walk::<K>(FlowTable::Main, |keys, flows| {
            found += keys.len() as u64;
            over.clear();
            for (key, flow) in keys.iter().zip(flows) {
                if is_over(flow, now) {
                    over.push((*key, *flow));
                } else {
                    aged.kept += 1;
                    report(key.wrap(), flow, Fate::Keep);
                }
            }
            let mut gone = 0;
            let result = delete_each(map, &over, |key, flow| {
                gone += 1;
                report(key.wrap(), flow, Fate::End);
            });
            self.add_used(K::FAMILY, -gone);
            deleted += gone.unsigned_abs();
            aged.ended += gone.unsigned_abs();
            result.map_err(error::map("deleting from", K::MAIN))?;
            Ok(ControlFlow::Continue(()))
        })?;
        // Each CPU may be between an insertion and the count of it.
        let cpus = aya::util::nr_cpus().map_or(1024, |cpus| cpus as u32);
        let drift = drift(before, found, self.used(K::FAMILY) + deleted, cpus.into());
        self.add_used(K::FAMILY, -drift);
        aged.mended += drift.unsigned_abs();
        Ok(())
    }

    /// Removes half-open entries whose time is over, and counts those that nobody answered. `report` hears of every entry.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a read or a deletion.
    pub fn age_half_open(
        &self,
        now: u64,
        mut report: impl FnMut(FlowKey, &Flow, Fate),
    ) -> Result<Aged, DataPlaneError> {
        let mut aged = Aged::default();
        self.age_half::<Key4>(now, &mut aged, &mut report)?;
        self.age_half::<Key6>(now, &mut aged, &mut report)?;
        Ok(aged)
    }

    fn age_half<K: TableKey>(
        &self,
        now: u64,
        aged: &mut Aged,
        report: &mut impl FnMut(FlowKey, &Flow, Fate),
    ) -> Result<(), DataPlaneError> {
        let map = self.fd(K::HALF)?;
        let _ = self.walk::<K>(FlowTable::HalfOpen, |keys, flows| {
            for (key, flow) in keys.iter().zip(flows) {
                let ended = if flow.expired(now) {
                    take_expired(map, key, now)?
                } else {
                    None
                };
                if let Some(last) = ended {
                    aged.ended += 1;
                    aged.unanswered += u64::from(!StateWord(last.state).has(StateWord::REPLIED));
                    report(key.wrap(), &last, Fate::End);
                } else {
                    aged.kept += 1;
                    report(key.wrap(), flow, Fate::Keep);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(())
    }
}

/// True if a flow ended at least [`GRACE_NS`] ago. Of an entry marked dead it is only known when its last packet came.
fn is_over(flow: &Flow, now: u64) -> bool {
    flow.expired(now.saturating_sub(GRACE_NS)) && now.saturating_sub(flow.last_seen()) > GRACE_NS
}

/// By how much a level is certainly too high (or, negative, too low) after a walk.
///
/// `before` and `after` are the level at the start and the end of the walk, the latter with what the walk deleted added
/// again; `found` is how many entries it met. Meanwhile only the packet path inserts and only the walk deletes, so it met
/// at least the entries of the start and at most those of the end. With a true level, `before <= found <= after`;
/// what lies outside is drift, from an agent that was killed between a deletion and its subtraction. Within `slack` it
/// may be insertions under way, and is left to the next walk.
fn drift(before: u64, found: u64, after: u64, slack: i64) -> i64 {
    let (low, high) = (
        before.wrapping_sub(found).cast_signed(),
        after.wrapping_sub(found).cast_signed(),
    );
    match () {
        () if low > slack => low,
        () if high < -slack => high,
        () => 0,
    }
}

/// Deletes these entries and calls `done` for each that this call deleted. One that is gone already is skipped.
fn delete_each<K: TableKey>(
    map: BorrowedFd<'_>,
    entries: &[(K, Flow)],
    mut done: impl FnMut(&K, &Flow),
) -> std::io::Result<()> {
    let keys: Vec<K> = entries.iter().map(|(key, _)| *key).collect();
    let mut start = 0;
    let mut busy = 0;
    while start < keys.len() {
        let (deleted, result) = sys::delete_batch(map, &keys[start..]);
        entries[start..start + deleted]
            .iter()
            .for_each(|(key, flow)| done(key, flow));
        start += deleted;
        match result {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => start += 1,
            // The bucket's lock was taken on this CPU (kernels before 6.15): try again, but not for ever.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && busy < 1000 => busy += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes an expired half-open entry. The packet path may have replaced it by a new flow of the same key since it was
/// read; such a one is put back, unless yet another has taken its place.
fn take_expired<K: TableKey>(map: BorrowedFd<'_>, key: &K, now: u64) -> Result<Option<Flow>, DataPlaneError> {
    let Some(taken) = sys::take::<K, Flow>(map, key).map_err(error::map("deleting from", K::HALF))? else {
        return Ok(None);
    };
    if taken.expired(now) {
        return Ok(Some(taken));
    }
    match sys::update(map, key, &taken, sys::NOEXIST) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => {
            Err(error::map("writing to", K::HALF)(error))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use fw_common::abi::{Flow, Half, StateWord};

    use super::{GRACE_NS, drift, is_over};

    fn flow(last_seen: u64, flags: u32, timeout_s: u32) -> Flow {
        let half = Half {
            last_seen,
            ..Half::default()
        };
        Flow {
            half: [half, Half::default()],
            state: StateWord::new(1, flags, timeout_s).0,
            ..Flow::default()
        }
    }

    #[test]
    fn a_flow_is_over_two_seconds_after_its_timeout() {
        let idle = flow(1_000, 0, 10);
        let end = 1_000 + 10_000_000_000 + GRACE_NS;
        assert!(!is_over(&idle, 1_000));
        assert!(!is_over(&idle, end));
        assert!(is_over(&idle, end + 1));
    }

    #[test]
    fn a_dead_flow_is_over_two_seconds_after_its_last_packet() {
        let dead = flow(1_000, StateWord::DEAD, 86_400);
        assert!(!is_over(&dead, 1_000 + GRACE_NS));
        assert!(is_over(&dead, 1_001 + GRACE_NS));
    }

    #[test]
    fn a_clock_behind_the_packets_ends_nothing() {
        assert!(!is_over(&flow(u64::MAX, 0, 1), 5));
        assert!(!is_over(&flow(u64::MAX, StateWord::DEAD, 1), 5));
    }

    #[test]
    fn a_level_is_mended_by_what_is_certain_only() {
        assert_eq!(drift(100, 100, 100, 2), 0);
        assert_eq!(drift(100, 130, 150, 2), 0, "inserted meanwhile");
        assert_eq!(drift(101, 99, 101, 2), 0, "under way");
        assert_eq!(
            drift(4196, 110, 4206, 2),
            4086,
            "killed between deletion and subtraction"
        );
        assert_eq!(drift(0, 300, 20, 2), -280, "entries that nobody counted");
    }
}
