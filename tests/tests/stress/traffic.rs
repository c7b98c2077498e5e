//! Many real connections at once.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fw_tests::lab::Host;

use crate::guarded::{SHORTLY, SOON};

/// UDP flows from sockets of the client to one of the server.
pub struct Datagrams {
    pub clients: Vec<UdpSocket>,
    server: UdpSocket,
    /// The clients as the server sees them, in their order.
    peers: Vec<SocketAddr>,
}

impl Datagrams {
    /// Every client asks and is answered; the first `confirmed` ask again.
    pub fn open(
        client: &Host,
        server: &Host,
        (to, port): (IpAddr, u16),
        flows: usize,
        confirmed: usize,
    ) -> Result<Self> {
        let from = client.address(to.is_ipv6());
        let receiver = server.namespace.enter(|| UdpSocket::bind((to, port)))??;
        receiver.set_read_timeout(Some(SOON))?;
        let mut all = Self {
            clients: Vec::new(),
            server: receiver,
            peers: Vec::new(),
        };
        let mut buffer = [0; 16];
        // One thread in the namespace for all: a thread for each costs more than the flow.
        let sockets = client
            .namespace
            .enter(|| (0..flows).map(|_| UdpSocket::bind((from, 0))).collect::<Vec<_>>())?;
        for (flow, socket) in sockets.into_iter().enumerate() {
            let socket = socket?;
            socket.connect((to, port))?;
            socket.set_read_timeout(Some(SOON))?;
            socket.send(b"ask")?;
            let (_, peer) = all.server.recv_from(&mut buffer)?;
            all.server.send_to(b"answer", peer)?;
            socket.recv(&mut buffer)?;
            if flow < confirmed {
                socket.send(b"again")?;
                all.server.recv(&mut buffer)?;
            }
            all.clients.push(socket);
            all.peers.push(peer);
        }
        Ok(all)
    }

    /// Sends a datagram from each of so many new sockets.
    pub fn burst(client: &Host, to: (IpAddr, u16), flows: usize) -> Result<()> {
        let from = client.address(to.0.is_ipv6());
        client.namespace.enter(|| -> Result<()> {
            for _ in 0..flows {
                UdpSocket::bind((from, 0))?.send_to(b"new", to)?;
            }
            Ok(())
        })?
    }

    /// The server sends one datagram in each flow. Returns how many arrive: [`SHORTLY`] if none is `wanted`, else each at last.
    pub fn answer(&self, wanted: bool) -> Result<usize> {
        for peer in &self.peers {
            self.server.send_to(b"news", peer)?;
        }
        let patience = patience(wanted);
        let mut arrived = 0;
        for client in &self.clients {
            client.set_nonblocking(!wanted)?;
            client.set_read_timeout(Some(patience))?;
            arrived += usize::from(came(client.recv(&mut [0; 16]))?);
        }
        Ok(arrived)
    }
}

/// TCP connections from the client to the server.
pub struct Connections {
    pub clients: Vec<TcpStream>,
    pub servers: Vec<TcpStream>,
    _listener: TcpListener,
}

impl Connections {
    pub fn open(client: &Host, server: &Host, to: (IpAddr, u16), count: usize) -> Result<Self> {
        let listener = server.namespace.enter(|| TcpListener::bind(to))??;
        let target = SocketAddr::new(to.0, to.1);
        let (mut clients, mut servers) = (Vec::new(), Vec::new());
        // One thread in the namespace for all: a thread for each costs more than the connection.
        client.namespace.enter(|| -> Result<()> {
            for number in 0..count {
                let stream = TcpStream::connect_timeout(&target, SOON)
                    .with_context(|| format!("connection {number} to {target}"))?;
                stream.set_nodelay(true)?;
                clients.push(stream);
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                servers.push(stream);
            }
            Ok(())
        })??;
        Ok(Self {
            clients,
            servers,
            _listener: listener,
        })
    }

    /// The server sends a byte on each. Returns how many arrive, as above.
    pub fn answer(&mut self, wanted: bool) -> Result<usize> {
        for server in &mut self.servers {
            server.write_all(b"n")?;
        }
        let patience = patience(wanted);
        let mut arrived = 0;
        for client in &mut self.clients {
            client.set_nonblocking(!wanted)?;
            client.set_read_timeout(Some(patience))?;
            arrived += usize::from(came(client.read(&mut [0; 16]))?);
        }
        Ok(arrived)
    }

    /// A byte there and back on each connection, all at the same time; returns the longest time that one took. An error names
    /// the first that did not make it.
    pub fn round(&mut self, patience: Duration) -> Result<Duration> {
        let begun = Instant::now();
        for client in &mut self.clients {
            client.write_all(b"q")?;
        }
        let mut longest = Duration::ZERO;
        for (number, server) in self.servers.iter_mut().enumerate() {
            server.set_read_timeout(Some(patience))?;
            server
                .read_exact(&mut [0; 1])
                .with_context(|| format!("the server reads from connection {number}"))?;
            server.write_all(b"a")?;
        }
        for (number, client) in self.clients.iter_mut().enumerate() {
            client.set_read_timeout(Some(patience))?;
            client
                .read_exact(&mut [0; 1])
                .with_context(|| format!("the client reads from connection {number}"))?;
            longest = longest.max(begun.elapsed());
        }
        Ok(longest)
    }
}

/// How long to wait for one packet. What must not come has had its time before the first look.
fn patience(wanted: bool) -> Duration {
    if !wanted {
        std::thread::sleep(SHORTLY);
    }
    SOON
}

/// True if something was read.
fn came(read: std::io::Result<usize>) -> Result<bool> {
    match read {
        Ok(length) => {
            ensure!(length > 0, "the connection was closed");
            Ok(true)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
