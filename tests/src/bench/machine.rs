//! Where and on what a result was measured.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// Facts that belong to every result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the CPU, and how many.
    pub cpu: String,
    /// Commit of the workspace; `-dirty` if files differ from it.
    pub commit: String,
}

impl Machine {
    /// Asks the kernel and git, once. What cannot be known is `unknown`.
    #[must_use]
    pub fn here() -> Self {
        static HERE: OnceLock<Machine> = OnceLock::new();
        HERE.get_or_init(Self::ask).clone()
    }

    fn ask() -> Self {
        let unknown = || "unknown".to_owned();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| unknown(), |text| text.trim().to_owned());
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let model = fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| model(&text))
            .unwrap_or_else(unknown);
        let mut git = Command::new("git");
        git.args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--dirty",
            "--exclude=*",
        ]);
        let commit = git.output().ok().filter(|output| output.status.success());
        let commit = commit.map_or_else(unknown, |output| {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        });
        Self {
            kernel,
            cpu: format!("{model}, {cpus} CPUs"),
            commit,
        }
    }
}

fn model(cpuinfo: &str) -> Option<String> {
    // x86 says `model name`; Arm's cores have numbers only.
    let line = |name: &str| {
        cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(':').map(str::trim))
    };
    line("model name")
        .map(str::to_owned)
        .or_else(|| Some(format!("CPU part {}", line("CPU part")?)))
}

#[cfg(test)]
mod tests {
    use super::model;

    #[test]
    fn both_architectures_name_their_cpu() {
        assert_eq!(
            model("processor\t: 0\nmodel name\t: Xeon\n").as_deref(),
            Some("Xeon")
        );
        assert_eq!(model("CPU part\t: 0xd42\n").as_deref(), Some("CPU part 0xd42"));
        assert_eq!(model(""), None);
    }
}
