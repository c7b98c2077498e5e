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

/// Of a hundred mutants so many must be noticed.
const LEAST: usize = 95;

/// Change the pure core line by line and see whether the fast tests notice: at least 95 % of the changes.
#[derive(clap::Args)]
#[command(
    after_help = "Changed are wire, tcp, limit and classify of fw-common; what is left out, and why, is in \
                        .cargo/mutants.toml; the survivors and why they survive in tests/mutants.md.\n\nExamples:\n  cargo xtask mutants\n  cargo xtask mutants --file 'fw-common/src/tcp/**'\n  \
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
        "{noticed} of {judged} mutants noticed ({}), {} of them by a test that did not end; {LEAST} % are wanted",
        percent(noticed, judged),
        timeout.len()
    );
    Ok(ExitCode::from(u8::from(!enough(noticed, judged))))
}

/// Whole numbers: 94.99 % are not 95 %.
const fn enough(noticed: usize, judged: usize) -> bool {
    100 * noticed >= LEAST * judged
}

/// With one decimal, rounded down.
fn percent(noticed: usize, judged: usize) -> String {
    let tenths = 1000 * noticed / judged.max(1);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

fn list(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ninety_five_of_a_hundred_are_enough() {
        assert!(enough(95, 100) && enough(19, 20) && enough(1, 1));
        assert!(!enough(94, 100) && !enough(949, 1000) && !enough(0, 1));
        assert_eq!(percent(759, 800), "94.8 %");
        assert_eq!(percent(800, 800), "100.0 %");
    }
}
