//! `dpufw check`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use fw_policy::{Diagnostics, Environment, Expectations, Policy, Representation, Stats};
use serde_json::json;

use super::output::{self, Paint, paint};
use crate::exit::{Exit, Failure};
use crate::files;

/// Check a policy: parse, resolve, compile, run its expectations; needs no privileges
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw check policy.yaml\n  dpufw check policy.yaml --json   # for editors: each finding with \
                        its place\n  dpufw check policy.yaml --stats\n  dpufw check policy.yaml --tests tests.yaml\n  \
                        dpufw check policy.yaml --self 10.30.8.4 --self fd00:30::4   # whose `self` is meant\n\n\
                        Exits with 2 if the policy has an error, with 1 if an expectation is not met."
)]
pub(super) struct Check {
    /// The policy file
    policy: PathBuf,
    /// A file with more expectations (a YAML file with the key `expect`, and `version` if you like); may be given several times
    #[arg(long, value_name = "FILE")]
    tests: Vec<PathBuf>,
    /// An address of the machine that the policy is for; documentation addresses if none is given
    #[arg(long = "self", value_name = "ADDR")]
    own: Vec<IpAddr>,
    /// Print what the tables take: classes, bytes of each part, how decisions are held and why, steps of a look-up
    #[arg(long)]
    stats: bool,
    /// Print JSON; `stats` is always in it
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn execute(self) -> anyhow::Result<Exit> {
        let (mut policy, mut warnings) = match files::policy(&self.policy)? {
            Ok(checked) => checked,
            Err(findings) => return self.invalid(&findings),
        };
        for path in &self.tests {
            let name = path.display().to_string();
            let added = files::text(path)?.and_then(|text| fw_policy::add_tests(&mut policy, &text, &name));
            match added {
                Ok(found) => {
                    warnings.items.extend(found.items);
                    warnings.sources = found.sources;
                }
                Err(findings) => return self.invalid(&findings),
            }
        }
        let now = jiff::Timestamp::now().as_second();
        warnings.items.extend(fw_policy::ended_rules(&policy, now).items);
        let environment = environment(&policy, &self.own);
        let too_large = |error| Failure::input(format!("{}: {error}", self.policy.display()));
        let progress = output::Progress::start(format!("compiling {}", policy.file));
        let tables = fw_policy::compile(&policy, &environment).map_err(too_large)?;
        let tests = fw_policy::run_expectations(&policy, &environment).map_err(too_large)?;
        drop(progress);
        if self.json {
            let findings = [warnings.reports(), tests.diagnostics.reports()].concat();
            let answer = json!({
                "file": policy.file,
                "valid": true,
                "sha256": policy.hash_hex(),
                "findings": findings,
                "stats": tables.stats,
                "expectations": tests.results,
            });
            output::json(&answer)?;
        } else {
            print(&policy, &warnings, &tables.stats, &tests);
            if self.stats {
                sizes(&tables.stats);
            }
            if !self.tests.is_empty() {
                list(&tests);
            }
            summary(&tests);
        }
        Ok(if tests.passed() { Exit::Yes } else { Exit::No })
    }

    fn invalid(&self, findings: &Diagnostics) -> anyhow::Result<Exit> {
        if self.json {
            output::json(&json!({ "file": findings.file, "valid": false, "findings": findings.reports() }))?;
        } else {
            eprintln!("{}", findings.render(output::colored(&std::io::stderr())));
        }
        Ok(Exit::BadInput)
    }
}

/// Roles that a machine can have.
const MAX_ROLES: usize = 31;

/// The machine that is meant: with all roles that the policy names, so that none is missing.
pub(super) fn environment(policy: &Policy, own: &[IpAddr]) -> Environment {
    let sample = Environment::sample();
    let own_addresses = if own.is_empty() {
        sample.own_addresses
    } else {
        own.to_vec()
    };
    let named = policy.roles();
    let roles = named.into_iter().take(MAX_ROLES).map(str::to_owned).collect();
    Environment {
        own_addresses,
        roles,
        ..sample
    }
}

fn print(policy: &Policy, warnings: &Diagnostics, stats: &Stats, tests: &Expectations) {
    let colored = output::colored(&std::io::stderr());
    for findings in [warnings, &tests.diagnostics]
        .into_iter()
        .filter(|findings| !findings.items.is_empty())
    {
        eprintln!("{}\n", findings.render(colored));
    }
    println!(
        "{}: {} rules, {} address classes, {} services, {} of tables",
        policy.file,
        stats.rules,
        stats.address_classes,
        stats.service_classes,
        output::bytes(stats.bytes),
    );
}

/// One line for each expectation.
fn list(tests: &Expectations) {
    for result in &tests.results {
        let word = if result.passed {
            paint("pass", Paint::Green)
        } else {
            paint("FAIL", Paint::Red)
        };
        let is = result.explanation.as_ref().map_or_else(
            || "no such flow".to_owned(),
            |explanation| match &explanation.rule {
                Some(rule) => format!("{} by rule {}", explanation.verdict.name(), rule.name),
                None => format!("{} ({})", explanation.verdict.name(), explanation.reason),
            },
        );
        println!("{word}  {}  {is}  {}:{}", result.flow, result.file, result.line);
    }
}

fn summary(tests: &Expectations) {
    let met = tests.results.iter().filter(|result| result.passed).count();
    match tests.results.len() {
        0 => println!("{}: no expectations", paint("valid", Paint::Green)),
        all if met == all => println!("{}: all {all} expectations are met", paint("valid", Paint::Green)),
        all => println!(
            "{}: {} of {all} expectations are not met",
            paint("valid, but", Paint::Red),
            all - met
        ),
    }
}

/// What the tables take, and what a look-up costs.
fn sizes(stats: &Stats) {
    let representation = match stats.representation {
        Representation::Pairs => "a table of all pairs of sources and destinations",
        Representation::Vectors => "bit vectors of rules",
    };
    println!("decisions     {representation}: {}", stats.why);
    println!(
        "look-up       at most {} lines of 64 bytes for IPv4, {} for IPv6, whatever the packet",
        stats.lookup_v4, stats.lookup_v6
    );
    let counts = [
        ("realms", stats.realms),
        ("address classes", stats.address_classes),
        ("sources that rules tell apart", stats.source_rows),
        ("destinations that rules tell apart", stats.destination_columns),
        ("pairs that rules tell apart", stats.pair_classes),
        ("services that rules tell apart", stats.service_classes),
        ("source ports that rules tell apart", stats.source_classes),
        ("rules in the vectors, split into products", stats.atoms),
        ("limits", stats.limits),
    ];
    for (what, count) in counts.iter().filter(|(_, count)| *count > 0) {
        println!("{count:>13} {what}");
    }
    for (part, size) in stats.parts.iter().filter(|(_, size)| *size > 0) {
        println!("{:>13} {part}", output::bytes(*size));
    }
    println!(
        "{:>13} in all, of which {} are written anew when only addresses change",
        output::bytes(stats.bytes),
        output::bytes(stats.address_bytes)
    );
}
