//! Two result files judged by their spread.

use super::report::Row;

/// How many spreads a ratio must have moved to count as changed; the spread is a quartile distance, so that of two equal runs'
/// medians hardly ever are so far apart.
const SPREADS: f64 = 2.0;
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
                noise: (SPREADS * old.spread.hypot(new.spread)).max(NOISE),
                lost_target: old.good() && !new.good(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::compare;
    use crate::bench::report::{Row, Target};

    fn row(case: &str, ratio: f64, spread: f64) -> Row {
        let mut row =
            Row::new("deny", case, "bare XDP drop", "Mpps", [ratio, 1.0]).wanted(Target::at_least(0.55));
        row.spread = spread;
        row
    }

    #[test]
    fn a_change_must_exceed_the_spread() {
        let old = [row("a", 0.60, 0.01), row("b", 0.60, 0.05), row("gone", 1.0, 0.0)];
        let new = [row("new", 1.0, 0.0), row("a", 0.54, 0.01), row("b", 0.54, 0.05)];
        let verdicts = compare(&old, &new);
        let changed: Vec<_> = verdicts
            .iter()
            .map(|verdict| (verdict.title[1].as_str(), verdict.changed(), verdict.lost_target))
            .collect();
        assert_eq!(changed, [("a", true, true), ("b", false, true)]);
    }
}
