//! The calls of bpf(2) that aya does not offer: batches, links by index, link information.
//!
//! Each command has an attribute structure of its own instead of the kernel's union: the kernel takes a shorter one and
//! reads the rest as zeros. None may have padding, whose bytes would be read as fields. Layouts: `union bpf_attr` in
//! include/uapi/linux/bpf.h.

mod link;
mod map;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::bpf_cmd;

pub(super) use self::link::{
    LinkInfo, TCX_FIRST, XDP_DRIVER, link_create, link_detach, link_info, link_update, tcx_chain,
};
pub(super) use self::map::{
    Cursor, EXIST, NOEXIST, Step, create_lines, delete_batch, freeze, lookup, lookup_batch, lookup_per_cpu,
    map_by_id, take, update,
};

/// Runs one command. The attribute must be the one that belongs to the command.
///
/// # Safety
///
/// Every address inside `attr` is valid for what the command reads or writes there.
unsafe fn bpf<T>(command: bpf_cmd, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a live, exclusive structure of the given size; the caller vouches for the addresses in it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as u32,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}

/// Takes ownership of a descriptor that a command returned.
fn own(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value) as u64
}

fn address_mut<T>(value: &mut T) -> u64 {
    std::ptr::from_mut(value) as u64
}

#[repr(C)]
struct Obj {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Opens what is pinned at this path.
pub(super) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = Obj {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: the path is a live string that ends with a zero byte.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attr) }.map(own)
}

/// Pins a link or map at this path, which must not exist.
pub(super) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = Obj {
        path: path.as_ptr() as u64,
        fd: raw(fd),
        flags: 0,
    };
    // SAFETY: the path is a live string that ends with a zero byte.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Waits until every program run that began before the call has ended, on all CPUs.
///
/// `MEMBARRIER_CMD_GLOBAL` is a grace period of RCU, and programs run inside RCU read sections (kernel/sched/membarrier.c).
/// Fails with `EINVAL` on machines with `nohz_full` CPUs.
pub(super) fn grace_period() -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
