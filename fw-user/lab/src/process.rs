//! Child processes that never outlive their handle.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::cleanup;

/// A running child, in a process group of its own. Dropping the handle kills the group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
    readers: Option<[JoinHandle<String>; 2]>,
    gone: bool,
}

/// What a finished child left.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its error output.
    pub stderr: String,
}

impl Finished {
    /// True if it exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Its exit code, `None` if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}{}", self.status, self.stdout.trim(), self.stderr.trim())
    }
}

impl Process {
    /// Starts a command, inside of `namespace` if one is given. Its output is collected from the start, so a talkative
    /// child never blocks on a full pipe.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut command: Command, namespace: Option<File>) -> Result<Self> {
        let what = format!(
            "{} {:?}",
            command.get_program().display(),
            command.get_args().collect::<Vec<_>>()
        );
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        // SAFETY: between fork and exec only prctl and setns are called, which are plain system calls: no allocation,
        // no lock.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                if let Some(namespace) = &namespace {
                    setns(namespace, CloneFlags::CLONE_NEWNET)?;
                }
                Ok(())
            });
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {what}"))?;
        cleanup::group_born(child.id().cast_signed());
        let readers = Some([collect(child.stdout.take()), collect(child.stderr.take())]);
        Ok(Self {
            child,
            what,
            readers,
            gone: false,
        })
    }

    /// Its process id, which is also its process group's.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        nix::sys::signal::kill(Pid::from_raw(self.pid().cast_signed()), signal)
            .with_context(|| format!("cannot signal {}", self.what))
    }

    /// True if it has ended.
    ///
    /// # Errors
    /// If the kernel does not know it.
    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end, at most `timeout`; then it is killed.
    ///
    /// # Errors
    /// If it took too long; what it printed until then is in the error.
    pub fn wait(mut self, timeout: Duration) -> Result<Finished> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let [stdout, stderr] = self.collected();
                return Ok(Finished {
                    status,
                    stdout,
                    stderr,
                });
            }
            if Instant::now() >= end {
                self.kill();
                let [stdout, stderr] = self.collected();
                bail!(
                    "{} did not end within {timeout:?}: {}{}",
                    self.what,
                    stdout.trim(),
                    stderr.trim()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it now and returns what it printed.
    #[must_use]
    pub fn stop(mut self) -> [String; 2] {
        self.kill();
        self.collected()
    }

    fn kill(&mut self) {
        if !self.gone {
            self.gone = true;
            let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
            let _ = self.child.wait();
            cleanup::group_gone(self.child.id().cast_signed());
        }
    }

    /// Whatever descendants still hold the pipes open is killed first, so that this ends.
    fn collected(&mut self) -> [String; 2] {
        self.kill();
        match self.readers.take() {
            Some(readers) => readers.map(|reader| reader.join().unwrap_or_default()),
            None => [String::new(), String::new()],
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
