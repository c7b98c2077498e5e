//! Ordinary clients and servers.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fw_common::abi::{Flow, Proto, Reason, StateWord};
use fw_common::tcp::State;
use fw_tests::lab::{Host, Leftover, Process, TcpService, UdpEcho};
use fw_user::dataplane::FlowTable;

use crate::guarded::{Guarded, SHORTLY, SOON};

fn url(address: IpAddr, port: u16) -> String {
    format!("http://{}/", SocketAddr::new(address, port))
}

/// Fetches the page with a real client.
pub fn fetch(from: &Host, address: IpAddr, port: u16) -> Result<()> {
    let page = from
        .namespace
        .check(&["curl", "-sgS", "--max-time", "8", &url(address, port)], SOON)?;
    ensure!(page == TcpService::BODY, "curl read {page:?}");
    Ok(())
}

/// Connects for a short time; true if somebody answered.
fn connects(from: &Host, to: IpAddr, port: u16) -> Result<bool> {
    let target = SocketAddr::new(to, port);
    match from
        .namespace
        .enter(|| TcpStream::connect_timeout(&target, SHORTLY))?
    {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::TimedOut => Ok(false),
        Err(error) => Err(error).with_context(|| format!("connecting to {target}")),
    }
}

/// The connection opens and closes under the firewall's eyes.
pub fn page(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let _http = TcpService::start(&guarded.scene.server.namespace, guarded.server(ipv6), 80)?;
    guarded.counts(Reason::Established, || {
        guarded.counts(Reason::Rule, || {
            fetch(&guarded.scene.client, guarded.server(ipv6), 80)
        })
    })?;
    closed(guarded, 80)
}

/// A server of one page by HTTP/2, with a certificate of its own.
pub struct PageServer {
    address: IpAddr,
    _pages: Leftover,
    _service: Process,
}

impl PageServer {
    pub const PORT: u16 = 82;
    const PAGE: usize = 200_000;

    pub fn start(guarded: &Guarded, ipv6: bool) -> Result<Self> {
        let server = &guarded.scene.server;
        let pages = Leftover::claim(&std::env::temp_dir(), "dpufw-pages-", server.namespace.name());
        std::fs::create_dir(pages.path())?;
        let file = |name: &str| pages.path().join(name).display().to_string();
        let (key, certificate, folder) = (file("key"), file("certificate"), file(""));
        std::fs::write(file("page"), vec![b'x'; Self::PAGE])?;
        let openssl = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ed25519",
            "-nodes",
            "-subj",
            "/CN=lab",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ];
        server.namespace.check(&openssl, SOON)?;
        let (address, port) = (guarded.server(ipv6), Self::PORT.to_string());
        let service = server.namespace.spawn(&[
            "nghttpd",
            "-a",
            &address.to_string(),
            "-d",
            &folder,
            &port,
            &key,
            &certificate,
        ])?;
        wait_listening(server, Self::PORT)?;
        Ok(Self {
            address,
            _pages: pages,
            _service: service,
        })
    }

    pub fn url(&self) -> String {
        format!("https://{}/page", SocketAddr::new(self.address, Self::PORT))
    }
}

/// Ten pages over one connection, interleaved.
pub fn http2(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let server = PageServer::start(guarded, ipv6)?;
    let page = server.url();
    let told = "%{http_version} %{size_download} %{num_connects}\n";
    let mut command = vec![
        "curl",
        "-ksgS",
        "--http2",
        "--parallel",
        "--max-time",
        "8",
        "-w",
        told,
    ];
    for _ in 0..10 {
        command.extend(["-o", "/dev/null", &page]);
    }
    let told = guarded.scene.client.namespace.check(&command, SOON)?;
    let of = |connections| {
        let whole = format!("2 {} {connections}", PageServer::PAGE);
        // curl's meter begins on the last line.
        told.lines().filter(|line| line.starts_with(&whole)).count()
    };
    ensure!((of(1), of(0)) == (1, 9), "curl read {told:?}");
    Ok(())
}

/// Waits until all connections to a port have come to their regular end: confirmed, with a FIN of either side.
pub fn closed(guarded: &Guarded, port: u16) -> Result<()> {
    let over = |(table, flow): &(FlowTable, Flow)| {
        let word = StateWord(flow.state);
        *table == FlowTable::Main
            && word.state() == State::TimeWait as u32
            && [
                StateWord::CONFIRMED,
                StateWord::FIN_ORIGINAL,
                StateWord::FIN_REPLY,
            ]
            .into_iter()
            .all(|flag| word.has(flag))
    };
    let end = Instant::now() + SOON;
    loop {
        let flows = guarded.flows(Proto::TCP, port)?;
        if !flows.is_empty() && flows.iter().all(over) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "not all are in TIME_WAIT: {flows:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn denied_by_rule(guarded: &Guarded, ipv6: bool) -> Result<()> {
    denied(guarded, ipv6, 23, Reason::DenyRule)
}

pub fn denied_by_default(guarded: &Guarded, ipv6: bool) -> Result<()> {
    denied(guarded, ipv6, 81, Reason::DenyDefault)
}

fn denied(guarded: &Guarded, ipv6: bool, port: u16, reason: Reason) -> Result<()> {
    let _service = TcpService::start(&guarded.scene.server.namespace, guarded.server(ipv6), port)?;
    let answered = guarded.counts(reason, || {
        connects(&guarded.scene.client, guarded.server(ipv6), port)
    })?;
    ensure!(!answered, "port {port} answered");
    Ok(())
}

/// The server's own RST comes back: the firewall follows the flow, it does not swallow the answer.
pub fn refused_port(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let target = SocketAddr::new(guarded.server(ipv6), 82);
    let result = guarded
        .scene
        .client
        .namespace
        .enter(|| TcpStream::connect_timeout(&target, SOON))?;
    match result {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => bail!("{other:?} instead of a refused connection"),
    }
}

pub fn ping(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let server = guarded.server(ipv6).to_string();
    guarded
        .scene
        .client
        .namespace
        .check(&["ping", "-c", "3", "-i", "0.05", "-W", "5", &server], SOON)?;
    Ok(())
}

pub fn denied_ping(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let client = guarded.client(ipv6).to_string();
    let ping = ["ping", "-c", "2", "-i", "0.05", "-W", "0.2", &client];
    let finished = guarded.counts(Reason::DenyDefault, || {
        guarded.scene.server.namespace.run(&ping, SOON)
    })?;
    ensure!(finished.code() == Some(1), "ping was answered: {finished}");
    Ok(())
}

pub fn udp_socket(host: &Host, ipv6: bool, timeout: Duration) -> Result<UdpSocket> {
    let socket = host
        .namespace
        .enter(|| UdpSocket::bind((host.address(ipv6), 0)))??;
    socket.set_read_timeout(Some(timeout))?;
    Ok(socket)
}

pub fn udp(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let _echo = UdpEcho::start(&guarded.scene.server.namespace, guarded.server(ipv6), 5301)?;
    let socket = udp_socket(&guarded.scene.client, ipv6, SOON)?;
    let mut answer = [0; 2048];
    for size in [1, 100, 1400] {
        socket.send_to(&vec![7; size], (guarded.server(ipv6), 5301))?;
        ensure!(socket.recv(&mut answer)? == size, "the echo has another length");
    }
    Ok(())
}

/// The server opens nothing towards the client, except by the rule for it.
pub fn reply_direction(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let (client, server) = (&guarded.scene.client, &guarded.scene.server);
    let _web = TcpService::start(&client.namespace, client.address(ipv6), 80)?;
    let _echo = UdpEcho::start(&client.namespace, client.address(ipv6), 5301)?;
    let answered = guarded.counts(Reason::DenyDefault, || connects(server, client.address(ipv6), 80))?;
    ensure!(!answered, "the server reached the client's port 80");
    let socket = udp_socket(server, ipv6, SHORTLY)?;
    guarded.counts(Reason::DenyDefault, || {
        Ok(socket.send_to(b"x", (client.address(ipv6), 5301))?)
    })?;
    ensure!(
        socket.recv(&mut [0; 16]).is_err(),
        "the client's UDP service answered"
    );
    let _allowed = TcpService::start(&client.namespace, client.address(ipv6), 8081)?;
    fetch(server, client.address(ipv6), 8081)
}

pub fn port_unreachable(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let socket = udp_socket(&guarded.scene.client, ipv6, SOON)?;
    socket.connect((guarded.server(ipv6), 5302))?;
    guarded.counts(Reason::Related, || {
        socket.send(b"is anybody there?")?;
        match socket.recv(&mut [0; 16]) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            other => bail!("{other:?} instead of a refused connection"),
        }
    })
}

/// Waits until a TCP port of the host is in the state LISTEN.
pub fn wait_listening(host: &Host, port: u16) -> Result<()> {
    let local = format!(":{port:04X}");
    // The columns are: number, local address and port, remote address and port, state (0A: LISTEN).
    let listens = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.len() > 3 && words[1].ends_with(&local) && words[3] == "0A"
    };
    for _ in 0..1000 {
        let tables = host.namespace.enter(|| {
            ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/thread-self/net/{table}")))
        })?;
        for table in tables {
            if table?.lines().any(listens) {
                return Ok(());
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("nobody listens on port {port}")
}
