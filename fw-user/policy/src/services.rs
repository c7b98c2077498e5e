//! Services that need no definition. A policy may define a name of its own here: its definition wins.

/// A built-in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BuiltIn {
    /// Name.
    pub name: &'static str,
    /// What it matches, as a policy would write it.
    pub matches: &'static [&'static str],
    /// Where the ports come from.
    pub source: &'static str,
}

/// IANA, "Service Name and Transport Protocol Port Number Registry".
const IANA: &str = "IANA port registry";
/// Kubernetes documentation, reference, networking.
const KUBERNETES: &str = "Kubernetes, \"Ports and Protocols\"";
/// Slurm documentation.
const SLURM: &str = "Slurm, slurm.conf(5)";
const LUSTRE: &str = "Lustre Operations Manual, LNet module parameters";

const fn service(name: &'static str, matches: &'static [&'static str], source: &'static str) -> BuiltIn {
    BuiltIn {
        name,
        matches,
        source,
    }
}

/// All of them, by name.
pub const BUILT_IN: &[BuiltIn] = &[
    service("bgp", &["tcp/179"], IANA),
    // Monitors (msgr2, msgr1); daemons take ports of a range whose end was 7300 before Ceph 18.
    service(
        "ceph",
        &["tcp/3300", "tcp/6789", "tcp/6800-7568"],
        "Ceph, \"Network Configuration Reference\"",
    ),
    service("dcgm_exporter", &["tcp/9400"], "NVIDIA dcgm-exporter, README"),
    service("dns", &["tcp/53", "udp/53"], IANA),
    service("dns_tls", &["tcp/853"], "RFC 7858"),
    service("etcd", &["tcp/2379-2380"], KUBERNETES),
    service(
        "exporters",
        &["tcp/9100", "tcp/9400"],
        "node_exporter and dcgm_exporter",
    ),
    service(
        "grafana",
        &["tcp/3000"],
        "Grafana, \"Configure Grafana\", http_port",
    ),
    service("http", &["tcp/80"], IANA),
    service("https", &["tcp/443"], IANA),
    service("iperf3", &["tcp/5201", "udp/5201"], "iperf3(1)"),
    service("ipmi", &["udp/623"], "DMTF DSP0136, RMCP"),
    service("kerberos", &["tcp/88", "udp/88"], IANA),
    service("kube_apiserver", &["tcp/6443"], KUBERNETES),
    service("kube_controller_manager", &["tcp/10257"], KUBERNETES),
    service(
        "kube_nodeports",
        &["tcp/30000-32767", "udp/30000-32767"],
        KUBERNETES,
    ),
    service("kube_scheduler", &["tcp/10259"], KUBERNETES),
    service("kubelet", &["tcp/10250"], KUBERNETES),
    service("ldap", &["tcp/389"], IANA),
    service("ldaps", &["tcp/636"], IANA),
    // Every node listens there, and servers open connections to clients too: write `between`.
    service("lustre", &["tcp/988"], LUSTRE),
    // The same from the ports that the acceptor takes by default (accept=secure): a user's program cannot use them.
    service("lustre_secure", &["tcp/988 from 512-1023"], LUSTRE),
    // Sockets of the bootstrap and of the TCP transport: whatever the kernel gives, 32768-60999 unless the host is set otherwise.
    service(
        "nccl",
        &["tcp/32768-60999"],
        "Linux, ip-sysctl, ip_local_port_range",
    ),
    service(
        "nfs",
        &["tcp/2049"],
        "RFC 7530 section 3.1: NFSv4 needs nothing else",
    ),
    // Locks (lockd, statd) take ports that the server's nfs.conf says, which no list can know.
    service(
        "nfs3",
        &[
            "tcp/111",
            "udp/111",
            "tcp/2049",
            "udp/2049",
            "tcp/20048",
            "udp/20048",
        ],
        "RFC 1813, and IANA for rpcbind and mountd",
    ),
    // NFS over RDMA.
    service(
        "nfs_rdma",
        &["tcp/20049", "udp/20049"],
        "RFC 8267, IANA port registry",
    ),
    // As the mount option `resvport` has it: from ports that a user's program cannot use.
    service("nfs_secure", &["tcp/2049 from 1-1023"], "nfs(5), resvport"),
    service("node_exporter", &["tcp/9100"], "Prometheus node_exporter, README"),
    service("ntp", &["udp/123"], IANA),
    service(
        "nvme_tcp",
        &["tcp/4420", "tcp/8009"],
        "NVM Express TCP Transport Specification: I/O and discovery",
    ),
    service(
        "ping",
        &["icmp/echo-request", "icmpv6/echo-request"],
        "RFC 792, RFC 4443",
    ),
    service("prometheus", &["tcp/9090"], "Prometheus, \"Getting started\""),
    service("redfish", &["tcp/443"], "DMTF DSP0266: HTTPS"),
    service(
        "roce",
        &["udp/4791"],
        "InfiniBand Architecture Specification, annex A17 (RoCEv2)",
    ),
    // The daemons among each other; job steps take the ports of SrunPortRange, which the site sets.
    service("slurm", &["tcp/6817-6819"], SLURM),
    service("slurmctld", &["tcp/6817"], SLURM),
    service("slurmd", &["tcp/6818"], SLURM),
    service("slurmdbd", &["tcp/6819"], "Slurm, slurmdbd.conf(5)"),
    service("slurmrestd", &["tcp/6820"], "Slurm, slurmrestd(8)"),
    service("ssh", &["tcp/22"], IANA),
    service("syslog", &["udp/514"], IANA),
    service("syslog_tls", &["tcp/6514"], IANA),
    service("vxlan", &["udp/4789"], IANA),
    service("wireguard", &["udp/51820"], "wireguard.com, \"Quick Start\""),
];

/// The built-in service of a name.
#[must_use]
pub fn built_in(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|service| service.name == name)
}

#[cfg(test)]
mod tests {
    use super::BUILT_IN;

    #[test]
    fn they_are_sorted_and_have_names_and_sources() {
        assert!(BUILT_IN.is_sorted_by(|a, b| a.name < b.name));
        for service in BUILT_IN {
            assert!(crate::names::is_name(service.name), "{service:?}");
            assert!(
                !service.matches.is_empty() && !service.source.is_empty(),
                "{service:?}"
            );
        }
    }
}
