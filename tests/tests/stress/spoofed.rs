//! SYNs from sources that do not exist.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use fw_tests::packet::Packet;
use fw_tests::wire::Wire;

use crate::due;
use crate::floods::{CLOSED, OPEN};
use crate::guarded::Guarded;

/// SYNs a second, six times the threshold of the default policy; the generator leaves the CPU to others in between.
const RATE: u32 = 60_000;

/// SYNs at once.
const BURST: u32 = 128;

/// SYNs from a million sources, each frame written once and then varied so that its checksums stay right: what is added to one
/// word is taken from another (RFC 1624: the sum counts modulo 2^16 - 1).
struct Spoofed {
    frames: Vec<Vec<u8>>,
    ipv6: bool,
    sent: u32,
}

impl Spoofed {
    fn new(guarded: &Guarded, ipv6: bool) -> Self {
        let (client, server) = (&guarded.scene.client, &guarded.scene.server);
        let frame = |number: u16| {
            let source: IpAddr = if ipv6 {
                Ipv6Addr::new(0xfd5a, number, 0, 0, 0, 0, 0, 1).into()
            } else {
                Ipv4Addr::new(10, 200 + number as u8, 0, 0).into()
            };
            let port = if number.is_multiple_of(2) { OPEN } else { CLOSED };
            let mut frame = Packet::tcp((source, 0), (server.address(ipv6), port))
                .flags("S")
                .numbers(u32::MAX, 0)
                .macs(client.mac, server.mac)
                .build();
            if !ipv6 {
                // The identification takes what is added to the source.
                let sum = u16::from_be_bytes([frame[24], frame[25]]);
                let old = u16::from_be_bytes([frame[18], frame[19]]);
                frame[18..20].fill(0xff);
                frame[24..26].copy_from_slice(&minus(sum, !old).to_be_bytes());
            }
            frame
        };
        Self {
            frames: (0..16).map(frame).collect(),
            ipv6,
            sent: 0,
        }
    }

    /// The next frame.
    fn next(&mut self) -> &[u8] {
        let number = self.sent;
        self.sent += 1;
        let (source, port) = ((number >> 4) as u16, (number.wrapping_mul(40_503) >> 7) as u16);
        let frame = &mut self.frames[number as usize & 15];
        let mut put = |at: usize, value: u16| frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
        let (source_at, ports_at) = if self.ipv6 { (26, 54) } else { (28, 34) };
        put(source_at, source);
        put(ports_at, port);
        put(ports_at + 4, !port);
        put(ports_at + 6, !source);
        if !self.ipv6 {
            put(18, !source);
        }
        frame
    }
}

/// One's complement subtraction.
fn minus(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(!b);
    sum + u16::from(carry)
}

/// Sends the flood until it is told to stop, and counts in `sent`.
pub fn flood(guarded: &Guarded, ipv6: bool, sent: &AtomicU32, stop: &AtomicBool) -> Result<()> {
    let wire = Wire::open(&guarded.scene.client.namespace, "eth0")?;
    let mut spoofed = Spoofed::new(guarded, ipv6);
    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = due(begun.elapsed(), RATE);
        // After a pause it does not catch up at once: a burst would overflow the receiver's queue, of others' packets too.
        let due = due.min(spoofed.sent + BURST);
        while spoofed.sent < due {
            match wire.send(spoofed.next()) {
                Err(error) if !lost(&error) => return Err(error),
                _ => {}
            }
        }
        sent.store(spoofed.sent, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A full queue on the way loses frames of a flood, as anywhere.
fn lost(error: &anyhow::Error) -> bool {
    let error = error.root_cause().downcast_ref::<std::io::Error>();
    error.and_then(std::io::Error::raw_os_error) == Some(libc::ENOBUFS)
}
