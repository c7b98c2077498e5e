//! Two result files judged by their spread.

use super::report::Row;

/// How many standard errors a median must have moved to count as changed.
const ERRORS: f64 = 2.0;
/// The standard error of a median of n values with this quartile distance is so much of it over the root of n: 1.2533 standard
/// deviations of a normal distribution, whose quartiles are 1.349 of them apart.
const OF_QUARTILES: f64 = 1.2533 / 1.349;
/// What is never called a change: two runs of one program differ by so much.
const NOISE: f64 = 0.03;

/// What became of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Table, case and peer.
    pub title: [String; 3],
    /// Ratio in the old file and in the new one.
    pub ratios: [f64; 2],
    /// New over old, less one.
    pub change: f64,
    /// What a change must exceed.
    pub noise: f64,
    /// True if the row's target was met before and is missed now.
    pub lost_target: bool,
}

impl Verdict {
    /// True if it moved further than the spread explains.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.change.abs() > self.noise
    }
}

/// Compares the rows that both files have, in the order of the new one.
#[must_use]
pub fn compare(old: &[Row], new: &[Row]) -> Vec<Verdict> {
    new.iter()
        .filter_map(|new| {
            let old = old.iter().find(|old| old.title() == new.title())?;
            Some(Verdict {
                title: new.title().map(str::to_owned),
                ratios: [old.ratio, new.ratio],
                change: new.ratio / old.ratio - 1.0,
                noise: (ERRORS * error(old).hypot(error(new))).max(NOISE),
                lost_target: old.good() && !new.good(),
            })
        })
        .collect()
}

/// Standard error of a row's ratio, relative.
#[expect(clippy::cast_precision_loss, reason = "a number of rounds")]
fn error(row: &Row) -> f64 {
    OF_QUARTILES * row.spread / (row.rounds.max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::compare;
    use crate::bench::report::{Row, Target};

    fn row(case: &str, ratio: f64, spread: f64) -> Row {
        let mut row =
            Row::new("deny", case, "bare XDP drop", "Mpps", [ratio, 1.0]).wanted(Target::at_least(0.55));
        (row.spread, row.rounds) = (spread, 31);
        row
    }

    #[test]
    fn a_change_must_exceed_the_spread() {
        let old = [row("a", 0.60, 0.01), row("b", 0.60, 0.30), row("gone", 1.0, 0.0)];
        let new = [row("new", 1.0, 0.0), row("a", 0.54, 0.01), row("b", 0.54, 0.30)];
        let verdicts = compare(&old, &new);
        let changed: Vec<_> = verdicts
            .iter()
            .map(|verdict| (verdict.title[1].as_str(), verdict.changed(), verdict.lost_target))
            .collect();
        assert_eq!(changed, [("a", true, true), ("b", false, true)]);
    }
}
