//! Times in buckets, as `floor_clock` sorts them, and their quantiles.

/// Packets by bucket: 16 buckets for each power of two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times(Vec<u64>);

impl Times {
    /// What came between two readings of the buckets.
    #[must_use]
    pub fn between(before: &[u64], after: &[u64]) -> Self {
        Self(
            after
                .iter()
                .zip(before)
                .map(|(after, before)| after - before)
                .collect(),
        )
    }

    /// Adds another one's packets.
    pub fn add(&mut self, other: &Self) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        for (own, more) in self.0.iter_mut().zip(&other.0) {
            *own += more;
        }
    }

    /// Packets.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The time in ns that this many thousandths of the packets stay within: the middle of its bucket. Not a number without
    /// packets.
    #[must_use]
    pub fn quantile(&self, thousandths: u64) -> f64 {
        let wanted = (self.count() * thousandths).div_ceil(1000);
        let mut seen = 0;
        for (bucket, packets) in (0..).zip(&self.0) {
            seen += packets;
            if *packets > 0 && seen >= wanted {
                let [from, to] = bounds(bucket).map(|bound| u32::try_from(bound).unwrap_or(u32::MAX));
                return f64::midpoint(f64::from(from), f64::from(to));
            }
        }
        f64::NAN
    }
}

/// First ns of a bucket, and first ns behind it.
const fn bounds(bucket: u32) -> [u64; 2] {
    if bucket < 16 {
        return [bucket as u64, bucket as u64 + 1];
    }
    let shift = bucket / 16 - 1;
    let from = (16 + bucket as u64 % 16) << shift;
    [from, from + (1 << shift)]
}

#[cfg(test)]
mod tests {
    use super::{Times, bounds};

    /// As fw-ebpf/src/bin/floor/main.rs has it.
    fn bucket(ns: u32) -> u32 {
        if ns < 16 {
            return ns;
        }
        let power = ns.ilog2();
        ((power - 3) << 4) + ((ns >> (power - 4)) & 15)
    }

    #[test]
    fn buckets_follow_each_other_and_hold_their_times() {
        for ns in (0..10_000).chain([1 << 20, u32::MAX]) {
            let [from, to] = bounds(bucket(ns));
            assert!((from..to).contains(&u64::from(ns)), "{ns}");
            assert!(bounds(bucket(ns) + 1)[0] == to);
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sample() {
        let mut buckets = vec![0; 512];
        for ns in 0..1000 {
            buckets[bucket(ns) as usize] += 1;
        }
        let times = Times::between(&vec![0; 512], &buckets);
        assert_eq!(times.count(), 1000);
        for (thousandths, ns) in [(500, 500.0), (990, 990.0), (999, 999.0)] {
            assert!((times.quantile(thousandths) / ns - 1.0).abs() < 1.0 / 16.0);
        }
        assert!(Times::default().quantile(500).is_nan());
    }
}
