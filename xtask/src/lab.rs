//! Programs of the crate `fw-tests` that make namespaces: built as the user, run as root.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::{build, project, shell};

/// Builds the release binaries `dpufw` and `program`, and runs `program` as root with `args`.
pub fn run(program: &str, args: &[String]) -> Result<ExitCode> {
    let dpufw = build::binary(true)?;
    shell::run(project::cargo().args(["build", "--release", "--bin", program]))?;
    let path = project::target_dir().join("release").join(program);
    // sudo clears the environment, so the variable is set behind it.
    let mut command = shell::as_root("env")?;
    shell::become_like(
        command
            .arg(variable(&dpufw))
            .arg(path)
            .args(args)
            .current_dir(project::root()),
    )
}

/// The assignment that tells them which `dpufw` to start.
pub fn variable(dpufw: &Path) -> String {
    format!("DPUFW_BIN={}", dpufw.display())
}
