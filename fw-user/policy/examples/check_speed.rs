//! How long policies of 10 to 10,000 rules over 100 zones take to check and compile, and how large they become. Then the
//! check alone, of 100,000 rules over 1,000 zones, and of zones of a million prefixes from a file.
//!
//! `cargo run --release -p fw-policy --example check_speed [check]`: with `check` the latter alone.

use std::fmt::Write as _;
use std::time::Instant;

use fw_policy::{Environment, LoadError, Loader, check, check_files, compile};

/// Rules with a port of their own between pairs of zones that repeat late, so that little can be shared.
fn policy(rules: u32, zones: u32) -> String {
    let mut text = "version: 1\nzones:\n".to_owned();
    for zone in 0..zones {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  z{zone}: [10.{}.{}.0/24, \"fd00:{zone:x}::/32\"]",
            zone / 250,
            zone % 250
        );
    }
    text += "rules:\n";
    for rule in 0..rules {
        let (from, to) = (rule % zones, (rule * 37 + rule / zones) % zones);
        let port = rule % 65_000 + 1;
        let _ = writeln!(
            text,
            "  - {{ name: r{rule}, allow: [tcp/{port}], from: z{from}, to: z{to} }}"
        );
    }
    text
}

/// A file of so many prefixes in a random order, some inside others.
struct Feed {
    text: String,
}

impl Feed {
    fn new(prefixes: u64, ipv6: bool) -> Self {
        let mut text = "# made by check_speed\n".to_owned();
        for number in 0..prefixes {
            // splitmix64, so that every run reads the same file.
            let mut bits = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bits ^= bits >> 31;
            let length = 20 + (bits >> 60) as u32 % 13;
            let _ = if ipv6 {
                let address = u128::from(bits) << 64 >> (48 - length) << (48 - length);
                writeln!(text, "{}/{}", std::net::Ipv6Addr::from_bits(address), 16 + length)
            } else {
                let address = (bits as u32) >> (32 - length) << (32 - length);
                writeln!(text, "{}/{length}", std::net::Ipv4Addr::from_bits(address))
            };
        }
        Self { text }
    }
}

impl Loader for Feed {
    fn load(&self, _: &str) -> Result<String, LoadError> {
        Ok(self.text.clone())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).is_none() {
        compiled()?;
    }
    checked()
}

fn compiled() -> Result<(), Box<dyn std::error::Error>> {
    println!("  rules   check ms  compile ms        KiB  pair classes  service classes");
    for rules in [10, 100, 1_000, 10_000] {
        let text = policy(rules, 100);
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

fn checked() -> Result<(), Box<dyn std::error::Error>> {
    let text = policy(100_000, 1_000);
    let start = Instant::now();
    check(&text, "speed.yaml")?;
    println!(
        "check of 100,000 rules, 1,000 zones: {:.0} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    let text = "version: 1\nzones: { feed: { file: feed.txt, exclude: [10.0.0.0/9] } }\n\
                rules: [{ name: a, deny: all, from: feed, to: any }]\n";
    for (family, ipv6) in [("IPv4", false), ("IPv6", true)] {
        let feed = Feed::new(1_000_000, ipv6);
        let start = Instant::now();
        let (policy, _) = check_files(&feed, text, "speed.yaml")?;
        println!(
            "check of a zone of 1,000,000 {family} prefixes from a file, {} after merging: {:.0} ms",
            policy.zones[0].prefixes.len(),
            start.elapsed().as_secs_f64() * 1e3
        );
    }
    Ok(())
}
