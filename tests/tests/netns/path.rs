//! What lies on a path behind the firewall: a narrow line, a router that nobody named, a client that is silent for hours.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use anyhow::{Context, Result, ensure};
use fw_common::abi::Engine::{Tc, Xdp};
use fw_common::abi::Reason;
use fw_tests::lab::{End, Host, Namespace, Options, Veth};
use fw_tests::packet::Packet;
use fw_tests::wire::Wire;
use fw_user::dataplane;

use crate::guarded::{ANSWERS, Guarded, POLICY, SHORTLY, SOON, Stand};

/// MTU of the line behind the router; the smallest that IPv6 allows is 1280.
const NARROW: u32 = 1300;

/// The client reaches what lies behind the server.
const FAR: &str = r#"
version: 1
zones:
  client: { addresses: [10.9.0.1, "fd00:9::1"] }
  far:    { addresses: [10.9.2.1, "fd00:9:2::1"] }
link: { allow: [arp, nd] }
rules:
  - { name: bulk, allow: [tcp/5001, ping], from: client, to: far }
"#;

/// This machine itself, in mode host the server, reaches what lies behind the client.
const FAR_OF_HOST: &str = r#"
version: 1
zones:
  far: { addresses: [10.9.2.1, "fd00:9:2::1"] }
link: { allow: [arp, nd] }
rules:
  - { name: bulk, allow: [tcp/5001, ping], from: self, to: far }
"#;

/// One end of the scene becomes a router, and a narrow line leads from it to the machine that the other end, the client,
/// talks to.
fn far_behind(router: &Host, client: &Host) -> Result<Namespace> {
    let far = Namespace::new("far")?;
    let mac = |last| [2, 0, 0, 0, 9, last];
    Veth::create(
        &End::new(&router.namespace, "far0", mac(1))
            .address("10.9.2.254/24")
            .address("fd00:9:2::fe/64"),
        &End::new(&far, "eth0", mac(2))
            .address("10.9.2.1/24")
            .address("fd00:9:2::1/64"),
        NARROW,
    )?;
    router.namespace.sysctl("net/ipv4/ip_forward", "1")?;
    router.namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    // For a packet that it forwards it asks for the neighbour under its link-local address only.
    for port in ["eth0", "far0"] {
        router
            .namespace
            .ip(&format!("addr add fe80::2/64 dev {port} nodad"))?;
    }
    client.namespace.ip(&format!(
        "route add default via {}\n-6 route add default via {}",
        router.v4, router.v6
    ))?;
    // As if the narrow line were in the middle: what the far machine asks for does not tell of it.
    far.ip(
        "route add default via 10.9.2.254 advmss 1460\n-6 route add default via fd00:9:2::fe advmss 1440",
    )?;
    Ok(far)
}

/// The router's "packet too big" reaches the client through the firewall, though no rule names the router; an upload of
/// full-sized segments then comes through whole.
fn narrow_line(stand: Stand) -> Result<()> {
    const BYTES: usize = 2_000_000;
    let host = matches!(stand, Stand::Host(_));
    let policy = if host { FAR_OF_HOST } else { FAR };
    let guarded = Guarded::new(stand, Options::default(), policy)?;
    let ends = (&guarded.scene.client, &guarded.scene.server);
    // In mode host the firewall guards the end that sends.
    let (client, router) = if host { (ends.1, ends.0) } else { ends };
    let far = far_behind(router, client)?;
    for address in ["10.9.2.1", "fd00:9:2::1"] {
        let target = SocketAddr::new(address.parse()?, 5001);
        let listener = far.enter(|| TcpListener::bind(target))??;
        let server = std::thread::spawn(move || -> std::io::Result<usize> {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(SOON))?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all)
        });
        guarded.counts(Reason::Related, || {
            let mut stream = client
                .namespace
                .enter(|| TcpStream::connect_timeout(&target, SOON))??;
            stream.set_write_timeout(Some(SOON))?;
            Ok(stream.write_all(&vec![7; BYTES])?)
        })?;
        let read = server.join().expect("the server's thread does not panic")?;
        ensure!(read == BYTES, "{read} of {BYTES} bytes arrived at {address}");
        let route = client
            .namespace
            .check(&["ip", "-o", "route", "get", address], SOON)?;
        ensure!(
            route.contains(&format!("mtu {NARROW}")),
            "the client has not learnt the path's MTU: {route}"
        );
        let size = (NARROW - 60).to_string();
        client.namespace.check(
            &["ping", "-c", "1", "-W", "5", "-M", "do", "-s", &size, address],
            SOON,
        )?;
    }
    Ok(())
}

#[test]
fn path_mtu_host_xdp() -> Result<()> {
    narrow_line(Stand::Host(Xdp))
}

#[test]
fn path_mtu_host_tc() -> Result<()> {
    narrow_line(Stand::Host(Tc))
}

#[test]
fn path_mtu_inline_xdp() -> Result<()> {
    narrow_line(Stand::Inline(Xdp, Xdp))
}

#[test]
fn path_mtu_inline_tc() -> Result<()> {
    narrow_line(Stand::Inline(Tc, Tc))
}

/// A connection of a real client that is silent for five hours of the firewall's clock, and then for four days, goes on as if
/// nothing had been: either side may speak first. (The state ESTABLISHED lives for five days, as `nf_conntrack`'s does.)
#[test]
fn a_session_is_idle_for_hours() -> Result<()> {
    const HOUR: u64 = 3_600_000_000_000;
    for stand in [Stand::Host(Xdp), Stand::Inline(Xdp, Xdp), Stand::Inline(Tc, Tc)] {
        let plane = dataplane::Options {
            clock_override: true,
            replies_per_window: ANSWERS,
            ..dataplane::Options::default()
        };
        let guarded = Guarded::with(stand, Options::default(), POLICY, plane)?;
        let mut clock = 1 << 50;
        guarded.tables().set_clock(clock);
        for ipv6 in [false, true] {
            let target = SocketAddr::new(guarded.server(ipv6), 82);
            let listener = guarded
                .scene
                .server
                .namespace
                .enter(|| TcpListener::bind(target))??;
            let mut client = guarded
                .scene
                .client
                .namespace
                .enter(|| TcpStream::connect_timeout(&target, SOON))??;
            let (mut server, _) = listener.accept()?;
            for side in [&client, &server] {
                side.set_read_timeout(Some(SOON))?;
                side.set_nodelay(true)?;
            }
            talk(&mut client, &mut server)?;
            for hours in [5, 96] {
                clock += hours * HOUR;
                guarded.tables().set_clock(clock);
                talk(&mut server, &mut client)
                    .and_then(|()| talk(&mut client, &mut server))
                    .with_context(|| format!("{stand:?}: after {hours} hours: {}", guarded.counted()))?;
            }
        }
    }
    Ok(())
}

fn talk(from: &mut TcpStream, to: &mut TcpStream) -> Result<()> {
    from.write_all(b"still there?")?;
    let mut heard = [0; 12];
    to.read_exact(&mut heard)?;
    ensure!(&heard == b"still there?");
    Ok(())
}

/// Extension headers in datagrams of a live flow reach the server's socket; the same packets from a stranger's address do not.
#[test]
fn extension_headers_of_a_live_flow() -> Result<()> {
    const HOP_BY_HOP: u8 = 0;
    const DESTINATION: u8 = 60;
    for stand in [
        Stand::Host(Xdp),
        Stand::Host(Tc),
        Stand::Inline(Xdp, Xdp),
        Stand::Inline(Tc, Tc),
    ] {
        let guarded = Guarded::new(stand, Options::default(), POLICY)?;
        let (client, server) = (&guarded.scene.client, &guarded.scene.server);
        let to = (server.v6, 5320);
        let socket = server.namespace.enter(|| UdpSocket::bind(to))??;
        let own = client.namespace.enter(|| UdpSocket::bind((client.v6, 6200)))??;
        for side in [&socket, &own] {
            side.set_read_timeout(Some(SOON))?;
        }
        let mut buffer = [0; 64];
        // A live flow: asked, answered, asked again.
        own.send_to(b"a", to)?;
        let (_, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(b"b", from)?;
        own.recv(&mut buffer)?;
        own.send_to(b"c", to)?;
        socket.recv(&mut buffer)?;
        let wire = Wire::open(&client.namespace, "eth0")?;
        let chains: [&[u8]; 4] = [
            &[HOP_BY_HOP],
            &[DESTINATION],
            &[HOP_BY_HOP, DESTINATION],
            // A destination header in front of the last destination header: RFC 8200 section 4.1 permits two.
            &[HOP_BY_HOP, DESTINATION, DESTINATION],
        ];
        for (number, chain) in (0_u8..).zip(chains) {
            let packet = |src: Ipv6Addr| {
                let packet = Packet::udp((src, 6200), to)
                    .macs(client.mac, server.mac)
                    .payload(&[number; 20]);
                chain
                    .iter()
                    .fold(packet, |packet, header| packet.padding_extension(*header))
                    .build()
            };
            guarded
                .counts(Reason::Established, || wire.send(&packet(client.v6)))
                .with_context(|| format!("{stand:?}, {chain:?}: {}", guarded.counted()))?;
            let length = socket.recv(&mut buffer)?;
            ensure!(buffer[..length] == [number; 20], "another datagram arrived");
            guarded.counts(Reason::DenyDefault, || wire.send(&packet("fd00:9::66".parse()?)))?;
        }
        socket.set_read_timeout(Some(SHORTLY))?;
        ensure!(
            socket.recv(&mut buffer).is_err(),
            "{stand:?}: a stranger's datagram arrived"
        );
    }
    Ok(())
}
