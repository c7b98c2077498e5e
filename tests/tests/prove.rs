//! Proofs, confirmed by the program in the kernel: every counter-example crosses there, and every class of packets between the
//! two sides is decided as the prover says.

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use fw_lab::require_root;
use fw_policy::isolate::Fault;
use fw_policy::model::{Policy, ZoneKind};
use fw_policy::prove::{Certificate, Verdict, isolation, prove};
use fw_policy::space::Scope;
use fw_policy::{Environment, check};
use fw_tests::oracle;
use fw_user::confirm::{Replay, confirm};

const TEXT: &str = "version: 1
zones:
  gpu:     { addresses: [10.10.0.0/16, \"fd00:10::/48\"], plane: training, ports: [rail] }
  storage: { addresses: [10.20.0.0/16, \"fd00:20::/48\"], plane: storage, ports: [storage] }
  bastion: { addresses: [10.30.0.10, \"fd00:30::10\"], plane: management, ports: [mgmt] }
  inner:   { addresses: [10.10.1.0/24] }
  guest_a: { addresses: [192.168.0.0/16], vlan: 101, labels: { tenant: a } }
  guest_b: { addresses: [192.168.0.0/16], vlan: 102, labels: { tenant: b } }
  jobs:    { dynamic: true }
rules:
  - { name: no_inner, reject: all, from: any, to: inner }
  - { name: trial,    deny: [tcp/7000], from: storage, to: gpu, audit: true }
  - { name: pull,     allow: [tcp/8000-8003, udp/53, sctp/3868], from: gpu, to: storage }
  - { name: stream,   allow: [udp/9000, esp], from: storage, to: gpu, track: false }
  - { name: admin,    allow: [ssh, ping], from: bastion, to: self }
  - { name: run,      allow: [tcp/9100], from: jobs, to: storage }
default: { inside: reject, outside: drop }
";

fn proof(
    policy: &Policy,
    (left, right, except): (&str, &str, &[String]),
    scope: &Scope,
) -> Result<(Certificate, Replay)> {
    let environment = Environment {
        roles: policy.roles().into_iter().map(str::to_owned).collect(),
        ..Environment::sample()
    };
    let asked = isolation(policy, left, right, except)?;
    let certificate = prove(policy, &asked, &environment, scope)?;
    let replay = confirm(policy, &asked, &environment, &certificate)?;
    Ok((certificate, replay))
}

fn confirmed((certificate, replay): &(Certificate, Replay)) -> Result<()> {
    let statement = &certificate.statement;
    println!(
        "{} and {}: {:?}, {} counter-examples, {} packets for {} classes on {}",
        statement.left.name,
        statement.right.name,
        certificate.verdict,
        replay.counter_examples,
        replay.samples,
        replay.classes,
        replay.kernel
    );
    ensure!(replay.confirmed, "{statement:?}: {:?}", replay.listed);
    let crossings = certificate
        .counter_examples
        .iter()
        .filter(|violation| matches!(violation.fault, Fault::Crossing(_)));
    ensure!(
        replay.counter_examples == crossings.count() as u64,
        "{statement:?}"
    );
    Ok(())
}

#[test]
fn the_kernel_confirms_what_is_proved_and_what_is_refuted() -> Result<()> {
    require_root()?;
    let (policy, _) = check(TEXT, "prove.yaml").map_err(|findings| anyhow::anyhow!("{findings}"))?;
    let all = ["trial", "pull", "stream", "run"].map(str::to_owned);
    for (sides, verdict) in [
        (("gpu", "storage", &[][..]), Verdict::Refuted),
        (("gpu", "storage", &all[..]), Verdict::Proved),
        (("plane:training", "plane:management", &[][..]), Verdict::Refuted),
        (("plane:storage", "bastion", &[][..]), Verdict::Refuted),
        (("label:tenant=a", "label:tenant=b", &[][..]), Verdict::Proved),
        // A job may be given addresses of the storage, which `inner` pulls from.
        (("jobs", "inner", &[][..]), Verdict::Refuted),
    ] {
        let found = proof(&policy, sides, &Scope::everywhere())?;
        confirmed(&found)?;
        ensure!(
            found.0.verdict == verdict,
            "{sides:?}: {:?}",
            found.0.counter_examples
        );
        // Of tenants in VLANs of their own, and of a job that has no address yet, there are no packets.
        let none = sides.0.starts_with("label") || sides.0 == "jobs";
        ensure!((found.1.samples > 0) != none, "{sides:?}");
    }
    Ok(())
}

#[test]
fn a_false_certificate_is_not_confirmed() -> Result<()> {
    require_root()?;
    let (policy, _) = check(TEXT, "prove.yaml").map_err(|findings| anyhow::anyhow!("{findings}"))?;
    let asked = isolation(&policy, "gpu", "storage", &[])?;
    let environment = Environment::sample();
    let mut certificate = prove(&policy, &asked, &environment, &Scope::machine(&environment))?;
    let crossing = certificate
        .counter_examples
        .iter_mut()
        .find_map(|violation| match &mut violation.fault {
            Fault::Crossing(crossing) => Some(crossing),
            _ => None,
        });
    let crossing = crossing.context("a packet that crosses")?;
    // A port that no rule of the policy allows.
    crossing.flow.selector = 1;
    let replay = confirm(&policy, &asked, &environment, &certificate)?;
    ensure!(!replay.confirmed && replay.differences == 1, "{replay:?}");
    Ok(())
}

#[test]
fn random_policies_are_confirmed() -> Result<()> {
    require_root()?;
    let mut random = Rng::with_seed(20_261_128);
    for number in 0..25 {
        let (text, _) = oracle::policy(&mut random);
        let (policy, _) = check(&text, "random.yaml").map_err(|findings| anyhow::anyhow!("{findings}"))?;
        let named: Vec<&str> = policy
            .zones
            .iter()
            .filter(|zone| zone.kind == ZoneKind::Named && zone.seen_of.is_none())
            .map(|zone| zone.name.as_str())
            .collect();
        let [left, right] = [(); 2].map(|()| named[random.usize(..named.len())]);
        let found = proof(
            &policy,
            (left, right, &[]),
            &Scope::machine(&Environment::sample()),
        )?;
        confirmed(&found).with_context(|| format!("policy {number}\n{text}"))?;
    }
    Ok(())
}
