//! Running a kernel in qemu and reading its serial console.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::emulator::Qemu;
use super::guest;
use super::kernel::Kernel;

/// Stands before each line that the guest printed: its `test result:` is not the host's.
const GUEST: &str = "guest| ";

/// Boots, prints what the guest's program prints, and returns its exit code. The machine is gone afterwards, whatever
/// happened.
pub fn boot(qemu: &Qemu, kernel: &Kernel, initramfs: PathBuf, cpus: u8, limit: Duration) -> Result<i32> {
    let mut child = command(qemu, kernel, initramfs, cpus)
        .spawn()
        .context("cannot run qemu: run `cargo xtask setup`")?;
    let console = child.stdout.take().context("qemu has no console")?;
    let machine = Machine(child);
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n') {
            let Ok(line) = line else { break };
            if sender
                .send(String::from_utf8_lossy(&line).trim_end().to_owned())
                .is_err()
            {
                break;
            }
        }
    });
    let result = follow(&lines, limit);
    drop(machine);
    result
}

fn command(qemu: &Qemu, kernel: &Kernel, initramfs: PathBuf, cpus: u8) -> Command {
    let mut command = qemu.command();
    command
        // Software emulation: hardware virtualisation is not to be had everywhere, least inside another machine.
        .args([
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            "2048",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
        .args(["-smp", &cpus.to_string()])
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 quiet loglevel=1 panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// Reads the console until the guest says how its program ended.
fn follow(lines: &Receiver<String>, limit: Duration) -> Result<i32> {
    let end = Instant::now() + limit;
    let mut outside = Vec::new();
    let mut inside = false;
    loop {
        let line = match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "the guest did not end within {} s. Its console:\n{}",
                    limit.as_secs(),
                    outside.join("\n")
                )
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!(
                    "the machine stopped before the guest's program ended. Its console:\n{}",
                    outside.join("\n")
                )
            }
        };
        if let Some(code) = line.strip_prefix(guest::END) {
            return code
                .trim()
                .parse()
                .with_context(|| format!("the guest's exit code is {code:?}"));
        }
        if inside {
            println!("{GUEST}{line}");
        } else {
            inside = line.ends_with(guest::BEGIN);
            outside.push(line);
        }
    }
}

/// A running qemu, ended when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have powered off by itself; both calls are harmless then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(lines: &[&str]) -> Receiver<String> {
        let (sender, receiver) = channel();
        for line in lines {
            sender.send((*line).to_owned()).expect("the receiver lives");
        }
        receiver
    }

    #[test]
    fn the_exit_code_is_the_programs() {
        let lines = console(&["noise", guest::BEGIN, "running", "dpufw-guest-end 101"]);
        assert_eq!(follow(&lines, Duration::from_secs(1)).expect("an end"), 101);
    }

    #[test]
    fn a_panic_is_reported_with_the_console() {
        let error =
            follow(&console(&["Kernel panic - not syncing"]), Duration::from_secs(1)).expect_err("no end");
        assert!(error.to_string().contains("Kernel panic"), "{error}");
    }
}
