//! How long policies of 10 to 10,000 rules over 100 zones take to check and compile, and how large they become.
//!
//! `cargo run --release -p fw-policy --example compile_speed`

use std::fmt::Write as _;
use std::time::Instant;

use fw_policy::{Environment, check, compile};

/// Rules with a port of their own between pairs of zones that repeat late, so that little can be shared.
fn policy(rules: u32) -> String {
    let mut text = "version: 1\nzones:\n".to_owned();
    for zone in 0..100 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  z{zone}: [10.{zone}.0.0/16, \"fd00:{zone:x}::/32\"]");
    }
    text += "rules:\n";
    for rule in 0..rules {
        let (from, to) = (rule % 100, (rule * 37 + rule / 100) % 100);
        let _ = writeln!(
            text,
            "  - {{ name: r{rule}, allow: [tcp/{}], from: z{from}, to: z{to} }}",
            rule + 1
        );
    }
    text
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("  rules   check ms  compile ms        KiB  pair classes  service classes");
    for rules in [10, 100, 1_000, 10_000] {
        let text = policy(rules);
        let start = Instant::now();
        let (policy, _) = check(&text, "speed.yaml")?;
        let checked = start.elapsed();
        let start = Instant::now();
        let tables = compile(&policy, &Environment::sample())?;
        let compiled = start.elapsed();
        println!(
            "{rules:>7} {:>10.1} {:>11.1} {:>10} {:>13} {:>16}",
            checked.as_secs_f64() * 1e3,
            compiled.as_secs_f64() * 1e3,
            tables.stats.bytes >> 10,
            tables.stats.pair_classes,
            tables.stats.service_classes,
        );
    }
    Ok(())
}
