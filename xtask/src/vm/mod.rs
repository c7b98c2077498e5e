//! `cargo xtask vm`: another kernel than the one that runs here, under software emulation.

mod guest;
mod kernel;
mod qemu;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use guest::Guest;

use crate::setup::{self, Level};
use crate::shell::{human, say};
use crate::{bpf, test};

/// Boot a distribution kernel under emulation and run test programs in it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask vm --smoke                  load every program on Linux 6.1\n  \
                        cargo xtask vm --smoke --kernel 6.12    the same on another kernel of Debian's\n  \
                        cargo xtask vm --test packets           a layer of tests, without namespaces"
)]
#[group(id = "what", required = true, multiple = true, args = ["smoke", "tests"])]
pub struct Args {
    /// Load every program and print how many instructions the verifier walked.
    #[arg(long)]
    smoke: bool,
    /// Run this test target of the crate `fw-tests` (repeatable).
    #[arg(long = "test", value_name = "NAME")]
    tests: Vec<String>,
    /// Which of Debian's kernels to boot.
    #[arg(long, value_name = "SERIES", default_value = "6.1")]
    kernel: String,
    /// Load this kernel module, and those it needs, first (repeatable).
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
    /// Handed to the test programs.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// The test target that `--smoke` stands for.
const SMOKE: &str = "load";
/// Boot and load take about 20 s on an idle machine; this is for a busy one, and for a layer of tests.
const LIMIT: Duration = Duration::from_mins(10);

pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(Level::Build)?;
    setup::ensure(Level::Vm)?;
    bpf::object()?;
    let smoke = args.smoke.then_some(SMOKE);
    let targets = smoke.into_iter().chain(args.tests.iter().map(String::as_str));
    let programs = targets.map(test::executable).collect::<Result<Vec<PathBuf>>>()?;
    let kernel = kernel::ensure(&args.kernel)?;
    let start = Instant::now();
    let guest = Guest::pack(&kernel, &programs, &args.rest, &args.modules)?;
    say("vm", format_args!("booting {} under emulation", kernel.release));
    let code = qemu::boot(&kernel, guest.image(), LIMIT)?;
    say(
        "vm",
        format_args!(
            "the guest ended with exit code {code} ({})",
            human(start.elapsed())
        ),
    );
    Ok(ExitCode::from(u8::from(code != 0)))
}
