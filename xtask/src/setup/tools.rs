//! Installing cargo's own tools, which only some commands need.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::shell::{human, say};
use crate::toolchain::Linker;
use crate::{project, shell};

/// The path of cargo-deny. The newest version that the workspace's rustc compiles.
pub fn cargo_deny() -> Result<PathBuf> {
    ensure("cargo-deny", "0.20.2")
}

/// The path of cargo-mutants. As above.
pub fn cargo_mutants() -> Result<PathBuf> {
    ensure("cargo-mutants", "27.1.0")
}

/// The caller's, or one built into the project's tools.
fn ensure(name: &str, version: &str) -> Result<PathBuf> {
    if let Some(path) = shell::find_in_path(name) {
        return Ok(path);
    }
    let root = Linker::default_root();
    let program = root.join("bin").join(name);
    if program.is_file() {
        return Ok(program);
    }
    say(
        "setup",
        format_args!("building {name} {version}: some minutes, once"),
    );
    let mut cargo = project::cargo();
    cargo
        .args([
            "install",
            name,
            "--quiet",
            "--locked",
            "--version",
            version,
            "--root",
        ])
        .arg(root);
    let spent = shell::run(&mut cargo).with_context(|| format!("{name} does not build"))?;
    say("setup", format_args!("installed in {}", human(spent)));
    Ok(program)
}
