//! Installing the emulator: as a package, or, where apt would have to remove something to make room, as a copy in the
//! project.
//!
//! Debian's packages of qemu are made for each other. Whoever has one from elsewhere, `qemu-utils` from backports say,
//! may have no other from the release.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{apt, packages};
use crate::shell::{self, human, say};
use crate::{project, vm::Qemu};

/// What packages of the emulator itself are called; all others that it needs go beside any version of it.
const FAMILY: &str = "qemu-system-";

/// Installs the emulator unless one is there.
pub fn ensure() -> Result<()> {
    if Qemu::find().is_ok() {
        return Ok(());
    }
    // Says itself what is wrong and how to mend it; only one reason has a way round.
    if let Err(reason) = apt::ensure(&[packages::EMULATOR]) {
        let plan = Plan::of(packages::EMULATOR.name).unwrap_or_default();
        if plan.removed.is_empty() {
            return Err(reason);
        }
        let removed = plan.removed.join(", ");
        say(
            "setup",
            format_args!("apt would have to remove {removed}: qemu goes into the project's tools instead"),
        );
        copy(&plan).with_context(|| format!("{reason:#}, and a copy of it did not work either"))?;
    }
    Qemu::find().map(drop)
}

/// Unpacks the emulator's packages into the project's tools, and installs the others that they need.
fn copy(plan: &Plan) -> Result<()> {
    apt::install(&plan.others)?;
    let root = Qemu::copy_root();
    let work = root.with_extension("unpacking");
    let _ = fs::remove_dir_all(&work); // left by a run that was interrupted
    let system = work.join("root");
    fs::create_dir_all(&system).with_context(|| system.display().to_string())?;
    say("setup", format_args!("downloading {}", plan.family.join(" ")));
    let spent = apt::download(&plan.family, &work)?;
    for package in apt::downloaded(&work)? {
        apt::unpack(&package, &system)?;
    }
    put(&system, &root)?;
    let _ = fs::remove_dir_all(&work);
    say(
        "setup",
        format_args!("unpacked {} (download {})", project::short(&root), human(spent)),
    );
    Ok(())
}

/// Moves a finished folder to its place, so that half of one never lies there. What lies there does not run.
fn put(folder: &Path, place: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(place);
    fs::rename(folder, place).with_context(|| place.display().to_string())
}

/// What apt would do to install a package, if it were allowed to remove others.
#[derive(Default)]
struct Plan {
    /// What is in the way.
    removed: Vec<String>,
    /// New packages that belong to the emulator.
    family: Vec<String>,
    /// New packages that it needs.
    others: Vec<String>,
}

impl Plan {
    /// Asks apt, which changes nothing.
    fn of(package: &str) -> Result<Self> {
        let mut command = Command::new("apt-get");
        command.args(["install", "--simulate", "--no-install-recommends", package]);
        Ok(Self::parse(&shell::read(&mut command)?))
    }

    /// Reads lines such as `Inst libfdt1 (1.6.1-4 Debian:12 [amd64])` and `Remv qemu-utils [1:10.0.2]`, which are the
    /// same in every language.
    fn parse(text: &str) -> Self {
        let mut plan = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(verb), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            let list = match verb {
                "Remv" | "Purg" => &mut plan.removed,
                "Inst" if name.starts_with(FAMILY) => &mut plan.family,
                "Inst" => &mut plan.others,
                _ => continue,
            };
            list.push(name.to_owned());
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_tells_what_goes_and_what_comes() {
        let plan = Plan::parse(
            "The following packages will be REMOVED:\n  qemu-utils\n\
             Remv qemu-utils [1:10.0.2+ds-2+deb13u1~bpo12+1]\n\
             Inst libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])\n\
             Inst libglib2.0-0 [2.74.6-2] (2.74.6-2+deb12u8 Debian:12.15/oldstable [amd64])\n\
             Inst qemu-system-common (1:7.2+dfsg-7+deb12u18+b3 Debian:12.15/oldstable [amd64])\n\
             Inst qemu-system-x86 (1:7.2+dfsg-7+deb12u18+b3 Debian:12.15/oldstable [amd64])\n\
             Conf libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])\n",
        );
        assert_eq!(plan.removed, ["qemu-utils"]);
        assert_eq!(plan.family, ["qemu-system-common", "qemu-system-x86"]);
        assert_eq!(plan.others, ["libfdt1", "libglib2.0-0"]);
    }
}
