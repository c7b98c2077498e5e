//! `cargo xtask setup`: installs what is missing, level by level. Every other command calls [`ensure`] with the level it
//! needs, so nobody has to run this one by hand.

mod apt;
mod emulator;
mod linker;
mod packages;
mod tools;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

pub use apt::{download, downloaded, unpack, update_lists};
pub use tools::{cargo_deny, cargo_mutants};

use crate::shell::{human, say};
use crate::toolchain::Rust;

/// Install what all commands need, or what one of them does.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask setup              everything\n  \
                        cargo xtask setup --for build  only what `cargo xtask build` needs")]
pub struct Args {
    /// Only what this needs.
    #[arg(long = "for", value_name = "LEVEL", default_value = "all")]
    level: Level,
}

/// What a command needs. A level does not include the others.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Compilers and bpf-linker.
    Build,
    /// Namespaces, and clients and servers to send real packets.
    Test,
    /// An emulator, and what its initramfs is made of.
    Vm,
    /// The lint of the BPF crate.
    Check,
    /// libFuzzer's compiler.
    Fuzz,
    /// Peers of the bench.
    Bench,
    /// All of these.
    All,
}

impl Level {
    fn includes(self, other: Self) -> bool {
        self == other || self == Self::All
    }
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    ensure(args.level)?;
    say("setup", format_args!("done ({})", human(start.elapsed())));
    Ok(ExitCode::SUCCESS)
}

/// Installs what `level` lacks. Silent where nothing is missing, but for one line.
pub fn ensure(level: Level) -> Result<()> {
    for part in [
        Level::Build,
        Level::Test,
        Level::Vm,
        Level::Check,
        Level::Fuzz,
        Level::Bench,
    ] {
        if level.includes(part) {
            apt::ensure(packages::of(part))?;
        }
    }
    if level.includes(Level::Vm) {
        emulator::ensure()?;
    }
    if level.includes(Level::Build) {
        let rust = Rust::find()?;
        linker::ensure(&rust)?;
    }
    Ok(())
}
