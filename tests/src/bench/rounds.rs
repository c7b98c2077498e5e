//! Interleaved rounds, and the ratios that they give.

use anyhow::Result;

use super::Settings;
use super::stand::{Contender, Stand};
use super::stats::Summary;

/// What the contenders did.
#[derive(Debug)]
pub struct Rates {
    /// Packets per second, by contender and round.
    rates: Vec<Vec<f64>>,
    /// All packets that a contender processed.
    packets: Vec<u64>,
}

/// Two contenders compared.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Median rate of the first, packets per second.
    pub own: f64,
    /// Median rate of the second.
    pub peer: f64,
    /// First over second, round by round.
    pub ratio: Summary,
    /// Time of the first less time of the second for a packet, median of the rounds, seconds of all CPUs together.
    pub above: f64,
}

impl Rates {
    /// Lets the contenders take turns: a round that warms up, then those that count. Says on stderr where it stands.
    ///
    /// # Errors
    /// See [`Stand::slice`].
    pub fn measure(
        stand: &Stand<'_>,
        contenders: &mut [Contender<'_>],
        settings: &Settings,
        name: &str,
    ) -> Result<Self> {
        let (mut rates, mut packets) = (vec![Vec::new(); contenders.len()], vec![0; contenders.len()]);
        let mut last = vec![None; contenders.len()];
        for round in 0..=settings.rounds {
            for (number, contender) in contenders.iter_mut().enumerate() {
                let slice = stand.slice(contender, settings.slice, last[number])?;
                last[number] = Some(slice.rate);
                packets[number] += slice.packets;
                if round > 0 {
                    rates[number].push(slice.rate);
                }
            }
            if round % 10 == 0 || round == settings.rounds {
                eprintln!("   bench  {name}: round {round} of {}", settings.rounds);
            }
        }
        Ok(Self { rates, packets })
    }

    /// All packets that the contender of this number processed, the warm-up's included.
    #[must_use]
    pub fn packets(&self, number: usize) -> u64 {
        self.packets[number]
    }

    /// Compares two contenders by their numbers.
    #[must_use]
    pub fn compare(&self, own: usize, peer: usize) -> Comparison {
        let (own, peer) = (&self.rates[own], &self.rates[peer]);
        let pairs = || own.iter().zip(peer);
        Comparison {
            own: Summary::of(own.iter().copied()).median,
            peer: Summary::of(peer.iter().copied()).median,
            ratio: Summary::of(pairs().map(|(own, peer)| own / peer)),
            above: Summary::of(pairs().map(|(own, peer)| 1.0 / own - 1.0 / peer)).median,
        }
    }
}
