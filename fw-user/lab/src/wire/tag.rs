//! VLAN tags that travel beside the frame: put back on receipt, and made on purpose.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Result;

use crate::Namespace;
use crate::tcx::{self, Tcx, Way};

/// Where a tag stands: behind the two Ethernet addresses.
const TAG_AT: usize = 12;

/// Room for one control message with a `tpacket_auxdata`, aligned as a `cmsghdr`.
#[repr(C, align(8))]
struct Control([u8; 64]);

pub(super) fn set_option(socket: &OwnedFd, option: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as u32;
    // SAFETY: the value is an i32 that lives through the call, and its length is given.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    if set < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// One frame, with its tag in place.
pub(super) fn receive(socket: &OwnedFd, longest: usize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0_u8; longest];
    let mut control = Control([0; 64]);
    let mut parts = libc::iovec {
        iov_base: frame.as_mut_ptr().cast(),
        iov_len: frame.len(),
    };
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut parts;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: the message's pointers lead to the two buffers above, with their lengths.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    frame.truncate(length);
    if let Some(tag) = hidden_tag(&message)
        && length >= TAG_AT
    {
        frame.splice(TAG_AT..TAG_AT, tag);
    }
    Ok(frame)
}

/// The four bytes of the tag that the kernel took out of the frame.
fn hidden_tag(message: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: recvmsg filled the control buffer that the message points to; the macro checks its length.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    // SAFETY: a message of this type carries a tpacket_auxdata, maybe unaligned.
    let aux = unsafe {
        libc::CMSG_DATA(header)
            .cast::<libc::tpacket_auxdata>()
            .read_unaligned()
    };
    if aux.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let [a, b] = if aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID == 0 {
        [0x81, 0]
    } else {
        aux.tp_vlan_tpid.to_be_bytes()
    };
    let [c, d] = aux.tp_vlan_tci.to_be_bytes();
    Some([a, b, c, d])
}

/// Tags every packet that leaves by an interface, the way a VLAN device does: beside the frame where the interface
/// offers the offload, in the frame where it does not.
///
/// It is a TCX program of five instructions, so that it needs neither a VLAN device nor `act_vlan` in the kernel.
/// Dropping the handle detaches it.
#[derive(Debug)]
pub struct TagPusher {
    _program: Tcx,
}

impl TagPusher {
    /// Attaches the program to what leaves by `interface`.
    ///
    /// # Errors
    /// If the kernel refuses (TCX needs 6.6).
    pub fn attach(namespace: &Namespace, interface: &str, vlan: u16) -> Result<Self> {
        let program = Tcx::attach(namespace, interface, Way::Out, &instructions(vlan))?;
        Ok(Self { _program: program })
    }
}

/// `bpf_skb_vlan_push(skb, htons(ETH_P_8021Q), vlan); return TCX_NEXT`, with `r1` holding the skb on entry.
fn instructions(vlan: u16) -> [u64; 5] {
    const VLAN_PUSH: i32 = 18;
    [
        tcx::set(2, i32::from(0x8100_u16.to_be())),
        tcx::set(3, i32::from(vlan)),
        tcx::call(VLAN_PUSH),
        tcx::set(0, -1),
        tcx::EXIT,
    ]
}
