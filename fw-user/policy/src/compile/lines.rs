//! The growing set, with a limit and an account of what takes the space.

use std::hash::BuildHasher;
use std::ops::Range;

use fw_common::abi::{BEYOND, CHUNK_LINES, LINE_BYTES, LINE_WORDS, Line};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::CompileError;

/// A part of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Header,
    Realms,
    Ipv4,
    Ipv6,
    Classes,
    Protocols,
    Rules,
    Protect,
    Pairs,
    Decisions,
    Vectors,
}

impl Section {
    const ALL: [Self; 11] = [
        Self::Header,
        Self::Realms,
        Self::Ipv4,
        Self::Ipv6,
        Self::Classes,
        Self::Protocols,
        Self::Rules,
        Self::Protect,
        Self::Pairs,
        Self::Decisions,
        Self::Vectors,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Realms => "realms",
            Self::Ipv4 => "IPv4 address maps",
            Self::Ipv6 => "IPv6 address maps",
            Self::Classes => "address classes",
            Self::Protocols => "port maps",
            Self::Rules => "rule and limit records",
            Self::Protect => "planes and protection",
            Self::Pairs => "pairs of zones",
            Self::Decisions => "decisions",
            Self::Vectors => "bit vectors",
        }
    }

    /// True for what each packet that opens a flow, or is denied, reads.
    const fn is_hot(self) -> bool {
        matches!(
            self,
            Self::Realms | Self::Ipv4 | Self::Ipv6 | Self::Classes | Self::Protocols | Self::Pairs
        )
    }

    const fn help(self) -> &'static str {
        match self {
            Self::Header | Self::Realms | Self::Ipv4 => {
                "Each VLAN and each IPv4 /16 with smaller zones costs space: use fewer VLANs or larger prefixes"
            }
            Self::Ipv6 => "Use fewer or larger IPv6 prefixes",
            Self::Classes | Self::Pairs => "Zones that overlap in many ways cost space: merge some",
            Self::Protocols | Self::Rules | Self::Protect => "Use fewer rules or protocols",
            Self::Decisions => {
                "Each pair of zones that has rules of its own times each 16 ports that rules tell apart costs 4 bytes: \
                 join ports to ranges, or give rules lists of zones"
            }
            Self::Vectors => {
                "Each prefix and each range of ports that rules tell apart costs up to 64 bytes for 512 rules: join some"
            }
        }
    }
}

/// Lines of which equal ones are written once.
#[derive(Default)]
pub(super) struct Pool {
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

/// An earlier end of the set.
pub(super) struct Mark {
    len: usize,
    room: Range<u32>,
    used: [u64; Section::ALL.len()],
}

/// The set while it grows.
#[derive(Clone)]
pub(super) struct Lines {
    set: Vec<Line>,
    /// Free lines of the first chunk, in front of the set's end: see [`Lines::leave_room`].
    room: Range<u32>,
    /// Most lines that may be used.
    limit: u64,
    /// Lines of each section, in the order of [`Section::ALL`].
    used: [u64; Section::ALL.len()],
}

impl Lines {
    /// An empty set that may grow to `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self {
            set: Vec::new(),
            room: 0..0,
            limit: limit / LINE_BYTES as u64,
            used: [0; Section::ALL.len()],
        }
    }

    /// Lines so far.
    pub(super) fn len(&self) -> u32 {
        // The limit keeps the number of lines below 2^27.
        self.set.len() as u32
    }

    /// Goes on in the second chunk, and leaves the rest of the first one to the sections that each new flow reads.
    pub(super) fn leave_room(&mut self) {
        let used = self.len();
        if used < CHUNK_LINES && u64::from(CHUNK_LINES) <= self.limit {
            self.room = used..CHUNK_LINES;
            self.set.resize(CHUNK_LINES as usize, Line::default());
        }
    }

    /// Adds zeroed lines and returns the number of the first.
    pub(super) fn reserve(&mut self, section: Section, count: u64) -> Result<u32, CompileError> {
        if section.is_hot() && count <= u64::from(self.room.end - self.room.start) {
            self.used[section as usize] += count;
            let first = self.room.start;
            self.room.start += count as u32;
            return Ok(first);
        }
        let first = self.set.len() as u64;
        self.used[section as usize] = self.used[section as usize].saturating_add(count);
        match first.checked_add(count) {
            Some(end) if end <= self.limit => {
                self.set.resize(end as usize, Line::default());
                Ok(first as u32)
            }
            _ => Err(self.too_large()),
        }
    }

    /// Adds zeroed lines for this many words.
    pub(super) fn reserve_words(&mut self, section: Section, words: u64) -> Result<u32, CompileError> {
        self.reserve(section, words.div_ceil(LINE_WORDS as u64))
    }

    /// Adds a line.
    pub(super) fn push(&mut self, section: Section, line: Line) -> Result<u32, CompileError> {
        let at = self.reserve(section, 1)?;
        self.set[at as usize] = line;
        Ok(at)
    }

    /// Adds a line, unless one of the pool is equal.
    pub(super) fn share(
        &mut self,
        section: Section,
        pool: &mut Pool,
        line: Line,
    ) -> Result<u32, CompileError> {
        let Pool { numbers, hasher } = pool;
        let hash = hasher.hash_one(line.w);
        let found = numbers.find(hash, |number| self.set[*number as usize] == line);
        if let Some(number) = found {
            return Ok(*number);
        }
        let number = self.push(section, line)?;
        numbers.insert_unique(hash, number, |number| {
            hasher.hash_one(self.set[*number as usize].w)
        });
        Ok(number)
    }

    /// Adds a table of these words.
    pub(super) fn push_words(&mut self, section: Section, words: &[u32]) -> Result<u32, CompileError> {
        let at = self.reserve_words(section, words.len() as u64)?;
        for (line, words) in self.set[at as usize..].iter_mut().zip(words.chunks(LINE_WORDS)) {
            line.w[..words.len()].copy_from_slice(words);
        }
        Ok(at)
    }

    /// Sets a word of a line.
    pub(super) fn set(&mut self, line: u32, word: usize, value: u32) {
        self.set[line as usize].w[word] = value;
    }

    /// Sets a word of a table.
    pub(super) fn set_word(&mut self, table: u32, index: u32, value: u32) {
        let index = index as usize;
        self.set[table as usize + index / LINE_WORDS].w[index % LINE_WORDS] = value;
    }

    /// Sets words of a table.
    pub(super) fn set_words(&mut self, table: u32, index: u32, values: &[u32]) {
        for (offset, value) in values.iter().enumerate() {
            self.set_word(table, index + offset as u32, *value);
        }
    }

    /// Sets an entry of a table of 16-bit numbers that was 0.
    pub(super) fn set_half(&mut self, table: u32, index: u32, value: u16) {
        let at = index as usize / 2;
        let word = &mut self.set[table as usize + at / LINE_WORDS].w[at % LINE_WORDS];
        *word |= u32::from(value) << ((index & 1) * 16);
    }

    /// Sets a whole line.
    pub(super) fn set_line(&mut self, number: u32, line: Line) {
        self.set[number as usize] = line;
    }

    /// Bytes that a part takes.
    pub(super) const fn bytes(&self, section: Section) -> u64 {
        self.used[section as usize] * LINE_BYTES as u64
    }

    /// Where the set ends now.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            len: self.set.len(),
            room: self.room.clone(),
            used: self.used,
        }
    }

    /// Takes away what was added since.
    pub(super) fn rewind(&mut self, mark: &Mark) {
        for line in mark.room.start..self.room.start {
            self.set[line as usize] = Line::default();
        }
        self.room = mark.room.clone();
        self.set.truncate(mark.len);
        self.used = mark.used;
    }

    /// Lets the set grow to another limit, in bytes.
    pub(super) const fn set_limit(&mut self, limit: u64) {
        self.limit = limit / LINE_BYTES as u64;
    }

    /// Name and bytes of each part.
    pub(super) fn parts(&self) -> Vec<(&'static str, u64)> {
        let bytes = self.used.iter().map(|lines| lines * LINE_BYTES as u64);
        Section::ALL
            .iter()
            .map(|section| section.name())
            .zip(bytes)
            .collect()
    }

    pub(super) fn into_inner(mut self) -> Vec<Line> {
        let room = self.room.start as usize..self.room.end as usize;
        self.set[room].fill(BEYOND);
        self.set
    }

    fn too_large(&self) -> CompileError {
        let mib = |lines: u64| lines.saturating_mul(LINE_BYTES as u64) >> 20;
        let largest = Section::ALL
            .into_iter()
            .max_by_key(|section| self.used[*section as usize]);
        let largest = largest.unwrap_or(Section::Decisions);
        CompileError::TooLarge {
            limit_mib: mib(self.limit),
            part: largest.name(),
            part_mib: mib(self.used[largest as usize]),
            help: largest.help(),
            most: String::new(),
        }
    }
}
