//! `dpufw test`.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use fw_policy::{Diagnostics, Environment, Policy};
use serde_json::json;

use super::check;
use super::output::{self, Paint, paint};
use crate::exit::{Exit, Failure};
use crate::files;
use crate::netns::{self, Outcome};
use crate::telemetry::boot_unix_s;

/// Test a policy with real packets: each expectation is sent through the real data plane in network namespaces
#[derive(Args)]
#[command(
    after_help = "Needs root, `ip` (iproute2) and `ethtool`. What runs on this machine is left alone: namespaces, links, \
                        programs and maps are this command's own and end with it.\n\n\
                        Examples:\n  dpufw test policy.yaml --netns\n  \
                        dpufw test policy.yaml --netns --junit report.xml   # for a CI system\n  \
                        dpufw test policy.yaml --netns --tests more.yaml    # more expectations\n  \
                        dpufw test policy.yaml --netns --self 10.30.8.4     # whose `self` is meant\n\n\
                        Exits with 1 if an expectation is not met, 2 if the policy has an error, 3 without root."
)]
pub(super) struct Test {
    /// The policy file
    policy: PathBuf,
    /// Send packets through network namespaces
    #[arg(long, required = true)]
    netns: bool,
    /// A file with more expectations (a YAML file with the key `expect`, and `version` if you like); may be given several times
    #[arg(long, value_name = "FILE")]
    tests: Vec<PathBuf>,
    /// An address of the machine that the policy is for; documentation addresses if none is given
    #[arg(long = "self", value_name = "ADDR")]
    own: Vec<IpAddr>,
    /// Also write the results to this file as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Test {
    pub(super) fn execute(self) -> anyhow::Result<Exit> {
        let file = self.policy.display().to_string();
        let (mut policy, _) = match files::policy(&self.policy)? {
            Ok(checked) => checked,
            Err(findings) => return Ok(invalid(&findings)),
        };
        for path in &self.tests {
            let name = path.display().to_string();
            let added = files::text(path)?.and_then(|text| fw_policy::add_tests(&mut policy, &text, &name));
            if let Err(findings) = added {
                return Ok(invalid(&findings));
            }
        }
        let environment = environment(&policy, &self.own);
        // The namespaces are gone before anything is printed: a reader who goes away leaves none behind.
        let outcomes = netns::run(&policy, &environment)?;
        if let Some(path) = &self.junit {
            write_junit(path, &file, &outcomes)?;
        }
        let passed = outcomes.iter().all(Outcome::passed);
        if self.json {
            output::json(&json!({ "file": file, "passed": passed, "expectations": outcomes }))?;
        } else {
            print(&file, &outcomes)?;
        }
        Ok(if passed { Exit::Yes } else { Exit::No })
    }
}

fn invalid(findings: &Diagnostics) -> Exit {
    eprintln!("{}", findings.render(output::colored(&std::io::stderr())));
    Exit::BadInput
}

/// Roles that a machine can have, less the one of ports that belong to no plane.
const MAX_ROLES: usize = 30;

/// The machine that is meant, as `dpufw check` has it; behind its roles that of a port without one.
fn environment(policy: &Policy, own: &[IpAddr]) -> Environment {
    let mut environment = check::environment(policy, own);
    environment.boot_unix_s = boot_unix_s();
    environment.roles.truncate(MAX_ROLES);
    environment.roles.push(String::new());
    environment
}

fn write_junit(path: &Path, file: &str, outcomes: &[Outcome]) -> Result<(), Failure> {
    let refused = |error: String| Failure::no(format!("cannot write {}: {error}", path.display()));
    let text = netns::junit(file, outcomes)
        .to_string()
        .map_err(|error| refused(error.to_string()))?;
    std::fs::write(path, text).map_err(|error| refused(error.to_string()))
}

fn print(file: &str, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for outcome in outcomes.iter().filter(|outcome| !outcome.passed()) {
        let problem = outcome.problem.as_deref().unwrap_or_default();
        let way = outcome
            .way
            .map_or_else(String::new, |way| format!(", {}", way.text()));
        writeln!(
            out,
            "{} {}:{}: {}{way}: {problem}",
            paint("not met", Paint::Red),
            outcome.file,
            outcome.line,
            outcome.flow
        )?;
    }
    let (all, seconds) = (
        outcomes.len(),
        outcomes.iter().map(|outcome| outcome.seconds).sum::<f64>(),
    );
    let met = outcomes.iter().filter(|outcome| outcome.passed()).count();
    let word = if met == all {
        paint("passed", Paint::Green)
    } else {
        paint("failed", Paint::Red)
    };
    writeln!(
        out,
        "{word}: {file}: {met} of {all} expectations are met by real packets ({seconds:.1} s)"
    )?;
    Ok(())
}
