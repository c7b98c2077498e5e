//! Where things of this workspace lie, and how its cargo is called.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's root.
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Where this project's tools, kernels and the BPF object are kept. Not moved by `CARGO_TARGET_DIR`: fw-user's build
/// script looks for the object here.
pub fn store() -> PathBuf {
    root().join("target")
}

/// The BPF object that `cargo xtask build` makes and the binary carries.
pub fn bpf_object() -> PathBuf {
    store().join("bpf/dpufw.bpf.o")
}

/// The BPF object that the bench compares with.
pub fn floor_object() -> PathBuf {
    store().join("bpf/floor.bpf.o")
}

/// Where cargo puts what it builds for the host.
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(store, |folder| root().join(folder))
}

/// Where cargo keeps the sources of dependencies.
pub fn cargo_home() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default());
    env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from)
}

/// The workspace's cargo: the one that runs this program.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The path as seen from the workspace's root, if it lies there.
pub fn short(path: &Path) -> std::path::Display<'_> {
    path.strip_prefix(root()).unwrap_or(path).display()
}

/// The name of a cargo profile's folder and its flag.
pub fn profile(release: bool) -> (&'static str, &'static [&'static str]) {
    if release {
        ("release", &["--release"])
    } else {
        ("debug", &[])
    }
}
