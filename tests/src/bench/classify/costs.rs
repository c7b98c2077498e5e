//! What a policy costs before it is in force: reading, compiling, applying; and the memory that `dpufw check` takes for it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use fw_policy::Environment;
use fw_user::dataplane::{DataPlane, Options};
use fw_user::files::Files;

use super::super::Settings;
use super::super::report::{Row, Target};
use super::SIZES;
use super::policies::{Known, Rules};
use crate::lab::{Agent, Leftover};

/// Runs of each case; the median counts.
const RUNS: usize = 5;
/// Between two looks at a process's memory.
const LOOK: Duration = Duration::from_micros(500);

/// A policy, and the time that reading, compiling and applying it may take, in seconds.
struct Case {
    name: String,
    text: String,
    /// Bytes of the file that it names.
    named: usize,
    limit: f64,
}

/// Measures all cases, the smallest first.
pub(super) fn measure(prefixes: usize, settings: &Settings) -> Result<Vec<Row>> {
    let known = Known { ipv6: false };
    let feed = Leftover::claim(&std::env::temp_dir(), "fw-bench-", "known.txt");
    let (fed, prefixes) = known.fed(&known.many(prefixes), feed.path());
    std::fs::write(feed.path(), &prefixes)
        .with_context(|| format!("cannot write {}", feed.path().display()))?;
    let rules = [
        (10, "10", 0.3),
        (100, "100", 0.3),
        (1000, "1,000", 0.3),
        (10_000, "10,000", 0.3),
        (100_000, "100,000", 3.0),
    ];
    let mut cases: Vec<Case> = rules
        .map(|(rules, name, limit)| Case {
            name: format!("{name} rules"),
            text: Rules { rules }.text(),
            named: 0,
            limit,
        })
        .into();
    cases.push(Case {
        name: "1,000,000 prefixes from a file".to_owned(),
        text: fed,
        named: prefixes.len(),
        limit: 3.0,
    });
    let plane = DataPlane::open(Options {
        sizes: SIZES,
        ..Options::default()
    })?;
    let mut rows = Vec::new();
    for case in cases.iter().filter(|case| settings.wants(&case.name)) {
        eprintln!("   bench  policy: {}", case.name);
        rows.extend(one(case, &plane)?);
    }
    Ok(rows)
}

fn one(case: &Case, plane: &DataPlane) -> Result<Vec<Row>> {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(timed(case, plane)?);
    }
    let median = |part: usize| {
        let mut times: Vec<f64> = runs.iter().map(|times| times[part]).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let row = |what: &str, peer: &str, unit, value: f64, limit: f64| {
        Row::new(
            "policy",
            &format!("{}: {what}", case.name),
            peer,
            unit,
            [value, limit],
        )
    };
    let (check, compile, apply) = (median(0), median(1), median(2));
    let all = check + compile + apply;
    let mut whole = row("check, compile and apply", "limit", "s", all, case.limit)
        .wanted(Target::at_most(1.0))
        .with("check, s", check)
        .with("compile, s", compile)
        .with("apply, s", apply);
    whole.rounds = RUNS;
    Ok(vec![
        whole,
        row(
            "peak memory of `dpufw check`",
            "bytes of the policy's files",
            "MiB",
            peak_mib(&case.text)?,
            mib((case.text.len() + case.named) as u64),
        ),
    ])
}

/// Seconds of reading, of compiling, and of writing, verifying and swapping.
fn timed(case: &Case, plane: &DataPlane) -> Result<[f64; 3]> {
    let begun = Instant::now();
    let (policy, _) =
        fw_policy::check_files(&Files, &case.text, "bench.yaml").map_err(|findings| anyhow!("{findings}"))?;
    let check = begun.elapsed();
    let environment = Environment {
        generation: plane.tables().next_generation(),
        ..Environment::sample()
    };
    let begun = Instant::now();
    let tables = fw_policy::compile(&policy, &environment)?;
    let compile = begun.elapsed();
    let begun = Instant::now();
    plane.tables().apply(&tables.lines)?;
    Ok([check, compile, begun.elapsed()].map(|time| time.as_secs_f64()))
}

/// The most memory that `dpufw check` held for a policy at a time.
fn peak_mib(text: &str) -> Result<f64> {
    let file = Leftover::claim(&std::env::temp_dir(), "fw-bench-", "policy.yaml");
    std::fs::write(file.path(), text).with_context(|| format!("cannot write {}", file.path().display()))?;
    let mut command = Command::new(Agent::binary()?);
    command
        .arg("check")
        .arg(file.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().context("cannot start dpufw")?;
    let own = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    // What wait4(2) says counts in what this process held when it started the other one (`exec_mmap` in fs/exec.c).
    let status = loop {
        peak = high_water(&std::fs::read_to_string(&own)?).unwrap_or(peak);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(LOOK);
    };
    ensure!(
        status.success() && peak > 0,
        "`dpufw check` failed: {status}, {peak} KiB"
    );
    Ok(mib(peak * 1024))
}

/// The most memory that a process has held so far, KiB (`proc_pid_status(5)`). A dead one has none.
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
