//! nftables in the firewall's namespace: a router between the two ports, with rule sets that take turns.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Namespace;

/// How long loading a rule set may take: a million elements are many.
const LOAD: Duration = Duration::from_mins(5);
const SOON: Duration = Duration::from_secs(30);

/// A rule set that is loaded but does nothing until its turn comes.
#[derive(Debug)]
pub struct Ruleset<'a> {
    namespace: &'a Namespace,
    table: String,
}

impl<'a> Ruleset<'a> {
    /// Loads a table with these sets and these rules of its forward chain, behind the usual rule for known flows. What no rule
    /// accepts is dropped.
    ///
    /// # Errors
    /// If `nft` refuses.
    pub fn load(namespace: &'a Namespace, table: &str, sets: &str, rules: &str) -> Result<Self> {
        let text = format!(
            "table inet {table} {{\nflags dormant\n{sets}chain forward {{\ntype filter hook forward priority filter; policy \
             drop;\nct state established,related accept\n{rules}}}\n}}\n"
        );
        let file = std::env::temp_dir().join(format!("{}-{table}.nft", namespace.name()));
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let loaded = namespace.check(&["nft", "-f", &file.display().to_string()], LOAD);
        let _ = std::fs::remove_file(&file);
        loaded.with_context(|| format!("nft refuses the rule set {table}"))?;
        Ok(Self {
            namespace,
            table: table.to_owned(),
        })
    }

    /// Its turn.
    ///
    /// # Errors
    /// If `nft` refuses.
    pub fn wake(&self) -> Result<()> {
        self.nft(&format!("add table inet {}", self.table))
    }

    /// Its turn is over.
    ///
    /// # Errors
    /// If `nft` refuses.
    pub fn sleep(&self) -> Result<()> {
        self.nft(&format!("add table inet {} {{ flags dormant; }}", self.table))
    }

    fn nft(&self, command: &str) -> Result<()> {
        self.namespace.check(&["nft", command], SOON).map(drop)
    }
}

impl Drop for Ruleset<'_> {
    fn drop(&mut self) {
        let _ = self.nft(&format!("delete table inet {}", self.table));
    }
}

/// Makes the firewall's namespace a router from `f0` to whatever is behind `f1`.
///
/// # Errors
/// If a command refuses.
pub fn route(firewall: &Namespace, next: [u8; 6]) -> Result<()> {
    for (key, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/f0/rp_filter", "0"),
    ] {
        firewall.sysctl(key, value)?;
    }
    let mac = next.map(|byte| format!("{byte:02x}")).join(":");
    firewall.ip(&format!(
        "addr add 169.254.7.1/30 dev f1
         addr add fe80::7:1/64 dev f1 nodad
         neigh replace 169.254.7.2 lladdr {mac} dev f1 nud permanent
         neigh replace fe80::7:2 lladdr {mac} dev f1 nud permanent
         route add default via 169.254.7.2 dev f1
         -6 route add default via fe80::7:2 dev f1"
    ))
}
