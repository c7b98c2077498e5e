//! Debian's kernel packages, downloaded and unpacked inside the project; nothing is installed on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell::{self, Refusal, human, say};
use crate::{project, setup};

/// An unpacked kernel package.
pub struct Kernel {
    /// `uname -r` of it, for example `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// The folder that stands for `/`.
    root: PathBuf,
}

impl Kernel {
    /// The bootable image.
    pub fn image(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.release))
    }

    /// The files of a module and of all it needs, in the order of loading; empty if it is built in.
    pub fn module_files(&self, name: &str) -> Result<Vec<PathBuf>> {
        let modprobe =
            shell::find_in_path("modprobe").context("modprobe is missing: run `cargo xtask setup`")?;
        let mut command = Command::new(modprobe);
        // Without this machine's own options and blacklists.
        command.args(["--config", "/dev/null"]);
        command.arg("--dirname").arg(&self.root).args([
            "--set-version",
            &self.release,
            "--show-depends",
            name,
        ]);
        let plan = shell::read(&mut command)?;
        let files = plan.lines().filter_map(|line| line.strip_prefix("insmod "));
        Ok(files.map(|file| PathBuf::from(file.trim())).collect())
    }

    fn unpacked(root: PathBuf) -> Result<Self> {
        let boot = root.join("boot");
        let names = fs::read_dir(&boot).with_context(|| boot.display().to_string())?;
        let release = names
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned));
        let release = release.with_context(|| format!("{} holds no kernel: remove it", boot.display()))?;
        Ok(Self { release, root })
    }
}

/// The newest kernel of `series` (`6.1`) that the package lists know, unpacked under target/vm.
pub fn ensure(series: &str) -> Result<Kernel> {
    let root = project::store().join("vm").join(format!("linux-{series}"));
    if !root.is_dir() {
        download(series, &root)?;
    }
    Kernel::unpacked(root)
}

fn download(series: &str, root: &Path) -> Result<()> {
    let work = root.with_extension("unpacking");
    let _ = fs::remove_dir_all(&work); // left by a run that was interrupted
    fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
    let spent = fetch(series, &work).or_else(|error| {
        // A fresh machine has no package lists, and old ones name kernels that the archive has dropped since.
        say(
            "vm",
            format_args!("{error:#}; asking the archive what there is now"),
        );
        setup::update_lists();
        fetch(series, &work)
    })?;
    unpack(&work)?;
    fs::rename(work.join("root"), root).with_context(|| root.display().to_string())?;
    let _ = fs::remove_dir_all(&work);
    say(
        "vm",
        format_args!("unpacked {} (download {})", root.display(), human(spent)),
    );
    Ok(())
}

/// The cloud flavour leaves out drivers for hardware that an emulator does not have, and is a third of the size.
fn find_package(series: &str) -> Result<String> {
    if shell::find_in_path("apt-cache").is_none() {
        bail!("kernels come as Debian packages, and this machine has no apt-cache");
    }
    let metas = [
        "linux-image-cloud-amd64".to_owned(),
        format!("linux-image-{series}-cloud-amd64"),
    ];
    for meta in metas {
        // Not every release of Debian has every one of them.
        let Ok(text) = shell::read(Command::new("apt-cache").args(["depends", &meta])) else {
            continue;
        };
        let prefix = format!("linux-image-{series}.");
        let mut names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        if let Some(name) = names.find(|name| name.starts_with(&prefix)) {
            return Ok(name.to_owned());
        }
    }
    let sentence = format!(
        "the package lists have no Debian kernel {series} (`apt-cache search linux-image` shows all)"
    );
    Err(Refusal::BadInput(sentence).into())
}

fn fetch(series: &str, folder: &Path) -> Result<Duration> {
    let package = find_package(series)?;
    say("vm", format_args!("downloading {package}"));
    setup::download(&[package], folder)
}

fn unpack(folder: &Path) -> Result<()> {
    let package = setup::downloaded(folder)?.pop();
    let package = package.context("the download left no package")?;
    let root = folder.join("root");
    setup::unpack(&package, &root)?;
    let kernel = Kernel::unpacked(root.clone())?;
    let depmod = shell::find_in_path("depmod").context("depmod is missing: run `cargo xtask setup`")?;
    shell::run(
        Command::new(depmod)
            .arg("--basedir")
            .arg(&root)
            .arg(&kernel.release),
    )
    .map(drop)
}
