//! Rows of both tables, for machines and for people.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::machine::Machine;
use super::turns::Compared;

/// dpufw beside a peer in one case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `classify` or `policy`.
    pub table: &'static str,
    /// What was measured.
    pub case: String,
    /// Beside whom.
    pub peer: String,
    /// Of both values.
    pub unit: &'static str,
    /// Median.
    pub dpufw: f64,
    /// Likewise, of the peer; of a limit, the limit.
    pub peer_value: f64,
    /// dpufw over peer; median of the rounds' ratios.
    pub ratio: f64,
    /// Quartile distance of the rounds' ratios over their median; 0 where there are no rounds.
    pub spread: f64,
    /// What dpufw and the peer cost above a bare redirect or drop on the same stand, in `unit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above_bare: Option<[f64; 2]>,
    /// The greatest ratio that is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// Rounds that count.
    pub rounds: usize,
}

impl Row {
    /// False only if the row has a target and misses it.
    #[must_use]
    pub fn good(&self) -> bool {
        self.at_most.is_none_or(|most| self.ratio <= most)
    }
}

/// How a row of `classify` is called.
pub(super) struct Title<'a> {
    case: String,
    peer: &'a str,
    at_most: Option<f64>,
}

impl<'a> Title<'a> {
    pub(super) fn new(case: String, peer: &'a str, at_most: Option<f64>) -> Self {
        Self { case, peer, at_most }
    }

    /// The row; `bare` is the cost of the bare program.
    pub(super) fn row(self, compared: Compared, bare: f64, rounds: usize) -> Row {
        Row {
            table: "classify",
            case: self.case,
            peer: self.peer.to_owned(),
            unit: "ns/packet",
            dpufw: compared.own,
            peer_value: compared.peer,
            ratio: compared.ratio.median,
            spread: compared.ratio.spread,
            above_bare: Some([compared.own - bare, compared.peer - bare]),
            at_most: self.at_most,
            rounds,
        }
    }
}

/// The rows as a Markdown table with a line about the machine above it.
#[must_use]
pub fn markdown(rows: &[Row], machine: &Machine) -> String {
    let mut text = format!(
        "Kernel {}, {}, commit {}.\n\n| table | case | peer | unit | dpufw | peer | ratio | spread | above bare: dpufw, peer | \
         target |\n| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |\n",
        machine.kernel, machine.cpu, machine.commit
    );
    for row in rows {
        let above = row
            .above_bare
            .map_or_else(String::new, |[own, peer]| format!("{own:.0}, {peer:.0}"));
        let target = row.at_most.map_or_else(String::new, |most| {
            format!("at most {most:.2}: {}", if row.good() { "met" } else { "missed" })
        });
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.3} | {:.3} | {:.3} | {:.1} % | {above} | {target} |",
            row.table,
            row.case,
            row.peer,
            row.unit,
            row.dpufw,
            row.peer_value,
            row.ratio,
            row.spread * 100.0
        );
    }
    text
}
