//! Every kernel program passes the running kernel's verifier, well inside its budget, as the agent loads it.
//!
//! Runs on the host and, by `cargo xtask vm --smoke`, inside a virtual machine with the oldest supported kernel: an
//! object that a new kernel takes is easily refused by an old one, which also counts two to three times the
//! instructions.

use std::fs;

use anyhow::{Context, Result, ensure};
use fw_user::dataplane::{DataPlane, Hook, Options};

/// Half of what the kernel allows (`BPF_COMPLEXITY_LIMIT_INSNS`, 1,000,000).
const BUDGET: u32 = 500_000;

/// The ways to load the object. Its constants are known to the verifier, so each is a program of its own.
fn variants() -> [(&'static str, Options); 4] {
    [
        (
            "agent",
            Options {
                events_per_window: 32,
                ..Options::default()
            },
        ),
        (
            "explain",
            Options {
                dry_run: true,
                ..Options::default()
            },
        ),
        (
            "netns",
            Options {
                clock_override: true,
                ..Options::default()
            },
        ),
        (
            "test",
            Options {
                report: true,
                clock_override: true,
                ..Options::default()
            },
        ),
    ]
}

#[test]
fn every_program_loads_within_its_budget() -> Result<()> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut over = Vec::new();
    for (variant, options) in variants() {
        let plane = DataPlane::open(options).with_context(|| format!("as loaded for {variant}"))?;
        let sizes = plane.program_sizes()?;
        ensure!(
            sizes.len() == Hook::ALL.len(),
            "{} programs, not {}",
            sizes.len(),
            Hook::ALL.len()
        );
        for size in sizes {
            let line = format!(
                "kernel {}: {variant} {:?}: {} verified instructions",
                kernel.trim(),
                size.hook,
                size.verified
            );
            println!("{line}");
            ensure!(size.verified > 0, "{line}: this kernel does not count them");
            if size.verified >= BUDGET {
                over.push(line);
            }
        }
    }
    ensure!(
        over.is_empty(),
        "over the budget of {BUDGET}:\n{}",
        over.join("\n")
    );
    Ok(())
}
