//! How long proofs take of ten thousand rules: check, lint, isolate and diff, over few zones and of a router's access list.
//!
//! `cargo run --release -p fw-policy --example proof_speed`

#[path = "../tests/random/mod.rs"]
mod random;

use std::fmt::Write as _;
use std::time::Instant;

use fw_policy::diff::diff_in;
use fw_policy::isolate::violations_in;
use fw_policy::model::Isolation;
use fw_policy::space::Scope;
use fw_policy::{Environment, Policy, Span, check, lint};
use random::Random;

const RULES: usize = 10_000;

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    println!("{what}: {:.0} ms", began.elapsed().as_secs_f64() * 1000.0);
    result
}

/// Few zones, each rule with a port of its own.
fn zones(random: &mut Random) -> String {
    let mut text = String::from("version: 1\nzones:\n");
    for zone in 0..40 {
        let _ = writeln!(text, "  z{zone}: [10.{zone}.0.0/16, \"fd00:{zone}::/32\"]");
    }
    text.push_str("rules:\n");
    for rule in 0..RULES {
        let (from, to) = (random.below(40), random.below(40));
        let action = *random.pick(&["allow", "allow", "deny"]);
        let proto = *random.pick(&["tcp", "udp"]);
        let port = 1 + random.below(65_000);
        let _ = writeln!(
            text,
            "  - {{ name: r{rule}, {action}: [{proto}/{port}], from: z{from}, to: z{to} }}"
        );
    }
    text
}

/// A router's access list: prefixes of all lengths, wildcards, ranges of ports.
fn access_list(random: &mut Random) -> String {
    let mut text = String::from("version: 1\nzones:\n");
    for zone in 0..RULES {
        let length = 12 + random.below(21);
        let address = random.next() as u32 & (u32::MAX << (32 - length));
        let _ = writeln!(
            text,
            "  p{zone}: [{}/{length}]",
            std::net::Ipv4Addr::from(address)
        );
    }
    text.push_str("rules:\n");
    for rule in 0..RULES {
        let mut end = || match random.below(10) {
            0 => "any".to_owned(),
            _ => format!("p{}", random.below(RULES)),
        };
        let (from, to) = (end(), end());
        let action = *random.pick(&["allow", "allow", "deny"]);
        let low = 1 + random.below(60_000);
        let service = match random.below(4) {
            0 => "all".to_owned(),
            1 => "[tcp]".to_owned(),
            2 => format!("[tcp/{low}-{}]", low + random.below(5000)),
            _ => format!("[udp/{low}]"),
        };
        let _ = writeln!(
            text,
            "  - {{ name: r{rule}, {action}: {service}, from: {from}, to: {to} }}"
        );
    }
    text
}

fn looked_at(what: &str, text: &str, [left, right]: [&str; 2]) {
    let (policy, _) = timed(&format!("{what}: check"), || {
        check(text, "speed.yaml").unwrap_or_else(|findings| panic!("{}", &findings.to_string()[..2000]))
    });
    let lint = timed(&format!("{what}: lint"), || lint::shadowed(&policy));
    println!(
        "{what}: {} rules are never asked, {} not looked at",
        lint.shadowed.len(),
        lint.skipped
    );
    let mut asked = policy.clone();
    let zone = |name: &str| policy.zone(name).expect("a zone of the policy");
    asked.isolations = vec![Isolation {
        left_name: left.to_owned(),
        right_name: right.to_owned(),
        left: vec![zone(left)],
        right: vec![zone(right)],
        except: Vec::new(),
        line: 1,
        span: Span::default(),
    }];
    let found = timed(&format!("{what}: isolate {left} {right}"), || {
        violations_in(&asked, &Scope::machine(&Environment::sample()))
    });
    println!("{what}: {} crossings", found.len());
    let edited: Policy = {
        let rule = "rules:\n  - { name: stop, deny: [tcp/22], from: any, to: any }\n";
        let text = text.replacen("rules:\n", rule, 1);
        check(&text, "edited.yaml")
            .unwrap_or_else(|findings| panic!("{}", &findings.to_string()[..2000]))
            .0
    };
    let diff = timed(&format!("{what}: diff of one rule in front"), || {
        diff_in(&policy, &edited, &Scope::machine(&Environment::sample()))
    });
    match diff {
        Ok(diff) => println!("{what}: {} sets", diff.denied.len()),
        Err(error) => println!("{what}: {error}"),
    }
}

fn main() {
    looked_at("zones", &zones(&mut Random(1)), ["z1", "z2"]);
    looked_at("access list", &access_list(&mut Random(2)), ["p1", "p2"]);
}
