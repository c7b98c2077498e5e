//! A twin of the firewall, made of nftables and the kernel's connection tracking, sees the same packets: where the two
//! judge differently, the difference is known and explained in docs/differences-from-nftables.md.

mod nft;
mod ours;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Result, ensure};
use fw_common::abi::Reason;
use fw_tests::traffic::{DISTURBED, EXPLAINED, Ground, Sent, Traffic};

use nft::Nft;
use ours::Ours;

/// Packets that both judge.
const PACKETS: usize = 100_000;
/// Steps of a connection that are told with an example of a difference.
const HISTORY: usize = 8;
/// Wrong verdicts that are told.
const TOLD: usize = 20;

/// What a group of differences has in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    kind: &'static str,
    reason: &'static str,
    nft_passes: bool,
}

/// What was seen of a connection.
#[derive(Default)]
struct Past {
    told: Vec<String>,
    /// A packet came that its ends did not send in good order.
    disturbed: bool,
}

impl Past {
    /// What a difference is called.
    fn kind(&self, sent: &Sent, nft_passes: bool) -> &'static str {
        // What nftables always refuses has a group of its own.
        let always = sent.kind == "tcp: a SYN-ACK in a connection";
        if self.disturbed && !nft_passes && !always {
            DISTURBED
        } else {
            sent.kind
        }
    }
}

/// A group's packets: how many, and the first one with what came before it.
#[derive(Default)]
struct Cases {
    count: usize,
    example: Vec<String>,
}

#[test]
fn nftables_and_dpufw_judge_alike() -> Result<()> {
    let seed = std::env::var("FW_SEED")
        .ok()
        .map_or(Ok(20_261_122), |seed| seed.parse())?;
    let mut traffic = Traffic::new(seed);
    let (nft, mut ours) = (Nft::new()?, Ours::new()?);
    let mut comparison = Comparison::default();
    for _ in 0..PACKETS {
        let sent = traffic.packet();
        let frame = sent.packet.build();
        let reason = ours.judge(sent.from_client, &frame)?;
        let nft_passes = nft.passes(sent.from_client, frame, patience(sent.ground))?;
        if !comparison.agree(&sent, reason, nft_passes) {
            // What comes after it depends on it, and says nothing new.
            traffic.abandon(sent.talk);
        }
    }
    println!(
        "seed {seed}: {PACKETS} packets in {} connections:",
        traffic.opened()
    );
    for ((kind, reason), count) in &comparison.kinds {
        println!("{count:6} {kind}: {reason}");
    }
    println!("differences:");
    let unknown = report(&comparison.groups);
    ensure!(
        comparison.wrong.is_empty(),
        "packets in good order were dropped, or foreign ones passed:\n{}",
        comparison.wrong.join("\n\n")
    );
    ensure!(
        unknown.is_empty(),
        "{} differences are not explained:\n{}",
        unknown.len(),
        unknown.join("\n")
    );
    Ok(())
}

/// What was seen so far.
#[derive(Default)]
struct Comparison {
    /// By connection.
    past: HashMap<u64, Past>,
    groups: BTreeMap<Group, Cases>,
    /// Packets by kind and our reason.
    kinds: BTreeMap<(&'static str, &'static str), usize>,
    /// Where dpufw judged against what the ends know.
    wrong: Vec<String>,
}

impl Comparison {
    /// Notes what the two say of a packet; false if it is not the same.
    fn agree(&mut self, sent: &Sent, reason: Reason, nft_passes: bool) -> bool {
        *self.kinds.entry((sent.kind, reason.name())).or_default() += 1;
        let past = self.past.entry(sent.talk).or_default();
        past.told.push(tell(sent, reason, nft_passes));
        let example = &past.told[past.told.len().saturating_sub(HISTORY)..];
        if against(sent.ground, reason.allows()) && self.wrong.len() < TOLD {
            self.wrong.push(example.join("\n    "));
        }
        if reason.allows() == nft_passes {
            past.disturbed |= sent.ground != Ground::Passes;
            return true;
        }
        let group = Group {
            kind: past.kind(sent, nft_passes),
            reason: reason.name(),
            nft_passes,
        };
        let cases = self.groups.entry(group).or_default();
        cases.count += 1;
        if cases.example.is_empty() {
            cases.example = example.to_vec();
        }
        self.past.remove(&sent.talk);
        false
    }
}

/// A packet that should pass may come late on a busy machine; for one that should not, nobody waits long.
fn patience(ground: Ground) -> Duration {
    Duration::from_millis(if ground == Ground::Passes { 50 } else { 2 })
}

/// True if dpufw judged against what the ends know.
fn against(ground: Ground, passes: bool) -> bool {
    match ground {
        Ground::Passes => !passes,
        Ground::Dropped => passes,
        Ground::Open => false,
    }
}

fn tell(sent: &Sent, reason: Reason, nft_passes: bool) -> String {
    format!(
        "{}{} {}: here {}, nftables {} ({})",
        if sent.packet.ipv6() { "6 " } else { "4 " },
        if sent.from_client { "client" } else { "server" },
        sent.kind,
        reason.name(),
        if nft_passes { "passes" } else { "drops" },
        sent.about
    )
}

/// Prints every group; those that nobody has explained with an example, and returns these.
fn report(groups: &BTreeMap<Group, Cases>) -> Vec<String> {
    let mut unknown = Vec::new();
    for (group, cases) in groups {
        let known = EXPLAINED.iter().any(|(kind, reason, nft_passes)| {
            (*kind, reason.name(), *nft_passes) == (group.kind, group.reason, group.nft_passes)
        });
        let line = format!(
            "{:5} {}: here {}, nftables {}{}",
            cases.count,
            group.kind,
            group.reason,
            if group.nft_passes { "passes" } else { "drops" },
            if known { " (explained)" } else { "" }
        );
        println!("{line}");
        if !known {
            println!("    {}", cases.example.join("\n    "));
            unknown.push(line);
        }
    }
    unknown
}
