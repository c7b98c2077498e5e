//! One network namespace.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};

use super::{Finished, Process, cleanup, require_root};

/// What an interface has sent, as its driver counts: a super-packet is one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Bytes, from the Ethernet header on.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

impl Sent {
    /// Bytes of the mean packet since `earlier`; 0 if there was none.
    #[must_use]
    pub fn mean_since(self, earlier: Self) -> u64 {
        (self.bytes - earlier.bytes)
            .checked_div(self.packets - earlier.packets)
            .unwrap_or(0)
    }
}

/// A network namespace, deleted with everything in it when the handle is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
}

impl Namespace {
    /// Creates a namespace; `label` is part of its name, for people who look while it lives.
    ///
    /// # Errors
    /// Without root, or if `ip netns add` refuses.
    pub fn new(label: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        require_root()?;
        cleanup::start();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{number}-{label}", cleanup::PREFIX, std::process::id());
        cleanup::namespace_born(&name);
        let path = Path::new("/run/netns").join(&name);
        let namespace = Self { name, path };
        run_here("ip", &["netns", "add", &namespace.name])?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns list` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that a `setns` opens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `f` on a thread of its own inside of the namespace and returns what it returns. Sockets that it opens stay
    /// in the namespace, whoever uses them later.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    ///
    /// # Panics
    /// If `f` panics, with its message.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let file = self.open()?;
        let done = std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    setns(&file, CloneFlags::CLONE_NEWNET)?;
                    Ok::<T, nix::Error>(f())
                })
                .join()
        });
        match done {
            Ok(result) => result.with_context(|| format!("cannot enter the namespace {}", self.name)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a set of `ip` commands, one a line, in one process.
    ///
    /// # Errors
    /// If one of them fails; the rest is then not run.
    pub fn ip(&self, commands: &str) -> Result<()> {
        for line in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words = ["-n", self.name.as_str()]
                .into_iter()
                .chain(line.split_whitespace());
            run_here("ip", &words.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Writes a sysctl, named with dots or slashes, for example `net.ipv4.ip_forward`.
    ///
    /// # Errors
    /// If the kernel has no such key or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let file = Path::new("/proc/sys").join(if key.contains('/') {
            key.to_owned()
        } else {
            key.replace('.', "/")
        });
        self.enter(|| std::fs::write(&file, value))?
            .with_context(|| format!("cannot write {value} to {} in {}", file.display(), self.name))
    }

    /// Runs a command inside of the namespace and waits for it, at most `timeout`; it is killed then.
    ///
    /// # Errors
    /// If it cannot be started or takes too long. An exit code other than 0 is not an error, see [`Finished`].
    pub fn run(&self, command: &[&str], timeout: Duration) -> Result<Finished> {
        self.spawn(command)?.wait(timeout)
    }

    /// Runs a command that must succeed, and returns what it printed.
    ///
    /// # Errors
    /// As [`Namespace::run`], and if it does not exit with 0.
    pub fn check(&self, command: &[&str], timeout: Duration) -> Result<String> {
        let finished = self.run(command, timeout)?;
        ensure!(
            finished.success(),
            "`{}` in {}: {finished}",
            command.join(" "),
            self.name
        );
        Ok(finished.stdout)
    }

    /// Starts a command inside of the namespace. It dies with the handle, and with the thread that started it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&self, command: &[&str]) -> Result<Process> {
        let (program, arguments) = command.split_first().ok_or_else(|| anyhow!("an empty command"))?;
        let mut prepared = Command::new(program);
        prepared.args(arguments);
        Process::start(prepared, Some(self.open()?))
    }

    /// Index of an interface in the namespace.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn ifindex(&self, interface: &str) -> Result<u32> {
        self.enter(|| nix::net::if_::if_nametoindex(interface))?
            .with_context(|| format!("{} has no interface {interface}", self.name))
    }

    /// What an interface of the namespace has sent so far.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn sent(&self, interface: &str) -> Result<Sent> {
        let table = self.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
        sent(&table, interface).with_context(|| format!("{} has no interface {interface}", self.name))
    }

    fn open(&self) -> Result<File> {
        File::open(&self.path).with_context(|| format!("cannot open {}", self.path.display()))
    }
}

/// The columns of `/proc/net/dev` behind the name: eight of what was received, eight of what was sent; of each, bytes
/// and packets come first.
fn sent(table: &str, interface: &str) -> Option<Sent> {
    let columns = table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, columns)| (name.trim() == interface).then_some(columns))?;
    let mut columns = columns.split_whitespace().skip(8);
    let mut next = || columns.next()?.parse().ok();
    Some(Sent {
        bytes: next()?,
        packets: next()?,
    })
}

impl Drop for Namespace {
    fn drop(&mut self) {
        cleanup::remove_namespace(&self.name);
    }
}

/// Runs a command in this process's own namespace; its error output becomes the error.
fn run_here(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run `{program}`; is it installed?"))?;
    ensure!(
        output.status.success(),
        "`{program} {}`: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Sent, sent};

    #[test]
    fn what_an_interface_has_sent_is_read_from_the_kernels_table() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets\n   lo:  1 2 0 0 0 0 0 0  3 4 0 0 0 0 0 0\n  eth0: 5 \
                     6 0 0 0 0 0 0 700 8 0 0 0 0 0 0\n";
        let start = Sent {
            bytes: 100,
            packets: 2,
        };
        let end = Sent {
            bytes: 700,
            packets: 8,
        };
        assert_eq!(sent(table, "eth0"), Some(end));
        assert_eq!(sent(table, "eth"), None);
        assert_eq!(end.mean_since(start), 100);
        assert_eq!(end.mean_since(end), 0);
    }
}
