//! Between the kernel's monotonic clock and the wall clock.

use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};

/// The clock's reading in ns. Linux has both clocks in use here since 2.6.32, so a reading cannot fail; should it, time
/// stands still and no flow is aged.
fn nanoseconds(clock: ClockId) -> u64 {
    let Ok(time) = clock_gettime(clock) else { return 0 };
    time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs()
}

/// Translates monotonic times to wall-clock times. Made anew for each batch, so that a set clock shows at once.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    monotonic: u64,
    wall: Timestamp,
}

impl WallClock {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Self {
        Self {
            monotonic: nanoseconds(ClockId::CLOCK_MONOTONIC),
            wall: Timestamp::now(),
        }
    }

    /// A clock whose monotonic reading `monotonic` (ns) is the wall-clock time `wall`.
    #[must_use]
    pub const fn fixed(monotonic: u64, wall: Timestamp) -> Self {
        Self { monotonic, wall }
    }

    /// Wall-clock time of the monotonic time `ns`, to the millisecond; a time that cannot be expressed becomes now.
    #[must_use]
    pub fn at(&self, ns: u64) -> Timestamp {
        let ago = i128::from(self.monotonic) - i128::from(ns);
        let ago = SignedDuration::from_nanos(i64::try_from(ago).unwrap_or(0));
        let time = self.wall.checked_sub(ago).unwrap_or(self.wall);
        Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
    }
}

/// When this machine was started, Unix time in seconds: the wall clock less the time since then (`CLOCK_BOOTTIME`, which
/// goes on while the machine sleeps). A set wall clock changes it, so it is asked anew for each policy.
#[must_use]
pub fn boot_unix_s() -> i64 {
    let since_boot = nanoseconds(ClockId::CLOCK_BOOTTIME) / 1_000_000_000;
    Timestamp::now().as_second().saturating_sub_unsigned(since_boot)
}

#[cfg(test)]
mod tests {
    use super::{WallClock, boot_unix_s};

    #[test]
    fn the_machine_was_started_in_the_past_and_not_at_the_epoch() {
        let now = jiff::Timestamp::now().as_second();
        assert!((1..now).contains(&boot_unix_s()));
    }

    #[test]
    fn monotonic_times_become_wall_times() {
        let clock = WallClock::fixed(5_000_000_000, "2026-03-01T10:00:05Z".parse().unwrap());
        assert_eq!(clock.at(0).to_string(), "2026-03-01T10:00:00Z");
        assert_eq!(clock.at(4_500_000_000).to_string(), "2026-03-01T10:00:04.5Z");
        assert_eq!(
            clock.at(u64::MAX).to_string(),
            "2026-03-01T10:00:05Z",
            "nonsense is no panic"
        );
    }
}
