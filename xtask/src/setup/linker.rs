//! Installing bpf-linker for the LLVM that the BPF rustc has.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{apt, packages};
use crate::shell::{human, say};
use crate::toolchain::{LINKER_VERSION, Linker, Rust};
use crate::{bpf, project, shell};

/// Builds bpf-linker unless a fitting one is there.
pub fn ensure(rust: &Rust) -> Result<()> {
    if apt::is_debian() {
        // Also later: it is linked with this package's shared library.
        apt::ensure_names(&[&packages::llvm(rust.llvm)])?;
    }
    let Err(reason) = Linker::find(rust) else {
        return Ok(());
    };
    if Linker::is_chosen() {
        return Err(reason);
    }
    say("setup", format_args!("{reason:#}"));
    install(rust)?;
    Linker::find(rust).map(drop)
}

fn install(rust: &Rust) -> Result<()> {
    let root = Linker::default_root();
    let llvm = rust.llvm;
    say(
        "setup",
        format_args!("building bpf-linker {LINKER_VERSION} for LLVM {llvm}: one to two minutes, once"),
    );
    let mut cargo = project::cargo();
    cargo
        .args([
            "install",
            "bpf-linker",
            "--quiet",
            "--locked",
            "--force",
            "--version",
            LINKER_VERSION,
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
            "--root",
        ])
        .arg(&root);
    if let Some(prefix) = llvm_prefix(llvm) {
        cargo.env("LLVM_PREFIX", prefix);
    }
    let spent = shell::run(&mut cargo).with_context(|| {
        format!(
            "bpf-linker does not build: LLVM {llvm} with its headers is needed (Debian: {})",
            packages::llvm(llvm)
        )
    })?;
    bpf::forget();
    say(
        "setup",
        format_args!(
            "installed {} in {}",
            root.join("bin/bpf-linker").display(),
            human(spent)
        ),
    );
    Ok(())
}

/// Debian's prefix of one LLVM; elsewhere bpf-linker's build asks `llvm-config`.
fn llvm_prefix(major: u32) -> Option<PathBuf> {
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    prefix.is_dir().then_some(prefix)
}
