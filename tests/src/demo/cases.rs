//! Who talks to whom in the demo, and what `policies/ai-cluster.yaml` should say to it.

use super::cluster::{DPU, HOST};

/// A real client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// `curl` of a page.
    Curl,
    /// `nc` over TCP: reads what the server says.
    Nc,
    /// `nc` over UDP: a datagram and its echo.
    NcUdp,
    /// `ping`: one echo request.
    Ping,
    /// `iperf3` over TCP for a second.
    Iperf3,
}

impl Tool {
    /// As the table shows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Nc | Self::NcUdp => "nc",
            Self::Ping => "ping",
            Self::Iperf3 => "iperf3",
        }
    }

    /// Name of its protocol, as `dpufw`'s filters take it.
    #[must_use]
    pub const fn protocol(self, ipv6: bool) -> &'static str {
        match self {
            Self::Curl | Self::Nc | Self::Iperf3 => "tcp",
            Self::NcUdp => "udp",
            Self::Ping if ipv6 => "icmpv6",
            Self::Ping => "icmp",
        }
    }
}

/// What the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The rule of this name allows it.
    Allow(&'static str),
    /// The rule of this name denies it.
    Deny(&'static str),
    /// No rule allows it.
    Default,
}

/// One flow.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The machine whose firewall decides.
    pub at: &'static str,
    /// The node that opens the flow.
    pub from: &'static str,
    /// The node that it is opened to.
    pub to: &'static str,
    /// The client.
    pub tool: Tool,
    /// Destination port; 0 for `ping`.
    pub port: u16,
    /// What the port is for.
    pub what: &'static str,
    /// IPv6 or IPv4.
    pub ipv6: bool,
    /// What should happen.
    pub expect: Expect,
}

const V4: bool = false;
const V6: bool = true;

use Expect::{Allow, Default, Deny};
use Tool::{Curl, Iperf3, Nc, NcUdp, Ping};

type Service = (Tool, u16, &'static str);

const SSH: Service = (Nc, 22, "ssh");
const DNS: Service = (NcUdp, 53, "dns");
const HTTP: Service = (Curl, 80, "http");
const LUSTRE: Service = (Nc, 988, "lustre");
const NFS: Service = (Nc, 2049, "nfs");
const IPERF: Service = (Iperf3, 5201, "iperf3");
const METRICS: Service = (Curl, 9100, "metrics");
const NCCL: Service = (Nc, 45000, "nccl");
const ECHO: Service = (Ping, 0, "echo");

const fn case(
    at: &'static str,
    from: &'static str,
    to: &'static str,
    (tool, port, what): Service,
    ipv6: bool,
    expect: Expect,
) -> Case {
    Case {
        at,
        from,
        to,
        tool,
        port,
        what,
        ipv6,
        expect,
    }
}

/// All flows, grouped by the firewall that decides.
pub const CASES: &[Case] = &[
    // The DPU in front of gpu1: what comes in,
    case(DPU, "bastion", "gpu1", SSH, V4, Allow("admin")),
    case(DPU, "bastion", "gpu1", ECHO, V6, Allow("admin")),
    case(DPU, "monitor", "gpu1", METRICS, V6, Allow("scrape")),
    case(DPU, "storage", "gpu1", LUSTRE, V4, Allow("lustre")),
    case(DPU, "intruder", "gpu1", SSH, V4, Default),
    case(DPU, "intruder", "gpu1", METRICS, V6, Default),
    case(DPU, "intruder", "gpu1", ECHO, V4, Default),
    case(DPU, "intruder", "gpu1", IPERF, V4, Default),
    case(DPU, "monitor", "gpu1", SSH, V4, Default),
    case(DPU, "storage", "gpu1", SSH, V6, Default),
    // what gpu1 sends, which it cannot switch the firewall off for,
    case(DPU, "gpu1", "gpu2", IPERF, V4, Allow("collectives")),
    case(DPU, "gpu1", "gpu2", NCCL, V6, Allow("collectives")),
    case(DPU, "gpu1", "storage", NFS, V6, Allow("filesystems")),
    case(DPU, "gpu1", "storage", HTTP, V4, Allow("objects")),
    case(DPU, "gpu1", "infra", DNS, V4, Allow("basics")),
    case(DPU, "gpu1", "gpu2", SSH, V4, Default),
    case(DPU, "gpu1", "intruder", HTTP, V4, Default),
    case(DPU, "gpu1", "intruder", DNS, V6, Default),
    case(DPU, "gpu1", "metadata", HTTP, V4, Deny("no_metadata")),
    case(DPU, "gpu1", "bastion", SSH, V6, Deny("no_climb")),
    // and the DPU itself.
    case(DPU, "bastion", "dpu", SSH, V4, Allow("admin")),
    case(DPU, "gpu1", "dpu", SSH, V4, Deny("no_climb")),
    case(DPU, "intruder", "dpu", SSH, V6, Default),
    // The agent on gpu2: what comes in,
    case(HOST, "bastion", "gpu2", SSH, V6, Allow("admin")),
    case(HOST, "bastion", "gpu2", ECHO, V4, Allow("admin")),
    case(HOST, "monitor", "gpu2", METRICS, V4, Allow("scrape")),
    case(HOST, "storage", "gpu2", LUSTRE, V6, Allow("lustre")),
    case(HOST, "intruder", "gpu2", SSH, V6, Default),
    case(HOST, "intruder", "gpu2", METRICS, V4, Default),
    case(HOST, "intruder", "gpu2", ECHO, V6, Default),
    case(HOST, "storage", "gpu2", NFS, V4, Default),
    // and what gpu2 sends.
    case(HOST, "gpu2", "gpu1", IPERF, V6, Allow("collectives")),
    case(HOST, "gpu2", "storage", NFS, V4, Allow("filesystems")),
    case(HOST, "gpu2", "storage", HTTP, V6, Allow("objects")),
    case(HOST, "gpu2", "infra", DNS, V6, Allow("basics")),
    case(HOST, "gpu2", "gpu1", SSH, V6, Default),
    case(HOST, "gpu2", "intruder", HTTP, V6, Default),
    case(HOST, "gpu2", "intruder", IPERF, V4, Default),
    case(HOST, "gpu2", "metadata", HTTP, V6, Deny("no_metadata")),
    case(HOST, "gpu2", "bastion", SSH, V4, Deny("no_climb")),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{CASES, Expect};
    use crate::demo::cluster::{DPU, HOST, find};

    #[test]
    fn the_flows_show_both_modes_families_and_answers_and_differ() {
        let denied = CASES
            .iter()
            .filter(|case| !matches!(case.expect, Expect::Allow(_)))
            .count();
        assert!(
            CASES.len() >= 20 && denied * 2 >= CASES.len() && denied * 3 <= CASES.len() * 2,
            "{denied}"
        );
        for at in [DPU, HOST] {
            for ipv6 in [false, true] {
                for allowed in [false, true] {
                    let shown = |case: &&super::Case| {
                        case.at == at
                            && case.ipv6 == ipv6
                            && matches!(case.expect, Expect::Allow(_)) == allowed
                    };
                    assert!(CASES.iter().any(|case| shown(&case)), "{at} {ipv6} {allowed}");
                }
            }
        }
        // The agents are asked by addresses, protocol and port: no two flows may share them.
        let keys: BTreeSet<_> = CASES
            .iter()
            .map(|case| {
                (
                    case.from,
                    case.to,
                    case.tool.protocol(case.ipv6),
                    case.port,
                    case.ipv6,
                )
            })
            .collect();
        assert_eq!(keys.len(), CASES.len());
        assert!(
            CASES
                .iter()
                .all(|case| find(case.from).is_ok() && find(case.to).is_ok())
        );
    }

    #[test]
    fn the_example_policy_says_the_same() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/ai-cluster.yaml");
        let text = std::fs::read_to_string(path).expect("the policy is there");
        let (policy, _) = fw_policy::check(&text, path).expect("the policy is valid");
        for case in CASES {
            let (from, to) = (
                find(case.from).unwrap().address(case.ipv6),
                find(case.to).unwrap().address(case.ipv6),
            );
            let own = find(case.at).unwrap();
            let machine = fw_policy::Environment {
                own_addresses: vec![own.address(false), own.address(true)],
                ..fw_policy::Environment::sample()
            };
            let port = if case.port == 0 {
                String::new()
            } else {
                format!(":{}", case.port)
            };
            let to = if port.is_empty() || !case.ipv6 {
                to.to_string()
            } else {
                format!("[{to}]")
            };
            let flow = format!("{} {from} {to}{port}", case.tool.protocol(case.ipv6))
                .parse()
                .expect("a flow");
            let tables = fw_policy::compile(&policy, &machine).expect("it compiles");
            let said =
                fw_policy::explain(&policy, &tables, &machine, &flow, None, None).expect("it is explained");
            let rule = said.rule.as_ref().map(|rule| rule.name.as_str());
            let expected = match case.expect {
                Expect::Allow(rule) => ("rule", Some(rule)),
                Expect::Deny(rule) => ("deny_rule", Some(rule)),
                Expect::Default => ("deny_default", None),
            };
            assert_eq!((said.reason, rule), expected, "{case:?}");
        }
    }
}
