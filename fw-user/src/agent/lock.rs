//! One agent at a time: for a pin directory, for a socket, for a state directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::exit::Failure;

/// Lock files of pin directories live here: the bpf file system holds no plain files.
const RUN_DIR: &str = "/run/dpufw";

/// How long a lock is tried for, and the pause between two tries.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(25);

/// Locks that live as long as this value and the process. The files stay: removing one would let two agents hold a lock
/// of the same name.
#[derive(Debug)]
pub struct Locks {
    _held: Vec<Flock<File>>,
}

impl Locks {
    /// Takes the locks of an agent with these places.
    ///
    /// # Errors
    /// With exit code 3 and the first agent's process id if one is held.
    pub fn take(pin_dir: &Path, socket: &Path, state_dir: &Path) -> Result<Self, Failure> {
        let socket_lock = PathBuf::from(format!("{}.lock", socket.display()));
        let paths = [pin_lock(pin_dir), socket_lock, state_dir.join("lock")];
        let held = paths.iter().map(|path| take(path)).collect::<Result<_, _>>()?;
        Ok(Self { _held: held })
    }

    /// Takes the lock of a pin directory alone.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn pins(pin_dir: &Path) -> Result<Self, Failure> {
        Ok(Self {
            _held: vec![take(&pin_lock(pin_dir))?],
        })
    }
}

/// The lock file of a pin directory: its path with `/` as `-`.
fn pin_lock(pin_dir: &Path) -> PathBuf {
    let name = pin_dir.display().to_string().trim_matches('/').replace('/', "-");
    Path::new(RUN_DIR).join(format!("{name}.lock"))
}

fn take(path: &Path) -> Result<Flock<File>, Failure> {
    let cannot = |error: std::io::Error| {
        let advice = if error.kind() == std::io::ErrorKind::PermissionDenied {
            "; run this as root"
        } else {
            ""
        };
        Failure::no_agent(format!(
            "cannot make the lock file {}: {error}{advice}",
            path.display()
        ))
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(cannot)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(cannot)?;
    let mut lock = wait(file).map_err(|(file, errno)| match errno {
        Errno::EWOULDBLOCK => held(path, file),
        _ => cannot(errno.into()),
    })?;
    write_pid(&mut lock).map_err(cannot)?;
    Ok(lock)
}

/// Tries for a moment: a predecessor that was told to stop, or was killed, may still be on its way out.
fn wait(mut file: File) -> Result<Flock<File>, (File, Errno)> {
    let mut tries = PATIENCE.as_millis() / PAUSE.as_millis();
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((file, Errno::EWOULDBLOCK)) if tries > 0 => file,
            result => return result,
        };
        tries -= 1;
        std::thread::sleep(PAUSE);
    }
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn held(path: &Path, mut file: File) -> Failure {
    let mut pid = String::new();
    // Without the number the sentence is still right.
    let _ = file.read_to_string(&mut pid);
    let pid = if pid.trim().is_empty() {
        "unknown"
    } else {
        pid.trim()
    };
    Failure::no_agent(format!(
        "another agent is running (process {pid}) and holds {}; stop it first, or ask it with `dpufw status`",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::{pin_lock, take};
    use crate::exit::Exit;

    #[test]
    fn the_second_is_told_the_first_ones_pid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/agent.lock");
        let first = take(&path).unwrap();
        let failure = take(&path).unwrap_err();
        assert_eq!(failure.exit, Exit::NoAgent);
        assert!(
            failure
                .message
                .contains(&format!("(process {})", std::process::id())),
            "{failure}"
        );
        drop(first);
        take(&path).unwrap();
    }

    #[test]
    fn each_pin_directory_has_its_own_lock() {
        let lock = pin_lock("/sys/fs/bpf/dpufw".as_ref());
        assert_eq!(lock, std::path::Path::new("/run/dpufw/sys-fs-bpf-dpufw.lock"));
    }
}
