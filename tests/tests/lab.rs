//! The lab's own tests: without a firewall everything passes, so a later "denied" is the firewall's doing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fw_tests::lab::{Hop, Options, Scene, TcpService, UdpEcho};
use fw_tests::packet::{Packet, link};
use fw_tests::wire::{TagPusher, Wire};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn clients_reach_servers() -> Result<()> {
    let scene = Scene::direct(Options {
        client_offloads: true,
        server_offloads: true,
        ..Options::default()
    })?;
    for ipv6 in [false, true] {
        let server = scene.server.address(ipv6);
        let _http = TcpService::start(&scene.server.namespace, server, 80)?;
        let _echo = UdpEcho::start(&scene.server.namespace, server, 53)?;
        scene
            .client
            .namespace
            .check(&["ping", "-c", "1", "-W", "2", &server.to_string()], SOON)?;
        let host = if ipv6 {
            format!("[{server}]")
        } else {
            server.to_string()
        };
        let page = scene
            .client
            .namespace
            .check(&["curl", "-sg", &format!("http://{host}/")], SOON)?;
        ensure!(page == TcpService::BODY, "curl read {page:?}");
        let socket = scene
            .client
            .namespace
            .enter(|| UdpSocket::bind((scene.client.address(ipv6), 0)))??;
        socket.set_read_timeout(Some(SOON))?;
        socket.send_to(b"hello", (server, 53))?;
        let mut answer = [0; 16];
        ensure!(socket.recv(&mut answer)? == 5 && answer.starts_with(b"hello"));
    }
    Ok(())
}

#[test]
fn nothing_outlives_its_handle() -> Result<()> {
    let scene = Scene::inline(Options::default())?;
    let path = scene.client.namespace.path().to_owned();
    let mut sleeper = scene.client.namespace.spawn(&["sleep", "60"])?;
    ensure!(path.exists() && !sleeper.ended()?);
    let pid = sleeper.pid();
    drop(sleeper);
    drop(scene);
    ensure!(!path.exists(), "the namespace is still there");
    ensure!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "the process is still there"
    );
    Ok(())
}

#[test]
fn a_wire_carries_frames_and_tags_as_they_are() -> Result<()> {
    let scene = Scene::direct(Options::default())?;
    let (from, to) = (
        Wire::open(&scene.client.namespace, "eth0")?,
        Wire::open(&scene.server.namespace, "eth0")?,
    );
    for tags in [&[][..], &[101], &[101, 102]] {
        let frame = Packet::udp((scene.client.v4, 7), (scene.server.v4, 9))
            .tags(tags)
            .payload(b"lab")
            .build();
        from.send(&frame)?;
        let arrived = to.receive(SOON, |arrived| arrived == frame)?;
        ensure!(
            arrived.is_some(),
            "the frame with the tags {tags:?} did not arrive as it was sent"
        );
    }
    Ok(())
}

#[test]
fn a_tag_beside_the_frame_arrives() -> Result<()> {
    let scene = Scene::direct(Options {
        tx_vlan: true,
        ..Options::default()
    })?;
    let _pusher = TagPusher::attach(&scene.client.namespace, "eth0", 101)?;
    let (from, to) = (
        Wire::open(&scene.client.namespace, "eth0")?,
        Wire::open(&scene.server.namespace, "eth0")?,
    );
    let packet = Packet::udp((scene.client.v4, 7), (scene.server.v4, 9)).payload(b"lab");
    from.send(&packet.clone().build())?;
    let tagged = packet.tags(&[101]).build();
    ensure!(
        to.receive(SOON, |arrived| arrived == tagged)?.is_some(),
        "no tagged frame arrived"
    );
    Ok(())
}

/// Mean length of the packets that the client and, if there is one, its hop send while 4 MB go to the server.
fn means(scene: &Scene) -> Result<(u64, Option<u64>)> {
    const AMOUNT: usize = 4_000_000;
    let address = (scene.server.v4, 5000);
    let listener = scene.server.namespace.enter(|| TcpListener::bind(address))??;
    let hop = scene.client_hop.as_ref();
    let wire = || hop.map(|hop| hop.namespace.sent(Hop::WIRE)).transpose();
    let (before, wire_before) = (scene.client.namespace.sent("eth0")?, wire()?);
    let mut client = scene.client.namespace.enter(|| TcpStream::connect(address))??;
    let (mut server, _) = listener.accept()?;
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(SOON))?;
        socket.set_write_timeout(Some(SOON))?;
    }
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || server.read_exact(&mut vec![0; AMOUNT]));
        client.write_all(&vec![7; AMOUNT])?;
        reader.join().expect("the reader does not panic")
    })?;
    let mean = scene.client.namespace.sent("eth0")?.mean_since(before);
    let wire = wire()?.zip(wire_before);
    Ok((mean, wire.map(|(after, before)| after.mean_since(before))))
}

/// That an end sends super-packets is seen in its counters, and that it does not too.
#[test]
fn a_hop_cuts_super_packets_to_the_size_of_the_wire() -> Result<()> {
    const LONGEST: u64 = 1514;
    let plain = means(&Scene::direct(Options::default())?)?.0;
    ensure!(
        (1000..=LONGEST).contains(&plain),
        "{plain} bytes in the mean without TSO"
    );
    let (sent, wire) = means(&Scene::direct(Options {
        client_offloads: true,
        client_hop: true,
        ..Options::default()
    })?)?;
    ensure!(
        sent > 2 * LONGEST,
        "only {sent} bytes in the mean with TSO: no super-packets"
    );
    let wire = wire.context("there is a hop")?;
    ensure!(
        (1000..=LONGEST).contains(&wire),
        "{wire} bytes in the mean behind the hop"
    );
    println!("bytes in the mean: {plain} without TSO, {sent} with it, {wire} behind the hop");
    Ok(())
}

/// All link protocols, LACP too, which no bridge would forward, and frames of every length with their tags.
#[test]
fn a_hop_carries_every_frame_as_it_is() -> Result<()> {
    let scene = Scene::direct(Options {
        client_hop: true,
        ..Options::default()
    })?;
    let (client, server) = (
        Wire::open(&scene.client.namespace, "eth0")?,
        Wire::open(&scene.server.namespace, "eth0")?,
    );
    let packet = Packet::udp((scene.client.v4, 7), (scene.server.v4, 9));
    let frames = [
        link::lldp(),
        link::lacp(),
        link::frame(link::BROADCAST, 0x88b5, &[7; 1]),
        packet.clone().tags(&[101]).build(),
        packet.clone().tags(&[101, 102]).build(),
        packet.payload(&[7; 1472]).build(),
    ];
    for (from, to) in [(&client, &server), (&server, &client)] {
        for frame in &frames {
            from.send(frame)?;
            let arrived = to.receive(SOON, |arrived| arrived == frame)?;
            ensure!(arrived.is_some(), "{frame:02x?} did not arrive as it was sent");
        }
    }
    Ok(())
}
