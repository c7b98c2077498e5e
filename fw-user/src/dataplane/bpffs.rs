//! The pin directory: on a BPF file system, made if need be, with small facts beside the pins.
//!
//! A BPF file system holds no ordinary files, but symbolic links: a fact is one, its target is the value.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};

use super::error::{self, DataPlaneError};
use super::options::BPFFS;

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS: FsType = FsType(libc::BPF_FS_MAGIC);

/// The fact that names the network namespace of the links.
const NETNS: &str = "netns";

/// True if `path`, or where it does not exist its nearest parent, lies on a BPF file system.
fn on_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|path| path.exists());
    existing.is_some_and(|path| statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS))
}

/// Makes the pin directory, and mounts the BPF file system at its usual place if it is missing there. Returns a warning
/// if what is pinned will not outlive this process's surroundings.
pub(super) fn prepare(pin_dir: &Path) -> Result<Option<String>, DataPlaneError> {
    let mut warning = None;
    if !on_bpffs(pin_dir) {
        mount_for(pin_dir).map_err(|source| DataPlaneError::NoBpffs {
            path: pin_dir.to_owned(),
            source,
        })?;
        warning = private_mounts().then(|| {
            format!(
                "the BPF file system was mounted at {BPFFS} in a private mount namespace: firewall and flows last only as \
                 long as that namespace (with `ip netns exec`, use `nsenter --net=/run/netns/NAME` instead)"
            )
        });
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(pin_dir);
    made.map_err(error::pin("making", pin_dir))?;
    Ok(warning)
}

fn mount_for(pin_dir: &Path) -> io::Result<()> {
    if !pin_dir.starts_with(BPFFS) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("it is not below {BPFFS}"),
        ));
    }
    mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )?;
    Ok(())
}

/// True if this process does not share the mounts of the system's first process.
fn private_mounts() -> bool {
    match (
        fs::read_link("/proc/thread-self/ns/mnt"),
        fs::read_link("/proc/1/ns/mnt"),
    ) {
        (Ok(ours), Ok(theirs)) => ours != theirs,
        _ => false,
    }
}

/// This thread's network namespace, as /proc names it.
pub(super) fn own_netns() -> Result<String, DataPlaneError> {
    const NS: &str = "/proc/thread-self/ns/net";
    let target = fs::read_link(NS).map_err(error::pin("reading", NS))?;
    Ok(target.to_string_lossy().into_owned())
}

/// The namespace that was recorded, if any.
pub(super) fn recorded_netns(pin_dir: &Path) -> Option<String> {
    read_fact(pin_dir, NETNS)
}

/// Records the namespace whose interfaces the links guard.
pub(super) fn record_netns(pin_dir: &Path, netns: &str) -> Result<(), DataPlaneError> {
    write_fact(pin_dir, NETNS, netns)
}

/// The value of a fact.
pub(super) fn read_fact(pin_dir: &Path, name: &str) -> Option<String> {
    fs::read_link(pin_dir.join(name))
        .ok()
        .map(|target| target.to_string_lossy().into_owned())
}

/// Writes a fact over the old one.
pub(super) fn write_fact(pin_dir: &Path, name: &str, value: &str) -> Result<(), DataPlaneError> {
    if read_fact(pin_dir, name).as_deref() == Some(value) {
        return Ok(());
    }
    remove(&pin_dir.join(name))?;
    let path = pin_dir.join(name);
    symlink(value, &path).map_err(error::pin("writing", path))
}

/// Removes a pin or fact; that there is none is as good.
pub(super) fn remove(path: &Path) -> Result<(), DataPlaneError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error::pin("removing", path)(error)),
        _ => Ok(()),
    }
}

/// Names of everything in the pin directory; nothing if it does not exist.
pub(super) fn names(pin_dir: &Path) -> Result<Vec<String>, DataPlaneError> {
    let entries = match fs::read_dir(pin_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error::pin("reading", pin_dir)(error)),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names
        .collect::<io::Result<_>>()
        .map_err(error::pin("reading", pin_dir))
}

/// Removes everything in the pin directory, then the directory, and its parents up to the mount as far as they are empty.
pub(super) fn clear(pin_dir: &Path) -> Result<(), DataPlaneError> {
    for name in names(pin_dir)? {
        remove(&pin_dir.join(name))?;
    }
    let mut dir: PathBuf = pin_dir.to_owned();
    // Stops at the first that is in use, and at the mount point, which cannot be removed.
    while fs::remove_dir(&dir).is_ok() {
        if !dir.pop() || dir == Path::new(BPFFS) {
            break;
        }
    }
    Ok(())
}
