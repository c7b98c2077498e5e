//! `dpufw test --netns`, as somebody's CI runs it: real packets for every expectation, a report, an exit code, nothing left.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fw_tests::lab::{Agent, Finished, Leftover, Process, require_root};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Long enough on a busy machine.
const SOON: Duration = Duration::from_mins(2);

/// Two flows that are let through, one that is dropped, one whose sender is told.
const POLICY: &str = r#"
version: 1
zones:
  gpu:     [10.10.0.0/16, "fd00:10::/48"]
  storage: [10.20.0.0/16, "fd00:20::/48"]
rules:
  - { name: nfs,    allow: [nfs, ping], from: gpu, to: storage }
  - { name: closed, reject: [ssh], from: gpu, to: storage }
"#;

fn test(policy: &Path, more: &[&str]) -> Result<Finished> {
    start(policy, more)?.wait(SOON)
}

fn start(policy: &Path, more: &[&str]) -> Result<Process> {
    let mut command = Command::new(Agent::binary()?);
    command.arg("test").arg(policy).arg("--netns").args(more);
    Process::start(command, None)
}

/// A policy in a file of its own.
fn written(label: &str, expectations: &str) -> Result<Leftover> {
    let file = Leftover::claim(&std::env::temp_dir(), "fw-expect-", &format!("{label}.yaml"));
    std::fs::write(file.path(), format!("{POLICY}expect:\n{expectations}"))?;
    Ok(file)
}

/// Namespaces of the lab that the process `pid` made and did not remove.
fn namespaces_of(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("fwt-{pid}-");
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
        .collect()
}

/// Every policy of the project does to real packets what it says.
#[test]
fn every_policy_of_the_project_passes() -> Result<()> {
    require_root()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let mut tested = 0;
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let ended = test(&path, &[])?;
        println!("{}", ended.stdout.trim());
        ensure!(ended.code() == Some(0), "{}: {ended}", path.display());
        tested += 1;
    }
    ensure!(tested >= 3, "only {tested} policies in {}", folder.display());
    Ok(())
}

#[test]
fn packets_of_all_kinds_meet_their_rules() -> Result<()> {
    require_root()?;
    let file = written(
        "kinds",
        r#"  - { flow: tcp gpu storage:2049, is: allow, rule: nfs }
  - { flow: "tcp fd00:10::1 [fd00:20::1]:2049", is: allow, rule: nfs }
  - { flow: icmp gpu storage, is: allow, rule: nfs }
  - { flow: "icmp fd00:10::1 fd00:20::1", is: allow, rule: nfs }
  - { flow: tcp gpu storage:22, is: reject, rule: closed, reason: reject_rule }
  - { flow: "tcp fd00:10::1 [fd00:20::1]:22", is: reject, rule: closed }
  - { flow: udp gpu storage:53, is: deny, reason: deny_default }
  - { flow: gre gpu storage, is: deny, reason: deny_default }
  - { flow: sctp storage gpu:2049, is: deny, reason: deny_default }
  - { flow: tcp gpu storage:2049, vlan: 7, is: deny, reason: unknown_realm }
  - { flow: tcp self storage:2049, is: deny, reason: deny_default }
  - { flow: tcp gpu self:2049, is: deny, reason: deny_default }
"#,
    )?;
    let ended = test(file.path(), &["--json"])?;
    ensure!(ended.code() == Some(0), "{ended}");
    let report: Value = serde_json::from_str(&ended.stdout)?;
    let results = report["expectations"].as_array().context("no list of results")?;
    ensure!(results.len() == 12, "{report}");
    let seen = |number: usize, key: &str| results[number]["seen"][key].clone();
    ensure!(seen(0, "arrived") == true && seen(0, "rule") == "nfs", "{report}");
    ensure!(
        seen(4, "arrived") == false && seen(4, "refused") == true,
        "{report}"
    );
    ensure!(
        seen(6, "arrived") == false && seen(6, "refused") == false,
        "{report}"
    );
    ensure!(
        results[10]["way"] == "out" && results[11]["way"] == "in",
        "{report}"
    );
    Ok(())
}

/// Each wrong line is named, with what is the case instead.
#[test]
fn a_wrong_expectation_is_named() -> Result<()> {
    require_root()?;
    let file = written(
        "wrong",
        "  - { flow: tcp gpu storage:2049, is: allow, rule: nfs }\n  \
           - { flow: tcp gpu storage:2049, is: deny }\n  \
           - { flow: tcp gpu storage:22, is: deny }\n  \
           - { flow: tcp gpu storage:80, is: allow }\n  \
           - { flow: icmp gpu storage, is: allow, rule: closed }\n  \
           - { flow: udp gpu storage:80, is: deny, reason: deny_rule }\n",
    )?;
    let junit = Leftover::claim(&std::env::temp_dir(), "fw-expect-", "wrong.xml");
    let ended = test(file.path(), &["--junit", &junit.path().display().to_string()])?;
    ensure!(ended.code() == Some(1), "{ended}");
    for (line, problem) in [
        (
            11,
            "tcp gpu storage:2049, through a pair of ports: expected deny, but it is allow (rule `nfs`)",
        ),
        (12, "expected deny, but it is reject (rule `closed`)"),
        (13, "expected allow, but it is deny (reason deny_default)"),
        (14, "expected rule `closed`, but rule `nfs` decides"),
        (15, "expected reason deny_rule, but it is deny_default"),
    ] {
        let named = ended
            .stdout
            .lines()
            .any(|said| said.contains(&format!(".yaml:{line}: ")) && said.contains(problem));
        ensure!(named, "line {line} is not named with `{problem}`: {ended}");
    }
    ensure!(ended.stdout.contains("1 of 6 expectations are met"), "{ended}");
    let report = quick_junit::Report::deserialize_from_str(&std::fs::read_to_string(junit.path())?)?;
    ensure!(
        (report.tests, report.failures, report.errors) == (6, 5, 0),
        "{report:?}"
    );
    let cases = &report.test_suites.first().context("no test suite")?.test_cases;
    ensure!(cases.len() == 6, "{cases:?}");
    Ok(())
}

/// One pair of namespaces serves all: a hundred expectations take seconds.
#[test]
fn a_hundred_expectations_take_seconds() -> Result<()> {
    require_root()?;
    let mut lines = String::new();
    for number in 1..=50 {
        // Writing to a string cannot fail.
        let _ = writeln!(
            lines,
            "  - {{ flow: tcp 10.10.0.{number} storage:2049, is: allow, rule: nfs }}"
        );
        let _ = writeln!(
            lines,
            "  - {{ flow: udp 10.10.0.{number} storage:{number}, is: deny }}"
        );
    }
    let file = written("hundred", &lines)?;
    let ended = test(file.path(), &["--json"])?;
    ensure!(ended.code() == Some(0), "{ended}");
    let report: Value = serde_json::from_str(&ended.stdout)?;
    let results = report["expectations"].as_array().context("no list of results")?;
    let seconds: f64 = results
        .iter()
        .filter_map(|result| result["seconds"].as_f64())
        .sum();
    println!("{} expectations took {seconds:.1} s", results.len());
    ensure!(results.len() == 100 && seconds < 10.0, "{seconds} s");
    Ok(())
}

#[test]
fn bad_input_and_missing_privilege_have_codes_of_their_own() -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    require_root()?;
    let broken = Leftover::claim(&std::env::temp_dir(), "fw-expect-", "broken.yaml");
    std::fs::write(broken.path(), "version: 1\nrules: [{ name: a }]\n")?;
    let ended = test(broken.path(), &[])?;
    ensure!(
        ended.code() == Some(2) && ended.stderr.contains("error"),
        "{ended}"
    );
    let ended = test(Path::new("/nonexistent/policy.yaml"), &[])?;
    ensure!(ended.code() == Some(2), "{ended}");
    let good = written("good", "  - { flow: tcp gpu storage:2049, is: allow }\n")?;
    let mut command = Command::new(Agent::binary()?);
    command
        .arg("test")
        .arg(good.path())
        .arg("--netns")
        .uid(65_534)
        .gid(65_534);
    let ended = Process::start(command, None)?.wait(SOON)?;
    ensure!(
        ended.code() == Some(3) && ended.stderr.contains("root"),
        "{ended}"
    );
    Ok(())
}

/// Stopped at any moment it takes its namespaces along, and asks nobody.
#[test]
fn a_signal_leaves_nothing_behind() -> Result<()> {
    require_root()?;
    let mut lines = String::new();
    for number in 1..=200 {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "  - {{ flow: udp gpu storage:{number}, is: deny }}");
    }
    let file = written("signal", &lines)?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let process = start(file.path(), &[])?;
        let pid = process.pid();
        let end = Instant::now() + SOON;
        while namespaces_of(pid).len() < 3 {
            ensure!(Instant::now() < end, "the namespaces do not appear");
            std::thread::sleep(Duration::from_millis(5));
        }
        process.signal(signal)?;
        let ended = process.wait(SOON)?;
        ensure!(ended.code() == Some(130), "{signal}: {ended}");
        ensure!(
            namespaces_of(pid).is_empty(),
            "{signal} leaves {:?}",
            namespaces_of(pid)
        );
    }
    Ok(())
}
