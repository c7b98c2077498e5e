//! One agent at a time: for a pin directory, a socket, a state directory, a network namespace.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

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
    _namespace: Option<UnixListener>,
}

impl Locks {
    /// Takes the locks of an agent with these places. The second value says why the state directory has none: a full or
    /// broken disk must not keep an agent from taking over.
    ///
    /// # Errors
    /// With exit code 3 and the first agent's process id if one is held.
    pub fn take(pin_dir: &Path, socket: &Path, state_dir: &Path) -> Result<(Self, Option<Failure>), Failure> {
        let socket_lock = PathBuf::from(format!("{}.lock", socket.display()));
        let mut held = vec![take(&pin_lock(pin_dir))?, take(&socket_lock)?];
        let fault = match take(&state_dir.join("lock")) {
            Ok(lock) => {
                held.push(lock);
                None
            }
            Err(Refusal::Disk(failure)) => Some(failure),
            Err(Refusal::Held(failure)) => return Err(failure),
        };
        let namespace = namespace()?;
        Ok((
            Self {
                _held: held,
                _namespace: namespace,
            },
            fault,
        ))
    }

    /// Takes the lock of a pin directory alone.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn pins(pin_dir: &Path) -> Result<Self, Failure> {
        Ok(Self {
            _held: vec![take(&pin_lock(pin_dir))?],
            _namespace: None,
        })
    }
}

/// The lock file of a pin directory: its path with `/` as `-`.
fn pin_lock(pin_dir: &Path) -> PathBuf {
    let name = pin_dir.display().to_string().trim_matches('/').replace('/', "-");
    Path::new(RUN_DIR).join(format!("{name}.lock"))
}

/// Why a lock was not taken.
#[derive(Debug)]
enum Refusal {
    /// Another agent holds it.
    Held(Failure),
    /// Its file cannot be made or written.
    Disk(Failure),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Held(failure) | Refusal::Disk(failure) => failure,
        }
    }
}

fn take(path: &Path) -> Result<Flock<File>, Refusal> {
    let cannot = |error: std::io::Error| {
        let advice = if error.kind() == ErrorKind::PermissionDenied {
            "; run this as root"
        } else {
            ""
        };
        Refusal::Disk(Failure::no_agent(format!(
            "cannot make the lock file {}: {error}{advice}",
            path.display()
        )))
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
        Errno::EWOULDBLOCK => Refusal::Held(held(path, file)),
        _ => cannot(errno.into()),
    })?;
    write_pid(&mut lock).map_err(cannot)?;
    Ok(lock)
}

/// The lock of this network namespace, so that two agents with different places do not guard the same interfaces: an
/// abstract socket, which belongs to the namespace and ends with the process. `None` if somebody else than root sits on
/// the name, who must not keep the agent from starting.
fn namespace() -> Result<Option<UnixListener>, Failure> {
    let cannot =
        |error: std::io::Error| Failure::no_agent(format!("cannot lock this network namespace: {error}"));
    let address = SocketAddr::from_abstract_name("dpufw-agent").map_err(cannot)?;
    let mut tries = PATIENCE.as_millis() / PAUSE.as_millis();
    loop {
        match UnixListener::bind_addr(&address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && tries > 0 => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => return sitting(&address),
            result => return result.map(Some).map_err(cannot),
        }
        tries -= 1;
        std::thread::sleep(PAUSE);
    }
}

/// Who holds the name.
fn sitting(address: &SocketAddr) -> Result<Option<UnixListener>, Failure> {
    let peer = UnixStream::connect_addr(address).ok();
    let peer = peer.and_then(|stream| getsockopt(&stream, PeerCredentials).ok());
    match peer {
        Some(peer) if peer.uid() != 0 => {
            tracing::warn!(
                "process {} of user {} sits on the name that locks this network namespace; it is not an agent",
                peer.pid(),
                peer.uid()
            );
            Ok(None)
        }
        peer => Err(Failure::no_agent(format!(
            "another agent is running in this network namespace (process {}); stop it first, or ask it with `dpufw status`",
            peer.map_or_else(|| "unknown".to_owned(), |peer| peer.pid().to_string())
        ))),
    }
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
    use super::{Refusal, pin_lock, take};
    use crate::exit::{Exit, Failure};

    #[test]
    fn the_second_is_told_the_first_ones_pid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/agent.lock");
        let first = take(&path).unwrap();
        let failure = Failure::from(take(&path).unwrap_err());
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
    fn a_broken_disk_is_told_from_another_agent() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state"), "a file where a directory should be").unwrap();
        let refusal = take(&dir.path().join("state/lock")).unwrap_err();
        assert!(matches!(refusal, Refusal::Disk(failure) if failure.message.contains("state/lock")));
    }

    #[test]
    fn each_pin_directory_has_its_own_lock() {
        let lock = pin_lock("/sys/fs/bpf/dpufw".as_ref());
        assert_eq!(lock, std::path::Path::new("/run/dpufw/sys-fs-bpf-dpufw.lock"));
    }
}
