//! `cargo xtask check`: the gate before a commit. Runs every step, even after a failure, and ends with a table.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Level};
use crate::shell::{self, human, say};
use crate::toolchain::Rust;
use crate::{bpf, project, test};

/// Check format, lints, documentation, borders between crates, the ABI and the verifier's budget.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask check\n  cargo xtask check --only clippy --only docs\n  \
                        cargo xtask check --advisories    also asks the advisory database on GitHub"
)]
pub struct Args {
    /// Only this step (repeatable): the names are in the table.
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Have cargo-deny ask the advisory database too, which is fetched from GitHub.
    #[arg(long)]
    advisories: bool,
}

/// One step: its name, and what it does. It fails with a sentence.
struct Step {
    name: &'static str,
    run: fn(&Args) -> Result<()>,
}

const STEPS: [Step; 11] = [
    Step {
        name: "lockfile",
        run: |_| lockfile(),
    },
    Step {
        name: "fmt",
        run: |_| cargo(&["fmt", "--all", "--check"]),
    },
    Step {
        name: "clippy",
        run: |_| clippy(),
    },
    Step {
        name: "clippy-bpf",
        run: |_| bpf::clippy(),
    },
    Step {
        name: "docs",
        run: |_| docs(),
    },
    Step {
        name: "core-borders",
        run: |_| core_borders(),
    },
    Step {
        name: "policy-borders",
        run: |_| policy_borders(),
    },
    Step {
        name: "policy-wasm",
        run: |_| policy_wasm(),
    },
    Step {
        name: "abi",
        run: |_| cargo(&["test", "--quiet", "--package", "fw-common", "--test", "abi"]),
    },
    Step {
        name: "verifier",
        run: |_| verifier(),
    },
    Step {
        name: "deny",
        run: deny,
    },
];

pub fn main(args: &Args) -> Result<ExitCode> {
    let chosen = choose(&args.only)?;
    setup::ensure(Level::Build)?;
    setup::ensure(Level::Check)?;
    bpf::object()?;
    let mut rows = Vec::new();
    for step in chosen {
        say("check", step.name);
        let start = Instant::now();
        let result = (step.run)(args);
        rows.push((step.name, result, start.elapsed()));
    }
    Ok(report(&rows))
}

fn choose(only: &[String]) -> Result<Vec<&'static Step>> {
    if let Some(unknown) = only
        .iter()
        .find(|name| !STEPS.iter().any(|step| step.name == name.as_str()))
    {
        let names = STEPS.map(|step| step.name).join(", ");
        let sentence = format!("there is no step `{unknown}`; there are: {names}");
        return Err(shell::Refusal::BadInput(sentence).into());
    }
    Ok(STEPS
        .iter()
        .filter(|step| only.is_empty() || only.iter().any(|name| name == step.name))
        .collect())
}

fn report(rows: &[(&str, Result<()>, Duration)]) -> ExitCode {
    let mut failed = false;
    println!();
    for (name, result, time) in rows {
        let verdict = match result {
            Ok(()) => "ok".to_owned(),
            Err(error) => {
                failed = true;
                format!("FAILED: {error:#}")
            }
        };
        println!("{name:<16} {:>8}  {verdict}", human(*time));
    }
    ExitCode::from(u8::from(failed))
}

fn cargo(args: &[&str]) -> Result<()> {
    shell::run(project::cargo().args(args)).map(drop)
}

/// Cargo.lock fits the manifests; without this, a build elsewhere would resolve other versions.
fn lockfile() -> Result<()> {
    shell::read(project::cargo().args(["metadata", "--locked", "--format-version=1"]))
        .context("Cargo.lock does not fit the manifests: run `cargo metadata` and commit it")
        .map(drop)
}

/// The test programs that need root are left out of `cargo test`, and with that of `--all-targets`, so they are named.
fn clippy() -> Result<()> {
    cargo(&["clippy", "--locked", "--all-targets", "--", "-Dwarnings"])?;
    cargo(&[
        "clippy",
        "--locked",
        "--package",
        "fw-tests",
        "--test",
        "*",
        "--",
        "-Dwarnings",
    ])
}

fn docs() -> Result<()> {
    let mut cargo = project::cargo();
    cargo.args(["doc", "--locked", "--no-deps", "--document-private-items"]);
    shell::run(cargo.env("RUSTDOCFLAGS", "-Dwarnings")).map(drop)
}

/// The kernel's half of `fw-common` stands alone: a dependency would be compiled for BPF too.
fn core_borders() -> Result<()> {
    match dependencies("fw-common")?.as_slice() {
        [] => Ok(()),
        some => bail!(
            "fw-common depends on {} without its feature `user`",
            some.join(", ")
        ),
    }
}

/// The policy compiler neither loads programs nor does I/O.
fn policy_borders() -> Result<()> {
    const OUTSIDE: [&str; 7] = ["aya", "aya-obj", "tokio", "mio", "nix", "rustix", "fw-user"];
    let found: Vec<String> = dependencies("fw-policy")?
        .into_iter()
        .filter(|name| OUTSIDE.contains(&name.as_str()))
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    bail!(
        "fw-policy depends on {}, which belongs to fw-user",
        found.join(", ")
    )
}

/// Names of all crates that `package` needs at run time.
fn dependencies(package: &str) -> Result<Vec<String>> {
    let mut cargo = project::cargo();
    cargo.args([
        "tree",
        "--locked",
        "--package",
        package,
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let tree = shell::read(&mut cargo)?;
    let mut names: Vec<String> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .filter(|n| n != package)
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Compiles the policy compiler where there are no files, sockets or threads. rustup's target is used if it is there;
/// otherwise the BPF toolchain builds a standard library from its sources.
fn policy_wasm() -> Result<()> {
    const TARGET: &str = "wasm32-unknown-unknown";
    let check = ["check", "--locked", "--package", "fw-policy", "--target", TARGET];
    let sysroot = shell::read(
        Command::new("rustc")
            .args(["--print", "sysroot"])
            .current_dir(project::root()),
    )?;
    if PathBuf::from(sysroot.trim())
        .join("lib/rustlib")
        .join(TARGET)
        .is_dir()
    {
        return cargo(&check);
    }
    let mut cargo = Rust::find()?.cargo();
    cargo
        .args(check)
        .args(["-Z", "build-std=std,panic_abort", "--target-dir"]);
    shell::run(cargo.arg(project::store().join("wasm-check"))).map(drop)
}

fn verifier() -> Result<()> {
    if test::layer("load")? {
        return Ok(());
    }
    bail!("a program does not load, or is over its budget: see above")
}

/// Licences, duplicates and sources of all dependencies.
fn deny(args: &Args) -> Result<()> {
    let program = setup::cargo_deny()?;
    let mut command = Command::new(program);
    command.args([
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ]);
    if args.advisories {
        command.arg("advisories");
    }
    shell::run(command.current_dir(project::root())).map(drop)
}
