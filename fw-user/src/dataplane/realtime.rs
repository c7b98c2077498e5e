//! Kernels on which the packet path's memory of one packet would not be its own.
//!
//! It lies in a per-CPU map, and is one packet's because XDP and TC programs run with bottom halves disabled, so that none interrupts
//! another one on its CPU. Under `PREEMPT_RT` one section with bottom halves disabled can be preempted by another since commit
//! 3253cb49cbad of 2025 (kernel/softirq.c), unless the kernel is built with `CONFIG_PREEMPT_RT_NEEDS_BH_LOCK`; nothing in /sys tells
//! how it was built. Fail closed: no data plane there.

use std::{fs, io};

use super::error::DataPlaneError;

/// Is 1 on a kernel with `PREEMPT_RT`, and does not exist on others (kernel/ksysfs.c).
const REALTIME: &str = "/sys/kernel/realtime";

/// Refuses such kernels.
pub(super) fn check() -> Result<(), DataPlaneError> {
    if is_another(fs::read_to_string(REALTIME)) {
        return Ok(());
    }
    Err(DataPlaneError::Realtime { path: REALTIME })
}

/// True if the file surely says that the kernel is another one: it does not exist, or holds a 0.
fn is_another(read: io::Result<String>) -> bool {
    match read {
        Ok(text) => text.trim() == "0",
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::is_another;

    #[test]
    fn what_is_not_surely_another_kernel_is_refused() {
        assert!(is_another(Ok("0\n".to_owned())) && is_another(Err(io::ErrorKind::NotFound.into())));
        assert!(!is_another(Ok("1\n".to_owned())) && !is_another(Ok(String::new())));
        assert!(!is_another(Err(io::ErrorKind::PermissionDenied.into())));
    }
}
