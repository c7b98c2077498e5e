//! What must not outlive this process: namespaces, process groups and paths, removed on a signal and swept by the next
//! run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::leftover;

/// First part of every namespace's name; the creator's process id follows.
pub(super) const PREFIX: &str = "fwt-";

#[derive(Default)]
struct Alive {
    namespaces: BTreeSet<String>,
    groups: BTreeSet<i32>,
    paths: BTreeSet<PathBuf>,
}

static ALIVE: Mutex<Alive> = Mutex::new(Alive {
    namespaces: BTreeSet::new(),
    groups: BTreeSet::new(),
    paths: BTreeSet::new(),
});
static START: Once = Once::new();

fn alive() -> MutexGuard<'static, Alive> {
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Once per process: sweeps what dead runs left and takes care of SIGINT and SIGTERM.
pub(super) fn start() {
    START.call_once(|| {
        sweep();
        // Fails only where the program has a handler of its own; that one is then in charge of the exit.
        let _ = ctrlc::set_handler(|| {
            // Held to the end: a thread that fails because its namespaces go away waits in their drop, and the exit code is
            // the signal's.
            let alive = alive();
            remove(&alive);
            std::process::exit(130);
        });
    });
}

pub(super) fn namespace_born(name: &str) {
    alive().namespaces.insert(name.to_owned());
}

pub(super) fn remove_namespace(name: &str) {
    delete(name);
    alive().namespaces.remove(name);
}

pub(super) fn group_born(pid: i32) {
    alive().groups.insert(pid);
}

pub(super) fn group_gone(pid: i32) {
    alive().groups.remove(&pid);
}

pub(super) fn path_born(path: &Path) {
    alive().paths.insert(path.to_owned());
}

pub(super) fn remove_path(path: &Path) {
    leftover::remove(path);
    alive().paths.remove(path);
}

/// Removes everything that this process has made. For the handler of a program that handles signals itself; such a
/// program exits next.
pub fn remove_all() {
    remove(&alive());
}

fn remove(alive: &Alive) {
    for group in &alive.groups {
        let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
    }
    for name in &alive.namespaces {
        delete(name);
    }
    for path in &alive.paths {
        leftover::remove(path);
    }
}

fn delete(name: &str) {
    let _ = Command::new("ip")
        .args(["netns", "del", name])
        .stderr(Stdio::null())
        .status();
}

/// Deletes namespaces whose creator is dead.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if creator_is_dead(name, PREFIX) {
            delete(name);
        }
    }
}

/// True if a name begins with `prefix` and the id of a process that is no more.
pub(super) fn creator_is_dead(name: &str, prefix: &str) -> bool {
    creator(name, prefix).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// The process id behind the prefix of a name.
fn creator(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{PREFIX, creator};

    #[test]
    fn a_name_tells_its_creator() {
        assert_eq!(creator("fwt-1234-5-dpu", PREFIX), Some(1234));
        assert_eq!(creator("fwt-x-5-dpu", PREFIX), None);
        assert_eq!(creator("somebody-elses-1234", PREFIX), None);
    }
}
