//! `cargo xtask bench`: dpufw measured beside the bare floor, nftables, iptables and the kernel alone.

use std::process::ExitCode;

use anyhow::Result;

use crate::{bpf, lab, setup};

/// Measure dpufw beside the bare floor and its peers, or compare two results.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench --quick --json bench.json\n  cargo xtask bench classify policy --quick --json classify.json\n  \
                  cargo xtask bench ns memory latency scale new-flows syn-flood --quick\n  cargo xtask bench --plots plots\n  \
                        cargo xtask bench compare old.json new.json"
)]
pub struct Args {
    /// Handed to the bench (`cargo xtask bench -- --help` lists them).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(setup::Level::Build)?;
    setup::ensure(setup::Level::Test)?;
    setup::ensure(setup::Level::Bench)?;
    bpf::object()?;
    bpf::floor()?;
    lab::run("fw-bench", &args.rest)
}
