//! `cargo xtask mutants`: changes the packet path's pure core line by line and sees whether a test notices.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::shell::{self, say};
use crate::{project, setup};

/// What is changed unless files are named. Not in the configuration file: cargo-mutants adds its list to that of the command line.
const CORE: [&str; 4] = [
    "fw-common/src/wire/**",
    "fw-common/src/tcp/**",
    "fw-common/src/limit/**",
    "fw-common/src/classify/**",
];

/// Change the pure core line by line and see whether the fast tests notice.
#[derive(clap::Args)]
#[command(
    after_help = "What is changed, and how, is in .cargo/mutants.toml; the survivors and why they survive in \
                        tests/mutants.md.\n\nExamples:\n  cargo xtask mutants\n  cargo xtask mutants --file 'fw-common/src/tcp/**'\n  \
                        cargo xtask mutants --shard 0/8"
)]
pub struct Args {
    /// Only these files (a glob, repeatable).
    #[arg(long = "file", value_name = "GLOB")]
    files: Vec<String>,
    /// One part of the mutants, as `0/8`: every part takes its share of all files.
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
    /// Tests that run at the same time.
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: u8,
    /// Only say what would be changed.
    #[arg(long)]
    list: bool,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let program = setup::cargo_mutants()?;
    let out = project::store().join("mutants");
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let mut command = Command::new(program);
    command
        .args(["mutants", "--package", "fw-common", "--colors", "never"])
        .args(["--jobs", &args.jobs.to_string()])
        .arg("--output")
        .arg(&out)
        // A mutant is built for one run: debug information is half of the time.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        // Nobody reads how small a failing input can be made.
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .current_dir(project::root());
    if args.files.is_empty() {
        command.args(CORE.iter().flat_map(|file| ["--file", file]));
    }
    for file in &args.files {
        command.args(["--file", file]);
    }
    if let Some(shard) = &args.shard {
        command.args(["--sharding", "round-robin", "--shard", shard]);
    }
    if args.list {
        command.arg("--list");
        shell::run(&mut command)?;
        return Ok(ExitCode::SUCCESS);
    }
    // It fails if a mutant was missed, and says so; the lists below say it better.
    let status = shell::status(&mut command)?;
    let results = out.join("mutants.out");
    let [caught, missed, timeout, unviable] =
        ["caught", "missed", "timeout", "unviable"].map(|name| list(&results.join(format!("{name}.txt"))));
    let (caught, missed, timeout) = (caught?, missed?, timeout?);
    for mutant in &missed {
        println!("missed: {mutant}");
    }
    let noticed = caught.len() + timeout.len();
    let judged = noticed + missed.len();
    say(
        "mutants",
        format_args!(
            "{} do not compile; cargo-mutants ended with {status}; all lists are in {}",
            unviable?.len(),
            project::short(&results)
        ),
    );
    if judged == 0 {
        println!("no mutant was judged");
        return Ok(ExitCode::from(1));
    }
    println!(
        "{noticed} of {judged} mutants noticed ({} %), {} of them by a test that did not end",
        100 * noticed / judged,
        timeout.len()
    );
    Ok(ExitCode::from(u8::from(!missed.is_empty())))
}

fn list(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}
