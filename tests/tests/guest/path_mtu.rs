//! Path MTU discovery: a router behind the firewall, whose address no policy names, says that a packet is too big.

use anyhow::{Result, ensure};
use fw_tests::lab::{End, Namespace, Veth};

use crate::site::{Guard, SOON, run};
use crate::transfer::streams;

/// MTU of the line between the routers; the smallest that IPv6 allows is 1280.
const SMALL: u32 = 1300;

const POLICY: &str = r#"
version: 1
zones:
  client: { addresses: [10.9.0.1, "fd00:9::1"] }
  server: { addresses: [10.9.2.1, "fd00:9:2::1"] }
link: { allow: [arp, nd], multicast: allow }
rules:
  - { name: bulk, allow: [tcp/5001-5099, ping], from: client, to: server }
"#;

/// Client, a pair of ports, two routers with a narrow line between them, and a server with a firewall on its NIC. The
/// first router's errors reach the client through the pair, the second one's the server through its own firewall.
struct Chain {
    client: Namespace,
    dpu: Namespace,
    routers: [Namespace; 2],
    server: Namespace,
}

impl Chain {
    fn new() -> Result<Self> {
        let chain = Self {
            client: Namespace::new("client")?,
            dpu: Namespace::new("dpu")?,
            routers: [Namespace::new("near")?, Namespace::new("far")?],
            server: Namespace::new("server")?,
        };
        let [near, far] = &chain.routers;
        let end = |namespace, name, number| End::new(namespace, name, [2, 0, 0, 0, 0, number]);
        let line = |a: &End<'_>, b: &End<'_>, mtu| Veth::create(a, b, mtu);
        line(
            &end(&chain.client, "eth0", 1)
                .address("10.9.0.1/24")
                .address("fd00:9::1/64"),
            &end(&chain.dpu, "up0", 2),
            1500,
        )?;
        line(
            &end(&chain.dpu, "down0", 3),
            &end(near, "left0", 4)
                .address("10.9.0.254/24")
                .address("fd00:9::fe/64"),
            1500,
        )?;
        line(
            &end(near, "right0", 5)
                .address("10.9.1.1/24")
                .address("fd00:9:1::1/64"),
            &end(far, "left0", 6)
                .address("10.9.1.2/24")
                .address("fd00:9:1::2/64"),
            SMALL,
        )?;
        line(
            &end(far, "right0", 7)
                .address("10.9.2.254/24")
                .address("fd00:9:2::fe/64"),
            &end(&chain.server, "eth0", 8)
                .address("10.9.2.1/24")
                .address("fd00:9:2::1/64"),
            1500,
        )?;
        chain.route()?;
        Ok(chain)
    }

    fn route(&self) -> Result<()> {
        let [near, far] = &self.routers;
        for router in [near, far] {
            router.sysctl("net/ipv4/ip_forward", "1")?;
            router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
            // For a packet that it forwards it asks for the neighbour under its link-local address only.
            for port in ["left0", "right0"] {
                router.ip(&format!("addr add fe80::fe/64 dev {port} nodad"))?;
            }
        }
        for (namespace, v4, v6) in [
            (&self.client, "10.9.0.254", "fd00:9::fe"),
            (near, "10.9.1.2", "fd00:9:1::2"),
            (far, "10.9.1.1", "fd00:9:1::1"),
            (&self.server, "10.9.2.254", "fd00:9:2::fe"),
        ] {
            namespace.ip(&format!(
                "route add default via {v4}\n-6 route add default via {v6}"
            ))?;
        }
        Ok(())
    }
}

#[test]
fn path_mtu() -> Result<()> {
    let chain = Chain::new()?;
    let pair = "mode: inline\nports: [{ name: up0, pair: down0 }, { name: down0 }]";
    let guards = [
        Guard::start(&chain.dpu, pair, POLICY)?,
        Guard::start(&chain.server, "mode: host\nports: [{ name: eth0 }]", POLICY)?,
    ];
    // Streams first: later ends that know the path open with small segments.
    for (number, (address, back)) in (0..).zip([("10.9.2.1", "10.9.0.1"), ("fd00:9:2::1", "fd00:9::1")]) {
        streams(
            (&chain.client, &chain.server),
            address.parse()?,
            5001 + number,
            4,
            128 << 10,
        )?;
        for (namespace, to) in [(&chain.client, address), (&chain.server, back)] {
            let route = run(namespace, &format!("ip -o route get {to}"))?;
            ensure!(
                route.contains(&format!("mtu {SMALL}")),
                "{} has not learnt the path's MTU: {route}",
                namespace.name()
            );
        }
    }
    // Too big and not to be cut: the near router's answer must come through.
    let ping = |size: u32, address: &str| {
        let size = size.to_string();
        let command = [
            "ping", "-n", "-c", "2", "-W", "5", "-M", "do", "-s", &size, address,
        ];
        chain.client.run(&command, SOON)
    };
    for address in ["10.9.2.1", "fd00:9:2::1"] {
        let told = ping(1400, address)?;
        ensure!(
            !told.success() && told.to_string().contains("mtu"),
            "nobody told the client that {address} is behind a narrow line: {told}"
        );
        // No more than the narrow line takes, also behind IPv6's longer header.
        let fits = ping(SMALL - 60, address)?;
        ensure!(fits.success(), "{fits}");
    }
    for guard in &guards {
        guard.refused_nothing()?;
    }
    Ok(())
}
