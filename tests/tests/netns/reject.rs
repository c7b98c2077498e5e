//! Rejected: the sender is told at once, in either direction, within the limit of answers.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fw_common::abi::Reason;
use fw_tests::lab::{Host, Namespace};
use fw_tests::packet::Packet;
use fw_tests::wire::Wire;

use crate::guarded::{ANSWERS, Guarded, SHORTLY, SOON};

/// An answer that comes later than this was no answer of the firewall: a SYN is sent again after a second.
const AT_ONCE: Duration = Duration::from_millis(700);
/// The window of the limit of answers, 2^26 ns.
const WINDOW: Duration = Duration::from_nanos(1 << 26);

/// An address of the client that a rule rejects, both ways; added for the time of a scenario.
struct Stray<'a>(&'a Namespace, String);

impl<'a> Stray<'a> {
    fn add(client: &'a Host, ipv6: bool) -> Result<(Self, IpAddr)> {
        let address: IpAddr = if ipv6 { "fd00:9::21" } else { "10.9.0.21" }.parse()?;
        let net = format!("{address}/{}", if ipv6 { 64 } else { 24 });
        client.namespace.ip(&format!(
            "addr add {net} dev eth0 {}",
            if ipv6 { "nodad" } else { "" }
        ))?;
        Ok((Self(&client.namespace, net), address))
    }
}

impl Drop for Stray<'_> {
    fn drop(&mut self) {
        let _ = self.0.ip(&format!("addr del {} dev eth0", self.1));
    }
}

/// curl's connection is refused at once, and a UDP client gets an error at once: of a port that a rule closes towards the
/// server, and of all that the server sends to an address that a rule closes to it.
pub fn port(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let (client, server) = (&guarded.scene.client, &guarded.scene.server);
    let (stray, address) = Stray::add(client, ipv6)?;
    // The first packet to a new address waits for its neighbour.
    resolve(server, address)?;
    for (host, to) in [(client, server.address(ipv6)), (server, address)] {
        guarded.counts(Reason::RejectRule, || curl_refused(host, to))?;
        guarded.counts(Reason::RejectRule, || tcp_refused(host, to))?;
        guarded
            .counts(Reason::RejectRule, || udp_refused(host, ipv6, to))
            .with_context(|| format!("UDP to {to}"))?;
    }
    drop(stray);
    Ok(())
}

/// Makes the kernel ask for a neighbour; whatever is sent to it is rejected.
fn resolve(from: &Host, to: IpAddr) -> Result<()> {
    from.namespace
        .run(&["ping", "-c", "1", "-W", "1", &to.to_string()], SOON)
        .map(drop)
}

fn curl_refused(host: &Host, to: IpAddr) -> Result<()> {
    let url = format!("http://{}/", SocketAddr::new(to, 83));
    let begun = Instant::now();
    let ended = host
        .namespace
        .run(&["curl", "-sgS", "--max-time", "5", &url], SOON)?;
    // 7: it could not connect, and not for want of time (28).
    ensure!(ended.code() == Some(7), "curl {url}: {ended}");
    ensure!(begun.elapsed() < AT_ONCE, "curl {url} took {:?}", begun.elapsed());
    Ok(())
}

fn tcp_refused(host: &Host, to: IpAddr) -> Result<()> {
    let target = SocketAddr::new(to, 83);
    let begun = Instant::now();
    let result = host
        .namespace
        .enter(|| TcpStream::connect_timeout(&target, SOON).and_then(|mut stream| stream.read(&mut [0])))?;
    match result {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        other => bail!("{other:?} instead of a refused connection to {target}"),
    }
    ensure!(
        begun.elapsed() < AT_ONCE,
        "the refusal of {target} took {:?}",
        begun.elapsed()
    );
    Ok(())
}

/// A prohibition is "no route to host" to an IPv4 socket (net/ipv4/icmp.c, `icmp_err_convert`) and "permission denied" to an
/// IPv6 one (net/ipv6/icmp.c, `icmpv6_err_convert`).
fn udp_refused(host: &Host, ipv6: bool, to: IpAddr) -> Result<()> {
    let socket = host
        .namespace
        .enter(|| UdpSocket::bind((host.address(ipv6), 0)))??;
    socket.set_read_timeout(Some(SOON))?;
    socket.connect((to, 83))?;
    let wanted = if ipv6 {
        ErrorKind::PermissionDenied
    } else {
        ErrorKind::HostUnreachable
    };
    let begun = Instant::now();
    socket.send(b"hello?")?;
    match socket.recv(&mut [0; 16]) {
        Err(error) if error.kind() == wanted => {}
        other => bail!("{other:?} instead of {wanted:?}"),
    }
    ensure!(begun.elapsed() < AT_ONCE, "the error took {:?}", begun.elapsed());
    Ok(())
}

/// ping is told that it is filtered, in both directions.
pub fn ping(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let (client, server) = (&guarded.scene.client, &guarded.scene.server);
    let (stray, address) = Stray::add(client, ipv6)?;
    let (own, to) = (address.to_string(), server.address(ipv6).to_string());
    let told = if ipv6 { "prohibited" } else { "filtered" };
    resolve(server, address)?;
    for (host, arguments) in [(client, vec!["-I", &own, &to]), (server, vec![own.as_str()])] {
        let command = [&["ping", "-n", "-c", "1", "-W", "5"], &arguments[..]].concat();
        let begun = Instant::now();
        let ended = guarded.counts(Reason::RejectRule, || host.namespace.run(&command, SOON))?;
        ensure!(
            ended.code() == Some(1) && ended.to_string().to_lowercase().contains(told),
            "`{}` was not told: {ended}",
            command.join(" ")
        );
        ensure!(begun.elapsed() < 2 * AT_ONCE, "ping took {:?}", begun.elapsed());
    }
    drop(stray);
    Ok(())
}

/// 2,000 SYNs to a closed port are all dropped, and no more are answered than two CPUs may answer in the windows that this takes.
pub fn limit(guarded: &Guarded, ipv6: bool) -> Result<()> {
    const SYNS: u16 = 2000;
    let (client, server) = (&guarded.scene.client, &guarded.scene.server);
    let wire = Wire::open(&client.namespace, "eth0")?;
    let gateway = if guarded.routed() {
        guarded.scene.guard().mac
    } else {
        server.mac
    };
    let frames: Vec<_> = (0..SYNS)
        .map(|number| {
            Packet::tcp(
                (client.address(ipv6), 20_000 + number),
                (server.address(ipv6), 83),
            )
            .flags("S")
            .numbers(1000, 0)
            .macs(client.mac, gateway)
            .build()
        })
        .collect();
    // Earlier answers count in the window that they were sent in.
    std::thread::sleep(WINDOW);
    let before = guarded.packets(Reason::RejectRule)?;
    let begun = Instant::now();
    for frame in &frames {
        wire.send(frame)?;
    }
    let taken = begun.elapsed();
    let resets = |frame: &[u8]| {
        let at = if ipv6 { 54 } else { 34 };
        frame.get(at..at + 2) == Some(&[0, 83]) && frame.get(at + 13).is_some_and(|flags| flags & 4 != 0)
    };
    let mut answers = 0;
    while wire.receive(SHORTLY, resets)?.is_some() {
        answers += 1;
    }
    let dropped = guarded.packets(Reason::RejectRule)? - before;
    let windows = (taken.as_nanos() / WINDOW.as_nanos()) as u32 + 2;
    let most = 2 * ANSWERS * windows;
    ensure!(
        dropped == u64::from(SYNS),
        "{dropped} of {SYNS} SYNs were rejected"
    );
    ensure!(
        (ANSWERS..=most).contains(&answers),
        "{answers} answers in {taken:?}, between {ANSWERS} and {most} were expected"
    );
    // The next scenario finds a fresh window.
    std::thread::sleep(WINDOW);
    Ok(())
}
