//! Small servers inside of a namespace, for real clients to talk to.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Namespace;

/// How often a server looks whether it is to stop.
const TICK: Duration = Duration::from_millis(5);

/// A thread that runs until its handle is dropped.
#[derive(Debug)]
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(body: impl Fn(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        Self {
            stop,
            thread: Some(std::thread::spawn(move || body(&told))),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An HTTP server of one page. It takes anything for a request, and one second of silence too, so `nc` is a client.
#[derive(Debug)]
pub struct TcpService {
    _worker: Worker,
}

impl TcpService {
    /// What a client gets to read.
    pub const BODY: &str = "the lab's page";

    /// Listens on an address of the namespace.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn start(namespace: &Namespace, address: IpAddr, port: u16) -> Result<Self> {
        let address = SocketAddr::new(address, port);
        let listener = namespace
            .enter(|| TcpListener::bind(address))?
            .with_context(|| format!("cannot listen on tcp {address} in {}", namespace.name()))?;
        listener.set_nonblocking(true)?;
        let worker = Worker::start(move |stop| {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => answer(stream),
                    Err(_) => std::thread::sleep(TICK),
                }
            }
        });
        Ok(Self { _worker: worker })
    }
}

/// Sends the page, waits shortly for the client's end of the connection, and closes.
fn answer(mut stream: TcpStream) {
    let page = format!(
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{}",
        TcpService::BODY.len(),
        TcpService::BODY
    );
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut request = [0; 4096];
    let _ = stream.read(&mut request);
    let _ = stream.write_all(page.as_bytes());
}

/// A UDP server that sends every datagram back.
#[derive(Debug)]
pub struct UdpEcho {
    _worker: Worker,
}

impl UdpEcho {
    /// Listens on an address of the namespace.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn start(namespace: &Namespace, address: IpAddr, port: u16) -> Result<Self> {
        let address = SocketAddr::new(address, port);
        let socket = namespace
            .enter(|| UdpSocket::bind(address))?
            .with_context(|| format!("cannot bind udp {address} in {}", namespace.name()))?;
        socket.set_read_timeout(Some(TICK))?;
        let worker = Worker::start(move |stop| {
            let mut datagram = vec![0; 65536];
            while !stop.load(Ordering::Relaxed) {
                match socket.recv_from(&mut datagram) {
                    Ok((length, from)) => drop(socket.send_to(&datagram[..length], from)),
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    // An ICMP error about an earlier answer: the next datagram is a new try.
                    Err(_) => std::thread::sleep(TICK),
                }
            }
        });
        Ok(Self { _worker: worker })
    }
}
