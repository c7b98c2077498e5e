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
        let median = quartile(&sorted, 2);
        Self {
            median,
            spread: (quartile(&sorted, 3) - quartile(&sorted, 1)) / median,
        }
    }
}

/// The third quartile of a sample that is not empty.
#[must_use]
pub fn upper_quartile(mut sample: Vec<f64>) -> f64 {
    sample.sort_by(f64::total_cmp);
    quartile(&sample, 3)
}

/// The first, second or third quartile: linear interpolation between the two nearest values (type 7 of Hyndman and Fan).
fn quartile(sorted: &[f64], number: usize) -> f64 {
    const PARTS: [f64; 4] = [0.0, 0.25, 0.5, 0.75];
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let (at, part) = (number * last / 4, PARTS[number * last % 4]);
    let (below, above) = (sorted[at], sorted[(at + 1).min(last)]);
    below + (above - below) * part
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn median_and_quartiles() {
        let summary = Summary::of([4.0, 1.0, 2.0, 3.0, 5.0]);
        assert_eq!(
            summary,
            Summary {
                median: 3.0,
                spread: 2.0 / 3.0
            }
        );
        let even = Summary::of([1.0, 2.0]);
        assert_eq!(
            even,
            Summary {
                median: 1.5,
                spread: 0.5 / 1.5
            }
        );
    }
}
