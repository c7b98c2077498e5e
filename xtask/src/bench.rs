//! `cargo xtask bench`: the packet path measured against the bare floor and nftables.

use std::process::ExitCode;

use anyhow::Result;

use crate::{bpf, lab, setup};

/// Measure the packet path against the floor, or first packets by the size of the policy beside nftables (`classify`).
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench --quick\n  cargo xtask bench --quick --json bench.json\n  cargo xtask bench classify --quick --json classify.json"
)]
pub struct Args {
    /// Handed to the bench (`cargo xtask bench -- --help` lists them).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(setup::Level::Build)?;
    setup::ensure(setup::Level::Test)?;
    bpf::object()?;
    bpf::floor()?;
    lab::run("fw-bench", &args.rest)
}
