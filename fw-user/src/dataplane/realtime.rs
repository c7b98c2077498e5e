//! Kernels on which the packet path's memory of one packet would not be its own.
//!
//! It lies in a per-CPU map, and is one packet's because XDP and TC programs run with bottom halves disabled, so that none interrupts
//! another one on its CPU. Under `PREEMPT_RT` one section with bottom halves disabled can be preempted by another since commit
//! 3253cb49cbad of 2025 (kernel/softirq.c), unless the kernel is built with `CONFIG_PREEMPT_RT_NEEDS_BH_LOCK`; nothing in /sys tells
//! how it was built. Fail closed: no data plane there.

use std::fs;

use super::error::DataPlaneError;

/// Is 1 on a kernel with `PREEMPT_RT`, and does not exist on others (kernel/ksysfs.c).
const REALTIME: &str = "/sys/kernel/realtime";

/// Refuses such kernels.
pub(super) fn check() -> Result<(), DataPlaneError> {
    if says_so(fs::read_to_string(REALTIME).ok().as_deref()) {
        return Err(DataPlaneError::Realtime { path: REALTIME });
    }
    Ok(())
}

/// What the file's text means; `None`: there is none.
fn says_so(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::says_so;

    #[test]
    fn whatever_is_not_surely_another_kernel_is_refused() {
        assert!(!says_so(None) && !says_so(Some("0\n")));
        assert!(says_so(Some("1\n")) && says_so(Some("")));
    }
}
