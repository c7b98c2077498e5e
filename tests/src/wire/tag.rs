//! VLAN tags that travel beside the frame: put back on receipt, and made on purpose.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

use crate::lab::Namespace;

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
    _link: OwnedFd,
}

/// `bpf_attr` of `BPF_PROG_LOAD`, up to the field `expected_attach_type` (see `linux/bpf.h`).
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

/// `bpf_attr` of `BPF_LINK_CREATE` for TCX.
#[repr(C)]
#[derive(Default)]
struct LinkAttributes {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    revision: u64,
}

impl TagPusher {
    /// Attaches the program to what leaves by `interface`.
    ///
    /// # Errors
    /// If the kernel refuses (TCX needs 6.6).
    pub fn attach(namespace: &Namespace, interface: &str, vlan: u16) -> Result<Self> {
        let index = namespace.ifindex(interface)?;
        let link = namespace.enter(|| attach(index, vlan))?.with_context(|| {
            format!(
                "cannot attach the tagging program to {interface} in {}",
                namespace.name()
            )
        })?;
        Ok(Self { _link: link })
    }
}

fn attach(ifindex: u32, vlan: u16) -> io::Result<OwnedFd> {
    const PROG_LOAD: i64 = 5;
    const LINK_CREATE: i64 = 28;
    const SCHED_CLS: u32 = 3;
    const TCX_EGRESS: u32 = 47;
    let code = instructions(vlan);
    let load = LoadAttributes {
        program_type: SCHED_CLS,
        instruction_count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        expected_attach_type: TCX_EGRESS,
        ..LoadAttributes::default()
    };
    let program = bpf(PROG_LOAD, &load)?;
    let link = LinkAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: TCX_EGRESS,
        ..LinkAttributes::default()
    };
    bpf(LINK_CREATE, &link)
}

/// `bpf_skb_vlan_push(skb, htons(ETH_P_8021Q), vlan); return TCX_NEXT`, with `r1` holding the skb on entry.
fn instructions(vlan: u16) -> [u64; 5] {
    const MOVE: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const VLAN_PUSH: i32 = 18;
    let instruction = |code: u8, register: u8, value: i32| {
        u64::from(code) | (u64::from(register) << 8) | (u64::from(value.cast_unsigned()) << 32)
    };
    [
        instruction(MOVE, 2, i32::from(0x8100_u16.to_be())),
        instruction(MOVE, 3, i32::from(vlan)),
        instruction(CALL, 0, VLAN_PUSH),
        instruction(MOVE, 0, -1),
        instruction(EXIT, 0, 0),
    ]
}

fn bpf<T>(command: i64, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes live through the call, have the layout that the command expects, and their size is given.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
