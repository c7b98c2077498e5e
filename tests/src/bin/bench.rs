//! `fw-bench`: measures dpufw beside the floor and its peers. Started by `cargo xtask bench`, as root.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand};
use fw_tests::bench::{self, Row, Settings, Table};
use fw_tests::lab::require_root;

/// Measure dpufw beside the bare floor and its peers, in network namespaces.
#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    args_conflicts_with_subcommands = true,
    after_help = "Tables: established (packets of known flows), deny (a flood that no rule allows), classify (first packets by the size \
                  of the policy), policy (what compiling, applying and exchanging one costs), ns (the program alone, by the packet's way), \
                  memory (flows, rules, prefixes, the agent), latency (a packet's time on the way), scale (two CPUs beside one), new-flows \
                  (whole TCP connections), syn-flood (established flows meanwhile). --quick alone measures the first two.\n\n\
                  Examples:\n  cargo xtask bench --quick --json bench.json\n  cargo xtask bench classify policy --quick --json classify.json\n  \
                  cargo xtask bench ns memory latency scale new-flows syn-flood --quick\n  cargo xtask bench --plots plots\n  \
                  cargo xtask bench established --case 'tcp4, 1000 flows'\n  cargo xtask bench compare old.json new.json\n\n\
                  Exit codes: 0 every target is met; 1 one is missed, packets went another way than meant, or a row got \
                  worse (compare); 2 bad input; 3 no privilege."
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// What to measure; everything if nothing is named.
    #[arg(value_name = "TABLE", value_parser = table)]
    tables: Vec<Table>,
    /// Few cases, the peers that have targets, short slices: two minutes for `established` and `deny`, which it measures unless
    /// tables are named. Without it everything takes some 50 minutes.
    #[arg(long)]
    quick: bool,
    /// Writes the rows to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the table to this file as well.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Writes pictures to this folder: costs and rates by rules and by flows.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Only cases with this in their name.
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// Rounds that count.
    #[arg(long, default_value_t = 31, value_parser = rounds)]
    rounds: usize,
    /// Length of one contender's slice of a round, ms; by default 150, with --quick 100 and some 50 in between.
    #[arg(long)]
    slice_ms: Option<u64>,
}

#[derive(Subcommand)]
enum Command {
    /// Judge two result files by their spread: which ratios have changed.
    Compare {
        /// The earlier result.
        old: PathBuf,
        /// The later one.
        new: PathBuf,
    },
}

fn rounds(number: &str) -> Result<usize, String> {
    match number.parse() {
        Ok(0) => Err("a bench of no rounds has no result".to_owned()),
        parsed => parsed.map_err(|error: std::num::ParseIntError| error.to_string()),
    }
}

fn table(name: &str) -> Result<Table, String> {
    let found = Table::ALL.into_iter().find(|table| table.name() == name);
    found.ok_or_else(|| format!("there is {}", Table::ALL.map(Table::name).join(", ")))
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Compare { old, new }) = &args.command {
        return outcome(compare(old, new));
    }
    if let Err(error) = require_root() {
        eprintln!("bench: {error}");
        return ExitCode::from(3);
    }
    outcome(measure(&args))
}

fn outcome(result: Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(if error.is::<BadInput>() { 2 } else { 1 })
        }
    }
}

/// What was asked for cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("bad input")]
struct BadInput;

/// True if every target is met.
fn measure(args: &Args) -> Result<bool> {
    let slice = args.slice_ms.unwrap_or(if args.quick { 100 } else { 150 });
    let settings = Settings {
        rounds: args.rounds,
        slice: Duration::from_millis(slice),
        quick: args.quick,
        only: args.case.clone(),
    };
    let tables = match (&args.tables[..], args.quick) {
        ([], true) => &Table::QUICK[..],
        ([], false) => &Table::ALL,
        (named, _) => named,
    };
    let (rows, errors) = bench::run(tables, &settings);
    for error in &errors {
        eprintln!("bench: {error:#}");
    }
    if rows.is_empty() && errors.is_empty() {
        let case = args.case.as_deref().unwrap_or("");
        return Err(anyhow!("no case has {case:?} in its name").context(BadInput));
    }
    let text = bench::markdown(&rows);
    print!("{text}");
    if let Some(path) = &args.markdown {
        std::fs::write(path, &text)?;
    }
    if let Some(path) = &args.json {
        bench::write_json(&rows, path)?;
    }
    if let Some(folder) = &args.plots {
        for path in bench::plots(&rows, folder)? {
            eprintln!("   bench  {}", path.display());
        }
    }
    Ok(errors.is_empty() && rows.iter().all(Row::good))
}

/// True if no target was lost.
fn compare(old: &Path, new: &Path) -> Result<bool> {
    let read = |path| bench::read_json(path).context(BadInput);
    let verdicts = bench::compare(&read(old)?, &read(new)?);
    if verdicts.is_empty() {
        let (old, new) = (old.display(), new.display());
        return Err(anyhow!("{old} and {new} have no row in common").context(BadInput));
    }
    println!(
        "| table | case | peer | old | new | change | noise | |\n| --- | --- | --- | ---: | ---: | ---: | ---: | --- |"
    );
    for verdict in &verdicts {
        let word = match (verdict.lost_target, verdict.changed()) {
            (true, _) => "target lost",
            (false, true) => "changed",
            (false, false) => "",
        };
        println!(
            "| {} | {:.3} | {:.3} | {:+.1} % | {:.1} % | {word} |",
            verdict.title.join(" | "),
            verdict.ratios[0],
            verdict.ratios[1],
            verdict.change * 100.0,
            verdict.noise * 100.0
        );
    }
    Ok(verdicts.iter().all(|verdict| !verdict.lost_target))
}
