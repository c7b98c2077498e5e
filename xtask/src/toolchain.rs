//! The toolchain that compiles for the BPF target: a rustc with the sources of `core`, and a bpf-linker that speaks the
//! same LLVM.
//!
//! rustup's stable has no `core` for BPF and may not build one, so user space and kernel space have a toolchain each.
//! Bitcode of a newer LLVM than the linker's fails with messages that name neither, hence the checks here.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::{project, shell};

/// The bpf-linker that `setup` installs.
pub const LINKER_VERSION: &str = "0.13.0";
/// The oldest rustc that compiles the workspace (`rust-version`).
const MIN_RUSTC: (u32, u32) = (1, 95);
/// The variable that names another bpf-linker than the project's.
const CHOSEN: &str = "DPUFW_BPF_LINKER";
/// What mends every missing piece.
const MEND: &str = "run `cargo xtask setup`";

/// A rustc that can build `core` for the BPF target, and its cargo.
pub struct Rust {
    /// Where it comes from, for messages.
    pub name: String,
    cargo: PathBuf,
    rustc: PathBuf,
    /// For example `1.96.0`.
    pub version: String,
    /// Major version of its LLVM.
    pub llvm: u32,
}

impl Rust {
    /// Finds one: Debian's packages first, then rustup's nightly with its `rust-src` component.
    pub fn find() -> Result<Self> {
        let debian = Self::probe(
            "Debian's rustc-web",
            "/usr/bin/rustc".into(),
            "/usr/bin/cargo".into(),
        );
        debian.or_else(|debian| {
            Self::nightly().map_err(|nightly| {
                anyhow!(
                    "no rustc here can build for BPF.\n  Debian: {debian:#}. To mend it, {MEND}\n  \
                     rustup: {nightly:#}. To mend it, run `rustup toolchain install nightly --component rust-src`"
                )
            })
        })
    }

    fn nightly() -> Result<Self> {
        let which = |tool| -> Result<PathBuf> {
            let path = shell::read(Command::new("rustup").args(["which", "--toolchain", "nightly", tool]))?;
            Ok(PathBuf::from(path.trim()))
        };
        Self::probe("rustup's nightly", which("rustc")?, which("cargo")?)
    }

    fn probe(name: &str, rustc: PathBuf, cargo: PathBuf) -> Result<Self> {
        if !rustc.is_file() || !cargo.is_file() {
            bail!("{} or {} is missing", rustc.display(), cargo.display());
        }
        let about = shell::read(Command::new(&rustc).arg("-vV"))?;
        let version = field(&about, "release")?.to_owned();
        if numbers(&version) < Some(MIN_RUSTC) {
            bail!(
                "{} is {version}, older than {}.{}",
                rustc.display(),
                MIN_RUSTC.0,
                MIN_RUSTC.1
            );
        }
        let llvm = field(&about, "LLVM version")?;
        let llvm = llvm
            .split('.')
            .next()
            .and_then(|n| n.parse().ok())
            .context("rustc's LLVM has no number")?;
        let sysroot = shell::read(Command::new(&rustc).args(["--print", "sysroot"]))?;
        let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
        if !core.is_file() {
            bail!(
                "{} has no sources of `core` ({} is missing)",
                rustc.display(),
                core.display()
            );
        }
        Ok(Self {
            name: name.to_owned(),
            cargo,
            rustc,
            version,
            llvm,
        })
    }

    /// A cargo that compiles with this rustc, free of what the calling cargo and rustup put into the environment.
    pub fn cargo(&self) -> Command {
        self.clean(&self.cargo)
    }

    /// The same, for `cargo clippy`: called by its path, or cargo takes the first one that PATH has, which is rustup's.
    pub fn clippy(&self) -> Result<Command> {
        let program = self.cargo.with_file_name("cargo-clippy");
        if !program.is_file() {
            bail!("{} has no clippy: run `cargo xtask setup --for check`", self.name);
        }
        let mut command = self.clean(&program);
        command.env("CARGO", &self.cargo).arg("clippy");
        Ok(command)
    }

    /// `llvm-strip` of the same LLVM: the host's own `strip` does not know BPF.
    pub fn llvm_strip(&self) -> Result<Command> {
        let debian = PathBuf::from(format!("/usr/lib/llvm-{}/bin/llvm-strip", self.llvm));
        let found = if debian.is_file() {
            Some(debian)
        } else {
            shell::find_in_path("llvm-strip")
        };
        found
            .map(Command::new)
            .with_context(|| format!("llvm-strip is missing: {MEND}"))
    }

    fn clean(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (key, _) in env::vars_os().filter(|(key, _)| key.to_str().is_none_or(is_foreign)) {
            command.env_remove(key);
        }
        // The BPF target is tier 3: `core` is built from source, which a stable compiler only does when told so.
        command
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .current_dir(project::root());
        command
    }
}

/// Variables by which one toolchain would reach into another's build. `CARGO_HOME`, proxies and registries stay.
fn is_foreign(key: &str) -> bool {
    const NAMES: [&str; 7] = [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "LD_LIBRARY_PATH",
        "CARGO_ENCODED_RUSTFLAGS",
    ];
    const FAMILIES: [&str; 6] = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BUILD_",
        "CARGO_TARGET_",
        "CARGO_PROFILE_",
        "RUSTC_",
    ];
    NAMES.contains(&key) || FAMILIES.iter().any(|family| key.starts_with(family))
}

/// The bpf-linker of this project.
pub struct Linker {
    /// Absolute path.
    pub path: PathBuf,
}

impl Linker {
    /// Where `setup` installs it: in the project, so that nothing installed by hand hides a missing step.
    pub fn default_root() -> PathBuf {
        env::var_os("DPUFW_TOOLS").map_or_else(|| project::store().join("tools"), PathBuf::from)
    }

    /// Finds a linker that fits `rust`: the one that [`CHOSEN`] names, or the project's.
    pub fn find(rust: &Rust) -> Result<Self> {
        if let Some(path) = env::var_os(CHOSEN).map(PathBuf::from) {
            version_of(&path)
                .and_then(|_| check_llvm(&path, rust))
                .context("unset DPUFW_BPF_LINKER, or name another")?;
            return Ok(Self { path });
        }
        let path = Self::default_root().join("bin/bpf-linker");
        if !path.is_file() {
            bail!("{} is missing: {MEND}", path.display());
        }
        let version = version_of(&path).with_context(|| format!("bpf-linker does not run: {MEND}"))?;
        if version != LINKER_VERSION {
            bail!("{} is {version}, not {LINKER_VERSION}: {MEND}", path.display());
        }
        check_llvm(&path, rust).context(MEND)?;
        Ok(Self { path })
    }

    /// Whether the caller chose one, which is then nobody else's to mend.
    pub fn is_chosen() -> bool {
        env::var_os(CHOSEN).is_some()
    }
}

fn version_of(linker: &Path) -> Result<String> {
    let about = shell::read(Command::new(linker).arg("--version"))?;
    let version = about
        .trim()
        .strip_prefix("bpf-linker ")
        .context("it does not say its version")?;
    Ok(version.to_owned())
}

fn check_llvm(linker: &Path, rust: &Rust) -> Result<()> {
    let binary = fs::read(linker).with_context(|| linker.display().to_string())?;
    match llvm_of(&binary) {
        Some(llvm) if llvm != rust.llvm => bail!(
            "{} was built for LLVM {llvm}, but {} {} has LLVM {}",
            linker.display(),
            rust.name,
            rust.version,
            rust.llvm
        ),
        // A static LLVM leaves no name behind; then a mismatch shows when linking.
        _ => Ok(()),
    }
}

/// The major version in the name of the LLVM library that a program is linked with: `libLLVM.so.22.1` (LLVM's own name)
/// or `libLLVM-22.so` (some distributions').
fn llvm_of(binary: &[u8]) -> Option<u32> {
    [b"libLLVM.so.".as_slice(), b"libLLVM-"].iter().find_map(|name| {
        let at = binary.windows(name.len()).position(|window| window == *name)? + name.len();
        let digits: String = binary[at..]
            .iter()
            .map(|&b| char::from(b))
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().ok()
    })
}

fn field<'a>(about: &'a str, name: &str) -> Result<&'a str> {
    let value = about
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.with_context(|| format!("`rustc -vV` does not say its {name}"))
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_is_read_from_the_library_name() {
        assert_eq!(llvm_of(b"..\0libLLVM.so.22.1\0libc.so.6"), Some(22));
        assert_eq!(llvm_of(b"..\0libLLVM-21.so.1\0"), Some(21));
        assert_eq!(llvm_of(b"libc.so.6"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(numbers("1.100.0") > Some(MIN_RUSTC));
        assert!(numbers("1.63.0") < Some(MIN_RUSTC));
        assert!(numbers("unknown") < Some(MIN_RUSTC));
    }

    #[test]
    fn the_callers_toolchain_stays_out() {
        assert!(
            is_foreign("RUSTUP_TOOLCHAIN") && is_foreign("CARGO_PKG_NAME") && is_foreign("RUSTC_WRAPPER")
        );
        assert!(!is_foreign("CARGO_HOME") && !is_foreign("CARGO_HTTP_PROXY") && !is_foreign("PATH"));
    }
}
