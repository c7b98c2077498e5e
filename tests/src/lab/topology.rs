//! The two places where the firewall stands: on a server's own NIC, and inline before a server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{End, Namespace, Veth};

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
    /// Inline only: host 3, between the two. Its ports are `up0` (client's side, carries its addresses) and `down0`.
    pub dpu: Option<Host>,
}

impl Scene {
    /// Client and server back to back; the firewall stands on the server's `eth0`.
    ///
    /// # Errors
    /// If a set-up command refuses.
    pub fn direct(options: Options) -> Result<Self> {
        let scene = Self {
            client: Host::new("client", 1)?,
            server: Host::new("server", 2)?,
            dpu: None,
        };
        Veth::create(
            &scene.client_end(options),
            &scene.server_end(options),
            options.mtu,
        )?;
        Ok(scene)
    }

    /// Client and server with a machine between them that connects its two ports only through the data plane.
    ///
    /// # Errors
    /// If a set-up command refuses.
    pub fn inline(options: Options) -> Result<Self> {
        let dpu = Host::new("dpu", 3)?;
        let scene = Self {
            client: Host::new("client", 1)?,
            server: Host::new("server", 2)?,
            dpu: Some(dpu),
        };
        if let Some(dpu) = &scene.dpu {
            Veth::create(&scene.client_end(options), &dpu.end("up0"), options.mtu)?;
            let inner = End::new(&dpu.namespace, "down0", [2, 0, 0, 0, 1, 3]);
            Veth::create(&inner, &scene.server_end(options), options.mtu)?;
        }
        Ok(scene)
    }

    /// Where the data plane is loaded.
    #[must_use]
    pub fn guard(&self) -> &Host {
        self.dpu.as_ref().unwrap_or(&self.server)
    }

    fn client_end(&self, options: Options) -> End<'_> {
        self.client
            .end("eth0")
            .offloads(options.client_offloads)
            .tx_vlan(options.tx_vlan)
    }

    fn server_end(&self, options: Options) -> End<'_> {
        let end = self
            .server
            .end("eth0")
            .offloads(options.server_offloads)
            .tx_vlan(options.tx_vlan);
        if options.detect_duplicates {
            end.detect_duplicates()
        } else {
            end
        }
    }
}
