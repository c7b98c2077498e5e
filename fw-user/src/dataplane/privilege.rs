//! Asks for the capabilities first: without them the kernel's answers are misleading ("section not found").

use std::fs;

use super::error::{self, DataPlaneError};

/// Bits of the effective set (include/uapi/linux/capability.h).
const NEEDED: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// Fails with the names of missing capabilities. `CAP_SYS_ADMIN` includes `CAP_BPF` and `CAP_PERFMON`, and opening maps
/// by id or mounting needs it itself.
pub(super) fn check() -> Result<(), DataPlaneError> {
    const STATUS: &str = "/proc/thread-self/status";
    let status = fs::read_to_string(STATUS).map_err(error::pin("reading", STATUS))?;
    let missing = missing_in(effective_in(&status));
    if missing.is_empty() {
        Ok(())
    } else {
        Err(DataPlaneError::NoPrivilege {
            missing: missing.join(" and "),
        })
    }
}

/// The effective capability set; 0 (nothing) if the line is not there.
fn effective_in(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

fn missing_in(effective: u64) -> Vec<&'static str> {
    NEEDED
        .iter()
        .filter(|(bit, _)| effective & (1 << bit) == 0)
        .map(|(_, name)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{effective_in, missing_in};

    #[test]
    fn names_what_is_missing() {
        assert_eq!(
            missing_in(effective_in("CapPrm:\t0\nCapEff:\t000001ffffffffff\n")),
            [""; 0]
        );
        assert_eq!(
            missing_in(effective_in("CapEff:\t0000000000001000\n")),
            ["CAP_SYS_ADMIN"]
        );
        assert_eq!(
            missing_in(effective_in("nothing")),
            ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
        );
    }
}
