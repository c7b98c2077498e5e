//! Veth pairs between namespaces.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Namespace;

/// One end of a pair.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a feature of an interface, on or off"
)]
#[derive(Clone, Debug)]
pub struct End<'a> {
    namespace: &'a Namespace,
    name: String,
    mac: [u8; 6],
    addresses: Vec<String>,
    detect_duplicates: bool,
    offloads: bool,
    tx_vlan: bool,
    gro: bool,
}

impl<'a> End<'a> {
    /// An end of this name, with defaults that suit a test: no address, checksums and segments made in software, GRO
    /// on, tags in the frame.
    #[must_use]
    pub fn new(namespace: &'a Namespace, name: &str, mac: [u8; 6]) -> Self {
        Self {
            namespace,
            name: name.to_owned(),
            mac,
            addresses: Vec::new(),
            detect_duplicates: false,
            offloads: false,
            tx_vlan: false,
            gro: true,
        }
    }

    /// Adds an address with its prefix length, IPv4 or IPv6.
    #[must_use]
    pub fn address(mut self, address: &str) -> Self {
        self.addresses.push(address.to_owned());
        self
    }

    /// Lets the kernel look for duplicates of the IPv6 addresses (otherwise they are added `nodad`).
    #[must_use]
    pub fn detect_duplicates(mut self) -> Self {
        self.detect_duplicates = true;
        self
    }

    /// Leaves transport checksums and TCP segments to hardware that a veth pair does not have: the other end sees
    /// packets of up to 64 KiB without a checksum. Off by default, because a native redirect forgets that the checksum
    /// is missing and the packets arrive with bad ones; a [`super::Hop`] in between mends that. (The kernel allows TSO only together
    /// with checksums.)
    #[must_use]
    pub fn offloads(mut self, on: bool) -> Self {
        self.offloads = on;
        self
    }

    /// VLAN tags travel beside the frame, where the peer's XDP program cannot see them. Off by default.
    #[must_use]
    pub fn tx_vlan(mut self, on: bool) -> Self {
        self.tx_vlan = on;
        self
    }

    /// Generic receive offload: on by default, because the peer is a native redirect's target only if this end runs an
    /// XDP program or has GRO on.
    #[must_use]
    pub fn gro(mut self, on: bool) -> Self {
        self.gro = on;
        self
    }

    fn set_up(&self, mtu: u32) -> Result<()> {
        let Self { namespace, name, .. } = self;
        let on_off = |on: bool| if on { "on" } else { "off" };
        namespace.sysctl(
            &format!("net/ipv6/conf/{name}/addr_gen_mode"),
            if self.detect_duplicates { "0" } else { "1" },
        )?;
        for address in &self.addresses {
            let nodad = if address.contains(':') && !self.detect_duplicates {
                "nodad"
            } else {
                ""
            };
            namespace.ip(&format!("addr add {address} dev {name} {nodad}"))?;
        }
        let set = |features: &[&str]| {
            namespace
                .check(
                    &[&["ethtool", "-K", name], features].concat(),
                    Duration::from_secs(5),
                )
                .map(drop)
        };
        let (offloads, vlan) = (on_off(self.offloads), on_off(self.tx_vlan));
        set(&["tx", offloads, "tso", offloads, "txvlan", vlan, "rxvlan", vlan])?;
        namespace.ip(&format!("link set {name} mtu {mtu} up"))?;
        // Only a change of GRO while the link is up tells the peer that it is a redirect's target now
        // (drivers/net/veth.c, veth_set_features).
        set(&["gro", on_off(self.gro)])
    }
}

/// A veth pair with two queues on each side, up, with addresses and offloads as its ends say.
#[derive(Debug)]
pub struct Veth;

impl Veth {
    /// Creates the pair. It goes away with either namespace.
    ///
    /// # Errors
    /// If a command refuses; its output is in the error.
    pub fn create(a: &End<'_>, b: &End<'_>, mtu: u32) -> Result<()> {
        a.namespace
            .ip(&format!(
                "link add {} address {} numrxqueues 2 numtxqueues 2 type veth peer name {} address {} netns {} \
                 numrxqueues 2 numtxqueues 2",
                a.name,
                mac_text(a.mac),
                b.name,
                mac_text(b.mac),
                b.namespace.name()
            ))
            .with_context(|| format!("cannot create the veth pair {} - {}", a.name, b.name))?;
        a.set_up(mtu)?;
        b.set_up(mtu)
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
