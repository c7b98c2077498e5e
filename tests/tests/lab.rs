//! The lab's own tests: without a firewall everything passes, so a later "denied" is the firewall's doing.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Result, ensure};
use fw_tests::lab::{Options, Scene, TcpService, UdpEcho};
use fw_tests::packet::Packet;
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
