//! The places where the firewall stands: on a server's own NIC, inline before a server, and on a router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{End, Hop, Namespace, Veth};

/// A machine with one NIC, `eth0`.
#[derive(Debug)]
pub struct Host {
    /// Where it lives.
    pub namespace: Namespace,
    /// Address of its NIC.
    pub mac: [u8; 6],
    /// Its IPv4 address, in a /24 with all others.
    pub v4: Ipv4Addr,
    /// Its IPv6 address, in a /64 with all others.
    pub v6: Ipv6Addr,
}

impl Host {
    /// Host number `number` of the lab's network.
    ///
    /// # Errors
    /// If the namespace cannot be created.
    pub fn new(label: &str, number: u8) -> Result<Self> {
        Ok(Self {
            namespace: Namespace::new(label)?,
            mac: [2, 0, 0, 0, 0, number],
            v4: Ipv4Addr::new(10, 9, 0, number),
            v6: Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, u16::from(number)),
        })
    }

    /// Its address of one family.
    #[must_use]
    pub fn address(&self, ipv6: bool) -> IpAddr {
        if ipv6 { self.v6.into() } else { self.v4.into() }
    }

    /// The NIC's end of a pair, with both addresses.
    #[must_use]
    pub fn end(&self, interface: &str) -> End<'_> {
        End::new(&self.namespace, interface, self.mac)
            .address(&format!("{}/24", self.v4))
            .address(&format!("{}/64", self.v6))
    }
}

/// What a scene is made of.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a feature of an interface, on or off"
)]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The client's NIC leaves checksums and segments to "hardware".
    pub client_offloads: bool,
    /// The server's NIC does.
    pub server_offloads: bool,
    /// A [`Hop`] stands between the client and the firewall.
    pub client_hop: bool,
    /// One stands between the server and the firewall. Of no use where the firewall is on the server's own NIC.
    pub server_hop: bool,
    /// The ends at the client and the server send VLAN tags beside the frame.
    pub tx_vlan: bool,
    /// The server's kernel looks for duplicates of its IPv6 addresses.
    pub detect_duplicates: bool,
    /// MTU of all interfaces.
    pub mtu: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client_offloads: false,
            server_offloads: false,
            client_hop: false,
            server_hop: false,
            tx_vlan: false,
            detect_duplicates: false,
            mtu: 1500,
        }
    }
}

/// A client, a server, and the machine whose data plane is under test.
#[derive(Debug)]
pub struct Scene {
    /// Host 1.
    pub client: Host,
    /// Host 2.
    pub server: Host,
    /// Inline and routed only: host 3, between the two. Its ports are `up0` (client's side, carries its addresses) and
    /// `down0`.
    pub dpu: Option<Host>,
    /// Between the client and the firewall, if asked for.
    pub client_hop: Option<Hop>,
    /// Between the server and the firewall, if asked for.
    pub server_hop: Option<Hop>,
}

impl Scene {
    /// Client and server back to back; the firewall stands on the server's `eth0`.
    ///
    /// # Errors
    /// If a set-up command refuses.
    pub fn direct(options: Options) -> Result<Self> {
        let (client, server) = (Host::new("client", 1)?, Host::new("server", 2)?);
        let client_hop = connect(
            &options.client_end(&client),
            &options.server_end(&server),
            options.client_hop,
            options.mtu,
        )?;
        Ok(Self {
            client,
            server,
            dpu: None,
            client_hop,
            server_hop: None,
        })
    }

    /// Client and server with a machine between them that connects its two ports only through the data plane.
    ///
    /// # Errors
    /// If a set-up command refuses.
    pub fn inline(options: Options) -> Result<Self> {
        Self::between(options, Host::new("server", 2)?, &[])
    }

    /// Client and server in two networks with a router between them. Its second port has [`Scene::ROUTER`] for addresses.
    ///
    /// # Errors
    /// If a set-up command refuses.
    pub fn routed(options: Options) -> Result<Self> {
        let mut server = Host::new("server", 2)?;
        server.v4 = Ipv4Addr::new(10, 9, 1, 2);
        server.v6 = Ipv6Addr::new(0xfd00, 9, 0, 1, 0, 0, 0, 2);
        let (v4, v6) = Self::ROUTER;
        let scene = Self::between(options, server, &[format!("{v4}/24"), format!("{v6}/64")])?;
        if let Some(router) = &scene.dpu {
            router.namespace.sysctl("net/ipv4/ip_forward", "1")?;
            router.namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
            // For a packet that it forwards it asks for the neighbour under its link-local address only.
            for port in ["up0", "down0"] {
                router
                    .namespace
                    .ip(&format!("addr add fe80::3/64 dev {port} nodad"))?;
            }
            for (host, v4, v6) in [(&scene.client, router.v4, router.v6), (&scene.server, v4, v6)] {
                host.namespace.ip(&format!(
                    "route add default via {v4}\n-6 route add default via {v6}"
                ))?;
            }
        }
        Ok(scene)
    }

    /// The router's addresses in the server's network.
    pub const ROUTER: (Ipv4Addr, Ipv6Addr) = (
        Ipv4Addr::new(10, 9, 1, 3),
        Ipv6Addr::new(0xfd00, 9, 0, 1, 0, 0, 0, 3),
    );

    /// Client, machine with two ports, server; `addresses` are those of the machine's second port.
    fn between(options: Options, server: Host, addresses: &[String]) -> Result<Self> {
        let (client, dpu) = (Host::new("client", 1)?, Host::new("dpu", 3)?);
        let outer = dpu.end("up0");
        let inner = End::new(&dpu.namespace, "down0", [2, 0, 0, 0, 1, 3]);
        let inner = addresses.iter().fold(inner, |end, address| end.address(address));
        let (client_end, server_end) = (options.client_end(&client), options.server_end(&server));
        let client_hop = connect(&client_end, &outer, options.client_hop, options.mtu)?;
        let server_hop = connect(&server_end, &inner, options.server_hop, options.mtu)?;
        Ok(Self {
            client,
            server,
            dpu: Some(dpu),
            client_hop,
            server_hop,
        })
    }

    /// Where the data plane is loaded.
    #[must_use]
    pub fn guard(&self) -> &Host {
        self.dpu.as_ref().unwrap_or(&self.server)
    }
}

/// Connects an end with the firewall's port, by a cable or through a hop.
fn connect(end: &End<'_>, port: &End<'_>, hop: bool, mtu: u32) -> Result<Option<Hop>> {
    if hop {
        Hop::between(end, port, mtu).map(Some)
    } else {
        Veth::create(end, port, mtu).map(|()| None)
    }
}

impl Options {
    fn client_end(self, client: &Host) -> End<'_> {
        client
            .end("eth0")
            .offloads(self.client_offloads)
            .tx_vlan(self.tx_vlan)
    }

    fn server_end(self, server: &Host) -> End<'_> {
        let end = server
            .end("eth0")
            .offloads(self.server_offloads)
            .tx_vlan(self.tx_vlan);
        if self.detect_duplicates {
            end.detect_duplicates()
        } else {
            end
        }
    }
}
