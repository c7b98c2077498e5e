//! `cargo xtask vm`: another kernel than the one that runs here, under software emulation.

mod guest;
mod kernel;
mod qemu;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::setup::{self, Level};
use crate::shell::{human, say};
use crate::{bpf, test};

/// Boot a distribution kernel under emulation and run tests in it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask vm --smoke                  load every program on Linux 6.1\n  \
                        cargo xtask vm --smoke --kernel 6.12    the same on another kernel of Debian's"
)]
pub struct Args {
    /// Load every program and print how many instructions the verifier walked.
    #[arg(long, required = true)]
    smoke: bool,
    /// Which of Debian's kernels to boot.
    #[arg(long, value_name = "SERIES", default_value = "6.1")]
    kernel: String,
    /// Load this kernel module, and those it needs, first (repeatable).
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
}

/// Boot and load take about 20 s on an idle machine; this is for a busy one.
const LIMIT: Duration = Duration::from_mins(5);

pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(Level::Build)?;
    setup::ensure(Level::Vm)?;
    let object = bpf::object()?;
    let program = test::executable("load")?;
    let kernel = kernel::ensure(&args.kernel)?;
    let start = Instant::now();
    let guest = guest::Guest::pack(&kernel, &program, &object, &args.modules)?;
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
