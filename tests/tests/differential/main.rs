//! The plain evaluator, the compiled tables on the host and the program in the kernel say the same of random packets at
//! the edges of random policies of the shapes that people write: verdict and rule.
//!
//! `DPUFW_SEED`, `DPUFW_POLICIES` and `DPUFW_PACKETS` (for each policy) change what is asked; a difference names its policy's
//! seed, with which `DPUFW_POLICIES=1` asks the same again.

mod frame;
mod judges;
mod shares;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use fastrand::Rng;
use fw_tests::lab::require_root;
use fw_tests::oracle::{self, Shape};

use judges::Judges;
use shares::Shares;

/// What is asked unless the environment says otherwise.
const SEED: u64 = 20_261_128;
const POLICIES: u64 = 1_000;
const PACKETS: u64 = 10_000;

#[test]
fn oracle_tables_and_kernel_agree() -> Result<()> {
    require_root()?;
    let seed = number("DPUFW_SEED", SEED)?;
    let (policies, packets) = (
        number("DPUFW_POLICIES", POLICIES)?,
        number("DPUFW_PACKETS", PACKETS)?,
    );
    let begun = Instant::now();
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let all = Mutex::new(Shares::default());
    let work = || -> Result<()> {
        let mut judges = Judges::new()?;
        loop {
            let policy = next.fetch_add(1, Ordering::Relaxed);
            if policy >= policies || failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let shares = compare(&mut judges, seed + policy, packets)
                .inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            let mut all = all.lock().map_err(|_| anyhow!("another worker panicked"))?;
            all.add(&shares);
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers: Vec<_> = (0..cpus).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        Ok(())
    })?;
    let all = all.into_inner().map_err(|_| anyhow!("a worker panicked"))?;
    println!(
        "{} packets, {policies} policies, no difference, {:.0} s",
        all.total(),
        begun.elapsed().as_secs_f64()
    );
    all.print();
    if policies >= 100 { all.check() } else { Ok(()) }
}

/// A number from the environment.
fn number(name: &str, default: u64) -> Result<u64> {
    Ok(std::env::var(name)
        .ok()
        .map_or(Ok(default), |text| text.parse())?)
}

/// One policy: the shape that its seed chooses, and its packets.
fn compare(judges: &mut Judges, seed: u64, packets: u64) -> Result<Shares> {
    let mut random = Rng::with_seed(seed);
    let shape = Shape::ALL[(seed % Shape::ALL.len() as u64) as usize];
    let (text, own) = shape.policy(&mut random);
    let (policy, _) = fw_policy::check(&text, "random.yaml").map_err(|findings| anyhow!("{findings}"))?;
    judges.apply(&policy, &own, seed)?;
    let mut shares = Shares::default();
    for _ in 0..packets {
        let question = oracle::question(&mut random, &policy, &own);
        let plain = oracle::judge(&policy, &own, &question);
        let tables = judges.tables(&question)?;
        let kernel = judges.kernel(&own, &question)?;
        ensure!(
            plain == tables && plain == kernel,
            "{}, seed {seed}: {question:?}: the evaluator says {plain:?}, the tables {tables:?}, the kernel {kernel:?}; this \
             machine is {own:?}\n{text}",
            shape.name()
        );
        shares.count(shape, judges.representation, plain, &question);
    }
    Ok(shares)
}
