//! A real agent, `dpufw run`, inside of a namespace, and the command line to ask it.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fw_user::control::Status;
use fw_user::telemetry::{DropRecord, FlowInfo};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

use super::{Finished, Leftover, Namespace, Process};

/// How long a start may take: under emulation the verifier alone takes half a minute.
const START: Duration = Duration::from_mins(2);
/// How long a question may take.
const ANSWER: Duration = Duration::from_secs(10);
const BPFFS: &str = "/sys/fs/bpf";

/// An agent with a socket, a state directory and pins of its own. Dropping the handle kills it and removes its pins:
/// the ports are open then.
#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    binary: PathBuf,
    namespace: PathBuf,
    arguments: Vec<String>,
    // Behind the process: removed after it has been killed.
    places: Leftover,
    pins: Leftover,
    _pin_lock: Leftover,
}

impl Agent {
    /// The `dpufw` to start: `DPUFW_BIN`, or the one beside this program or its folder.
    ///
    /// # Errors
    /// If there is none.
    pub fn binary() -> Result<PathBuf> {
        if let Some(path) = std::env::var_os("DPUFW_BIN") {
            let path = PathBuf::from(path);
            ensure!(
                path.is_file(),
                "DPUFW_BIN names {}, which is no file",
                path.display()
            );
            return Ok(path);
        }
        let own = std::env::current_exe().context("cannot tell where this program lies")?;
        let beside = own
            .ancestors()
            .skip(1)
            .take(2)
            .map(|folder| folder.join("dpufw"))
            .find(|path| path.is_file());
        beside.context(
            "there is no dpufw beside this program: build it with `cargo xtask build`, or set DPUFW_BIN",
        )
    }

    /// Starts `dpufw run ARGUMENTS` in a namespace and waits until it answers. `prefix` and `label` are part of the
    /// names of its places, such as `/sys/fs/bpf/PREFIX<process id>-LABEL`.
    ///
    /// # Errors
    /// If it ends, or does not answer in time; what it said is in the error.
    pub fn start(namespace: &Namespace, prefix: &str, label: &str, arguments: &[&str]) -> Result<Self> {
        let places = Leftover::claim(&std::env::temp_dir(), prefix, label);
        // Root owns it and nobody else enters: nothing can be planted in a shared folder for temporary files.
        DirBuilder::new()
            .mode(0o700)
            .create(places.path())
            .with_context(|| format!("cannot create {}", places.path().display()))?;
        let lock_prefix = format!("{}-{prefix}", BPFFS.trim_matches('/').replace('/', "-"));
        let mut agent = Self {
            process: None,
            binary: Self::binary()?,
            namespace: namespace.path().to_owned(),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            places,
            pins: Leftover::claim(Path::new(BPFFS), prefix, label),
            _pin_lock: Leftover::claim(Path::new("/run/dpufw"), &lock_prefix, &format!("{label}.lock")),
        };
        agent.run()?;
        Ok(agent)
    }

    /// Starts the process, again after [`Agent::kill`].
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn run(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command
            .arg("run")
            .args(&self.arguments)
            .arg("--socket")
            .arg(self.socket());
        command
            .arg("--pin-dir")
            .arg(self.pins.path())
            .arg("--state-dir")
            .arg(self.places.path().join("state"));
        // The caller's own session is not in this namespace, so the lock-out guard has nothing to protect here.
        command.env("SSH_CONNECTION", "");
        let namespace = File::open(&self.namespace)
            .with_context(|| format!("cannot open {}", self.namespace.display()))?;
        let mut process = Process::start(command, Some(namespace))?;
        let end = Instant::now() + START;
        while !self.answers()? {
            if process.ended()? || Instant::now() >= end {
                let [_, said] = process.stop();
                bail!(
                    "`dpufw run {}` does not answer; it said: {}",
                    self.arguments.join(" "),
                    said.trim()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.process = Some(process);
        Ok(())
    }

    /// Kills the process as `kill -9` does: programs, policy and flows stay in force.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.places.path().join("agent.sock")
    }

    /// Where its programs, links and maps are pinned.
    #[must_use]
    pub fn pin_dir(&self) -> &Path {
        self.pins.path()
    }

    /// Runs `dpufw ARGUMENTS` against this agent. The socket is a file, so this needs no namespace.
    ///
    /// # Errors
    /// If it cannot be started or takes too long.
    pub fn ask(&self, arguments: &[&str]) -> Result<Finished> {
        Process::start(self.question(arguments), None)?.wait(ANSWER)
    }

    /// The same from an SSH session, as `SSH_CONNECTION` tells it.
    ///
    /// # Errors
    /// As [`Agent::ask`].
    pub fn ask_from(&self, session: &str, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.question(arguments);
        command.env("SSH_CONNECTION", session);
        Process::start(command, None)?.wait(ANSWER)
    }

    /// Without the session of whoever runs the tests: it is not in the agent's namespace.
    fn question(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("DPUFW_SOCKET", self.socket())
            .env("DPUFW_PIN_DIR", self.pins.path())
            .env("SSH_CONNECTION", "");
        command
    }

    /// What `dpufw status` says.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self) -> Result<Status> {
        let answer = self.ask(&["status", "--json"])?;
        serde_json::from_str(&answer.stdout).with_context(|| format!("`dpufw status`: {answer}"))
    }

    /// The denied packets that it remembers, oldest first; `filter` as on the command line.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn drops(&self, filter: &[&str]) -> Result<Vec<DropRecord>> {
        self.lines("drops", filter)
    }

    /// The flows in its tables; `filter` as on the command line.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn flows(&self, filter: &[&str]) -> Result<Vec<FlowInfo>> {
        self.lines("flows", filter)
    }

    /// Takes the firewall down and waits for the process's end.
    ///
    /// # Errors
    /// If the agent refuses, or does not end.
    pub fn detach(mut self) -> Result<()> {
        let answer = self.ask(&["detach", "--yes"])?;
        ensure!(answer.success(), "`dpufw detach --yes`: {answer}");
        self.ended()
    }

    /// Asks the process to stop, as systemd does, and waits for its end. What it enforces stays in force.
    ///
    /// # Errors
    /// If it does not end, or not with 0.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(process) = &self.process {
            process.signal(Signal::SIGTERM)?;
        }
        self.ended()
    }

    fn ended(&mut self) -> Result<()> {
        let Some(process) = self.process.take() else {
            return Ok(());
        };
        let finished = process.wait(ANSWER)?;
        ensure!(finished.success(), "the agent ended with {finished}");
        Ok(())
    }

    fn lines<T: DeserializeOwned>(&self, command: &str, filter: &[&str]) -> Result<Vec<T>> {
        let answer = self.ask(&[&[command, "--json"], filter].concat())?;
        ensure!(
            answer.success(),
            "`dpufw {command} {}`: {answer}",
            filter.join(" ")
        );
        let records = answer.stdout.lines().map(serde_json::from_str);
        records
            .collect::<Result<_, _>>()
            .with_context(|| format!("`dpufw {command}` printed {}", answer.stdout))
    }

    fn answers(&self) -> Result<bool> {
        Ok(self.socket().exists() && matches!(self.ask(&["status"])?.code(), Some(0 | 1)))
    }
}
