//! What passes between known ends does not pass from a stranger: the same packets from an address that no zone names.

use std::net::IpAddr;
use std::net::UdpSocket;

use anyhow::{Context, Result, anyhow, ensure};
use etherparse::{SlicedPacket, TransportSlice};
use fw_common::abi::Reason;
use fw_tests::lab::UdpEcho;
use fw_tests::packet::{Packet, Unreachable};
use fw_tests::wire::Wire;

use crate::clients::PageServer;
use crate::guarded::{Guarded, SOON};

/// A neighbour of the client that is in no zone.
fn stranger(ipv6: bool) -> Result<IpAddr> {
    Ok(if ipv6 { "fd00:9::66" } else { "10.9.0.66" }.parse()?)
}

/// Ethernet addresses of what the client sends to the server: a router takes it first.
fn on_the_way(guarded: &Guarded, packet: Packet) -> Packet {
    let scene = &guarded.scene;
    let next = match &scene.dpu {
        Some(router) if guarded.routed() => router.mac,
        _ => scene.server.mac,
    };
    packet.macs(scene.client.mac, next)
}

/// Sends frames that must all end with this reason.
fn all_end(guarded: &Guarded, wire: &Wire, frames: &[Packet], reason: Reason) -> Result<()> {
    let before = guarded.packets(reason)?;
    for frame in frames {
        wire.send(&frame.build())?;
    }
    let found = guarded.packets(reason)? - before;
    ensure!(
        found == frames.len() as u64,
        "of {} packets {found} were {}: {}",
        frames.len(),
        reason.name(),
        guarded.counted()
    );
    Ok(())
}

/// An echo of 8,000 bytes in fragments: the client's passes, a stranger's is denied with its first fragment, and the rest with it.
pub fn large_echo(guarded: &Guarded, ipv6: bool) -> Result<()> {
    const BYTES: usize = 8000;
    const PIECE: usize = 1440;
    let wire = Wire::open(&guarded.scene.client.namespace, "eth0")?;
    let pieces = |from: IpAddr| -> Vec<Packet> {
        let echo = Packet::echo_request(from, guarded.server(ipv6), 0x5a5a, 1).payload(&[7; BYTES]);
        (0..BYTES + 8)
            .step_by(PIECE)
            .map(|at| on_the_way(guarded, echo.clone()).fragment(at, at + PIECE, 81))
            .collect()
    };
    for (from, first, rest) in [
        (guarded.client(ipv6), Reason::Rule, Reason::Established),
        (stranger(ipv6)?, Reason::DenyDefault, Reason::FragmentDenied),
    ] {
        let pieces = pieces(from);
        all_end(guarded, &wire, &pieces[..1], first)?;
        // The server's answer is counted as the fragments are, so they are at least as many.
        let before = guarded.packets(rest)?;
        for piece in &pieces[1..] {
            wire.send(&piece.build())?;
        }
        let found = guarded.packets(rest)? - before;
        ensure!(
            found >= pieces.len() as u64 - 1,
            "of {} fragments from {from} {found} were {}: {}",
            pieces.len() - 1,
            rest.name(),
            guarded.counted()
        );
    }
    Ok(())
}

/// A segment of a running HTTP/2 connection once more, from another address: it belongs to no connection.
pub fn segment(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let scene = &guarded.scene;
    let pages = PageServer::start(guarded, ipv6)?;
    let tap = Wire::open(&scene.server.namespace, "eth0")?;
    let wire = Wire::open(&scene.client.namespace, "eth0")?;
    let url = pages.url();
    // So slow that the connection runs while the stranger sends.
    let client = scene.client.namespace.spawn(&[
        "curl",
        "-ksgS",
        "--http2",
        "--limit-rate",
        "100k",
        "-o",
        "/dev/null",
        &url,
    ])?;
    // Behind the handshakes of TCP and TLS.
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen = tap
            .receive(SOON, |frame| request(frame).is_some())?
            .context("the client sent no data")?;
    }
    let (port, numbers, data) = request(&seen).context("the segment cannot be read")?;
    let copy = Packet::tcp((stranger(ipv6)?, port), (guarded.server(ipv6), PageServer::PORT))
        .flags("PA")
        .numbers(numbers.0, numbers.1)
        .payload(&data);
    all_end(guarded, &wire, &[on_the_way(guarded, copy)], Reason::TcpNoFlow)?;
    let finished = client.wait(SOON)?;
    ensure!(
        finished.success(),
        "the client's own connection did not go on: {finished}"
    );
    Ok(())
}

/// Source port, numbers and data of a segment with data for the page server, at most a frame of it.
fn request(frame: &[u8]) -> Option<(u16, (u32, u32), Vec<u8>)> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
        return None;
    };
    let data = tcp.payload();
    let wanted = tcp.destination_port() == PageServer::PORT && !data.is_empty();
    wanted.then(|| {
        (
            tcp.source_port(),
            (tcp.sequence_number(), tcp.acknowledgment_number()),
            data[..data.len().min(1000)].to_vec(),
        )
    })
}

/// "Packet too big" from a router that nobody named: about a flow that lives it passes, about another one it does not.
pub fn too_big(guarded: &Guarded, ipv6: bool) -> Result<()> {
    const PORT: u16 = 5311;
    let (client, server) = (&guarded.scene.client, &guarded.scene.server);
    let _echo = UdpEcho::start(&server.namespace, guarded.server(ipv6), PORT)?;
    let socket = client
        .namespace
        .enter(|| UdpSocket::bind((guarded.client(ipv6), 0)))??;
    socket.set_read_timeout(Some(SOON))?;
    socket.send_to(b"x", (guarded.server(ipv6), PORT))?;
    ensure!(socket.recv(&mut [0; 16])? == 1, "no answer");
    let port = socket.local_addr()?.port();
    let wire = Wire::open(&client.namespace, "eth0")?;
    let about = |port: u16| -> Result<Packet> {
        let quoted =
            Packet::udp((guarded.server(ipv6), PORT), (guarded.client(ipv6), port)).payload(&[7; 100]);
        let error = Packet::unreachable(
            stranger(ipv6)?,
            guarded.server(ipv6),
            Unreachable::TooBig,
            &quoted,
        );
        Ok(on_the_way(guarded, error))
    };
    all_end(guarded, &wire, &[about(port ^ 1)?], Reason::IcmpUnrelated)?;
    all_end(guarded, &wire, &[about(port)?], Reason::Related)?;
    // What the server has learnt is none of the other scenarios' business.
    let family = if ipv6 { "-6" } else { "-4" };
    server
        .namespace
        .check(&["ip", family, "route", "flush", "cache"], SOON)
        .map(drop)
        .map_err(|error| anyhow!("{error:#}"))
}
