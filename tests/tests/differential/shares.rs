//! What the packets were: too much of one kind would prove nothing.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use fw_policy::Representation;
use fw_tests::oracle::{Answer, Question, Shape};

/// Least share of each shape's packets, of 1,000, by answer.
const BY_ANSWER: [(&str, u64); 3] = [
    ("allowed by a rule", 100),
    ("denied by a rule", 80),
    ("denied by default", 40),
];
/// Least share of all packets, of 1,000.
const OF_ALL: [(&str, u64); 5] = [
    ("in an unknown realm", 5),
    ("IPv4", 250),
    ("IPv6", 250),
    ("by pairs", 400),
    ("by bit vectors", 400),
];

/// Packets by shape and kind.
#[derive(Clone, Debug, Default)]
pub struct Shares(BTreeMap<(Shape, &'static str), u64>);

impl Shares {
    /// Counts a packet.
    pub fn count(
        &mut self,
        shape: Shape,
        representation: Representation,
        answer: Answer,
        question: &Question,
    ) {
        let family = if question.src.is_ipv4() { "IPv4" } else { "IPv6" };
        let tables = match representation {
            Representation::Pairs => "by pairs",
            Representation::Vectors => "by bit vectors",
        };
        for kind in [kind(answer), family, tables] {
            *self.0.entry((shape, kind)).or_default() += 1;
        }
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Self) {
        for (key, packets) in &other.0 {
            *self.0.entry(*key).or_default() += packets;
        }
    }

    /// All packets.
    pub fn total(&self) -> u64 {
        Shape::ALL.iter().map(|shape| self.of(*shape)).sum()
    }

    /// Packets of a shape.
    fn of(&self, shape: Shape) -> u64 {
        ["IPv4", "IPv6"]
            .iter()
            .map(|family| self.get(shape, family))
            .sum()
    }

    fn get(&self, shape: Shape, kind: &'static str) -> u64 {
        self.0.get(&(shape, kind)).copied().unwrap_or_default()
    }

    /// Prints a line for each shape.
    pub fn print(&self) {
        let kinds = || BY_ANSWER.iter().chain(&OF_ALL);
        for shape in Shape::ALL {
            let shares: Vec<String> = kinds()
                .map(|(kind, _)| format!("{:.1} % {kind}", percent(self.get(shape, kind), self.of(shape))))
                .collect();
            println!(
                "{:24} {:9} packets: {}",
                shape.name(),
                self.of(shape),
                shares.join(", ")
            );
        }
    }

    /// Fails if there was too little of something.
    pub fn check(&self) -> Result<()> {
        for shape in Shape::ALL {
            let all = self.of(shape);
            ensure!(
                all * Shape::ALL.len() as u64 * 10 >= self.total() * 9,
                "only {all} of {} packets are of the shape `{}`",
                self.total(),
                shape.name()
            );
            for (kind, least) in BY_ANSWER {
                let packets = self.get(shape, kind);
                ensure!(
                    packets * 1000 >= all * least,
                    "only {packets} of {all} packets of the shape `{}` are {kind}, not {least} of 1000",
                    shape.name()
                );
            }
        }
        for (kind, least) in OF_ALL {
            let packets: u64 = Shape::ALL.iter().map(|shape| self.get(*shape, kind)).sum();
            ensure!(
                packets * 1000 >= self.total() * least,
                "only {packets} of {} packets are {kind}, not {least} of 1000",
                self.total()
            );
        }
        Ok(())
    }
}

fn kind(answer: Answer) -> &'static str {
    match answer {
        Answer::Allow(_) => "allowed by a rule",
        Answer::Deny(_) => "denied by a rule",
        Answer::Default => "denied by default",
        Answer::UnknownRealm => "in an unknown realm",
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn percent(part: u64, all: u64) -> f64 {
    part as f64 * 100.0 / (all.max(1)) as f64
}
