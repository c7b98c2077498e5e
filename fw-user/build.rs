//! Finds the BPF object that `cargo xtask build` made, so that the library can carry it inside.
//!
//! - Object there: sets `DPUFW_BPF_OBJECT_PATH` (absolute) for `env!`, to be read by `aya::include_bytes_aligned!`.
//! - Object absent: sets `cfg(dpufw_no_object)`. The crate still compiles, so that a plain `cargo test` needs no BPF
//!   toolchain; loading then fails with a sentence.
//!
//! The variable `DPUFW_BPF_OBJECT` names another object, for builds outside this workspace.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `e_machine` of BPF objects (elf.h, `EM_BPF`).
const EM_BPF: u16 = 247;

fn main() -> ExitCode {
    println!("cargo::rustc-check-cfg=cfg(dpufw_no_object)");
    println!("cargo::rerun-if-env-changed=DPUFW_BPF_OBJECT");
    println!("cargo::rerun-if-changed=build.rs");
    match find_object() {
        Ok(Some(path)) => println!("cargo::rustc-env=DPUFW_BPF_OBJECT_PATH={}", path.display()),
        Ok(None) => println!("cargo::rustc-cfg=dpufw_no_object"),
        Err(sentence) => {
            println!("cargo::error={sentence}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The object's absolute path, or `None` if nobody has built it yet.
fn find_object() -> Result<Option<PathBuf>, String> {
    let (path, named) = match env::var_os("DPUFW_BPF_OBJECT") {
        Some(path) => (PathBuf::from(path), true),
        None => (default_object()?, false),
    };
    if path.is_file() {
        println!("cargo::rerun-if-changed={}", path.display());
        check_elf(&path)?;
        let absolute = fs::canonicalize(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        return Ok(Some(absolute));
    }
    if named {
        return Err(format!(
            "DPUFW_BPF_OBJECT names {}, which is not a file: unset it, or run `cargo xtask build`",
            path.display()
        ));
    }
    watch_folder_of(&path);
    Ok(None)
}

/// Where `cargo xtask build` puts the object.
fn default_object() -> Result<PathBuf, String> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo did not set CARGO_MANIFEST_DIR")?;
    Ok(Path::new(&manifest).join("../target/bpf/dpufw.bpf.o"))
}

/// Has cargo run this script again once the object appears. Watching the missing file itself would run it, and build
/// the crate, every time.
fn watch_folder_of(object: &Path) {
    let Some(folder) = object.parent() else { return };
    // A read-only tree only costs the extra runs.
    let made = fs::create_dir_all(folder).is_ok();
    let watched = if made { folder } else { object };
    println!("cargo::rerun-if-changed={}", watched.display());
}

/// Refuses a file that is not a BPF object here, where the message can name it; aya would say so only at load.
fn check_elf(path: &Path) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let machine = bytes.get(18..20).map(|b| u16::from_le_bytes([b[0], b[1]]));
    if bytes.starts_with(b"\x7fELF") && machine == Some(EM_BPF) {
        return Ok(());
    }
    Err(format!(
        "{} is not a BPF object: run `cargo xtask build`",
        path.display()
    ))
}
