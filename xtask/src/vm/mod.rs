//! `cargo xtask vm`: another kernel than the one that runs here, under software emulation.

mod emulator;
mod guest;
mod kernel;
mod qemu;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use emulator::Qemu;
use guest::{Guest, Job};

use crate::setup::{self, Level};
use crate::shell::{self, human, say};
use crate::{bpf, build, lab, test};

/// Boot a distribution kernel under emulation and run test programs in it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask vm --smoke                  load every program on Linux 6.1\n  \
                        cargo xtask vm --smoke --kernel 6.12    the same on another kernel of Debian's\n  \
                        cargo xtask vm --test packets           a layer of tests, without namespaces\n  \
                        cargo xtask vm --scenario wireguard     one scenario with namespaces, devices and an agent"
)]
#[group(id = "what", required = true, multiple = true, args = ["smoke", "tests", "scenarios"])]
pub struct Args {
    /// Load every program and print how many instructions the verifier walked.
    #[arg(long)]
    smoke: bool,
    /// Run this test target of the crate `fw-tests` (repeatable).
    #[arg(long = "test", value_name = "NAME")]
    tests: Vec<String>,
    /// Run the scenarios with this in their name, in namespaces of the guest (repeatable; `all` for all): see
    /// tests/tests/guest.
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<String>,
    /// Move as much as the promises say, not only what is quick under emulation.
    #[arg(long)]
    full: bool,
    /// Which of Debian's kernels to boot.
    #[arg(long, value_name = "SERIES", default_value = "6.1")]
    kernel: String,
    /// Load this kernel module, and those it needs, first (repeatable).
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
    /// Handed to the test programs.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// The test target that `--smoke` stands for.
const SMOKE: &str = "load";
/// The test target of `--scenario`.
pub const SCENARIOS: &str = "guest";
/// What the scenarios need of the kernel beyond what is built in: devices, queues, filters, and a judge to compare with.
const MODULES: [&str; 18] = [
    "veth",
    "sch_netem",
    "sch_ingress",
    "cls_bpf",
    "cls_matchall",
    "act_mirred",
    "8021q",
    "bonding",
    "wireguard",
    "ip_gre",
    "ip6_gre",
    "bridge",
    "tun",
    "nf_conntrack",
    "nf_tables",
    "nft_ct",
    "nft_reject_inet",
    "dummy",
];
/// The programs that the lab and the scenarios call.
const TOOLS: [&str; 9] = [
    "ip", "tc", "ethtool", "ping", "curl", "iperf3", "nft", "wg", "nsenter",
];
/// A boot and the load of all programs take two minutes on two CPUs, the packet tables on Linux 6.1 several; this is for a
/// busy machine.
const LIMIT: Duration = Duration::from_mins(25);
/// A full scenario moves a gigabyte under emulation.
const FULL_LIMIT: Duration = Duration::from_mins(90);

pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(Level::Build)?;
    setup::ensure(Level::Vm)?;
    bpf::object()?;
    let job = job(args)?;
    let kernel = kernel::ensure(&args.kernel)?;
    let start = Instant::now();
    let guest = Guest::pack(&kernel, &job)?;
    say("vm", format_args!("booting {} under emulation", kernel.release));
    // Two, where traffic runs: what one CPU does in order, two do in any.
    let cpus = if args.scenarios.is_empty() { 1 } else { 2 };
    let limit = if args.full { FULL_LIMIT } else { LIMIT };
    let code = qemu::boot(&Qemu::find()?, &kernel, guest.image(), cpus, limit)?;
    say(
        "vm",
        format_args!(
            "the guest ended with exit code {code} ({})",
            human(start.elapsed())
        ),
    );
    Ok(ExitCode::from(u8::from(code != 0)))
}

/// What the guest is to do.
fn job(args: &Args) -> Result<Job> {
    let smoke = args.smoke.then_some(SMOKE);
    let scenarios = (!args.scenarios.is_empty()).then_some(SCENARIOS);
    let targets = smoke
        .into_iter()
        .chain(args.tests.iter().map(String::as_str))
        .chain(scenarios);
    let mut job = Job {
        programs: targets.map(test::executable).collect::<Result<Vec<PathBuf>>>()?,
        args: args.rest.clone(),
        modules: args.modules.clone(),
        ..Job::default()
    };
    if scenarios.is_some() {
        setup::ensure(Level::Test)?;
        let dpufw = build::binary(false)?;
        job.modules.extend(MODULES.map(str::to_owned));
        job.tools = TOOLS.map(tool).into_iter().collect::<Result<_>>()?;
        job.tools.push(dpufw);
        job.variables.push(lab::variable(Path::new("/bin/dpufw")));
        if args.full {
            job.variables.push("DPUFW_FULL=1".to_owned());
        }
        // One after the other: each has the whole machine.
        job.args.push("--test-threads=1".to_owned());
        let all = args.scenarios.iter().any(|name| name == "all");
        job.args.extend(args.scenarios.iter().filter(|_| !all).cloned());
    }
    Ok(job)
}

fn tool(name: &str) -> Result<PathBuf> {
    shell::find_in_path(name).with_context(|| format!("{name} is missing: run `cargo xtask setup`"))
}
