//! Rows, and how they are written: JSON for machines, Markdown for people.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::machine::Machine;

/// A limit that a ratio should keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Target {
    /// The least ratio.
    pub at_least: f64,
    /// The greatest ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
}

impl Target {
    /// True if the ratio keeps it.
    #[must_use]
    pub fn met(&self, ratio: f64) -> bool {
        ratio >= self.at_least && self.at_most.is_none_or(|most| ratio <= most)
    }
}

/// dpufw beside one peer in one case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `established` or `deny`.
    pub table: &'static str,
    /// What was measured.
    pub case: String,
    /// Beside whom.
    pub peer: String,
    /// Of both values.
    pub unit: &'static str,
    /// Median over the rounds.
    pub dpufw: f64,
    /// Likewise, of the peer.
    pub peer_value: f64,
    /// Median of each round's dpufw over peer.
    pub ratio: f64,
    /// Quartile distance of the rounds' ratios over their median.
    pub spread: f64,
    /// Median of each round's difference, ns per packet and CPU.
    pub ns_above_peer: f64,
    /// ns of one run of dpufw's program on one packet with everything in the caches, by test-run.
    pub dpufw_ns_hot: f64,
    /// Likewise, of the peer's.
    pub peer_ns_hot: f64,
    /// What the ratio should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Rounds that count.
    pub rounds: usize,
    /// Generating CPUs.
    pub cpus: u32,
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the CPU.
    pub cpu: String,
    /// Commit of the workspace.
    pub commit: String,
}

impl Row {
    /// False only if the row has a target and misses it.
    #[must_use]
    pub fn good(&self) -> bool {
        self.target.is_none_or(|target| target.met(self.ratio))
    }

    /// The target in words.
    fn judged(&self) -> String {
        let Some(target) = self.target else {
            return String::new();
        };
        let limits = match target.at_most {
            Some(most) => format!("{:.2} to {most:.2}", target.at_least),
            None => format!("at least {:.2}", target.at_least),
        };
        format!("{limits}: {}", if self.good() { "met" } else { "missed" })
    }
}

/// Writes the rows as a JSON array.
///
/// # Errors
/// If the file cannot be written.
pub fn write_json(rows: &[Row], path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(rows)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The rows as a Markdown table with a line about the machine above it.
#[must_use]
pub fn markdown(rows: &[Row], machine: &Machine) -> String {
    let mut text = format!(
        "Kernel {}, {}, commit {}.\n\n",
        machine.kernel, machine.cpu, machine.commit
    );
    text += "| table | case | peer | dpufw, Mpps | peer, Mpps | ratio | spread | ns above peer | hot ns: dpufw, peer | target |\n";
    text += "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n";
    for row in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} | {:.2} | {:.3} | {:.1} % | {:.0} | {:.0}, {:.0} | {} |",
            row.table,
            row.case,
            row.peer,
            row.dpufw,
            row.peer_value,
            row.ratio,
            row.spread * 100.0,
            row.ns_above_peer,
            row.dpufw_ns_hot,
            row.peer_ns_hot,
            row.judged()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn targets_have_one_or_two_limits() {
        let least = Target {
            at_least: 0.6,
            at_most: None,
        };
        assert!(least.met(0.6) && least.met(9.0) && !least.met(0.59) && !least.met(f64::NAN));
        let near = Target {
            at_least: 0.7,
            at_most: Some(1.3),
        };
        assert!(near.met(1.0) && !near.met(1.31) && !near.met(0.69));
    }
}
