//! The servers: one for every destination that a flow of the demo has, so that an unanswered client was stopped by the
//! firewall and not by an empty port.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::cases::{CASES, Tool};
use super::cluster::{Cluster, find};
use crate::lab::{Namespace, Process, TcpService, UdpEcho};

/// Servers that run until the handle is dropped.
#[derive(Debug, Default)]
pub struct Servers {
    pages: Vec<TcpService>,
    echoes: Vec<UdpEcho>,
    iperf: Vec<(Process, u16)>,
}

impl Servers {
    /// Starts all and waits until they listen.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let mut servers = Self::default();
        let wanted: BTreeSet<_> = CASES
            .iter()
            .map(|case| (case.to, case.ipv6, case.port, case.tool))
            .collect();
        let mut taken = BTreeSet::new();
        for (to, ipv6, port, tool) in wanted {
            let node = find(to)?;
            if taken.insert((to, ipv6, port, tool.protocol(ipv6))) {
                servers.add(cluster.machine(node.machine)?, node.address(ipv6), port, tool)?;
            }
        }
        servers.wait_for_iperf()?;
        Ok(servers)
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pages.len() + self.echoes.len() + self.iperf.len()
    }

    fn add(&mut self, machine: &Namespace, address: IpAddr, port: u16, tool: Tool) -> Result<()> {
        match tool {
            Tool::Curl | Tool::Nc => self.pages.push(TcpService::start(machine, address, port)?),
            Tool::NcUdp => self.echoes.push(UdpEcho::start(machine, address, port)?),
            Tool::Iperf3 => {
                let (address, text) = (address.to_string(), port.to_string());
                self.iperf.push((
                    machine.spawn(&["iperf3", "-s", "-B", &address, "-p", &text])?,
                    port,
                ));
            }
            // The kernel answers.
            Tool::Ping => {}
        }
        Ok(())
    }

    /// A client that comes too early would be refused. A connection made to find out would count as a test.
    fn wait_for_iperf(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(5);
        for (process, port) in &mut self.iperf {
            while !listens(process.pid(), *port) {
                if process.ended()? || Instant::now() > end {
                    bail!("iperf3 does not listen on port {port}");
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }
}

/// True if somebody in the process's network namespace listens on a TCP port (proc(5), /proc/net/tcp: the local port in
/// hexadecimal, state 0A).
fn listens(pid: u32, port: u16) -> bool {
    let port = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|table| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        text.lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next().is_some_and(|local| local.ends_with(&port)) && words.nth(1) == Some("0A")
        })
    })
}
