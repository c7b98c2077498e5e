//! `cargo xtask demo`: a small cluster in namespaces, with the real agent and real clients.

use std::process::ExitCode;

use anyhow::Result;

use crate::{bpf, lab, setup};

/// Show a small AI cluster in network namespaces behind the firewall.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --hold    leave it open to play with"
)]
pub struct Args {
    /// Handed to the demo (`cargo xtask demo -- --help` lists them).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(setup::Level::Build)?;
    setup::ensure(setup::Level::Test)?;
    bpf::object()?;
    lab::run("fw-demo", &args.rest)
}
