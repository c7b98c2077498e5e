//! Installing cargo-deny, which only `cargo xtask check` needs.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::shell::{human, say};
use crate::toolchain::Linker;
use crate::{project, shell};

/// The newest that the workspace's rustc compiles.
const VERSION: &str = "0.20.2";

/// The path of cargo-deny: the caller's, or one built into the project's tools.
pub fn ensure() -> Result<PathBuf> {
    if let Some(path) = shell::find_in_path("cargo-deny") {
        return Ok(path);
    }
    let root = Linker::default_root();
    let program = root.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    say(
        "setup",
        format_args!("building cargo-deny {VERSION}: some minutes, once"),
    );
    let mut cargo = project::cargo();
    cargo
        .args([
            "install",
            "cargo-deny",
            "--quiet",
            "--locked",
            "--version",
            VERSION,
            "--root",
        ])
        .arg(root);
    let spent = shell::run(&mut cargo).context("cargo-deny does not build")?;
    say("setup", format_args!("installed in {}", human(spent)));
    Ok(program)
}
