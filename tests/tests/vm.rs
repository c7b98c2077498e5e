//! Every program loads on the oldest supported kernel, which is booted for it under emulation.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The tested floor.
const FLOOR: &str = "6.1.";
/// The XDP program and TC's two directions, each as the agent, `explain` and the tests load it.
const LOADS: usize = 9;

#[test]
fn every_program_loads_on_the_oldest_kernel() -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(cargo)
        .args(["xtask", "vm", "--smoke"])
        .current_dir(root)
        .output()
        .context("cannot run `cargo xtask vm --smoke`")?;
    let report = String::from_utf8_lossy(&output.stdout);
    let console = format!("{report}\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{console}");
    let counts: Vec<&str> = report
        .lines()
        .filter(|line| line.trim_start().starts_with("kernel ") && line.ends_with(" verified instructions"))
        .collect();
    for line in &counts {
        println!("{}", line.trim());
    }
    ensure!(
        counts.len() >= LOADS,
        "{} loads, not {LOADS} or more:\n{console}",
        counts.len()
    );
    let booted = counts
        .iter()
        .all(|line| line.contains(&format!("kernel {FLOOR}")));
    ensure!(booted, "the guest ran another kernel than {FLOOR}x:\n{console}");
    Ok(())
}
