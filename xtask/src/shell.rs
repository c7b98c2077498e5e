//! Running other programs: as the user, as root, and saying what happens.

use std::ffi::OsStr;
use std::fmt;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// Failures with an exit code of their own.
#[derive(Debug)]
pub enum Refusal {
    /// Something needs root and there is no way to get it (3).
    NoPrivilege(String),
    /// The caller named something that does not exist (2).
    BadInput(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPrivilege(sentence) | Self::BadInput(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for Refusal {}

/// Prints one line of progress: the step in a column of its own, then what it does. Progress goes to stderr, so that
/// results on stdout can be piped.
pub fn say(step: &str, text: impl fmt::Display) {
    if std::io::stderr().is_terminal() {
        eprintln!("\x1b[1m{step:>8}\x1b[0m  {text}");
    } else {
        eprintln!("{step:>8}  {text}");
    }
}

/// A duration for people: `0.3 s`, `12 s`, `2 min 5 s`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// Runs `command`, and fails with its name and status if it does not succeed.
pub fn run(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(start.elapsed())
}

/// Runs `command` and hands its status on.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    command
        .status()
        .with_context(|| format!("cannot run `{}`", line(command)))
}

/// Puts `command` in this program's place. So after Ctrl-C the shell waits until it has cleaned up, and its exit code is
/// the caller's. Returns only if that fails.
pub fn become_like(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run `{}`", line(command)))
}

/// What `command` prints on stdout; its stderr is part of the error if it fails.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{}`", line(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed ({}): {}",
            line(command),
            output.status,
            stderr.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Whether this process has root's rights.
pub fn is_root() -> bool {
    // The owner of /proc/self is the effective user.
    fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// A command that runs `program` as root: directly if this process is root, through sudo if not.
pub fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let Some(sudo) = find_in_path("sudo") else {
        let sentence = "this needs root and there is no sudo here: call cargo xtask as root";
        return Err(Refusal::NoPrivilege(sentence.to_owned()).into());
    };
    let mut command = Command::new(sudo);
    if !std::io::stdin().is_terminal() {
        command.arg("--non-interactive"); // a password prompt that nobody sees would hang for ever
    }
    command.arg("--").arg(program);
    Ok(command)
}

/// The program's path, looked for as a shell would and in the folders of root's programs.
pub fn find_in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_speech() {
        assert_eq!(human(Duration::from_millis(340)), "0.3 s");
        assert_eq!(human(Duration::from_secs(59)), "59 s");
        assert_eq!(human(Duration::from_secs(125)), "2 min 5 s");
    }

    #[test]
    fn a_failed_command_is_named() {
        let error = run(&mut Command::new("false")).expect_err("false fails");
        assert!(error.to_string().starts_with("`false` failed"), "{error}");
    }
}
