//! Policies in the kernel: build a set aside, put it into the free slot, switch the generation.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aya::maps::MapInfo;
use fw_common::abi::{ABI_VERSION, CHUNK_LINES, Line, SET_MAGIC, SetHeader, checksum, map_names};

use super::error::{self, DataPlaneError};
use super::tables::Tables;
use super::{mmap, sys};

/// `BPF_F_MMAPABLE` and `BPF_F_INNER_MAP` (include/uapi/linux/bpf.h): what the outer map's template has. The second
/// allows sets of different sizes.
const FLAGS: u32 = (1 << 10) | (1 << 12);
/// Name of a set in the kernel's list of maps.
const NAME: &[u8; 16] = b"dpufw_set\0\0\0\0\0\0\0";

/// The generation after this one: never 0, and always in the other slot.
#[must_use]
pub const fn generation_after(generation: u32) -> u32 {
    match generation.wrapping_add(1) {
        // 0 means "no policy", and 1 would stand in the same slot as u32::MAX.
        0 => 2,
        next => next,
    }
}

impl Tables {
    /// The generation that the next policy must be compiled with.
    #[must_use]
    pub fn next_generation(&self) -> u32 {
        generation_after(self.control().generation)
    }

    /// Puts a compiled policy into force: every packet is judged by the old set or by the new one, never by a mixture.
    /// Returns its generation. Blocks for one or two grace periods of the kernel, about 10 to 30 ms each.
    ///
    /// If anything fails, the old policy stays in force.
    ///
    /// # Errors
    ///
    /// [`DataPlaneError::BadSet`] if the set is damaged or was compiled for another generation than
    /// [`Tables::next_generation`]; or what the kernel refused.
    pub fn apply(&self, lines: &[Line]) -> Result<u32, DataPlaneError> {
        let _guard = self.lock();
        let generation = self.next_generation();
        check(lines, generation)?;
        let set = make(lines)?;
        let slot = generation & 1;
        let set_fd = set.as_raw_fd().cast_unsigned();
        self.write(map_names::SETS, slot, &set_fd)?;
        self.set_generation(generation);
        // Packets that read the old generation still use the old slot. Once they are through, it may be written again.
        self.wait_for_packets(slot, set_fd)?;
        Ok(generation)
    }

    /// Waits until no packet uses what was in force before.
    fn wait_for_packets(&self, slot: u32, set_fd: u32) -> Result<(), DataPlaneError> {
        match sys::grace_period() {
            Ok(()) => Ok(()),
            // No membarrier on this machine: an update of an outer map from user space waits for a grace period as well
            // (kernel/bpf/syscall.c, maybe_wait_bpf_programs), so the same set is put into its slot once more.
            Err(_) => self.write(map_names::SETS, slot, &set_fd),
        }
    }

    /// A copy of the set in force, read back from the kernel; `None` before the first policy.
    ///
    /// # Errors
    ///
    /// [`DataPlaneError::BadSet`] if it is damaged; or what the kernel refused.
    pub fn current_set(&self) -> Result<Option<Vec<Line>>, DataPlaneError> {
        let generation = self.control().generation;
        if generation == 0 {
            return Ok(None);
        }
        let wrap = |action| error::map(action, map_names::SETS);
        let id =
            sys::lookup::<u32, u32>(self.fd(map_names::SETS)?, &(generation & 1)).map_err(wrap("reading"))?;
        let Some(id) = id else {
            return Err(DataPlaneError::BadSet {
                what: format!("the slot of generation {generation} is empty"),
            });
        };
        let map = sys::map_by_id(id).map_err(wrap("opening a set of"))?;
        let info = MapInfo::from_id(id).map_err(aya_error("opening a set of"))?;
        let room = (info.max_entries() * CHUNK_LINES) as usize;
        let mut lines = mmap::read(map.as_fd(), room).map_err(wrap("mapping a set of"))?;
        if let [first, second, ..] = &lines[..] {
            let used = SetHeader::from_lines(first, second).lines;
            lines.truncate(used as usize);
        }
        check(&lines, generation)?;
        Ok(Some(lines))
    }
}

fn aya_error(action: &'static str) -> impl FnOnce(aya::maps::MapError) -> DataPlaneError {
    move |source| DataPlaneError::AyaMap {
        action,
        map: map_names::SETS,
        source: Box::new(source),
    }
}

/// Makes a set of its own and reads it back.
fn make(lines: &[Line]) -> Result<OwnedFd, DataPlaneError> {
    let wrap = |action| error::map(action, map_names::SETS);
    let map = sys::create_lines(*NAME, lines.len() as u32, FLAGS).map_err(wrap("creating a set for"))?;
    mmap::fill(map.as_fd(), lines).map_err(wrap("filling a set for"))?;
    sys::freeze(map.as_fd()).map_err(wrap("freezing a set for"))?;
    if !mmap::holds(map.as_fd(), lines).map_err(wrap("reading back a set for"))? {
        return Err(DataPlaneError::BadSet {
            what: "it reads back differently from the kernel's memory".to_owned(),
        });
    }
    Ok(map)
}

/// Refuses a set that the packet path could not use.
fn check(lines: &[Line], generation: u32) -> Result<(), DataPlaneError> {
    let fail = |what: String| Err(DataPlaneError::BadSet { what });
    let [first, second, ..] = lines else {
        return fail(format!(
            "it has {} lines, and the header alone has 2",
            lines.len()
        ));
    };
    let header = SetHeader::from_lines(first, second);
    let numbers = [
        ("magic number", header.magic, SET_MAGIC),
        ("ABI version", header.abi, ABI_VERSION),
        ("generation", header.generation, generation),
        ("number of lines", header.lines, lines.len() as u32),
    ];
    if let Some((what, found, wanted)) = numbers.into_iter().find(|(_, found, wanted)| found != wanted) {
        return fail(format!("its {what} is {found}, not {wanted}"));
    }
    let stored = (header.checksum_hi as u64) << 32 | header.checksum_lo as u64;
    let computed = checksum(lines);
    if stored != computed {
        return fail(format!(
            "its checksum is {stored:#x}, but its lines add up to {computed:#x}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fw_common::abi::{ABI_VERSION, Line, SET_MAGIC, SetHeader, checksum};

    use super::{check, generation_after};

    fn set(generation: u32) -> Vec<Line> {
        let mut header = SetHeader {
            magic: SET_MAGIC,
            abi: ABI_VERSION,
            generation,
            lines: 3,
            ..Default::default()
        };
        let mut lines = header.to_lines().to_vec();
        lines.push(Line { w: [7; 16] });
        let sum = checksum(&lines);
        header.checksum_lo = sum as u32;
        header.checksum_hi = (sum >> 32) as u32;
        lines[..2].copy_from_slice(&header.to_lines());
        lines
    }

    #[test]
    fn generations_skip_0_and_change_the_slot() {
        assert_eq!(generation_after(0), 1);
        assert_eq!(generation_after(7), 8);
        assert_eq!(generation_after(u32::MAX - 1), u32::MAX);
        assert_eq!(generation_after(u32::MAX), 2);
    }

    #[test]
    fn a_good_set_is_taken_and_any_changed_word_refuses_it() {
        let good = set(4);
        assert!(check(&good, 4).is_ok());
        for line in 0..good.len() {
            for word in 0..16 {
                let mut bad = good.clone();
                bad[line].w[word] ^= 1;
                assert!(check(&bad, 4).is_err(), "line {line}, word {word}");
            }
        }
    }

    #[test]
    fn a_set_of_another_generation_or_length_is_refused() {
        assert!(check(&set(4), 5).is_err());
        assert!(check(&set(4)[..2], 4).is_err());
        assert!(check(&[], 4).is_err());
    }
}
