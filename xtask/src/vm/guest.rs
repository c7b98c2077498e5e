//! What runs inside the virtual machine: an initramfs of busybox, test programs and tools with their libraries.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::kernel::Kernel;
use crate::{project, shell};

/// A packed initramfs; its files go with it.
pub struct Guest {
    folder: PathBuf,
}

/// The line that starts the programs' output on the console, and the one that ends it, followed by the exit code.
pub const BEGIN: &str = "dpufw-guest-begin";
pub const END: &str = "dpufw-guest-end";

/// What a guest is to do.
#[derive(Default)]
pub struct Job {
    /// Test programs, run one after the other.
    pub programs: Vec<PathBuf>,
    /// Their arguments.
    pub args: Vec<String>,
    /// Kernel modules, loaded first with those they need.
    pub modules: Vec<String>,
    /// Programs of this machine that the tests call.
    pub tools: Vec<PathBuf>,
    /// Environment of the test programs: `NAME=value`.
    pub variables: Vec<String>,
}

impl Guest {
    /// Packs all that `job` needs.
    pub fn pack(kernel: &Kernel, job: &Job) -> Result<Self> {
        let guest = Self {
            folder: project::store().join(format!("vm/guest-{}", std::process::id())),
        };
        let root = guest.root();
        for folder in [
            "bin", "dev", "proc", "sys", "tmp", "run", "var", "guest", "modules",
        ] {
            fs::create_dir_all(root.join(folder)).with_context(|| root.join(folder).display().to_string())?;
        }
        let busybox =
            shell::find_in_path("busybox").context("busybox is missing: run `cargo xtask setup`")?;
        copy(&busybox, &root.join("bin/busybox"))?;
        let link = root.join("var/run");
        symlink("/run", &link).with_context(|| link.display().to_string())?;
        for tool in &job.tools {
            guest.add_program(tool, "bin")?;
        }
        let runs = guest.add_programs(&job.programs, &job.args)?;
        let loads = guest.add_modules(kernel, &job.modules)?;
        let init = root.join("init");
        fs::write(&init, init_script(&loads, &job.variables, &runs))
            .with_context(|| init.display().to_string())?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        guest.archive()?;
        Ok(guest)
    }

    /// The initramfs, as the kernel takes it.
    pub fn image(&self) -> PathBuf {
        self.folder.join("initramfs")
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Copies programs with their libraries and returns the script's lines that run them.
    fn add_programs(&self, programs: &[PathBuf], args: &[String]) -> Result<String> {
        let mut lines = Vec::new();
        for program in programs {
            let name = self.add_program(program, "guest")?;
            let args: String = args.iter().map(|arg| quoted(arg)).collect();
            lines.push(format!(
                "./{name} --show-output --color never{args} 2>&1 || code=$?\n"
            ));
        }
        Ok(lines.concat())
    }

    /// Copies a program into a folder, with its libraries, and returns its name.
    fn add_program(&self, program: &Path, folder: &str) -> Result<String> {
        let name = program.file_name().context("a program without a name")?;
        // Debug information is nine tenths of a test program, and an emulator copies it slowly.
        let copied = self.root().join(folder).join(name);
        shell::run(Command::new("strip").arg("-o").arg(copied).arg(program))?;
        for library in libraries(program)? {
            copy(&library, &inside(&self.root(), &library))?;
        }
        Ok(name.to_string_lossy().into_owned())
    }

    /// Copies modules and returns the script's lines that load them.
    fn add_modules(&self, kernel: &Kernel, modules: &[String]) -> Result<String> {
        let mut lines = Vec::new();
        for module in modules {
            for file in kernel.module_files(module)? {
                let name = file.file_name().context("a module without a name")?;
                let name = name.to_string_lossy();
                let plain = name.strip_suffix(".xz").unwrap_or(&name);
                let line = format!("$b insmod /modules/{plain}\n");
                if !lines.contains(&line) {
                    unpack(&file, &self.root().join("modules").join(plain))?;
                    lines.push(line);
                }
            }
        }
        Ok(lines.concat())
    }

    fn archive(&self) -> Result<()> {
        let image = File::create(self.image()).with_context(|| self.image().display().to_string())?;
        let script = "find . | cpio --quiet --create --format=newc --owner=0:0";
        shell::run(
            Command::new("sh")
                .args(["-c", script])
                .current_dir(self.root())
                .stdout(image),
        )
        .map(drop)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Nothing depends on it: the folder lies under target/.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn init_script(load_modules: &str, variables: &[String], run_programs: &str) -> String {
    let variables: String = variables.iter().map(|variable| quoted(variable)).collect();
    format!(
        "#!/bin/busybox sh\n\
         b=/bin/busybox\n\
         $b mount -t devtmpfs dev /dev\n\
         $b mount -t proc proc /proc\n\
         $b mount -t sysfs sys /sys\n\
         $b mount -t bpf bpf /sys/fs/bpf\n\
         $b mount -t tmpfs tmp /tmp\n\
         $b mount -t tmpfs run /run\n\
         $b ip link set lo up\n\
         {load_modules}\
         export PATH=/bin{variables}\n\
         cd /guest\n\
         code=0\n\
         echo {BEGIN}\n\
         {run_programs}\
         echo {END} $code\n\
         $b poweroff -f\n"
    )
}

/// A word that the guest's shell takes as it is, with a space before it.
fn quoted(word: &str) -> String {
    format!(" '{}'", word.replace('\'', r"'\''"))
}

/// The shared libraries that a program needs, with the loader itself.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = shell::read(Command::new("ldd").arg(program))?;
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`, and the loader without an arrow.
    let paths = text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

/// Where an absolute path of this machine lies under `root`.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Copies a module, unpacked if it is packed: the kernel can do that itself only if it was built so.
fn unpack(from: &Path, to: &Path) -> Result<()> {
    if from.extension().is_none_or(|ending| ending != "xz") {
        return copy(from, to);
    }
    let file = File::create(to).with_context(|| to.display().to_string())?;
    shell::run(Command::new("xz").args(["-dc"]).arg(from).stdout(file)).map(drop)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
