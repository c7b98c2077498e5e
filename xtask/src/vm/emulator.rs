//! Which qemu runs the guest: this machine's own, or the copy that `setup` unpacked into the project's tools.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;
use crate::toolchain::Linker;

/// The emulator's name, wherever it lies.
const PROGRAM: &str = "qemu-system-x86_64";
/// Firmware of qemu's that comes in packages of its own: the BIOS, and network cards' boot programs.
const FIRMWARE: [&str; 2] = ["/usr/share/seabios", "/usr/lib/ipxe/qemu"];

/// An emulator that is there.
pub struct Qemu {
    program: PathBuf,
    /// Where its firmware is, if it does not know that itself.
    firmware: &'static [&'static str],
}

impl Qemu {
    /// Where `setup` unpacks a copy, as if this folder were `/`.
    pub fn copy_root() -> PathBuf {
        Linker::default_root().join("qemu")
    }

    /// Finds one: this machine's first, then the project's copy.
    pub fn find() -> Result<Self> {
        if let Some(program) = shell::find_in_path(PROGRAM) {
            return Ok(Self {
                program,
                firmware: &[],
            });
        }
        Self::copy(&Self::copy_root())
    }

    fn copy(root: &Path) -> Result<Self> {
        let program = root.join("usr/bin").join(PROGRAM);
        if !program.is_file() {
            bail!("{PROGRAM} is missing: run `cargo xtask setup`");
        }
        // Its libraries are this machine's: one may have gone since.
        shell::read(Command::new(&program).arg("--version"))
            .context("the project's copy of qemu does not run: run `cargo xtask setup`")?;
        // It finds its own data and modules relative to itself, but takes other packages' firmware to lie there too.
        Ok(Self {
            program,
            firmware: &FIRMWARE,
        })
    }

    /// The emulator, told where its firmware is.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for folder in self.firmware {
            command.args(["-L", folder]);
        }
        command
    }
}
