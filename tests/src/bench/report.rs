//! Rows of all tables, and how they are written: JSON for machines, Markdown for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::stats::Summary;

/// The limits that a ratio should keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The least ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// The greatest ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
}

impl Target {
    /// A least ratio.
    #[must_use]
    pub const fn at_least(ratio: f64) -> Self {
        Self {
            at_least: Some(ratio),
            at_most: None,
        }
    }

    /// A greatest ratio.
    #[must_use]
    pub const fn at_most(ratio: f64) -> Self {
        Self {
            at_least: None,
            at_most: Some(ratio),
        }
    }

    /// Both.
    #[must_use]
    pub const fn between(least: f64, most: f64) -> Self {
        Self {
            at_least: Some(least),
            at_most: Some(most),
        }
    }

    /// True if the ratio keeps it; no number keeps none.
    #[must_use]
    pub fn met(&self, ratio: f64) -> bool {
        let least = self.at_least.is_none_or(|least| ratio >= least);
        let most = self.at_most.is_none_or(|most| ratio <= most);
        least && most && !ratio.is_nan()
    }

    fn words(&self) -> String {
        match (self.at_least, self.at_most) {
            (Some(least), Some(most)) => format!("{least:.2} to {most:.2}"),
            (Some(least), None) => format!("at least {least:.2}"),
            (None, Some(most)) => format!("at most {most:.2}"),
            (None, None) => "none".to_owned(),
        }
    }
}

/// dpufw beside one peer in one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Which of [`super::Table`].
    pub table: String,
    /// What was measured.
    pub case: String,
    /// Beside whom.
    pub peer: String,
    /// Of both values.
    pub unit: String,
    /// Median over the rounds.
    pub dpufw: f64,
    /// Likewise, of the peer; of a limit, the limit.
    pub peer_value: f64,
    /// dpufw over peer: where there are rounds, the median of each round's.
    pub ratio: f64,
    /// Quartile distance of the rounds' ratios over their median; 0 where there are no rounds.
    pub spread: f64,
    /// What the ratio should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Rounds that count.
    pub rounds: usize,
    /// What else was measured, by name with its unit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<String, f64>,
    /// Where and on what.
    #[serde(flatten)]
    pub machine: Machine,
}

impl Row {
    /// A value beside another, without rounds.
    #[must_use]
    pub fn new(table: &str, case: &str, peer: &str, unit: &str, [dpufw, peer_value]: [f64; 2]) -> Self {
        Self {
            table: table.to_owned(),
            case: case.to_owned(),
            peer: peer.to_owned(),
            unit: unit.to_owned(),
            dpufw,
            peer_value,
            ratio: dpufw / peer_value,
            spread: 0.0,
            target: None,
            rounds: 1,
            more: BTreeMap::new(),
            machine: Machine::here(),
        }
    }

    /// Two series of values of the same rounds, one beside the other.
    #[must_use]
    pub fn paired(table: &str, case: &str, peer: &str, unit: &str, own: &[f64], other: &[f64]) -> Self {
        let median = |values: &[f64]| Summary::of(values.iter().copied()).median;
        let ratios = own.iter().zip(other).map(|(own, other)| own / other);
        Self::new(table, case, peer, unit, [median(own), median(other)])
            .rounds(Summary::of(ratios), own.len().min(other.len()))
    }

    /// With the ratios of rounds.
    #[must_use]
    pub fn rounds(mut self, ratio: Summary, rounds: usize) -> Self {
        (self.ratio, self.spread, self.rounds) = (ratio.median, ratio.spread, rounds);
        self
    }

    /// With what the ratio should be.
    #[must_use]
    pub fn wanted(mut self, target: impl Into<Option<Target>>) -> Self {
        self.target = target.into();
        self
    }

    /// With another value.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }

    /// False only if the row has a target and misses it.
    #[must_use]
    pub fn good(&self) -> bool {
        self.target.is_none_or(|target| target.met(self.ratio))
    }

    /// Table, case and peer: what makes two rows of two runs the same.
    #[must_use]
    pub fn title(&self) -> [&str; 3] {
        [&self.table, &self.case, &self.peer]
    }

    /// The target in words.
    fn judged(&self) -> String {
        self.target.map_or_else(String::new, |target| {
            format!(
                "{}: {}",
                target.words(),
                if self.good() { "met" } else { "missed" }
            )
        })
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

/// Reads what [`write_json`] has written.
///
/// # Errors
/// If the file cannot be read, or holds something else.
pub fn read_json(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no rows of this bench", path.display()))
}

/// The rows as a Markdown table with a line about the machine above it.
#[must_use]
pub fn markdown(rows: &[Row]) -> String {
    let Some(first) = rows.first() else {
        return "Nothing was measured.\n".to_owned();
    };
    let Machine { kernel, cpu, commit } = &first.machine;
    let mut text = format!("Kernel {kernel}, {cpu}, commit {commit}.\n\n");
    text += "| table | case | peer | unit | dpufw | peer | ratio | spread | more | target |\n";
    text += "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | --- | --- |\n";
    for row in rows {
        let more: Vec<String> = row
            .more
            .iter()
            .map(|(name, value)| format!("{name}: {}", digits(*value)))
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {:.3} | {:.1} % | {} | {} |",
            row.table,
            row.case,
            row.peer,
            row.unit,
            digits(row.dpufw),
            digits(row.peer_value),
            row.ratio,
            row.spread * 100.0,
            more.join(", "),
            row.judged()
        );
    }
    text
}

/// Three digits or all before the point.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Row, Target, digits, markdown};

    #[test]
    fn targets_have_one_or_two_limits() {
        let least = Target::at_least(0.6);
        assert!(least.met(0.6) && least.met(9.0) && !least.met(0.59) && !least.met(f64::NAN));
        let near = Target::between(0.7, 1.3);
        assert!(near.met(1.0) && !near.met(1.31) && !near.met(0.69));
        assert!(Target::at_most(2.0).met(0.1) && !Target::at_most(2.0).met(2.1));
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let row = Row::new("deny", "10 rules", "bare XDP drop", "Mpps", [5.0, 10.0])
            .wanted(Target::at_least(0.55))
            .with("ns above peer", 100.0);
        assert!(!row.good());
        let text = serde_json::to_string(&[&row]).expect("JSON");
        let read: Vec<Row> = serde_json::from_str(&text).expect("the same");
        assert_eq!(read[0].title(), row.title());
        assert_eq!((read[0].ratio, read[0].target), (0.5, row.target));
        assert!(markdown(&read).contains("| 0.500 | 0.0 % | ns above peer: 100 | at least 0.55: missed |"));
        assert_eq!(
            ["0.123", "1.23", "12.3", "1234"],
            [0.1234, 1.234, 12.34, 1234.4]
                .map(digits)
                .each_ref()
                .map(String::as_str)
        );
    }
}
