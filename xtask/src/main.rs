//! `cargo xtask`: everything a developer or CI runs, one file per command.
//!
//! Each command first installs what it needs and says what it does. Builds run as the user who calls; only the package
//! manager and the parts that make network namespaces and load programs ask for root.

mod bench;
mod bpf;
mod build;
mod check;
mod demo;
mod fuzz;
mod lab;
mod mutants;
mod project;
mod setup;
mod shell;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of dpufw.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    arg_required_else_help = true
)]
#[command(
    after_help = "Exit codes: 0 yes; 1 the answer is no (a test failed, a check differs); 2 bad input; \
                        3 no privilege."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    Build(build::Args),
    Demo(demo::Args),
    Test(test::Args),
    Check(check::Args),
    Bench(bench::Args),
    Vm(vm::Args),
    Fuzz(fuzz::Args),
    Mutants(mutants::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::main(&args),
        Command::Build(args) => build::main(&args),
        Command::Demo(args) => demo::main(&args),
        Command::Test(args) => test::main(&args),
        Command::Check(args) => check::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Vm(args) => vm::main(&args),
        Command::Fuzz(args) => fuzz::main(&args),
        Command::Mutants(args) => mutants::main(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// 3 for missing privilege, 2 for what the caller asked wrongly, otherwise 1.
fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<shell::Refusal>() {
        Some(shell::Refusal::NoPrivilege(_)) => 3,
        Some(shell::Refusal::BadInput(_)) => 2,
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_after_demo_and_bench_are_theirs() {
        let parsed = |words: &[&str]| Cli::try_parse_from(words).map(|cli| cli.command);
        assert!(matches!(
            parsed(&["xtask", "demo", "--hold"]),
            Ok(Command::Demo(_))
        ));
        assert!(matches!(
            parsed(&["xtask", "bench", "--quick", "--json", "out.json"]),
            Ok(Command::Bench(_))
        ));
        assert!(parsed(&["xtask", "build", "--quick"]).is_err());
    }

    #[test]
    fn vm_wants_to_know_what_to_run() {
        assert!(Cli::try_parse_from(["xtask", "vm"]).is_err());
        assert!(Cli::try_parse_from(["xtask", "vm", "--smoke"]).is_ok());
        assert!(Cli::try_parse_from(["xtask", "vm", "--test", "packets", "--kernel", "6.12"]).is_ok());
    }
}
