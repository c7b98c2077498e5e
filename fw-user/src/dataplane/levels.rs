//! How full the main tables are: the packet path adds to their levels while the agent subtracts what it deletes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{MutexGuard, PoisonError};

use fw_common::abi::{Levels, map_names};

use super::error::{self, DataPlaneError};
use super::mmap::LevelsPage;
use super::tables::Tables;

/// Entries of a main table that are kept for lifelines: a share of it, but at least so many.
const RESERVE_SHARE: u32 = 64;
const RESERVE_LEAST: u32 = 16;

impl Tables {
    /// Makes what the packet path needs before its first packet and nobody has made yet: the key of its hashes, and how
    /// much room the main tables have. The key is never changed: what was hashed with it lives as long as the maps.
    pub(super) fn prepare(&self) -> Result<(), DataPlaneError> {
        let secret = self.control.secret();
        if secret.iter().all(|word| word.load(Ordering::Relaxed) == 0) {
            let random = random().map_err(error::map("making a random key for", map_names::CONTROL))?;
            for (word, random) in secret.into_iter().zip(random) {
                word.store(random, Ordering::Relaxed);
            }
        }
        for (family, name) in [map_names::FLOWS4, map_names::FLOWS6].into_iter().enumerate() {
            let room = room(self.capacity(name)?);
            self.levels.room(family).store(room.into(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// How full the main tables are, and how full they may get.
    #[must_use]
    pub fn levels(&self) -> Levels {
        let pair = |word: fn(&LevelsPage, usize) -> &AtomicU64| {
            [0, 1].map(|family| word(&self.levels, family).load(Ordering::Relaxed))
        };
        Levels {
            used: pair(LevelsPage::used),
            room: pair(LevelsPage::room),
            reserved: [0; 4],
        }
    }

    /// Adds to a main table's level, or subtracts from it; it never falls below 0, which would read as a full table.
    pub(super) fn add_used(&self, family: usize, change: i64) {
        let used = self.levels.used(family);
        // Without a wanted value the update would fail; this one always has one.
        let _ = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            Some(used.saturating_add_signed(change))
        });
    }

    /// Entries of a main table, as its level says now.
    pub(super) fn used(&self, family: usize) -> u64 {
        self.levels.used(family).load(Ordering::Relaxed)
    }

    /// Forgets which sources have completed a handshake; each is known again after its next one.
    pub fn clear_source_bits(&self) {
        self.bits.clear(0..self.bits.words());
    }

    /// Serialises those who delete from the main tables.
    pub(super) fn deleting(&self) -> MutexGuard<'_, ()> {
        // As for `lock`.
        self.deleting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Entries up to which anyone's flow is inserted into a main table of this capacity.
const fn room(capacity: u32) -> u32 {
    let share = capacity / RESERVE_SHARE;
    let reserve = if share > RESERVE_LEAST {
        share
    } else {
        RESERVE_LEAST
    };
    // A table for a handful of flows is no table for lifelines only.
    let half = capacity / 2;
    capacity - if reserve < half { reserve } else { half }
}

/// Two random numbers, not both 0, once the kernel has gathered enough randomness.
fn random() -> std::io::Result<[u64; 2]> {
    loop {
        let mut random = [0_u64; 2];
        // SAFETY: the buffer is live and as long as the call is told; any bytes make two numbers.
        let got = unsafe { libc::getrandom(random.as_mut_ptr().cast(), size_of_val(&random), 0) };
        match usize::try_from(got) {
            Err(_) => return Err(std::io::Error::last_os_error()),
            // Up to 256 bytes come at once, unless a signal was caught before there was any randomness.
            Ok(got) if got == size_of_val(&random) && random != [0; 2] => return Ok(random),
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{random, room};

    #[test]
    fn lifelines_keep_a_share_of_the_table() {
        assert_eq!(room(131_073), 131_073 - 2_048);
        assert_eq!(room(1_000), 984);
        assert_eq!(room(20), 10);
        assert_eq!(room(1), 1);
    }

    #[test]
    fn keys_differ() {
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
