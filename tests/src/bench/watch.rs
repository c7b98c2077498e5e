//! The rate of a counter, seen from outside and robust against what else the machine does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::stats::upper_quartile;

/// How often the counter is read.
const STEP: Duration = Duration::from_millis(2);
/// A reading that took longer was interrupted, so that nobody knows to which moment it belongs.
const PROMPT: Duration = Duration::from_micros(100);
/// Fewer steps give no rate.
const STEPS: usize = 8;
/// Nice value of the watching thread: ahead even of the generators, where every CPU generates.
const WATCHER_NICE: i32 = -20;

/// Watches a counter by CPU from when the first `cpus` are all at work until one has finished. The upper quartile of the
/// steps' rates, per second: where other programs took the CPU, a step says nothing about the packet path. `None` if there
/// were too few steps.
///
/// # Errors
/// If the counter cannot be read.
pub fn rate(
    finished: &AtomicBool,
    cpus: usize,
    counter: impl Fn() -> Result<Vec<u64>>,
) -> Result<Option<f64>> {
    hurry(WATCHER_NICE)?;
    let idle = counter()?;
    let mut readings: Vec<(Instant, u64)> = Vec::new();
    while !finished.load(Ordering::Relaxed) {
        std::thread::sleep(STEP);
        let (now, counts) = (Instant::now(), counter()?);
        let prompt = now.elapsed() < PROMPT;
        let all_at_work = counts
            .iter()
            .zip(&idle)
            .take(cpus)
            .all(|(count, idle)| count > idle);
        if prompt && all_at_work && !finished.load(Ordering::Relaxed) {
            readings.push((now, counts.iter().sum()));
        }
    }
    let steps: Vec<f64> = readings
        .windows(2)
        .filter_map(|pair| step(pair[0], pair[1]))
        .collect();
    Ok((steps.len() >= STEPS).then(|| upper_quartile(steps)))
}

/// Growth per second between two readings; `None` if it does not fit into 32 bits, which no packet counter reaches in
/// some milliseconds.
fn step((start, from): (Instant, u64), (end, to): (Instant, u64)) -> Option<f64> {
    let grown = u32::try_from(to.checked_sub(from)?).ok()?;
    Some(f64::from(grown) / (end - start).as_secs_f64())
}

/// Sets the calling thread's nice value.
///
/// # Errors
/// Without the privilege.
pub fn hurry(nice: i32) -> Result<()> {
    // SAFETY: the call takes numbers only; 0 is the calling thread.
    let set = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    ensure!(
        set == 0,
        "cannot raise a thread's priority: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}
