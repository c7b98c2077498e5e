//! Ports and lines that are more than a cable: `WireGuard`, VLAN devices, bonds, GRE tunnels.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fw_tests::lab::{End, Host, Namespace, Options, Scene, Veth};

use crate::site::{Engine, Guard, Stand, host_port, run};
use crate::transfer::streams;

/// Connections of one transfer.
const STREAMS: u32 = 8;
/// Bytes of each stream and direction.
const BYTES: usize = 64 << 10;
/// A port that no rule allows.
const CLOSED: u16 = 5999;

/// Client and server by their addresses on the device under test; `zone` goes into both zones.
fn policy(network4: &str, network6: &str, zone: &str) -> String {
    format!(
        r#"
version: 1
zones:
  client: {{ addresses: [{network4}.1, "{network6}::1"]{zone} }}
  server: {{ addresses: [{network4}.2, "{network6}::2"]{zone} }}
link: {{ allow: [arp, nd, lacp], multicast: allow }}
rules:
  - {{ name: bulk, allow: [tcp/5001-5099, ping], from: client, to: server }}
  - {{ name: tunnels, allow: [proto/47], between: [client, server] }}
"#
    )
}

/// Streams and pings pass, by both families; a port that no rule allows is silent, and says why.
fn works(client: &Namespace, server: &Namespace, guard: &Guard, addresses: [&str; 2]) -> Result<()> {
    for (number, address) in (0..).zip(addresses) {
        ping(client, address)?;
        let address: IpAddr = address.parse()?;
        streams((client, server), address, 5001 + number, STREAMS, BYTES)?;
    }
    guard.refused_nothing()?;
    closed(client, addresses[0].parse()?)?;
    ensure!(
        guard.refused("deny_default")? > 0,
        "nobody refused the connection to a closed port"
    );
    guard.refused_only(&["deny_default"])
}

/// Small ones, and some that travel in six fragments each way.
fn ping(from: &Namespace, address: &str) -> Result<()> {
    for size in [56, 8_000] {
        run(from, &format!("ping -n -c 3 -i 0.2 -W 10 -s {size} {address}"))
            .with_context(|| format!("ping {address} with {size} bytes"))?;
    }
    Ok(())
}

/// Fails if somebody answers.
fn closed(from: &Namespace, address: IpAddr) -> Result<()> {
    let target = SocketAddr::new(address, CLOSED);
    let answer = from.enter(|| TcpStream::connect_timeout(&target, Duration::from_secs(2)))?;
    let error = answer.err().context("a closed port answered")?;
    ensure!(
        error.kind() == std::io::ErrorKind::TimedOut,
        "the closed port did not stay silent: {error}"
    );
    Ok(())
}

/// A port without Ethernet headers, by TC both ways.
#[test]
fn wireguard() -> Result<()> {
    let scene = Scene::direct(Options::default())?;
    let keys = [&scene.client, &scene.server].map(wireguard_device);
    let [client_key, server_key] = keys;
    let peers = [
        (
            &scene.client,
            server_key?,
            &scene.server,
            "10.8.0.2/32,fd00:8::2/128",
        ),
        (
            &scene.server,
            client_key?,
            &scene.client,
            "10.8.0.1/32,fd00:8::1/128",
        ),
    ];
    for (host, key, peer, allowed) in peers {
        run(
            &host.namespace,
            &format!(
                "wg set wg0 peer {key} allowed-ips {allowed} endpoint {}:51820",
                peer.v4
            ),
        )?;
    }
    let ports = format!("{}\nignore: [eth0]", host_port("wg0", Engine::Tc));
    let guard = Guard::start(&scene.server.namespace, &ports, &policy("10.8.0", "fd00:8", ""))?;
    works(
        &scene.client.namespace,
        &scene.server.namespace,
        &guard,
        ["10.8.0.2", "fd00:8::2"],
    )
}

/// Makes `wg0` with a new key and returns the public one.
fn wireguard_device(host: &Host) -> Result<String> {
    let number = host.v4.octets()[3];
    let namespace = &host.namespace;
    let file = std::env::temp_dir().join(format!("{}-key", namespace.name()));
    std::fs::write(&file, run(namespace, "wg genkey")?)?;
    namespace.ip("link add wg0 type wireguard")?;
    let set = run(
        namespace,
        &format!("wg set wg0 listen-port 51820 private-key {}", file.display()),
    );
    std::fs::remove_file(&file)?;
    set?;
    addresses(
        namespace,
        "wg0",
        &format!("10.8.0.{number}/24"),
        &format!("fd00:8::{number}/64"),
    )?;
    Ok(run(namespace, "wg show wg0 public-key")?.trim().to_owned())
}

fn addresses(namespace: &Namespace, device: &str, v4: &str, v6: &str) -> Result<()> {
    namespace.ip(&format!(
        "addr add {v4} dev {device}\naddr add {v6} dev {device} nodad\nlink set {device} up"
    ))
}

/// Tagged frames of two hosts with VLAN devices, through a pair.
#[test]
fn vlan_inline() -> Result<()> {
    let stand = Stand::Inline(Engine::Xdp);
    let scene = stand.scene(Options::default())?;
    vlan_devices(&scene, "eth0", "802.1Q", 101)?;
    let guard = Guard::at(&scene, stand, &policy("10.7.0", "fd00:7", ", vlan: 101"))?;
    number(&scene, "eth0.101")?;
    works(
        &scene.client.namespace,
        &scene.server.namespace,
        &guard,
        ["10.7.0.2", "fd00:7::2"],
    )
}

/// A VLAN device as a port: the tag is gone before the firewall looks.
#[test]
fn vlan_port() -> Result<()> {
    let scene = Scene::direct(Options::default())?;
    vlan_devices(&scene, "eth0", "802.1Q", 101)?;
    number(&scene, "eth0.101")?;
    let ports = format!("{}\nignore: [eth0]", host_port("eth0.101", Engine::Tc));
    let guard = Guard::start(&scene.server.namespace, &ports, &policy("10.7.0", "fd00:7", ""))?;
    works(
        &scene.client.namespace,
        &scene.server.namespace,
        &guard,
        ["10.7.0.2", "fd00:7::2"],
    )
}

/// Two tags in a frame, through a pair.
#[test]
fn qinq_inline() -> Result<()> {
    let stand = Stand::Inline(Engine::Xdp);
    let scene = stand.scene(Options::default())?;
    // As with the inner tags: what travels beside the frame no XDP program sees.
    for host in [&scene.client, &scene.server] {
        run(&host.namespace, "ethtool -K eth0 tx-vlan-stag-hw-insert off")?;
    }
    vlan_devices(&scene, "eth0", "802.1ad", 100)?;
    for host in [&scene.client, &scene.server] {
        // It would look for routers with one tag only, which the policy does not name.
        host.namespace
            .sysctl("net/ipv6/conf/eth0.100/disable_ipv6", "1")?;
    }
    vlan_devices(&scene, "eth0.100", "802.1Q", 200)?;
    let guard = Guard::at(&scene, stand, &policy("10.7.0", "fd00:7", ", vlan: [100, 200]"))?;
    for host in [&scene.client, &scene.server] {
        // A veth pair has room for one tag more than its MTU, not for two.
        host.namespace.ip("link set eth0.100.200 mtu 1496")?;
    }
    number(&scene, "eth0.100.200")?;
    works(
        &scene.client.namespace,
        &scene.server.namespace,
        &guard,
        ["10.7.0.2", "fd00:7::2"],
    )
}

/// A VLAN inside a service provider's; the port is the outer one's device, so the firewall sees the inner tag.
#[test]
fn qinq() -> Result<()> {
    let scene = Scene::direct(Options::default())?;
    vlan_devices(&scene, "eth0", "802.1ad", 100)?;
    vlan_devices(&scene, "eth0.100", "802.1Q", 200)?;
    number(&scene, "eth0.100.200")?;
    let ports = format!(
        "{}\nignore: [eth0, eth0.100.200]",
        host_port("eth0.100", Engine::Tc)
    );
    let guard = Guard::start(
        &scene.server.namespace,
        &ports,
        &policy("10.7.0", "fd00:7", ", vlan: 200"),
    )?;
    works(
        &scene.client.namespace,
        &scene.server.namespace,
        &guard,
        ["10.7.0.2", "fd00:7::2"],
    )
}

fn vlan_devices(scene: &Scene, link: &str, protocol: &str, id: u16) -> Result<()> {
    for host in [&scene.client, &scene.server] {
        host.namespace.ip(&format!(
            "link add link {link} name {link}.{id} type vlan proto {protocol} id {id}\nlink set {link}.{id} up"
        ))?;
    }
    Ok(())
}

/// Gives a device of both hosts its addresses.
fn number(scene: &Scene, device: &str) -> Result<()> {
    for (host, number) in [(&scene.client, 1), (&scene.server, 2)] {
        addresses(
            &host.namespace,
            device,
            &format!("10.7.0.{number}/24"),
            &format!("fd00:7::{number}/64"),
        )?;
    }
    Ok(())
}

/// A bond of two lines as a port, by both engines; one line fails while it works.
#[test]
fn bond() -> Result<()> {
    for engine in [Engine::Xdp, Engine::Tc] {
        bonded(engine).with_context(|| format!("{engine:?}"))?;
    }
    Ok(())
}

fn bonded(engine: Engine) -> Result<()> {
    let (client, server) = (Namespace::new("client")?, Namespace::new("server")?);
    for (line, number) in [("a0", 10), ("b0", 20)] {
        Veth::create(
            &End::new(&client, line, [2, 0, 0, 0, number, 1]),
            &End::new(&server, line, [2, 0, 0, 0, number, 2]),
            1500,
        )?;
    }
    for (namespace, number) in [(&client, 1), (&server, 2)] {
        // The same line at both ends, while it lives.
        namespace.ip("link add bond0 type bond mode active-backup miimon 50 primary a0")?;
        for line in ["a0", "b0"] {
            namespace.ip(&format!(
                "link set {line} down\nlink set {line} master bond0\nlink set {line} up"
            ))?;
        }
        let (v4, v6) = (format!("10.6.0.{number}/24"), format!("fd00:6::{number}/64"));
        addresses(namespace, "bond0", &v4, &v6)?;
    }
    let ports = format!("{}\nignore: [a0, b0]", host_port("bond0", engine));
    let guard = Guard::start(&server, &ports, &policy("10.6.0", "fd00:6", ""))?;
    println!("{engine:?} was asked for, {:?} runs", guard.engines()?);
    works(&client, &server, &guard, ["10.6.0.2", "fd00:6::2"])?;
    // Both ends see it, as with a cable that is pulled out.
    server.ip("link set a0 down")?;
    streams((&client, &server), "10.6.0.2".parse()?, 5011, STREAMS, BYTES)?;
    guard.refused_only(&["deny_default"])
}

/// GRE through a pair, over IPv4 and IPv6; the latter says in an extension header how often it may be wrapped.
#[test]
fn gre() -> Result<()> {
    let stand = Stand::Inline(Engine::Xdp);
    let scene = stand.scene(Options::default())?;
    let guard = Guard::at(&scene, stand, &policy("10.9.0", "fd00:9", ""))?;
    for (host, peer) in [(&scene.client, &scene.server), (&scene.server, &scene.client)] {
        let namespace = &host.namespace;
        namespace.ip(&format!(
            "link add gre1 type gre local {} remote {} key 7\n\
             link add gre2 type ip6gre local {} remote {}\n\
             link add gre3 type gretap local {} remote {}",
            host.v4, peer.v4, host.v6, peer.v6, host.v4, peer.v4
        ))?;
    }
    for (host, number) in [(&scene.server, 2), (&scene.client, 1)] {
        let namespace = &host.namespace;
        for (device, net) in [("gre1", 1), ("gre2", 2), ("gre3", 3)] {
            let (v4, v6) = (
                format!("10.5.{net}.{number}/24"),
                format!("fd00:5:{net}::{number}/64"),
            );
            addresses(namespace, device, &v4, &v6)?;
        }
    }
    for net in 1..=3 {
        for address in [format!("10.5.{net}.2"), format!("fd00:5:{net}::2")] {
            ping(&scene.client.namespace, &address)?;
            streams(
                (&scene.client.namespace, &scene.server.namespace),
                address.parse()?,
                5001,
                STREAMS,
                BYTES,
            )
            .with_context(|| address)?;
        }
    }
    guard.refused_nothing()?;
    works(
        &scene.client.namespace,
        &scene.server.namespace,
        &guard,
        ["10.9.0.2", "fd00:9::2"],
    )
}

/// A GRE tunnel for Ethernet frames as a port.
#[test]
fn gretap_port() -> Result<()> {
    let scene = Scene::direct(Options::default())?;
    for (host, peer, number) in [
        (&scene.client, &scene.server, 1),
        (&scene.server, &scene.client, 2),
    ] {
        let namespace = &host.namespace;
        namespace.ip(&format!(
            "link add tap0 type gretap local {} remote {}",
            host.v4, peer.v4
        ))?;
        let (v4, v6) = (format!("10.5.0.{number}/24"), format!("fd00:5::{number}/64"));
        addresses(namespace, "tap0", &v4, &v6)?;
    }
    let ports = format!("{}\nignore: [eth0]", host_port("tap0", Engine::Tc));
    let guard = Guard::start(&scene.server.namespace, &ports, &policy("10.5.0", "fd00:5", ""))?;
    works(
        &scene.client.namespace,
        &scene.server.namespace,
        &guard,
        ["10.5.0.2", "fd00:5::2"],
    )
}
