//! Files and directories that a killed run would leave outside of its namespaces: pins, sockets, lock files.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cleanup;

/// A path that is removed, with all below it, when the handle is dropped and on a signal. The path carries the process
/// id, so that a later run can sweep what a killed one left.
#[derive(Debug)]
pub struct Leftover {
    path: PathBuf,
}

impl Leftover {
    /// Takes `PARENT/PREFIX<process id>-LABEL` in charge; nothing is created. What dead processes left under the same
    /// prefix is removed first.
    #[must_use]
    pub fn claim(parent: &Path, prefix: &str, label: &str) -> Self {
        cleanup::start();
        sweep(parent, prefix);
        let path = parent.join(format!("{prefix}{}-{label}", std::process::id()));
        cleanup::path_born(&path);
        Self { path }
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        cleanup::remove_path(&self.path);
    }
}

/// Removes a file or a tree. A process that was just killed may still finish a call that adds to it, so it is tried for
/// a second.
pub(super) fn remove(path: &Path) {
    for _ in 0..20 {
        let result = match std::fs::symlink_metadata(path) {
            Ok(facts) if facts.is_dir() => std::fs::remove_dir_all(path),
            Ok(_) => std::fs::remove_file(path),
            Err(_) => return,
        };
        match result {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                std::thread::sleep(Duration::from_millis(50));
            }
            _ => return,
        }
    }
}

fn sweep(parent: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let dead = entry
            .file_name()
            .to_str()
            .is_some_and(|name| cleanup::creator_is_dead(name, prefix));
        if dead {
            remove(&entry.path());
        }
    }
}
