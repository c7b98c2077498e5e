//! Maps in memory that user space and kernel share: table sets, the control word, levels, bits.

use std::io;
use std::mem::offset_of;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use fw_common::abi::{BEYOND, CHUNK_LINES, Control, LINE_BYTES, LINE_WORDS, Levels, Line};
use memmap2::{Advice, Mmap, MmapMut, MmapOptions, MmapRaw};

/// Bytes of a word.
const WORD: usize = size_of::<u32>();

fn options(lines: usize) -> MmapOptions {
    let mut options = MmapOptions::new();
    options.len(lines * LINE_BYTES);
    options
}

/// Fills a map of chunks that was created with `BPF_F_MMAPABLE`, with [`BEYOND`] behind the last line, and unmaps it again.
pub(super) fn fill(map: BorrowedFd<'_>, lines: &[Line]) -> io::Result<()> {
    // SAFETY: the map is new: no program and no other process knows it yet, so nobody else writes to this memory, and it
    // cannot shrink as a file could.
    let mut memory: MmapMut = unsafe { options(room(lines)).map_mut(map.as_raw_fd()) }?;
    // A child forked now would hold its copy of this mapping until it executes a program, and the map could not be frozen.
    memory.advise(Advice::DontFork)?;
    let words = filled(lines).flat_map(|line| line.w);
    for (bytes, word) in memory.chunks_exact_mut(WORD).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Ok(())
}

/// Lines that the chunks of a set have.
fn room(lines: &[Line]) -> usize {
    lines.len().next_multiple_of(CHUNK_LINES as usize)
}

/// A set's lines, and what lies behind them.
fn filled(lines: &[Line]) -> impl Iterator<Item = &Line> {
    let behind = room(lines) - lines.len();
    lines.iter().chain(std::iter::repeat_n(&BEYOND, behind))
}

/// True if a map holds exactly these lines.
pub(super) fn holds(map: BorrowedFd<'_>, lines: &[Line]) -> io::Result<bool> {
    // SAFETY: as in `read`.
    let memory: Mmap = unsafe { options(room(lines)).map(map.as_raw_fd()) }?;
    Ok(memory
        .chunks_exact(LINE_BYTES)
        .zip(filled(lines))
        .all(|(bytes, wanted)| line(bytes) == *wanted))
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

/// A mapped word of four bytes.
///
/// # Panics
/// If it does not lie in the mapping, aligned: offsets come from the layout and the map's size, never from outside.
fn word32(memory: &MmapRaw, offset: usize) -> &AtomicU32 {
    assert!(offset.is_multiple_of(align_of::<AtomicU32>()) && offset + size_of::<u32>() <= memory.len());
    // SAFETY: the mapping is page-aligned, so by the check above the word is in it and aligned; it lives as long as the
    // reference, and everyone else (kernel programs, other processes) accesses it by whole words.
    unsafe { AtomicU32::from_ptr(memory.as_mut_ptr().add(offset).cast()) }
}

/// A mapped word of eight bytes.
///
/// # Panics
/// As [`word32`].
fn word64(memory: &MmapRaw, offset: usize) -> &AtomicU64 {
    assert!(offset.is_multiple_of(align_of::<AtomicU64>()) && offset + size_of::<u64>() <= memory.len());
    // SAFETY: as for `word32`.
    unsafe { AtomicU64::from_ptr(memory.as_mut_ptr().add(offset).cast()) }
}

fn map(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<MmapRaw> {
    MmapOptions::new().len(bytes).map_raw(fd.as_raw_fd())
}

/// The mapped control element. A map update would copy the element byte by byte; here each field changes by one store, so
/// a packet reads the old generation or the new one.
#[derive(Debug)]
pub(super) struct ControlPage(MmapRaw);

impl ControlPage {
    /// Maps the element of the `CONTROL` map.
    pub fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        map(fd, size_of::<Control>()).map(Self)
    }

    pub fn generation(&self) -> &AtomicU32 {
        word32(&self.0, offset_of!(Control, generation))
    }

    pub fn flags(&self) -> &AtomicU32 {
        word32(&self.0, offset_of!(Control, flags))
    }

    pub fn clock(&self) -> &AtomicU64 {
        word64(&self.0, offset_of!(Control, clock))
    }

    pub fn pickup_until(&self) -> &AtomicU64 {
        word64(&self.0, offset_of!(Control, pickup_until))
    }

    pub fn events_per_window(&self) -> &AtomicU32 {
        word32(&self.0, offset_of!(Control, events_per_window))
    }

    pub fn replies_per_window(&self) -> &AtomicU32 {
        word32(&self.0, offset_of!(Control, replies_per_window))
    }

    pub fn heartbeat(&self) -> &AtomicU64 {
        word64(&self.0, offset_of!(Control, heartbeat))
    }

    pub fn presence(&self) -> &AtomicU32 {
        word32(&self.0, offset_of!(Control, presence))
    }

    pub fn ports(&self) -> &AtomicU32 {
        word32(&self.0, offset_of!(Control, ports))
    }

    pub fn secret(&self) -> [&AtomicU64; 2] {
        let first = offset_of!(Control, secret);
        [first, first + size_of::<u64>()].map(|offset| word64(&self.0, offset))
    }

    /// A copy of all fields.
    pub fn load(&self) -> Control {
        Control {
            generation: self.generation().load(Ordering::Acquire),
            flags: self.flags().load(Ordering::Relaxed),
            clock: self.clock().load(Ordering::Relaxed),
            pickup_until: self.pickup_until().load(Ordering::Relaxed),
            events_per_window: self.events_per_window().load(Ordering::Relaxed),
            replies_per_window: self.replies_per_window().load(Ordering::Relaxed),
            heartbeat: self.heartbeat().load(Ordering::Relaxed),
            secret: self.secret().map(|word| word.load(Ordering::Relaxed)),
            presence: self.presence().load(Ordering::Relaxed),
            ports: self.ports().load(Ordering::Relaxed),
        }
    }
}

/// The mapped levels of the main tables: the packet path adds to them while the agent subtracts.
#[derive(Debug)]
pub(super) struct LevelsPage(MmapRaw);

impl LevelsPage {
    /// Maps the element of the `LEVELS` map.
    pub fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        map(fd, size_of::<Levels>()).map(Self)
    }

    /// Entries of the table of this family's index (0: IPv4, 1: IPv6).
    pub fn used(&self, family: usize) -> &AtomicU64 {
        word64(
            &self.0,
            offset_of!(Levels, used) + (family & 1) * size_of::<u64>(),
        )
    }

    /// Entries up to which anyone's flow is inserted.
    pub fn room(&self, family: usize) -> &AtomicU64 {
        word64(
            &self.0,
            offset_of!(Levels, room) + (family & 1) * size_of::<u64>(),
        )
    }
}

/// A mapped array of words of 64 bits: bits of flows ([`fw_common::abi::Presence`]), bits of sources that have completed a
/// handshake.
#[derive(Debug)]
pub(super) struct BitsPage {
    memory: MmapRaw,
    words: u32,
}

impl BitsPage {
    /// Maps a map of so many words.
    pub fn new(fd: BorrowedFd<'_>, words: u32) -> io::Result<Self> {
        let memory = map(fd, words as usize * size_of::<u64>())?;
        Ok(Self { memory, words })
    }

    /// How many words there are.
    pub fn words(&self) -> u32 {
        self.words
    }

    /// Clears words.
    pub fn clear(&self, words: Range<u32>) {
        for word in words {
            self.word(word).store(0, Ordering::Relaxed);
        }
    }

    /// Sets bits of a word.
    pub fn set(&self, word: u32, bits: u64) {
        self.word(word).fetch_or(bits, Ordering::Relaxed);
    }

    /// How many bits are set in these words.
    pub fn ones(&self, words: Range<u32>) -> u64 {
        words
            .map(|word| u64::from(self.word(word).load(Ordering::Relaxed).count_ones()))
            .sum()
    }

    fn word(&self, word: u32) -> &AtomicU64 {
        word64(&self.memory, word as usize * size_of::<u64>())
    }
}
