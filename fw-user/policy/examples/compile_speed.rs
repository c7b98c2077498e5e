//! How long policies take to check and compile, how large they become, and how much memory that needs: rules over zones,
//! random prefixes in one zone, a router access list.
//!
//! `cargo run --release -p fw-policy --example compile_speed [NAME]`, where NAME picks the cases that hold it.
//!
//! Times are this thread's own on a processor (`/proc/thread-self/schedstat`; the clock's, where there is none), so that a busy
//! machine does not count. The peak of memory (`VmHWM` of `/proc/self/status`) is that of the process so far: pick one case to see its own.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use fw_policy::{Compiled, Environment, Policy, TableSet, check};
use ipnet::IpNet;

/// Numbers that look random and are always the same (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Rules with a port of their own between pairs of zones that repeat late, so that little can be shared.
fn zones_and_rules(rules: u32, zones: u32) -> String {
    let mut text = "version: 1\nzones:\n".to_owned();
    for zone in 0..zones {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  z{zone}: [10.{}.{}.0/24, \"fd00:{zone:x}::/32\"]",
            zone / 256,
            zone % 256
        );
    }
    text += "rules:\n";
    for rule in 0..rules {
        let (from, to) = (rule % zones, (rule * 37 + rule / zones) % zones);
        let _ = writeln!(
            text,
            "  - {{ name: r{rule}, allow: [tcp/{}], from: z{from}, to: z{to} }}",
            rule % 65_535 + 1
        );
    }
    text
}

/// One zone, whose prefixes are put in afterwards: what a file of prefixes makes of it.
const ONE_ZONE: &str = "
version: 1
zones: { blocked: [192.0.2.0/24], servers: [10.0.0.0/8, \"fd00::/16\"] }
rules:
  - { name: blocked, deny: all, from: blocked, to: any }
  - { name: web, allow: [http, https], from: any, to: servers }
";

fn random_v4(random: &mut Random) -> IpNet {
    let length = [20, 22, 24, 24, 26, 28, 30, 32][random.below(8) as usize];
    let address = Ipv4Addr::from(random.next() as u32);
    // The lengths are below 33.
    IpNet::new(address.into(), length).unwrap_or_default().trunc()
}

fn random_v6(random: &mut Random) -> IpNet {
    let length = [32, 40, 48, 48, 56, 64, 64, 128][random.below(8) as usize];
    let bits = u128::from(random.next()) << 64 | u128::from(random.next());
    let address = Ipv6Addr::from(bits >> 4 | 2 << 124);
    // The lengths are below 129.
    IpNet::new(address.into(), length).unwrap_or_default().trunc()
}

/// Independent rules between arbitrary prefixes, with ranges of ports on both sides and wildcards everywhere.
fn access_list(rules: u32) -> String {
    let mut random = Random(0x1234_5678);
    let (mut zones, mut text) = (String::new(), String::new());
    for rule in 0..rules {
        let ends = ["s", "d"].map(|side| {
            if random.below(5) == 0 {
                return "any".to_owned();
            }
            let net = random_v4(&mut random);
            let _ = writeln!(zones, "  {side}{rule}: [{net}]");
            format!("{side}{rule}")
        });
        let low = random.below(60_000);
        let service = match random.below(5) {
            0 => "all".to_owned(),
            1 => format!("tcp/{low}"),
            2 => format!("tcp/{low}-{}", low + random.below(5_000)),
            3 => format!("udp/{low}-{}", low + random.below(50)),
            _ => "tcp, udp/53".to_owned(),
        };
        let action = ["allow", "deny"][random.below(2) as usize];
        let [from, to] = ends;
        let _ = writeln!(
            text,
            "  - {{ name: r{rule}, {action}: [{service}], from: {from}, to: {to} }}"
        );
    }
    format!("version: 1\nzones:\n{zones}rules:\n{text}")
}

/// Gives a third of the ranges of ports a range of source ports.
fn with_source_ports(mut policy: Policy) -> Policy {
    let mut random = Random(99);
    for service in policy.rules.iter_mut().flat_map(|rule| &mut rule.services) {
        if matches!(service.proto, Some(6 | 17)) && random.below(3) == 0 {
            service.src_lo = [0, 1_024, random.below(65_000) as u16][random.below(3) as usize];
            service.src_hi = service.src_lo.saturating_add(random.below(40_000) as u16);
        }
    }
    policy
}

/// KiB of the line of `/proc/self/status` that begins so; 0 where there is none.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Time that this thread has had on a processor, or since the program began.
fn clock() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let ran = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = ran.split_whitespace().next().and_then(|ns| ns.parse().ok());
    ns.map_or_else(|| START.elapsed(), Duration::from_nanos)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn report(name: &str, checked: Duration, policy: &Policy) -> Result<(), Box<dyn std::error::Error>> {
    let environment = Environment::sample();
    let start = clock();
    let tables = fw_policy::compile(policy, &environment)?;
    let compiled = clock().saturating_sub(start);
    let TableSet { stats, .. } = tables;
    let (mut kept, _) = Compiled::new(policy, &environment, fw_policy::compile::DEFAULT_LIMIT)?;
    let start = clock();
    let _same = kept.readdress(policy, &environment)?;
    let readdressed = clock().saturating_sub(start);
    println!(
        "{name:<24} {:>8.1} {:>8.1} {:>9.1} {:>8} {:>7} {:>7} {:>7} {:>6} {:<8} {:>5} {:>8}",
        ms(checked),
        ms(compiled),
        ms(readdressed),
        stats.bytes >> 10,
        stats.address_classes,
        stats.pair_classes.max(stats.atoms),
        stats.service_classes,
        stats.source_classes,
        format!("{:?}", stats.representation),
        stats.lookup_v4,
        peak_kib() >> 10,
    );
    Ok(())
}

fn checked(text: &str) -> Result<(Duration, Policy), Box<dyn std::error::Error>> {
    let start = clock();
    let (policy, _) = check(text, "speed.yaml")?;
    Ok((clock().saturating_sub(start), policy))
}

fn one_zone(
    count: usize,
    prefix: fn(&mut Random) -> IpNet,
) -> Result<(Duration, Policy), Box<dyn std::error::Error>> {
    let (_, mut policy) = checked(ONE_ZONE)?;
    let mut random = Random(7);
    let start = clock();
    let zone = policy.zone("blocked").unwrap_or_default();
    policy.set_members(zone, (0..count).map(|_| prefix(&mut random)));
    Ok((clock().saturating_sub(start), policy))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    println!(
        "{:<24} {:>8} {:>8} {:>9} {:>8} {:>7} {:>7} {:>7} {:>6} {:<8} {:>5} {:>8}",
        "case",
        "check ms",
        "compile",
        "readdress",
        "KiB",
        "classes",
        "pairs",
        "service",
        "source",
        "tables",
        "lines",
        "peak MiB"
    );
    for zones in [100, 1_000] {
        for rules in [10, 100, 1_000, 10_000, 100_000] {
            let name = format!("{rules} rules, {zones} zones");
            if name.contains(&wanted) {
                let (time, policy) = checked(&zones_and_rules(rules, zones))?;
                report(&name, time, &policy)?;
            }
        }
    }
    for (name, prefix) in [
        ("1000000 IPv4 prefixes", random_v4 as fn(&mut Random) -> IpNet),
        ("1000000 IPv6 prefixes", random_v6),
    ] {
        if name.contains(&wanted) {
            let (time, policy) = one_zone(1_000_000, prefix)?;
            report(name, time, &policy)?;
        }
    }
    for rules in [1_000, 10_000] {
        let name = format!("access list of {rules}");
        if name.contains(&wanted) {
            let (time, policy) = checked(&access_list(rules))?;
            report(&name, time, &policy)?;
            report(&format!("{name}, sources"), time, &with_source_ports(policy))?;
        }
    }
    Ok(())
}
