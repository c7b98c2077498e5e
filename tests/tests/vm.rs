//! Other kernels than this machine's, booted under emulation: every program loads on the oldest supported one and on one between
//! that and this one, and judges there as it does here.

use std::env;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

/// The kernels of Debian that are booted: the tested floor, and the one between it and what the tests run on.
const FLOOR: &str = "6.1";
const BETWEEN: &str = "6.12";
/// The XDP program and TC's two directions, each as the agent, `explain`, `dpufw test --netns` and the tests load it.
const LOADS: usize = 12;

/// What xtask puts before the guest's lines.
const GUEST: &str = "guest| ";

/// One machine at a time: two emulators on two cores only take longer, and the first one downloads the kernel.
static MACHINE: Mutex<()> = Mutex::new(());

#[test]
fn every_program_loads_on_the_oldest_kernel() -> Result<()> {
    every_program_loads(FLOOR)
}

#[test]
fn every_program_loads_on_a_later_kernel() -> Result<()> {
    every_program_loads(BETWEEN)
}

/// Prints what the verifier of a kernel has walked; the layer `load`, which runs in the guest, demands that each is below the
/// budget.
fn every_program_loads(series: &str) -> Result<()> {
    let report = boot(&["--smoke", "--kernel", series])?;
    let counts: Vec<&str> = report
        .lines()
        .filter_map(|line| line.strip_prefix(GUEST))
        .filter(|line| line.starts_with("kernel ") && line.ends_with(" verified instructions"))
        .collect();
    for line in &counts {
        println!("{line}");
    }
    ensure!(
        counts.len() == LOADS,
        "{} loads, not {LOADS}:\n{report}",
        counts.len()
    );
    let booted = counts
        .iter()
        .all(|line| line.starts_with(&format!("kernel {series}.")));
    ensure!(booted, "the guest ran another kernel than {series}.x:\n{report}");
    Ok(())
}

/// Loading is not enough: the verifier of 6.1 has removed code that it wrongly took for dead, and its helpers return ints
/// where later ones return longs. The tables with the most states run there; all of them take five minutes under emulation.
#[test]
fn packets_are_judged_alike_on_the_oldest_kernel() -> Result<()> {
    let report = boot(&["--test", "packets", "--", "changes_of_policy", "tcp", "limits"])?;
    let passed = report
        .lines()
        .filter_map(|line| line.strip_prefix(GUEST))
        .find(|line| line.starts_with("test result: ok. 3 passed;"));
    ensure!(
        passed.is_some(),
        "the guest did not pass the three tests:\n{report}"
    );
    Ok(())
}

/// Real traffic through a real agent over a line that loses, doubles and reorders, which this machine's kernel may not have.
/// All scenarios (`cargo xtask vm --scenario all`) take some minutes.
#[test]
fn streams_over_a_bad_line_lose_nothing_to_the_firewall() -> Result<()> {
    let report = boot(&["--scenario", "smoke"])?;
    let guest: Vec<&str> = report
        .lines()
        .filter_map(|line| line.strip_prefix(GUEST))
        .collect();
    for line in guest.iter().filter(|line| line.contains("streams of")) {
        println!("{line}");
    }
    let passed = guest
        .iter()
        .any(|line| line.starts_with("test result: ok. 1 passed;"));
    ensure!(passed, "the guest did not pass the scenario:\n{report}");
    Ok(())
}

/// Runs `cargo xtask vm` and returns what the guest printed.
fn boot(args: &[&str]) -> Result<String> {
    // The other test's failure is its own.
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(cargo)
        .args(["xtask", "vm"])
        .args(args)
        .current_dir(root)
        .output()
        .with_context(|| format!("cannot run `cargo xtask vm {}`", args.join(" ")))?;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{report}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(report)
}
