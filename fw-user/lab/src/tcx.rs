//! TCX programs of a few instructions, written by hand: they need no compiler, and of the kernel nothing but TCX (6.6).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

use super::Namespace;

/// Which packets of an interface a program sees. The numbers are the kernel's attach types.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// What comes in.
    In = 46,
    /// What leaves.
    Out = 47,
}

/// The end of a program; its result is in `r0`.
pub(crate) const EXIT: u64 = 0x95;

/// Puts a number into a register.
pub(crate) fn set(register: u8, value: i32) -> u64 {
    instruction(0xb7, register, value)
}

/// Calls a helper with `r1` to `r5`; its result is in `r0`. A program starts with the packet in `r1`.
pub(crate) fn call(helper: i32) -> u64 {
    instruction(0x85, 0, helper)
}

/// Helpers of `linux/bpf.h`.
pub(crate) const RANDOM: i32 = 7;
pub(crate) const CLONE: i32 = 13;
pub(crate) const REDIRECT: i32 = 23;

/// Copies a register.
pub(crate) fn copy(to: u8, from: u8) -> u64 {
    instruction(0xbf, to | (from << 4), 0)
}

/// Keeps these bits of a register.
pub(crate) fn mask(register: u8, bits: i32) -> u64 {
    instruction(0x57, register, bits)
}

/// Skips the next `count` instructions unless the register is below a number.
pub(crate) fn skip_if_not_below(register: u8, number: i32, count: u16) -> u64 {
    instruction(0x35, register, number) | (u64::from(count) << 16)
}

fn instruction(code: u8, register: u8, value: i32) -> u64 {
    u64::from(code) | (u64::from(register) << 8) | (u64::from(value.cast_unsigned()) << 32)
}

/// An attached program. Dropping the handle detaches it.
#[derive(Debug)]
pub(crate) struct Tcx {
    link: OwnedFd,
}

impl Drop for Tcx {
    /// Detaches at once: closing the descriptor is not enough while a process that another thread is starting still holds a copy.
    fn drop(&mut self) {
        const LINK_DETACH: i64 = 34;
        let link = DetachAttributes {
            link: self.link.as_raw_fd().cast_unsigned(),
        };
        // The interface may be gone already, and the link with it.
        let _gone = command(LINK_DETACH, &link);
    }
}

/// `bpf_attr` of `BPF_LINK_DETACH`.
#[repr(C)]
struct DetachAttributes {
    link: u32,
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

impl Tcx {
    /// Attaches a program to an interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn attach(namespace: &Namespace, interface: &str, way: Way, code: &[u64]) -> Result<Self> {
        Self::attach_at(namespace, interface, way, code, 0)
    }

    /// Attaches a program in front of those that are there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn attach_first(
        namespace: &Namespace,
        interface: &str,
        way: Way,
        code: &[u64],
    ) -> Result<Self> {
        const BEFORE: u32 = 1 << 3;
        Self::attach_at(namespace, interface, way, code, BEFORE)
    }

    fn attach_at(namespace: &Namespace, interface: &str, way: Way, code: &[u64], flags: u32) -> Result<Self> {
        let index = namespace.ifindex(interface)?;
        let link = namespace
            .enter(|| attach(index, way, code, flags))?
            .with_context(|| {
                format!(
                    "cannot attach a TCX program to {interface} in {}; TCX needs Linux 6.6",
                    namespace.name()
                )
            })?;
        Ok(Self { link })
    }
}

fn attach(ifindex: u32, way: Way, code: &[u64], flags: u32) -> io::Result<OwnedFd> {
    const PROG_LOAD: i64 = 5;
    const LINK_CREATE: i64 = 28;
    const SCHED_CLS: u32 = 3;
    let load = LoadAttributes {
        program_type: SCHED_CLS,
        instruction_count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        expected_attach_type: way as u32,
        ..LoadAttributes::default()
    };
    let program = bpf(PROG_LOAD, &load)?;
    let link = LinkAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: way as u32,
        flags,
        ..LinkAttributes::default()
    };
    bpf(LINK_CREATE, &link)
}

/// A command that makes a descriptor.
fn bpf<T>(number: i64, attributes: &T) -> io::Result<OwnedFd> {
    let fd = command(number, attributes)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn command<T>(number: i64, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes live through the call, have the layout that the command expects, and their size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            number,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    let result = i32::try_from(result).map_err(io::Error::other)?;
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
