//! `fw-bench`: measures dpufw's packet path beside the floor. Started by `cargo xtask bench`, as root.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use fw_tests::bench::{self, Case, Machine, Row, Settings};
use fw_tests::lab::require_root;

/// Measure the packet path beside a bare redirect or drop, in network namespaces.
#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    after_help = "`path` measures the packets of known flows and denied ones, `classify` first packets by the size of the \
                  policy, and what compiling one costs.\n\n\
                  Examples:\n  cargo xtask bench --quick\n  cargo xtask bench classify --quick --json classify.json\n  cargo xtask bench --quick --json bench.json\n  \
                  cargo xtask bench --case deny --cpus 2\n\n\
                  Exit codes: 0 every target is met; 1 one is missed, or packets went another way than meant; \
                  2 bad input; 3 no privilege."
)]
struct Args {
    /// What to measure.
    #[arg(default_value = "path", value_parser = ["path", "classify"])]
    bench: String,
    /// 31 rounds instead of 101: about a minute and a half.
    #[arg(long)]
    quick: bool,
    /// Writes the rows to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only this case; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = case)]
    case: Vec<Case>,
    /// Rounds that count.
    #[arg(long)]
    rounds: Option<usize>,
    /// Length of one contender's slice of a round, ms.
    #[arg(long, default_value_t = 150)]
    slice_ms: u64,
    /// Generating CPUs.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Flows of `established`, sources of `deny`.
    #[arg(long, default_value_t = 1000)]
    flows: u32,
}

fn case(name: &str) -> Result<Case, String> {
    let found = Case::ALL.into_iter().find(|case| case.name() == name);
    found.ok_or_else(|| format!("there is {}", Case::ALL.map(Case::name).join(", ")))
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = require_root() {
        eprintln!("bench: {error}");
        return ExitCode::from(3);
    }
    match measure(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(1)
        }
    }
}

/// True if every target is met.
fn measure(args: &Args) -> Result<bool> {
    let rounds = args.rounds.unwrap_or(if args.quick { 31 } else { 101 });
    ensure!(rounds > 0, "a bench of no rounds has no result");
    let slice = Duration::from_millis(args.slice_ms);
    let settings = Settings {
        rounds,
        slice,
        cpus: args.cpus,
        flows: args.flows,
    };
    if args.bench == "classify" {
        return classify(args, &settings);
    }
    let cases = if args.case.is_empty() {
        &Case::ALL[..]
    } else {
        &args.case
    };
    let rows = bench::run(cases, &settings)?;
    print!("{}", bench::markdown(&rows, &Machine::here()));
    if let Some(path) = &args.json {
        bench::write_json(&rows, path)?;
    }
    Ok(rows.iter().all(Row::good))
}

fn classify(args: &Args, settings: &Settings) -> Result<bool> {
    ensure!(
        args.case.is_empty() && args.cpus == 1,
        "--case and --cpus belong to the bench `path`"
    );
    let rows = bench::classify::run(settings)?;
    print!("{}", bench::classify::markdown(&rows, &Machine::here()));
    if let Some(path) = &args.json {
        bench::classify::write_json(&rows, path)?;
    }
    Ok(rows.iter().all(bench::classify::Row::good))
}
