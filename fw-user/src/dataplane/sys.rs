//! The calls of bpf(2) that aya does not offer: batches, links by index, link information.
//!
//! Each command has an attribute structure of its own instead of the kernel's union: the kernel takes a shorter one and
//! reads the rest as zeros. None may have padding, whose bytes would be read as fields. Layouts: `union bpf_attr` in include/uapi/linux/bpf.h.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_map_type};
use fw_common::abi::LINE_BYTES;

use super::btf;
use super::plain::Plain;

/// `BPF_NOEXIST`: create, never overwrite.
pub(super) const NOEXIST: u64 = 1;
/// `BPF_F_BEFORE` without a neighbour: first in the chain of TCX programs.
pub(super) const TCX_FIRST: u32 = 1 << 3;
/// `XDP_FLAGS_DRV_MODE`: native XDP or an error.
pub(super) const XDP_DRIVER: u32 = 1 << 2;

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
struct Elem {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Elem {
    fn new(map: BorrowedFd<'_>, key: u64, value: u64, flags: u64) -> Self {
        Self {
            map_fd: raw(map),
            pad: 0,
            key,
            value,
            flags,
        }
    }
}

/// Reads one element; `None` if the key has none. `V` must have the map's value size (checked when the map was opened).
pub(super) fn lookup<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut attr = Elem::new(map, address(key), address_mut(&mut value), 0);
    // SAFETY: key and value are live and, by the check of the map's shape, as large as the kernel believes.
    found(unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) }, value)
}

/// Reads one element of a per-CPU map into `bytes`: 8-byte rounded values, one for each possible CPU.
pub(super) fn lookup_per_cpu(map: BorrowedFd<'_>, key: u32, bytes: &mut [u64]) -> io::Result<()> {
    let mut attr = Elem::new(map, address(&key), bytes.as_mut_ptr() as u64, 0);
    // SAFETY: the key is live; the caller sized the buffer for all possible CPUs.
    unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) }.map(drop)
}

/// Removes one element and returns what it held at that moment; `None` if the key has none.
pub(super) fn take<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut attr = Elem::new(map, address(key), address_mut(&mut value), 0);
    // SAFETY: as in `lookup`.
    found(
        unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) },
        value,
    )
}

/// `value` if the command succeeded, `None` if it found no such key. A function call orders the read after the kernel's
/// write.
fn found<V: Plain>(result: io::Result<i32>, value: V) -> io::Result<Option<V>> {
    match result {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes one element.
pub(super) fn update<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &V,
    flags: u64,
) -> io::Result<()> {
    let mut attr = Elem::new(map, address(key), address(value), flags);
    // SAFETY: as in `lookup`; the kernel only reads both.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

#[repr(C)]
struct Batch {
    cursor_in: u64,
    cursor_out: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Where a walk over a hash map stands: the number of the next bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor(Option<u32>);

/// One step of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// That many entries were read; there may be more.
    More(usize),
    /// That many entries were read; the walk is over.
    End(usize),
    /// A bucket holds more entries than the buffers take.
    Grow,
}

/// Reads as many entries of a hash map as the buffers take. Each bucket is read at once and visited once, so an entry
/// that stays in the map is seen exactly once.
pub(super) fn lookup_batch<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<Step> {
    let start = cursor.0.unwrap_or(0);
    let mut next = 0_u32;
    let mut attr = Batch {
        cursor_in: if cursor.0.is_some() { address(&start) } else { 0 },
        cursor_out: address_mut(&mut next),
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: keys.len().min(values.len()) as u32,
        map_fd: raw(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: both buffers hold `count` elements of the sizes that the map was checked for; both cursors are live u32,
    // which is what hash maps use (kernel/bpf/hashtab.c).
    match unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) } {
        Ok(_) => {
            cursor.0 = Some(next);
            Ok(Step::More(attr.count as usize))
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(Step::End(attr.count as usize)),
            Some(libc::ENOSPC) => Ok(Step::Grow),
            _ => Err(error),
        },
    }
}

/// Deletes these keys in order. Stops at the first that cannot be deleted: returns how many were, and why it stopped.
pub(super) fn delete_batch<K: Plain>(map: BorrowedFd<'_>, keys: &[K]) -> (usize, io::Result<()>) {
    let mut attr = Batch {
        cursor_in: 0,
        cursor_out: 0,
        keys: keys.as_ptr() as u64,
        values: 0,
        count: keys.len() as u32,
        map_fd: raw(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: `keys` holds `count` keys of the size that the map was checked for; the kernel only reads them.
    let result = unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut attr) };
    match result {
        Ok(_) => (attr.count as usize, Ok(())),
        // These come from the deletion of one key, and then the kernel has written how many went before.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EBUSY)) => {
            (attr.count as usize, Err(error))
        }
        Err(error) => (0, Err(error)),
    }
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
    ifindex: u32,
    btf_fd: u32,
    btf_key_type: u32,
    btf_value_type: u32,
}

#[repr(C)]
struct BtfLoad {
    btf: u64,
    log: u64,
    btf_size: u32,
    log_size: u32,
    log_level: u32,
    pad: u32,
}

/// Creates an array of lines with type information. aya creates standalone maps without.
pub(super) fn create_lines(name: [u8; 16], lines: u32, flags: u32) -> io::Result<OwnedFd> {
    let bytes = btf::line();
    let mut attr = BtfLoad {
        btf: bytes.as_ptr() as u64,
        log: 0,
        btf_size: bytes.len() as u32,
        log_size: 0,
        log_level: 0,
        pad: 0,
    };
    // SAFETY: `bytes` is live and `btf_size` long; the kernel only reads it.
    let types = own(unsafe { bpf(bpf_cmd::BPF_BTF_LOAD, &mut attr) }?);
    let mut attr = MapCreate {
        map_type: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        key_size: size_of::<u32>() as u32,
        value_size: LINE_BYTES as u32,
        max_entries: lines,
        flags,
        inner_map_fd: 0,
        numa_node: 0,
        name,
        ifindex: 0,
        btf_fd: raw(types.as_fd()),
        btf_key_type: btf::KEY_TYPE,
        btf_value_type: btf::LINE_TYPE,
    };
    // SAFETY: the attribute holds no address.
    unsafe { bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr) }.map(own)
}

/// Makes a map read-only for user space, for ever. It must not be mapped writable any more.
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = raw(map);
    // SAFETY: the attribute is the descriptor alone.
    unsafe { bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr) }.map(drop)
}

/// A descriptor of the map with this id.
pub(super) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    // SAFETY: the attribute holds no address.
    unsafe { bpf(bpf_cmd::BPF_MAP_GET_FD_BY_ID, &mut attr) }.map(own)
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
pub(super) fn link_create(
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
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = [raw(link), raw(program), 0, 0];
    // SAFETY: the attribute holds no address.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// Detaches a link now, whoever else holds it.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = raw(link);
    // SAFETY: the attribute is the descriptor alone.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// `struct bpf_link_info` as far as XDP and TCX links fill it, and room for the rest.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkInfo {
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
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
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
pub(super) fn tcx_chain(ifindex: u32, hook: bpf_attach_type) -> io::Result<Vec<u32>> {
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
