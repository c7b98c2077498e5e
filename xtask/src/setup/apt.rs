//! Installing Debian packages, and saying what to do where that is not possible.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::packages::Package;
use crate::shell::{self, Refusal, human, say};

/// Installs those of `packages` that are missing.
pub fn ensure(packages: &[Package]) -> Result<()> {
    if !is_debian() {
        return ensure_by_files(packages);
    }
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    ensure_names(&names)
}

/// Like [`ensure`], for names that are known only at run time. Needs dpkg.
pub fn ensure_names(names: &[&str]) -> Result<()> {
    install(&missing(names)?)
}

/// Installs packages, or newer versions of them.
pub fn install(names: &[impl AsRef<str>]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let list = names.join(" ");
    say("setup", format_args!("installing {list}"));
    let mend = format!("cannot install {list} (by hand: `apt-get install {list}` as root)");
    let mut install = apt_get().context(mend.clone())?;
    update_lists();
    let spent = shell::run(install.args(["install", "--yes"]).args(names)).context(mend)?;
    say("setup", format_args!("installed in {}", human(spent)));
    Ok(())
}

/// Whether packages can be asked for and installed by name.
pub fn is_debian() -> bool {
    ["dpkg-query", "apt-get"]
        .iter()
        .all(|tool| shell::find_in_path(tool).is_some())
}

/// Fetches the package lists anew. A third party's list that fails is no reason to stop: the install says what is
/// missing.
pub fn update_lists() {
    if let Err(error) = apt_get().and_then(|mut apt| shell::run(apt.args(["update", "--error-on=any"]))) {
        say(
            "setup",
            format_args!("going on with the old package lists: {error:#}"),
        );
    }
}

/// Downloads packages into a folder, and says how long it took. Nothing is installed, and no root is needed.
pub fn download(names: &[impl AsRef<str>], folder: &Path) -> Result<Duration> {
    let mut command = Command::new("apt-get");
    command
        .args(["--quiet=2", "download"])
        .args(names.iter().map(AsRef::as_ref))
        .current_dir(folder);
    if shell::is_root() {
        // Otherwise it warns that its own user cannot write here.
        command.args(["-o", "APT::Sandbox::User=root"]);
    }
    shell::run(&mut command)
}

/// The packages that [`download`] left in a folder.
pub fn downloaded(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    Ok(files
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .collect())
}

/// Unpacks a package's files into a folder that stands for `/`; its scripts do not run.
pub fn unpack(package: &Path, root: &Path) -> Result<()> {
    shell::run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(root)).map(drop)
}

fn apt_get() -> Result<Command> {
    let mut command = shell::as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet=2"]);
    // Nothing that the user has is removed to make room; recommended desktop parts of qemu stay out.
    command.args([
        "--no-remove",
        "--no-install-recommends",
        "-o",
        "Dpkg::Use-Pty=0",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]);
    Ok(command)
}

fn missing<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut query = Command::new("dpkg-query");
    query
        .args(["--show", "--showformat=${binary:Package} ${db:Status-Status}\n"])
        .args(names);
    // It fails if one is unknown, and still lists the others.
    let output = query
        .output()
        .with_context(|| format!("cannot run `{}`", shell::line(&query)))?;
    let output = String::from_utf8_lossy(&output.stdout);
    let installed: HashSet<&str> = output
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(|name| name.split(':').next().unwrap_or(name))
        .collect();
    Ok(names
        .iter()
        .copied()
        .filter(|name| !installed.contains(name))
        .collect())
}

/// Elsewhere: the programs themselves, and a sentence about those that are not there.
fn ensure_by_files(packages: &[Package]) -> Result<()> {
    let is_there = |package: &&Package| match package.brings {
        path if path.starts_with('/') => Path::new(path).exists(),
        program => shell::find_in_path(program).is_some(),
    };
    // Rust for BPF may come from rustup there; `toolchain` looks for it and names the command.
    let missing: Vec<String> = packages
        .iter()
        .filter(|package| !package.name.contains("-web") && !is_there(package))
        .map(|package| format!("{} (Debian: {})", package.brings, package.name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let sentence = format!(
        "this is not Debian, so please install yourself: {}",
        missing.join(", ")
    );
    Err(Refusal::BadInput(sentence).into())
}
