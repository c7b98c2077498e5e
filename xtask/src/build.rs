//! `cargo xtask build`: the BPF object, then the binary `dpufw` that carries it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::setup::{self, Level};
use crate::shell::{human, say};
use crate::{bpf, project, shell};

/// Build the BPF object and the binary `dpufw` with the object inside.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask build\n  cargo xtask build --release\n  \
                        cargo xtask build --object-only"
)]
pub struct Args {
    /// Optimise the binary (the BPF object always is).
    #[arg(long)]
    pub release: bool,
    /// Only the BPF object, target/bpf/dpufw.bpf.o.
    #[arg(long, conflicts_with = "release")]
    pub object_only: bool,
    /// With the packet path's own log lines, for its developers. The next build without this takes them out again.
    #[arg(long, conflicts_with = "release")]
    pub log: bool,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(Level::Build)?;
    if args.log {
        bpf::object_with_log()?;
    } else {
        bpf::object()?;
    }
    if !args.object_only {
        binary(args.release)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds `dpufw` around the object that is there, and returns its path.
pub fn binary(release: bool) -> Result<PathBuf> {
    let (folder, flags) = project::profile(release);
    let spent = shell::run(project::cargo().args(["build", "--bin", "dpufw"]).args(flags))?;
    let binary = project::target_dir().join(folder).join("dpufw");
    say(
        "binary",
        format_args!("{} ({})", project::short(&binary), human(spent)),
    );
    Ok(binary)
}
