//! Ports without Ethernet: two tun devices and a thread that carries packets between them, as a tunnel would.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use super::readable;
use crate::Namespace;

/// `TUNSETIFF` of `include/uapi/linux/if_tun.h`.
const SET_INTERFACE: libc::c_ulong = 0x4004_54ca;
/// `IFF_TUN | IFF_NO_PI`: packets begin with the IP header and have nothing in front of it.
const TUN_BARE: libc::c_short = 0x0001 | 0x1000;

/// A line of two ends of the kind `ARPHRD_NONE`, in two namespaces. Dropping it takes both ends away.
#[derive(Debug)]
pub struct TunLine {
    stop: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

impl TunLine {
    /// Makes the ends, named alike, up, with an MTU of 1500 and these addresses (each with its prefix length).
    ///
    /// # Errors
    /// If the kernel has no tun, or a command refuses.
    pub fn create(name: &str, ends: [(&Namespace, &[String]); 2]) -> Result<Self> {
        let mut files = Vec::new();
        for (namespace, addresses) in ends {
            let file = namespace
                .enter(|| open(name))?
                .with_context(|| format!("cannot make the tun device {name} in {}", namespace.name()))?;
            namespace.sysctl(&format!("net/ipv6/conf/{name}/addr_gen_mode"), "1")?;
            for address in addresses {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                namespace.ip(&format!("addr add {address} dev {name} {nodad}"))?;
            }
            namespace.ip(&format!("link set {name} up"))?;
            files.push(file);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let carrier = std::thread::spawn(move || carry(&files, &told));
        Ok(Self {
            stop,
            carrier: Some(carrier),
        })
    }
}

impl Drop for TunLine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join();
        }
    }
}

/// What one end sends, the other receives.
fn carry(ends: &[File], stop: &AtomicBool) {
    let mut packet = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let mut idle = true;
        for (from, to) in [(0, 1), (1, 0)] {
            // Some packets at a time, so that neither way starves.
            for _ in 0..64 {
                match (&ends[from]).read(&mut packet) {
                    Ok(length) => {
                        idle = false;
                        // An end that is down loses what is sent to it, like any line.
                        let _ = (&ends[to]).write(&packet[..length]);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => return,
                }
            }
        }
        if idle && wait(ends).is_err() {
            return;
        }
    }
}

/// Until there is something to carry, or it is time to look whether to stop.
fn wait(ends: &[File]) -> Result<()> {
    let mut polled: Vec<_> = ends
        .iter()
        .map(|end| libc::pollfd {
            fd: end.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    readable(&mut polled, 5).map(drop)
}

fn open(name: &str) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = TUN_BARE;
    // SAFETY: the request is of the type that TUNSETIFF reads, and lives through the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), SET_INTERFACE, &raw mut request) };
    if done < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(file)
}
