//! Every kernel program passes the running kernel's verifier, well inside its budget.
//!
//! Runs on the host and, by `cargo xtask vm --smoke`, inside a virtual machine with the oldest supported kernel: an
//! object that a new kernel takes is easily refused by an old one, which also counts two to three times the
//! instructions.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use aya::EbpfLoader;
use aya::programs::Program;

/// Half of what the kernel allows (`BPF_COMPLEXITY_LIMIT_INSNS`, 1,000,000).
const BUDGET: u32 = 500_000;

#[test]
fn every_program_loads_within_its_budget() -> Result<()> {
    let object = object()?;
    let mut ebpf = EbpfLoader::new().load(&object).context("the BPF object's maps and relocations")?;
    let mut counts = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        counts.push((name.to_owned(), verify(name, program)?));
    }
    ensure!(!counts.is_empty(), "the BPF object has no programs");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    for (name, count) in &counts {
        println!("kernel {}: {name}: {count} verified instructions", kernel.trim());
    }
    for (name, count) in counts {
        ensure!(count < BUDGET, "{name}: {count} verified instructions, the budget is {BUDGET}");
    }
    Ok(())
}

/// Loads one program; the kernel verifies it on the way.
fn verify(name: &str, program: &mut Program) -> Result<u32> {
    let info = match program {
        Program::Xdp(xdp) => xdp.load().and_then(|()| xdp.info()),
        Program::SchedClassifier(tc) => tc.load().and_then(|()| tc.info()),
        other => anyhow::bail!("{name} is of the unexpected type {:?}", other.prog_type()),
    };
    let info = info.with_context(|| format!("the verifier refuses {name}"))?;
    info.verified_instruction_count().with_context(|| format!("this kernel does not count {name}'s instructions"))
}

/// The object that `cargo xtask build` made.
fn object() -> Result<Vec<u8>> {
    let path = env::var_os("DPUFW_BPF_OBJECT").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/dpufw.bpf.o"),
        PathBuf::from,
    );
    fs::read(&path).with_context(|| format!("{}: run `cargo xtask build`", path.display()))
}
