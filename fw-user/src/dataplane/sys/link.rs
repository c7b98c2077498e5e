//! Links: programs at interfaces, held by a file descriptor or a pin.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_attach_type, bpf_cmd};

use super::{bpf, own, raw};

/// `BPF_F_BEFORE` without a neighbour: first in the chain of TCX programs.
pub(in crate::dataplane) const TCX_FIRST: u32 = 1 << 3;
/// `XDP_FLAGS_DRV_MODE`: native XDP or an error.
pub(in crate::dataplane) const XDP_DRIVER: u32 = 1 << 2;

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    tcx_relative: u32,
    pad: u32,
    tcx_revision: u64,
}

/// Attaches a program to an interface by index.
pub(in crate::dataplane) fn link_create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    hook: bpf_attach_type,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        prog_fd: raw(program),
        ifindex,
        attach_type: hook as u32,
        flags,
        tcx_relative: 0,
        pad: 0,
        tcx_revision: 0,
    };
    // SAFETY: the attribute holds no address.
    unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr) }.map(own)
}

/// Replaces the program of a link; packets see the old one or the new one, never none.
pub(in crate::dataplane) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = [raw(link), raw(program), 0, 0];
    // SAFETY: the attribute holds no address.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// Detaches a link now, whoever else holds it.
pub(in crate::dataplane) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = raw(link);
    // SAFETY: the attribute is the descriptor alone.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// `struct bpf_link_info` as far as XDP and TCX links fill it, and room for the rest.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(in crate::dataplane) struct LinkInfo {
    /// `enum bpf_link_type`.
    pub kind: u32,
    /// The link's id.
    pub id: u32,
    /// Id of the program that it runs.
    pub prog_id: u32,
    pad: u32,
    /// The interface; 0 once it is gone.
    pub ifindex: u32,
    /// TCX: `enum bpf_attach_type`.
    pub attach_type: u32,
    rest: [u64; 6],
}

#[repr(C)]
struct Info {
    fd: u32,
    len: u32,
    address: u64,
}

/// Facts about a link. Fails with `EINVAL` if the descriptor is no link's.
pub(in crate::dataplane) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = MaybeUninit::<LinkInfo>::zeroed();
    let mut attr = Info {
        fd: raw(link),
        len: size_of::<LinkInfo>() as u32,
        address: info.as_mut_ptr() as u64,
    };
    // SAFETY: `info` has room for `len` bytes.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    // SAFETY: zeroed before the call; integers only, so any bytes are a value.
    Ok(unsafe { info.assume_init() })
}

#[repr(C)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Programs that a TCX hook can hold (`BPF_MPROG_MAX`).
const TCX_MAX: usize = 64;

/// Ids of the links in an interface's TCX chain, first to last; 0 for a program without link.
pub(in crate::dataplane) fn tcx_chain(ifindex: u32, hook: bpf_attach_type) -> io::Result<Vec<u32>> {
    let mut programs = [0_u32; TCX_MAX];
    let mut links = [0_u32; TCX_MAX];
    let mut attr = Query {
        ifindex,
        attach_type: hook as u32,
        flags: 0,
        attach_flags: 0,
        prog_ids: programs.as_mut_ptr() as u64,
        count: TCX_MAX as u32,
        pad: 0,
        prog_attach_flags: 0,
        link_ids: links.as_mut_ptr() as u64,
        link_attach_flags: 0,
        revision: 0,
    };
    // SAFETY: both arrays have room for `count` ids.
    unsafe { bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr) }?;
    Ok(links[..(attr.count as usize).min(TCX_MAX)].to_vec())
}
