//! Elements of maps: one by one and in batches; and the making of table sets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_cmd, bpf_map_type};
use fw_common::abi::{CHUNK_BYTES, CHUNK_LINES};

use super::super::btf;
use super::super::plain::Plain;
use super::{address, address_mut, bpf, own, raw};

/// `BPF_NOEXIST`: create, never overwrite.
pub(in crate::dataplane) const NOEXIST: u64 = 1;
/// `BPF_EXIST`: overwrite, never create.
pub(in crate::dataplane) const EXIST: u64 = 2;

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
pub(in crate::dataplane) fn lookup<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    key: &K,
) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut attr = Elem::new(map, address(key), address_mut(&mut value), 0);
    // SAFETY: key and value are live and, by the check of the map's shape, as large as the kernel believes.
    found(unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) }, value)
}

/// Reads one element of a per-CPU map into `bytes`: 8-byte rounded values, one for each possible CPU.
pub(in crate::dataplane) fn lookup_per_cpu(
    map: BorrowedFd<'_>,
    key: u32,
    bytes: &mut [u64],
) -> io::Result<()> {
    let mut attr = Elem::new(map, address(&key), bytes.as_mut_ptr() as u64, 0);
    // SAFETY: the key is live; the caller sized the buffer for all possible CPUs.
    unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) }.map(drop)
}

/// Removes one element and returns what it held at that moment; `None` if the key has none.
pub(in crate::dataplane) fn take<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
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
pub(in crate::dataplane) fn update<K: Plain, V: Plain>(
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
pub(in crate::dataplane) struct Cursor(Option<u32>);

/// One step of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Step {
    /// That many entries were read; there may be more.
    More(usize),
    /// That many entries were read; the walk is over.
    End(usize),
    /// A bucket holds more entries than the buffers take.
    Grow,
}

/// Reads as many entries of a hash map as the buffers take. Each bucket is read at once and visited once, so an entry
/// that stays in the map is seen exactly once.
pub(in crate::dataplane) fn lookup_batch<K: Plain, V: Plain>(
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
pub(in crate::dataplane) fn delete_batch<K: Plain>(
    map: BorrowedFd<'_>,
    keys: &[K],
) -> (usize, io::Result<()>) {
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

/// Creates an array of chunks for so many lines, with type information. aya creates standalone maps without.
pub(in crate::dataplane) fn create_lines(name: [u8; 16], lines: u32, flags: u32) -> io::Result<OwnedFd> {
    let bytes = btf::chunk();
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
        value_size: CHUNK_BYTES as u32,
        max_entries: lines.div_ceil(CHUNK_LINES),
        flags,
        inner_map_fd: 0,
        numa_node: 0,
        name,
        ifindex: 0,
        btf_fd: raw(types.as_fd()),
        btf_key_type: btf::KEY_TYPE,
        btf_value_type: btf::CHUNK_TYPE,
    };
    // SAFETY: the attribute holds no address.
    unsafe { bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr) }.map(own)
}

/// Makes a map read-only for user space, for ever. It must not be mapped writable any more.
pub(in crate::dataplane) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = raw(map);
    // SAFETY: the attribute is the descriptor alone.
    unsafe { bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr) }.map(drop)
}

/// A descriptor of the map with this id.
pub(in crate::dataplane) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    // SAFETY: the attribute holds no address.
    unsafe { bpf(bpf_cmd::BPF_MAP_GET_FD_BY_ID, &mut attr) }.map(own)
}
