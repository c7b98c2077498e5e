//! Raw frames on an interface of a namespace: what no ordinary client sends, and what arrives exactly as it does.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::Namespace;

mod tag;
mod tun;

pub use tag::TagPusher;
pub use tun::TunLine;

/// Largest frame that is received whole.
const FRAME_MAX: usize = 65536 + 64;

/// An `AF_PACKET` socket bound to one interface.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Opens the interface. Frames that arrive from now on are kept until they are received.
    ///
    /// # Errors
    /// If the interface does not exist, or without root.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let index = namespace.ifindex(interface)?;
        let socket = namespace.enter(|| open(index))?.with_context(|| {
            format!(
                "cannot open a packet socket on {interface} in {}",
                namespace.name()
            )
        })?;
        Ok(Self { socket })
    }

    /// Sends one frame, from the Ethernet header on.
    ///
    /// # Errors
    /// If the interface is down or the frame is longer than its MTU allows.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: the pointer and the length are those of a living slice.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error()).context("cannot send a raw frame");
        }
        Ok(())
    }

    /// The next frame that arrives (not one that this machine sends) and that `wanted` accepts; `None` after `timeout`.
    /// A VLAN tag that the kernel took out is back in its place.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn receive(&self, timeout: Duration, wanted: impl Fn(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd {
                fd: self.socket.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            let milliseconds = left.as_millis().min(60_000) as i32;
            if !readable(std::slice::from_mut(&mut poll), milliseconds)? {
                return Ok(None);
            }
            let frame = tag::receive(&self.socket, FRAME_MAX).context("cannot receive a raw frame")?;
            if wanted(&frame) {
                return Ok(Some(frame));
            }
        }
    }
}

fn open(index: u32) -> io::Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // Protocol 0 receives nothing, so no other interface's frames get in before the bind.
    // SAFETY: a plain system call; its result is checked.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    tag::set_option(&socket, libc::PACKET_IGNORE_OUTGOING, 1)?;
    tag::set_option(&socket, libc::PACKET_AUXDATA, 1)?;
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: the address lives through the call and its length is given.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if bound < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(socket)
    }
}

/// Waits until one of the descriptors is ready.
fn readable(polled: &mut [libc::pollfd], milliseconds: i32) -> Result<bool> {
    // SAFETY: the pointer and the number are those of a living slice.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as u64, milliseconds) };
    if ready < 0 {
        return Err(io::Error::last_os_error()).context("cannot poll a device");
    }
    Ok(ready > 0)
}
