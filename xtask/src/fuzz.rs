//! `cargo xtask fuzz`: the targets of fw-common/fuzz and fw-user/policy/fuzz, built for coverage with the workspace's own
//! rustc and run by libFuzzer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::project;
use crate::setup::{self, Level};
use crate::shell::{self, Refusal, human, say};

/// Run the fuzz targets on the packet path's pure core and on the policy language.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask fuzz                         every target for ten minutes\n  \
                        cargo xtask fuzz parser --seconds 60\n  cargo xtask fuzz --keep                  and keep a \
                        smaller corpus in the tree"
)]
pub struct Args {
    /// Only this target.
    target: Option<String>,
    /// How long each target runs.
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u64,
    /// Replace the kept corpus by the smallest set of inputs that covers as much as all that were found.
    #[arg(long)]
    keep: bool,
}

/// The crates of targets, and folders whose files are inputs of all targets of a crate.
const CRATES: [(&str, &[&str]); 2] = [("fw-common/fuzz", &[]), ("fw-user/policy/fuzz", &["policies"])];
/// Inputs are no longer than this unless a crate has inputs of its own, which may be longer. Bytes.
const LONGEST: u32 = 4096;
const LONGEST_GIVEN: u32 = 16 << 10;

/// What each target of the layer of tests gets.
const SHORT: Duration = Duration::from_secs(15);
/// A process is replaced after so long: the model of the maps leaks its entries, as a map of the kernel's would not.
const SLICE: Duration = Duration::from_mins(1);
/// Megabytes that a slice may take.
const MEMORY: u32 = 4096;
/// Longest input that is kept, and bytes kept for each target.
const KEPT_INPUT: u32 = 1024;
const KEPT_CORPUS: u64 = 300 * 1024;

/// What the compiler is told, so that libFuzzer sees which edges an input took and what it compared.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg",
    "fuzzing",
];

/// A fuzz target.
#[derive(Clone, Debug)]
struct Target {
    name: String,
    /// The crate that it belongs to.
    source: PathBuf,
    /// Folders of inputs that are no corpus.
    given: Vec<PathBuf>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(Level::Fuzz)?;
    let targets = choose(args.target.as_deref())?;
    build(&targets)?;
    let mut findings = 0;
    for target in &targets {
        findings += u64::from(!run(target, Duration::from_secs(args.seconds))?);
        if args.keep {
            keep(target)?;
        }
    }
    println!(
        "{} targets without a finding, {findings} with one",
        targets.len() as u64 - findings
    );
    Ok(ExitCode::from(u8::from(findings > 0)))
}

/// Every target for some seconds: how many were clean, and how many found something.
pub fn short() -> Result<(u64, u64)> {
    let targets = choose(None)?;
    build(&targets)?;
    let mut findings = 0;
    for target in &targets {
        findings += u64::from(!run(target, SHORT)?);
    }
    Ok((targets.len() as u64 - findings, findings))
}

impl Target {
    fn program(&self) -> PathBuf {
        scratch().join(triple()).join("release").join(&self.name)
    }

    /// Inputs that are kept in the tree.
    fn kept(&self) -> PathBuf {
        self.source.join("corpus").join(&self.name)
    }

    /// Inputs of this machine.
    fn work(&self) -> PathBuf {
        scratch().join("corpus").join(&self.name)
    }

    /// Words of the target's language.
    fn dictionary(&self) -> Option<PathBuf> {
        Some(self.source.join(format!("{}.dict", self.name))).filter(|path| path.is_file())
    }

    fn longest(&self) -> u32 {
        if self.given.is_empty() {
            LONGEST
        } else {
            LONGEST_GIVEN
        }
    }
}

/// Where things lie that are not kept.
fn scratch() -> PathBuf {
    project::store().join("fuzz")
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// The target that was asked for, or all: the files in the crates' folders `targets`.
fn choose(wanted: Option<&str>) -> Result<Vec<Target>> {
    let mut all = Vec::new();
    for (source, given) in CRATES {
        let source = project::root().join(source);
        let folder = source.join("targets");
        let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        all.extend(files.filter_map(|entry| {
            Some(Target {
                name: entry.ok()?.path().file_stem()?.to_string_lossy().into_owned(),
                source: source.clone(),
                given: given.iter().map(|folder| project::root().join(folder)).collect(),
            })
        }));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let Some(name) = wanted else { return Ok(all) };
    if let Some(target) = all.iter().find(|target| target.name == name) {
        return Ok(vec![target.clone()]);
    }
    let names: Vec<_> = all.iter().map(|target| target.name.as_str()).collect();
    let sentence = format!(
        "there is no fuzz target `{name}`; there are: {}",
        names.join(", ")
    );
    Err(Refusal::BadInput(sentence).into())
}

/// The targets' crates. With a target triple, so that the flags reach no build script.
fn build(targets: &[Target]) -> Result<()> {
    let mut sources: Vec<_> = targets.iter().map(|target| &target.source).collect();
    sources.sort();
    sources.dedup();
    for source in sources {
        let mut cargo = project::cargo();
        cargo
            .args(["build", "--quiet", "--locked", "--release", "--target", &triple()])
            .arg("--manifest-path")
            .arg(source.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(scratch())
            .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
        let spent = shell::run(&mut cargo).context("the fuzz targets do not compile")?;
        say("fuzz", format_args!("targets built ({})", human(spent)));
    }
    Ok(())
}

/// Runs one target; true if it found nothing.
fn run(target: &Target, time: Duration) -> Result<bool> {
    for folder in [target.work(), target.kept()] {
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    let name = &target.name;
    let findings = scratch().join(format!("findings/{name}-"));
    fs::create_dir_all(scratch().join("findings"))?;
    let start = Instant::now();
    let mut runs = 0;
    while let Some(left) = time
        .checked_sub(start.elapsed())
        .filter(|left| left.as_secs() > 0)
    {
        let (clean, slice) = slice(target, left.min(SLICE), &findings)?;
        runs += slice;
        if !clean {
            let begin = findings.display();
            say(
                "fuzz",
                format_args!(
                    "{name}: a finding: run {} on the newest {begin}*",
                    target.program().display()
                ),
            );
            return Ok(false);
        }
    }
    if runs == 0 {
        bail!("the fuzz target `{name}` ran no input");
    }
    println!(
        "fuzz {name}: {runs} inputs in {}, no finding",
        human(start.elapsed())
    );
    Ok(true)
}

/// One process; whether it found nothing, and how many inputs it ran.
fn slice(target: &Target, time: Duration, findings: &Path) -> Result<(bool, u64)> {
    let mut command = Command::new(target.program());
    if let Some(dictionary) = target.dictionary() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    command
        .args(["-verbosity=0", "-print_final_stats=1", "-timeout=10"])
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-artifact_prefix={}", findings.display()))
        .arg(format!("-max_len={}", target.longest()))
        .args([target.work(), target.kept()])
        .args(&target.given)
        .stdin(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("cannot run `{}`", shell::line(&command)))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprintln!("{said}");
        return Ok((false, 0));
    }
    let runs = said
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let runs = runs.context("libFuzzer does not say how many inputs it ran")?;
    Ok((true, runs.trim().parse()?))
}

/// Replaces the kept corpus by a minimal one.
fn keep(target: &Target) -> Result<()> {
    let kept = target.kept();
    let new = scratch().join("minimal").join(&target.name);
    let _ = fs::remove_dir_all(&new); // of an earlier run
    fs::create_dir_all(&new).with_context(|| new.display().to_string())?;
    let mut merge = Command::new(target.program());
    merge
        .args(["-merge=1", "-verbosity=0"])
        .arg(format!("-max_len={KEPT_INPUT}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(&new)
        .arg(&kept)
        .arg(target.work())
        .stderr(Stdio::null());
    shell::run(&mut merge)?;
    let mut inputs = Vec::new();
    for entry in fs::read_dir(&new)? {
        let path = entry?.path();
        inputs.push((fs::metadata(&path)?.len(), path));
    }
    // The short ones say as much as the long ones and are read in a diff.
    inputs.sort();
    let _ = fs::remove_dir_all(&kept);
    fs::create_dir_all(&kept)?;
    let (mut bytes, mut count) = (0, 0);
    for (length, path) in inputs {
        bytes += length;
        if bytes > KEPT_CORPUS {
            break;
        }
        count += 1;
        let name = path.file_name().context("an input without a name")?;
        fs::copy(&path, kept.join(name))?;
    }
    say("fuzz", format_args!("{}: {count} inputs kept", target.name));
    Ok(())
}
