//! Maps in memory that user space and kernel share: table sets, and the control word.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use fw_common::abi::{Control, LINE_BYTES, LINE_WORDS, Line};
use memmap2::{Advice, Mmap, MmapMut, MmapOptions, MmapRaw};

/// Bytes of a word.
const WORD: usize = size_of::<u32>();

fn options(lines: usize) -> MmapOptions {
    let mut options = MmapOptions::new();
    options.len(lines * LINE_BYTES);
    options
}

/// Fills a map of lines that was created with `BPF_F_MMAPABLE`, and unmaps it again.
pub(super) fn fill(map: BorrowedFd<'_>, lines: &[Line]) -> io::Result<()> {
    // SAFETY: the map is new: no program and no other process knows it yet, so nobody else writes to this memory, and it
    // cannot shrink as a file could.
    let mut memory: MmapMut = unsafe { options(lines.len()).map_mut(map.as_raw_fd()) }?;
    // A child forked now would hold its copy of this mapping until it executes a program, and the map could not be frozen.
    memory.advise(Advice::DontFork)?;
    let words = lines.iter().flat_map(|line| line.w);
    for (bytes, word) in memory.chunks_exact_mut(WORD).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Ok(())
}

/// Copies a map of lines.
pub(super) fn read(map: BorrowedFd<'_>, lines: usize) -> io::Result<Vec<Line>> {
    // SAFETY: a set is never written after it was filled (it is frozen), and a map cannot shrink as a file could.
    let memory: Mmap = unsafe { options(lines).map(map.as_raw_fd()) }?;
    Ok(memory.chunks_exact(LINE_BYTES).map(line).collect())
}

fn line(bytes: &[u8]) -> Line {
    let mut words = [0; LINE_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(WORD)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    Line { w: words }
}

/// The mapped control element. A map update would copy the element byte by byte; here each field changes by one store, so
/// a packet reads the old generation or the new one.
#[derive(Debug)]
pub(super) struct ControlPage(MmapRaw);

impl ControlPage {
    /// Maps the element of the `CONTROL` map.
    pub fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        MmapOptions::new()
            .len(size_of::<Control>())
            .map_raw(map.as_raw_fd())
            .map(Self)
    }

    pub fn generation(&self) -> &AtomicU32 {
        // SAFETY: the mapping is as long as Control and page-aligned, so the field is in it and aligned; it lives as long
        // as the reference, and everyone else (kernel programs, other processes) accesses it by whole words.
        unsafe { AtomicU32::from_ptr(self.0.as_mut_ptr().add(offset_of!(Control, generation)).cast()) }
    }

    pub fn clock(&self) -> &AtomicU64 {
        // SAFETY: as for the generation.
        unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().add(offset_of!(Control, clock)).cast()) }
    }

    pub fn pickup_until(&self) -> &AtomicU64 {
        // SAFETY: as for the generation.
        unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().add(offset_of!(Control, pickup_until)).cast()) }
    }

    pub fn events_per_window(&self) -> &AtomicU32 {
        // SAFETY: as for the generation.
        unsafe {
            AtomicU32::from_ptr(
                self.0
                    .as_mut_ptr()
                    .add(offset_of!(Control, events_per_window))
                    .cast(),
            )
        }
    }

    /// A copy of all fields.
    pub fn load(&self) -> Control {
        Control {
            generation: self.generation().load(Ordering::Acquire),
            clock: self.clock().load(Ordering::Relaxed),
            pickup_until: self.pickup_until().load(Ordering::Relaxed),
            events_per_window: self.events_per_window().load(Ordering::Relaxed),
            ..Control::default()
        }
    }
}
