//! Streams whose bytes are checked at both ends.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use fw_tests::lab::Namespace;

use crate::site::SOON;

/// Length of the pattern's period: a prime, so that no power of two of shifted bytes looks right.
const PERIOD: usize = 251;
/// Bytes written at a time, a multiple of the period.
const CHUNK: usize = PERIOD * 261;

/// Opens `count` connections at once, sends `bytes` by each and then as many back; the writer of each half closes it.
/// Every byte is compared.
pub fn streams(
    (client, server): (&Namespace, &Namespace),
    address: IpAddr,
    port: u16,
    count: u32,
    bytes: usize,
) -> Result<()> {
    let address = SocketAddr::new(address, port);
    let listener = server
        .enter(|| TcpListener::bind(address))?
        .with_context(|| format!("cannot listen on {address}"))?;
    thread::scope(|scope| {
        let answers = scope.spawn(|| serve(&listener, count, bytes));
        // A thread of a namespace hands the namespace on to the threads that it starts.
        let asked = client.enter(|| {
            thread::scope(|scope| {
                let asking: Vec<_> = (0..count)
                    .map(|number| scope.spawn(move || ask(address, number, bytes)))
                    .collect();
                all(asking)
            })
        })?;
        asked.context("at the client")?;
        all([answers]).context("at the server")
    })
}

fn all<'a>(handles: impl IntoIterator<Item = thread::ScopedJoinHandle<'a, Result<()>>>) -> Result<()> {
    handles
        .into_iter()
        .try_for_each(|handle| handle.join().map_err(|_| anyhow!("a thread panicked"))?)
}

fn serve(listener: &TcpListener, count: u32, bytes: usize) -> Result<()> {
    thread::scope(|scope| {
        let mut answering = Vec::new();
        for _ in 0..count {
            let (stream, _) = listener.accept()?;
            answering.push(scope.spawn(move || answer(stream, bytes)));
        }
        all(answering)
    })
}

fn ask(address: SocketAddr, number: u32, bytes: usize) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, SOON)
        .with_context(|| format!("connecting stream {number} to {address}"))?;
    patient(&stream)?;
    stream.write_all(&number.to_be_bytes())?;
    send(&mut stream, number, bytes).with_context(|| format!("sending by stream {number}"))?;
    receive(&mut stream, !number, bytes).with_context(|| format!("the answer of stream {number}"))
}

fn answer(mut stream: TcpStream, bytes: usize) -> Result<()> {
    patient(&stream)?;
    let mut number = [0; 4];
    stream.read_exact(&mut number)?;
    let number = u32::from_be_bytes(number);
    receive(&mut stream, number, bytes).with_context(|| format!("stream {number}"))?;
    send(&mut stream, !number, bytes).with_context(|| format!("answering stream {number}"))
}

fn patient(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    Ok(())
}

/// Two chunks of the stream's pattern, so that a chunk can be cut out from any place of the first period on.
fn pattern(number: u32) -> Vec<u8> {
    (0..2 * CHUNK)
        .map(|at| ((at % PERIOD) as u8) ^ (number as u8))
        .collect()
}

fn send(stream: &mut TcpStream, number: u32, bytes: usize) -> Result<()> {
    let pattern = pattern(number);
    let mut sent = 0;
    while sent < bytes {
        let chunk = CHUNK.min(bytes - sent);
        stream.write_all(&pattern[..chunk])?;
        sent += chunk;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

fn receive(stream: &mut TcpStream, number: u32, bytes: usize) -> Result<()> {
    let pattern = pattern(number);
    let mut buffer = vec![0; CHUNK];
    let mut received = 0;
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            ensure!(received == bytes, "{received} of {bytes} bytes arrived");
            return Ok(());
        }
        let at = received % PERIOD;
        ensure!(
            buffer[..count] == pattern[at..at + count],
            "other bytes arrived than were sent, behind byte {received}"
        );
        received += count;
    }
}
