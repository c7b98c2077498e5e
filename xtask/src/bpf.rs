//! Compiling the crate `fw-ebpf` to the BPF object, and to the bench's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::shell::{human, say};
use crate::toolchain::{Linker, Rust};
use crate::{project, shell};

/// Little-endian BPF: both `x86_64` and `aarch64`.
const TARGET: &str = "bpfel-unknown-none";

/// Builds the BPF object if an input changed, and returns its path.
pub fn object() -> Result<PathBuf> {
    make("dpufw-bpf", project::bpf_object(), &[])
}

/// Builds it with the feature `log`: see fw-ebpf/Cargo.toml.
pub fn object_with_log() -> Result<PathBuf> {
    make("dpufw-bpf", project::bpf_object(), &["--features", "log"])
}

/// Builds the programs that the bench compares with, and returns their object's path.
pub fn floor() -> Result<PathBuf> {
    make("dpufw-floor", project::floor_object(), &[])
}

/// Builds one of the crate's binaries and puts it where it is looked for.
fn make(bin: &str, object: PathBuf, features: &[&str]) -> Result<PathBuf> {
    let start = Instant::now();
    let rust = Rust::find()?;
    let mut cargo = rust.cargo();
    compile(&rust, cargo.args(["build", "--bin", bin]).args(features), &[])?;
    let linked = target_dir().join(TARGET).join("bpf").join(bin);
    let bytes = without_dwarf(&rust, &linked)?;
    let news = if write_if_changed(&object, &bytes)? {
        "new"
    } else {
        "unchanged"
    };
    let size = bytes.len() / 1024;
    let spent = human(start.elapsed());
    say(
        "object",
        format_args!("{} ({size} KiB, {news}, {spent})", project::short(&object)),
    );
    Ok(object)
}

/// Fails if clippy has anything to say about the BPF crate, which compiles for its own target only.
pub fn clippy() -> Result<()> {
    let rust = Rust::find()?;
    compile(&rust, &mut rust.clippy()?, &["--no-deps", "--", "-Dwarnings"])
}

/// Removes what an earlier linker made: cargo does not see that the linker changed, and would take it for fresh.
pub fn forget() {
    // Nothing there is the usual case.
    let _ = fs::remove_dir_all(target_dir().join(TARGET));
}

/// Runs `cargo`, a command that ends in its subcommand, on the BPF crate. The linker is checked first: its own message
/// about a foreign LLVM helps nobody.
fn compile(rust: &Rust, cargo: &mut Command, rest: &[&str]) -> Result<()> {
    let linker = Linker::find(rust)?;
    cargo
        .args([
            "--package",
            "fw-ebpf",
            "--profile",
            "bpf",
            "--target",
            TARGET,
            "-Z",
            "build-std=core",
        ])
        .arg("--target-dir")
        .arg(target_dir())
        .args(rest)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&linker.path).join("\x1f"));
    if !shell::status(cargo)?.success() {
        bail!("the BPF programs do not compile: see above");
    }
    Ok(())
}

/// A folder of its own, so that the two toolchains do not rebuild each other's crates.
fn target_dir() -> PathBuf {
    project::store().join("bpf-build")
}

fn rustflags(linker: &Path) -> Vec<String> {
    vec![
        // aya-ebpf's bindings and pt_regs follow the host's architecture.
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        // BTF is made from debug information, and every crate, core included, needs func_info.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // v3: 32-bit registers and atomics that return a value.
        "-Ctarget-cpu=v3".to_owned(),
        format!("-Clinker={}", linker.display()),
        // The same object wherever it is built: BTF names source files.
        format!("--remap-path-prefix={}=.", project::root().display()),
        format!("--remap-path-prefix={}=cargo", project::cargo_home().display()),
    ]
}

/// The object without the debug sections, three quarters of it. The kernel and aya read BTF, which stays; for
/// `llvm-objdump --source` there is the unstripped one in target/bpf-build.
fn without_dwarf(rust: &Rust, linked: &Path) -> Result<Vec<u8>> {
    let stripped = linked.with_extension("stripped");
    shell::run(
        rust.llvm_strip()?
            .args(["--strip-debug", "-o"])
            .args([&stripped, linked]),
    )?;
    fs::read(&stripped).with_context(|| stripped.display().to_string())
}

/// Writes only what differs, so that cargo does not rebuild the binary for nothing. True if it wrote.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    // Written beside and renamed: a build that runs at the same time never reads half an object.
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).with_context(|| beside.display().to_string())?;
    fs::rename(&beside, path).with_context(|| path.display().to_string())?;
    Ok(true)
}
