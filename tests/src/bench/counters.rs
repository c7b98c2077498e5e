//! Counters of the CPU around a piece of work, where the machine has them (`perf_event_open(2)`). Virtual machines often have none.

use std::io;

use perf_event::events::{Event, Hardware};
use perf_event::{Builder, Counter, Group};

/// A count with its name.
pub(super) type Count = (&'static str, u64);

/// Counters that count together: this thread's, in the kernel too, where the programs run.
pub(super) struct Counters {
    group: Group,
    counters: Vec<(&'static str, Counter)>,
}

impl Counters {
    /// Cycles, instructions and cache misses of the CPU.
    ///
    /// # Errors
    /// If the machine has no such counters, or they may not be used.
    pub fn of_the_cpu() -> io::Result<Self> {
        Self::of([
            ("cycles", Hardware::CPU_CYCLES),
            ("instructions", Hardware::INSTRUCTIONS),
            ("cache misses", Hardware::CACHE_MISSES),
        ])
    }

    fn of<const N: usize>(events: [(&'static str, impl Event + Clone); N]) -> io::Result<Self> {
        let mut group = Group::new()?;
        let mut counters = Vec::new();
        for (name, event) in events {
            counters.push((name, group.add(Builder::new(event).include_kernel())?));
        }
        Ok(Self { group, counters })
    }

    /// Does the work, and says what was counted meanwhile.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn around<T>(&mut self, work: impl FnOnce() -> T) -> io::Result<(T, Vec<Count>)> {
        self.group.reset()?;
        self.group.enable()?;
        let done = work();
        self.group.disable()?;
        let counts = self.group.read()?;
        let named = self
            .counters
            .iter()
            .map(|(name, counter)| (*name, counts[counter]));
        Ok((done, named.collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::fs::MetadataExt;

    use perf_event::events::Software;

    use super::Counters;

    /// The kernel's own counters are on every machine; who is not root may be forbidden to use them (`perf_event_paranoid`).
    #[test]
    fn what_happens_meanwhile_is_counted_and_nothing_else() -> std::io::Result<()> {
        let touch = |pages: usize| {
            let bytes = vec![1_u8; pages << 12];
            std::hint::black_box(&bytes);
        };
        let events = [
            ("faults", Software::PAGE_FAULTS),
            ("minor faults", Software::PAGE_FAULTS_MIN),
        ];
        let mut counters = match Counters::of(events) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                assert_ne!(std::fs::metadata("/proc/self")?.uid(), 0, "{error}");
                return Ok(());
            }
            counters => counters?,
        };
        touch(4096);
        let (value, counts) = counters.around(|| {
            touch(2048);
            7
        })?;
        assert_eq!((value, counts[0].0, counts[1].0), (7, "faults", "minor faults"));
        assert!((1..4096).contains(&counts[0].1) && counts[1].1 > 0, "{counts:?}");
        let ((), none) = counters.around(|| ())?;
        assert!(none[0].1 < 16, "{none:?}");
        Ok(())
    }
}
