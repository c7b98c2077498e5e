//! `dpufw prove`.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use fw_policy::isolate::{Fault, Violation, Way};
use fw_policy::prove::{Certificate, Verdict, isolation, prove};
use fw_policy::space::Scope;
use serde::Serialize;

use super::check::environment;
use super::output::{self, Paint, paint};
use crate::confirm::{Replay, confirm};
use crate::exit::{Exit, Failure};

/// Prove that no flow can be opened between two zones, planes or labels, in either direction, but by the rules named
///
/// All addresses, protocols, ports and VLANs are looked at, whatever dynamic zones hold. With --json the answer is a
/// certificate.
#[derive(Args)]
#[command(after_help = "Examples:\n  dpufw prove policy.yaml --isolate gpu bastion\n  \
                        dpufw prove policy.yaml --isolate plane:training plane:management --except admin\n  \
                        dpufw prove policy.yaml --isolate label:tenant=a label:tenant=b --json > certificate.json\n  \
                        sudo dpufw prove policy.yaml --isolate gpu bastion --replay   # and ask the kernel's program\n\n\
                        Exits with 0 if it is proved, with 1 if not (a packet is shown), with 2 for bad input, with 3 if --replay \
                        lacks privilege.")]
pub(super) struct Prove {
    /// The policy file
    policy: PathBuf,
    /// The two sides: a zone, plane:NAME, label:KEY or label:KEY=VALUE each
    #[arg(long, required = true, num_args = 2, value_names = ["A", "B"])]
    isolate: Vec<String>,
    /// Rules that may cross
    #[arg(long, value_name = "RULE", num_args = 1..)]
    except: Vec<String>,
    /// An address of the machine that is meant; every machine if none is given
    #[arg(long = "self", value_name = "ADDR")]
    own: Vec<IpAddr>,
    /// Send every counter-example and a packet of each class through the kernel's program (needs root)
    #[arg(long)]
    replay: bool,
    /// Print the certificate as JSON
    #[arg(long)]
    json: bool,
}

/// A certificate with what the kernel says.
#[derive(Serialize)]
struct Printed {
    /// This program.
    tool: &'static str,
    #[serde(flatten)]
    certificate: Certificate,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<Replay>,
}

impl Prove {
    pub(super) fn execute(self) -> anyhow::Result<Exit> {
        let policy = super::load(&self.policy)?;
        let [left, right] = self.isolate.as_slice() else {
            // clap asks for two.
            return Err(Failure::input("--isolate takes two sides").into());
        };
        let bad = |error: fw_policy::prove::ProveError| Failure::input(error.to_string());
        let asked = isolation(&policy, left, right, &self.except).map_err(bad)?;
        let environment = environment(&policy, &self.own);
        let scope = Scope {
            own_addresses: (!self.own.is_empty()).then(|| self.own.clone()),
            any_members: true,
        };
        let progress = output::Progress::start(format!("proving {}", policy.file));
        let certificate = prove(&policy, &asked, &environment, &scope).map_err(bad)?;
        drop(progress);
        let replay = self
            .replay
            .then(|| confirm(&policy, &asked, &environment, &certificate))
            .transpose()?;
        let proved = certificate.verdict == Verdict::Proved;
        let confirmed = replay.as_ref().is_none_or(|replay| replay.confirmed);
        let printed = Printed {
            tool: concat!("dpufw ", env!("CARGO_PKG_VERSION")),
            certificate,
            replay,
        };
        if self.json {
            output::json(&printed)?;
        } else {
            print(&printed);
        }
        Ok(if proved && confirmed { Exit::Yes } else { Exit::No })
    }
}

fn print(printed: &Printed) {
    let certificate = &printed.certificate;
    let (left, right) = (&certificate.statement.left, &certificate.statement.right);
    let word = match certificate.verdict {
        Verdict::Proved => paint("proved", Paint::Green),
        Verdict::Refuted => paint("refuted", Paint::Red),
        Verdict::Unproved => paint("not proved", Paint::Red),
    };
    println!(
        "{word}: no flow can be opened between {} and {}, in either direction{}",
        left.name,
        right.name,
        if certificate.exceptions.is_empty() {
            String::new()
        } else {
            let names: Vec<&str> = certificate
                .exceptions
                .iter()
                .map(|rule| rule.name.as_str())
                .collect();
            format!(", but by {}", names.join(", "))
        }
    );
    for violation in &certificate.counter_examples {
        println!("  {}", violation_text(violation, certificate));
    }
    let classes = &certificate.classes;
    println!(
        "looked at {} classes of packets: {} and {} classes of addresses, {}, {}",
        classes.packets,
        classes.left,
        classes.right,
        output::count(classes.rules as u64, "rule"),
        output::count(classes.realms as u64, "realm")
    );
    if classes.packets == 0 {
        println!(
            "  the two are in no VLAN together, so there was nothing to look at: where one of them has a tag, the other's \
             addresses are `outside`"
        );
    }
    for assumption in &certificate.assumptions {
        println!("  assumed: {assumption}");
    }
    println!(
        "policy {}, tables {}",
        certificate.policy_sha256, certificate.tables_sha256
    );
    if let Some(replay) = &printed.replay {
        replay_text(replay);
    }
}

fn violation_text(violation: &Violation, certificate: &Certificate) -> String {
    let (left, right) = (
        &certificate.statement.left.name,
        &certificate.statement.right.name,
    );
    match &violation.fault {
        Fault::Overlap { tags, address } => format!("{address} ({}) is on both sides", tags.in_words()),
        Fault::Unproved { why } => why.clone(),
        Fault::Crossing(crossing) => {
            let (from, to) = match crossing.way {
                Way::LeftToRight => (left, right),
                Way::RightToLeft => (right, left),
            };
            // Writing to a String cannot fail.
            let mut text = format!(
                "{from} -> {to}: `{}` by rule `{}` ({}:{})",
                crossing.packet, crossing.rule.name, crossing.rule.file, crossing.rule.line
            );
            if crossing.flow.tags() != fw_policy::model::Tags::NONE {
                let _ = write!(text, ", VLAN {}", crossing.flow.tags());
            }
            for (address, zones) in [
                (crossing.flow.src, &crossing.source_also),
                (crossing.flow.dst, &crossing.destination_also),
            ] {
                if !zones.is_empty() {
                    let _ = write!(text, ", with {address} in {}", zones.join(" and "));
                }
            }
            text
        }
    }
}

fn replay_text(replay: &Replay) {
    let word = if replay.confirmed {
        paint("confirmed", Paint::Green)
    } else {
        paint("NOT CONFIRMED", Paint::Red)
    };
    println!(
        "{word} by the kernel {}: {} and {} packets for {} classes (at most {}), {}",
        replay.kernel,
        output::count(replay.counter_examples, "counter-example"),
        replay.samples,
        replay.classes,
        replay.most_samples,
        output::count(replay.differences, "difference")
    );
    for difference in &replay.listed {
        println!(
            "  {}: the prover says {}, the tables {}, the kernel {}",
            difference.packet, difference.prover, difference.tables, difference.kernel
        );
    }
}
