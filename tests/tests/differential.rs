//! The plain evaluator, the compiled tables on the host and the program in the kernel say the same of random packets at
//! the edges of random policies.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use fw_common::abi::{Engine, Ip4, Ip6, Line, LinkKind, Mode, PortConfig, Proto, Reason, Side, Verdict};
use fw_common::classify::{self, Classified, Service};
use fw_policy::{Environment, Policy};
use fw_tests::lab::require_root;
use fw_tests::oracle::{self, Answer, Question};
use fw_tests::packet::Packet;
use fw_user::dataplane::{DataPlane, Hook, Options, TestContext};

const POLICIES: usize = 200;
const PACKETS: usize = 50;
/// Index of `lo`, the kernel's own choice for a test run.
const PORT: u32 = 1;

#[test]
fn oracle_tables_and_kernel_agree() -> Result<()> {
    require_root()?;
    let seed = std::env::var("FW_SEED")
        .ok()
        .map_or(Ok(20_261_122), |seed| seed.parse())?;
    let mut random = Rng::with_seed(seed);
    let plane = DataPlane::open(Options {
        dry_run: true,
        ..Options::default()
    })?;
    plane.tables().set_port(&port())?;
    let mut shares: HashMap<&str, usize> = HashMap::new();
    for number in 0..POLICIES {
        let (text, own) = oracle::policy(&mut random);
        let (policy, _) =
            fw_policy::check(&text, "random.yaml").map_err(|findings| anyhow::anyhow!("{findings}"))?;
        let lines = compile(&policy, &own, &plane)?;
        plane.tables().apply(&lines)?;
        let hook = Hook::ALL[number % Hook::ALL.len()];
        for _ in 0..PACKETS {
            let question = oracle::question(&mut random, &policy, &own);
            let plain = oracle::judge(&policy, &own, &question);
            let tables = by_tables(&lines, &question)?;
            // Its own addresses are a source only in what a machine sends.
            let hook = if own.contains(&question.src) {
                Hook::TcOut
            } else {
                hook
            };
            let kernel = by_kernel(&plane, hook, &question)?;
            ensure!(
                plain == tables && plain == kernel,
                "seed {seed}, policy {number}, {hook}: {question:?}: the evaluator says {plain:?}, the tables {tables:?}, \
                 the kernel {kernel:?}; this machine is {own:?}\n{text}"
            );
            *shares.entry(kind(plain)).or_default() += 1;
            *shares
                .entry(if question.src.is_ipv4() { "IPv4" } else { "IPv6" })
                .or_default() += 1;
        }
    }
    report(&shares)
}

fn kind(answer: Answer) -> &'static str {
    match answer {
        Answer::Allow(_) => "allowed by a rule",
        Answer::Deny(_) => "denied by a rule",
        Answer::Default => "denied by default",
        Answer::UnknownRealm => "in an unknown realm",
    }
}

/// Prints the shares, and fails if the packets were too much of one kind to prove anything.
fn report(shares: &HashMap<&str, usize>) -> Result<()> {
    let total = POLICIES * PACKETS;
    let per_mille = |name: &str| shares.get(name).copied().unwrap_or_default() * 1000 / total;
    println!("{total} packets, {POLICIES} policies, no difference");
    let wanted = [
        ("allowed by a rule", 300),
        ("denied by a rule", 200),
        ("denied by default", 100),
        ("in an unknown realm", 5),
        ("IPv4", 300),
        ("IPv6", 300),
    ];
    for (name, _) in wanted {
        println!("{:3}.{} % {name}", per_mille(name) / 10, per_mille(name) % 10);
    }
    for (name, least) in wanted {
        ensure!(
            per_mille(name) >= least,
            "only {} of 1000 packets are {name}, not {least}",
            per_mille(name)
        );
    }
    Ok(())
}

fn port() -> PortConfig {
    PortConfig {
        ifindex: PORT,
        mode: Mode::Host as u8,
        engine: Engine::Xdp as u8,
        link: LinkKind::Ethernet as u8,
        side: Side::Outer as u8,
        ..PortConfig::default()
    }
}

fn compile(policy: &Policy, own: &[IpAddr], plane: &DataPlane) -> Result<Vec<Line>> {
    let environment = Environment {
        own_addresses: own.to_vec(),
        roles: Vec::new(),
        generation: plane.tables().next_generation(),
        ..Environment::sample()
    };
    Ok(fw_policy::compile(policy, &environment)?.lines)
}

fn by_tables(lines: &[Line], question: &Question) -> Result<Answer> {
    let realm = match classify::realm_record(lines, (question.vlan, 0)) {
        Ok(realm) => realm,
        Err(Reason::UnknownRealm) => return Ok(Answer::UnknownRealm),
        Err(reason) => anyhow::bail!("the tables are damaged: {}", reason.sentence()),
    };
    let service = Service::of(question.proto, question.selector, question.source_port);
    let mut out = Classified::default();
    let decision = match (question.src, question.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => classify::classify(
            lines,
            realm,
            (Ip4(src.to_bits()), Ip4(dst.to_bits())),
            service,
            &mut out,
        ),
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let pair = (Ip6::from_bits(src.to_bits()), Ip6::from_bits(dst.to_bits()));
            classify::classify(lines, realm, pair, service, &mut out)
        }
        _ => anyhow::bail!("a packet of two families"),
    };
    let decision =
        decision.map_err(|reason| anyhow::anyhow!("the tables are damaged: {}", reason.sentence()))?;
    Ok(match (decision.rule(), decision.allows()) {
        (rule, true) => Answer::Allow(rule),
        (0, false) => Answer::Default,
        (rule, false) => Answer::Deny(rule),
    })
}

fn by_kernel(plane: &DataPlane, hook: Hook, question: &Question) -> Result<Answer> {
    let frame = packet(question).build();
    let outcome = plane.test_run(hook, &frame, &TestContext::on(PORT))?;
    let report = outcome.report.context("the program was not loaded to report")?;
    let passes = report.verdict == Verdict::Pass;
    match (report.reason, passes) {
        (Reason::Rule, true) => Ok(Answer::Allow(report.rule)),
        (Reason::DenyRule, false) => Ok(Answer::Deny(report.rule)),
        (Reason::DenyDefault, false) if report.rule == 0 => Ok(Answer::Default),
        (Reason::UnknownRealm, false) => Ok(Answer::UnknownRealm),
        _ => anyhow::bail!("the kernel says {report:?} of {question:?}"),
    }
}

fn packet(question: &Question) -> Packet {
    const SPORT: u16 = 40_000;
    let (src, dst, port) = (question.src, question.dst, question.selector);
    let packet = match question.proto {
        Proto::TCP => Packet::tcp((src, SPORT), (dst, port)).flags("S"),
        Proto::UDP => Packet::udp((src, SPORT), (dst, port)),
        Proto::ICMP | Proto::ICMPV6 => Packet::echo_request(src, dst, 7, 1),
        Proto::SCTP => {
            let ([a, b], [c, d]) = (SPORT.to_be_bytes(), port.to_be_bytes());
            Packet::other(Proto::SCTP, src, dst).payload(&[a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        other => Packet::other(other, src, dst).payload(&[1; 8]),
    };
    if question.vlan == 0 {
        packet
    } else {
        packet.tags(&[question.vlan])
    }
}
