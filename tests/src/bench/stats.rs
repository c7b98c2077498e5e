//! Medians and spreads.

/// Median and quartile distance of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The middle value.
    pub median: f64,
    /// Third quartile less first quartile, over the median.
    pub spread: f64,
}

impl Summary {
    /// Summarises a sample that is not empty.
    #[must_use]
    pub fn of(sample: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = sample.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let median = quantile(&sorted, 0.5);
        Self { median, spread: (quantile(&sorted, 0.75) - quantile(&sorted, 0.25)) / median }
    }
}

/// Linear interpolation between the two nearest values (type 7 of Hyndman and Fan).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn median_and_quartiles() {
        let summary = Summary::of([4.0, 1.0, 2.0, 3.0, 5.0]);
        assert_eq!(summary, Summary { median: 3.0, spread: 2.0 / 3.0 });
        let even = Summary::of([1.0, 2.0]);
        assert_eq!(even, Summary { median: 1.5, spread: 0.5 / 1.5 });
    }
}
