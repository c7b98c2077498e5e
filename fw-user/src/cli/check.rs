//! `dpufw check`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use fw_policy::{Diagnostics, Environment, Expectations, Policy, Stats};
use serde_json::json;

use super::output::{self, Paint, paint};
use crate::exit::{Exit, Failure};

/// Check a policy: parse, resolve, compile, run its expectations; needs no privileges
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw check policy.yaml\n  dpufw check policy.yaml --json\n  \
                        dpufw check policy.yaml --self 10.30.8.4 --self fd00:30::4   # whose `self` is meant\n\n\
                        Exits with 2 if the policy has an error, with 1 if one of its expectations is not met."
)]
pub(super) struct Check {
    /// The policy file
    policy: PathBuf,
    /// An address of the machine that the policy is for; documentation addresses if none is given
    #[arg(long = "self", value_name = "ADDR")]
    own: Vec<IpAddr>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn execute(self) -> anyhow::Result<Exit> {
        let (policy, mut warnings) =
            match fw_policy::check(&read(&self.policy)?, &self.policy.display().to_string()) {
                Ok(checked) => checked,
                Err(findings) => return self.invalid(&findings),
            };
        let now = jiff::Timestamp::now().as_second();
        warnings.items.extend(fw_policy::ended_rules(&policy, now).items);
        let environment = environment(&policy, &self.own);
        let too_large = |error| Failure::input(format!("{}: {error}", self.policy.display()));
        let progress = output::Progress::start(format!("compiling {}", policy.file));
        let tables = fw_policy::compile(&policy, &environment).map_err(too_large)?;
        let tests = fw_policy::run_expectations(&policy, &environment).map_err(too_large)?;
        drop(progress);
        if self.json {
            let answer = json!({
                "file": policy.file,
                "valid": true,
                "sha256": policy.hash_hex(),
                "findings": warnings.reports(),
                "stats": tables.stats,
                "expectations": tests.results,
            });
            output::json(&answer)?;
        } else {
            print(&policy, &warnings, &tables.stats, &tests);
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

/// Reads a policy file.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::input(format!("cannot read {}: {error}", path.display())))
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
