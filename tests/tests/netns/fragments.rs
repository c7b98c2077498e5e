//! Datagrams in pieces.

use std::net::UdpSocket;

use anyhow::{Result, ensure};
use fw_common::abi::Engine::{self, Tc, Xdp};
use fw_common::abi::Reason;
use fw_tests::lab::Options;
use fw_tests::packet::Packet;
use fw_tests::wire::Wire;

use crate::guarded::{Guarded, POLICY, SHORTLY, SOON, Stand};

/// 8,000 bytes are six frames each way; the sender's kernel sends them in order.
pub fn large_ping(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let server = guarded.server(ipv6).to_string();
    let ping = ["ping", "-c", "3", "-i", "0.05", "-W", "5", "-s", "8000", &server];
    guarded.scene.client.namespace.check(&ping, SOON)?;
    Ok(())
}

/// One datagram of two fragments from the client, and the server's socket for it.
struct Pieces {
    wire: Wire,
    first: Vec<u8>,
    second: Vec<u8>,
    socket: UdpSocket,
}

impl Pieces {
    const BYTES: usize = 2000;

    fn new(guarded: &Guarded, ipv6: bool, id: u32) -> Result<Self> {
        let (client, server) = (&guarded.scene.client, &guarded.scene.server);
        let to = (server.address(ipv6), 5310);
        let socket = server.namespace.enter(|| UdpSocket::bind(to))??;
        let datagram = Packet::udp((client.address(ipv6), 6100), to)
            .macs(client.mac, server.mac)
            .payload(&[7; Self::BYTES]);
        Ok(Self {
            wire: Wire::open(&client.namespace, "eth0")?,
            first: datagram.clone().fragment(0, 1400, id).build(),
            second: datagram.fragment(1400, 4000, id).build(),
            socket,
        })
    }

    fn arrives(&self, wanted: bool) -> Result<()> {
        self.socket
            .set_read_timeout(Some(if wanted { SOON } else { SHORTLY }))?;
        let got = self.socket.recv(&mut [0; 4096]).ok();
        ensure!(
            got == wanted.then_some(Self::BYTES),
            "the server's socket read {got:?} bytes"
        );
        Ok(())
    }
}

/// The stands of the tests below: each engine, in either mode.
const STANDS: [Stand; 4] = [
    Stand::Host(Xdp),
    Stand::Host(Tc),
    Stand::Inline(Xdp, Xdp),
    Stand::Inline(Tc, Tc),
];

fn each(policy: &str, test: impl Fn(&Guarded, bool) -> Result<()>) -> Result<()> {
    for stand in STANDS {
        let guarded = Guarded::new(stand, Options::default(), policy)?;
        for ipv6 in [false, true] {
            if let Err(error) = test(&guarded, ipv6) {
                return Err(error.context(format!("{stand:?}, IPv6: {ipv6}: {}", guarded.counted())));
            }
        }
    }
    Ok(())
}

/// Strict: what comes before its first fragment is lost, and nothing else. Sent again behind it, the datagram is whole.
#[test]
fn strict_drops_what_comes_before_its_first() -> Result<()> {
    each(POLICY, |guarded, ipv6| {
        let pieces = Pieces::new(guarded, ipv6, 71)?;
        guarded.counts(Reason::FragmentEarly, || pieces.wire.send(&pieces.second))?;
        pieces.wire.send(&pieces.first)?;
        pieces.arrives(false)?;
        pieces.wire.send(&pieces.second)?;
        pieces.arrives(true)
    })
}

/// `pass_early`: the same fragments in the same order are the datagram.
#[test]
fn pass_early_loses_nothing_out_of_order() -> Result<()> {
    let policy = format!("{POLICY}fragments: pass_early\n");
    each(&policy, |guarded, ipv6| {
        let pieces = Pieces::new(guarded, ipv6, 72)?;
        guarded.counts(Reason::FragmentEarlyPass, || pieces.wire.send(&pieces.second))?;
        pieces.wire.send(&pieces.first)?;
        pieces.arrives(true)
    })
}

/// `pass_early` opens nothing where no rule allows the protocol between the two addresses.
#[test]
fn pass_early_is_no_way_around_the_rules() -> Result<()> {
    let policy = format!("{POLICY}fragments: pass_early\n");
    each(&policy, |guarded, ipv6| {
        let (client, server) = (&guarded.scene.client, &guarded.scene.server);
        let stranger: std::net::IpAddr = if ipv6 { "fd00:9::66" } else { "10.9.0.66" }.parse()?;
        let wire = Wire::open(&client.namespace, "eth0")?;
        let datagram = Packet::udp((stranger, 6100), (server.address(ipv6), 5310))
            .macs(client.mac, server.mac)
            .payload(&[7; 2000]);
        guarded.counts(Reason::FragmentEarly, || {
            wire.send(&datagram.fragment(1400, 4000, 73).build())
        })
    })
}

/// Frames of 9,000 bytes: by native XDP they lie in several pages, of which the program sees the first.
fn jumbo(stand: Stand) -> Result<()> {
    let engines = match stand {
        Stand::Host(engine) => [engine, Tc],
        Stand::Inline(outer, inner) => [outer, inner],
        Stand::Router(outer, inner) => [outer.unwrap_or(Tc), inner],
    };
    let hop = |engine: Engine| engine == Xdp;
    let options = Options {
        mtu: 9000,
        client_offloads: true,
        server_offloads: true,
        client_hop: hop(engines[0]),
        server_hop: hop(engines[1]),
        ..Options::default()
    };
    let guarded = Guarded::new(stand, options, POLICY)?;
    for ipv6 in [false, true] {
        let server = guarded.server(ipv6).to_string();
        let ping = [
            "ping", "-c", "3", "-i", "0.05", "-W", "5", "-M", "do", "-s", "8900", &server,
        ];
        guarded.scene.client.namespace.check(&ping, SOON)?;
        crate::bulk::iperf3(&guarded, ipv6)?;
    }
    Ok(())
}

#[test]
fn jumbo_frames_host_xdp() -> Result<()> {
    jumbo(Stand::Host(Xdp))
}

#[test]
fn jumbo_frames_inline_xdp() -> Result<()> {
    jumbo(Stand::Inline(Xdp, Xdp))
}

#[test]
fn jumbo_frames_inline_tc() -> Result<()> {
    jumbo(Stand::Inline(Tc, Tc))
}
