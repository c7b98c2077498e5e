//! The kernel's own firewall as a judge: a router with nftables between two wires.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Result, ensure};
use fw_tests::lab::{End, Namespace, Veth};
use fw_tests::traffic::{OPEN, client, server};
use fw_tests::wire::Wire;

/// Ethernet addresses: the client's and the server's end, the router's ports towards them.
const MACS: [[u8; 6]; 4] = [
    [2, 0, 0, 0, 0, 1],
    [2, 0, 0, 0, 0, 2],
    [2, 0, 0, 0, 1, 1],
    [2, 0, 0, 0, 1, 2],
];
/// How long a command may take.
const SOON: Duration = Duration::from_secs(10);

/// The namespaces with a wire at each end.
pub struct Nft {
    router: Namespace,
    wires: [Wire; 2],
    next: Cell<u16>,
    _ends: [Namespace; 2],
}

impl Nft {
    pub fn new() -> Result<Self> {
        let ends = [Namespace::new("client")?, Namespace::new("server")?];
        let router = Namespace::new("nft")?;
        for (side, end) in ends.iter().enumerate() {
            let port = format!("port{side}");
            Veth::create(
                &End::new(end, "end0", MACS[side]),
                &End::new(&router, &port, MACS[2 + side])
                    .address(&format!("10.9.{side}.254/24"))
                    .address(&format!("fd00:9:0:{side}::fe/64")),
                3000,
            )?;
            // Its stack must not answer what is for the connections' ends.
            end.sysctl("net/ipv6/conf/end0/disable_ipv6", "1")?;
        }
        let nft = Self {
            wires: [Wire::open(&ends[0], "end0")?, Wire::open(&ends[1], "end0")?],
            router,
            next: Cell::new(1),
            _ends: ends,
        };
        nft.route()?;
        nft.rules()?;
        Ok(nft)
    }

    fn route(&self) -> Result<()> {
        let router = &self.router;
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/port0/rp_filter", "0"),
            ("net/ipv4/conf/port1/rp_filter", "0"),
            ("net/ipv4/conf/all/send_redirects", "0"),
        ] {
            router.sysctl(key, value)?;
        }
        let hosts = [1, 2, 3, 4, 200];
        for ipv6 in [false, true] {
            for number in hosts {
                for (side, address) in [client(number, ipv6), server(number, ipv6)].iter().enumerate() {
                    let mac = MACS[side].map(|byte| format!("{byte:02x}")).join(":");
                    router.ip(&format!(
                        "neigh replace {address} lladdr {mac} dev port{side} nud permanent"
                    ))?;
                }
            }
        }
        Ok(())
    }

    /// The same policy, with the kernel's connection tracking as strict as it can be.
    fn rules(&self) -> Result<()> {
        let rules = format!(
            "table inet twin {{\n\
             chain forward {{\n\
             type filter hook forward priority filter; policy drop;\n\
             ct state invalid drop\n\
             ct state established,related accept\n\
             iifname port0 tcp dport {OPEN} ct state new tcp flags & (fin | syn | rst | ack) == syn accept\n\
             iifname port0 udp dport {OPEN} ct state new accept\n\
             iifname port0 icmp type echo-request ct state new accept\n\
             iifname port0 icmpv6 type echo-request ct state new accept\n\
             }}\n\
             }}\n"
        );
        let file = std::env::temp_dir().join(format!("{}.nft", self.router.name()));
        std::fs::write(&file, rules)?;
        let loaded = self
            .router
            .check(&["nft", "-f", &file.display().to_string()], SOON);
        std::fs::remove_file(&file)?;
        loaded?;
        self.router.sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")?;
        self.router
            .sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "0")
    }

    /// Sends a frame at one end; true if it comes out at the other within `patience`.
    pub fn passes(&self, from_client: bool, mut frame: Vec<u8>, patience: Duration) -> Result<bool> {
        let (from, to) = if from_client { (0, 1) } else { (1, 0) };
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        frame[..6].copy_from_slice(&MACS[2 + from]);
        frame[6..12].copy_from_slice(&MACS[from]);
        stamp(&mut frame, number);
        self.wires[from].send(&frame)?;
        let late = Cell::new(false);
        let arrived = self.wires[to].receive(patience, |frame| {
            let own = frame[..6] == MACS[to];
            let wanted = own && stamp_of(frame) == number;
            late.set(late.get() || (own && !wanted));
            wanted
        })?;
        ensure!(
            !late.get(),
            "a frame arrived later than it was waited for: this machine is too busy for the comparison"
        );
        Ok(arrived.is_some())
    }
}

/// Writes a number where routers leave it alone: IPv4's identification, or half of IPv6's flow label.
fn stamp(frame: &mut [u8], number: u16) {
    if frame[14] >> 4 == 6 {
        frame[16..18].copy_from_slice(&number.to_be_bytes());
        return;
    }
    frame[18..20].copy_from_slice(&number.to_be_bytes());
    frame[24..26].fill(0);
    let mut sum: u32 = frame[14..34]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

fn stamp_of(frame: &[u8]) -> u16 {
    let at = if frame[14] >> 4 == 6 { 16 } else { 18 };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}
