//! The few calls of bpf(2) that put any program, whoever loaded it, in front of an interface and exchange it in flight; and a
//! socket for frames.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

/// `enum bpf_cmd` and `enum bpf_attach_type` of include/uapi/linux/bpf.h.
const PROG_GET_FD_BY_ID: i64 = 13;
const LINK_CREATE: i64 = 28;
const LINK_UPDATE: i64 = 29;
const ATTACH_TCX_INGRESS: u32 = 46;
const ATTACH_XDP: u32 = 37;
/// `XDP_FLAGS_DRV_MODE`: native XDP or an error.
const XDP_DRIVER: u32 = 1 << 2;

/// An XDP program in front of an interface, until dropped.
#[derive(Debug)]
pub struct XdpLink(OwnedFd);

impl XdpLink {
    /// Attaches a program natively to an interface of the calling thread's namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach(program: BorrowedFd<'_>, ifindex: u32) -> Result<Self> {
        let attr = [raw(program), ifindex, ATTACH_XDP, XDP_DRIVER];
        let fd = bpf(LINK_CREATE, attr).with_context(|| format!("attaching XDP to interface {ifindex}"))?;
        Ok(Self(own(fd)))
    }

    /// Exchanges the program; each packet meets the old one or the new one.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn update(&self, program: BorrowedFd<'_>) -> Result<()> {
        bpf(LINK_UPDATE, [raw(self.0.as_fd()), raw(program), 0, 0]).context("exchanging the XDP program")?;
        Ok(())
    }
}

/// A TC program that sees what an interface receives, until dropped. TCX needs Linux 6.6.
#[derive(Debug)]
pub struct TcxLink {
    _link: OwnedFd,
}

impl TcxLink {
    /// Attaches a program to an interface of the calling thread's namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn ingress(program: BorrowedFd<'_>, ifindex: u32) -> Result<Self> {
        let fd = bpf(LINK_CREATE, [raw(program), ifindex, ATTACH_TCX_INGRESS, 0])
            .with_context(|| format!("attaching TC to interface {ifindex}"))?;
        Ok(Self { _link: own(fd) })
    }
}

/// Opens a loaded program by the kernel's id.
///
/// # Errors
/// If there is none.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let fd = bpf(PROG_GET_FD_BY_ID, [id, 0, 0, 0]).with_context(|| format!("opening program {id}"))?;
    Ok(own(fd))
}

/// A socket that sends frames, with `write`, out of an interface of the calling thread's namespace: past the queueing
/// disciplines, in the transmit queue of the calling CPU. It receives nothing.
///
/// # Errors
/// If the kernel refuses.
pub fn packet_socket(ifindex: u32) -> Result<OwnedFd> {
    // SAFETY: a plain system call; its result is checked.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(fd >= 0, "no packet socket: {}", io::Error::last_os_error());
    let socket = own(fd);
    let on: libc::c_int = 1;
    // SAFETY: the value is live and of the given size.
    let bypass = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of_val(&on) as u32,
        )
    };
    ensure!(
        bypass == 0,
        "a packet socket cannot pass queueing disciplines: {}",
        io::Error::last_os_error()
    );
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = ifindex.cast_signed();
    // SAFETY: the address lives through the call and its length is given.
    let bound = unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32) };
    ensure!(
        bound == 0,
        "a packet socket cannot be bound to interface {ifindex}: {}",
        io::Error::last_os_error()
    );
    Ok(socket)
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn own(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Runs one of the commands above; their attributes are words without addresses.
fn bpf(command: i64, attr: [u32; 4]) -> io::Result<i32> {
    // SAFETY: the attribute is live and of the given size, holds no address, and the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(&attr)) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}
