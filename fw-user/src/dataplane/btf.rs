//! Type information for table sets.
//!
//! Kernels before 6.2 take a map into an outer map only if both have type information or both have none
//! (`bpf_map_meta_equal` compares `timer_off`, which says so). The outer map's template has it, from the BPF object.

use fw_common::abi::{CHUNK_BYTES, CHUNK_LINES};

/// Number of the key's type: the first in [`chunk()`].
pub(super) const KEY_TYPE: u32 = 1;
/// Number of the value's type: the fifth.
pub(super) const CHUNK_TYPE: u32 = 5;

const MAGIC_AND_VERSION: u32 = 0xeb9f | 1 << 16;
const HEADER_BYTES: u32 = 24;
const KIND_INT: u32 = 1 << 24;
const KIND_ARRAY: u32 = 3 << 24;
const KIND_STRUCT: u32 = 4 << 24;

/// The five types, in the format of include/uapi/linux/btf.h: name, kind, size, then what the kind needs.
const TYPES: [u32; 28] = [
    // 1: u32, an integer of 32 bits.
    1,
    KIND_INT,
    4,
    32, //
    // 2: [u32; 16].
    0,
    KIND_ARRAY,
    0,
    1,
    1,
    16, //
    // 3: struct line, 64 bytes, with the one member `w` of type 2 at bit 0.
    5,
    KIND_STRUCT | 1,
    64,
    10,
    2,
    0, //
    // 4: [struct line; 16384].
    0,
    KIND_ARRAY,
    0,
    3,
    1,
    CHUNK_LINES, //
    // 5: struct chunk, 1 MiB, with the one member `lines` of type 4 at bit 0.
    12,
    KIND_STRUCT | 1,
    CHUNK_BYTES as u32,
    18,
    4,
    0,
];

/// Names, by offset.
const STRINGS: &[u8; 24] = b"\0u32\0line\0w\0chunk\0lines\0";

/// `struct chunk { struct line { u32 w[16]; } lines[16384]; }` as the kernel wants it.
pub(super) fn chunk() -> Vec<u8> {
    let type_bytes = size_of_val(&TYPES) as u32;
    let header = [
        MAGIC_AND_VERSION,
        HEADER_BYTES,
        0,
        type_bytes,
        type_bytes,
        STRINGS.len() as u32,
    ];
    let words = header.iter().chain(&TYPES).flat_map(|word| word.to_ne_bytes());
    words.chain(STRINGS.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::{HEADER_BYTES, STRINGS, TYPES, chunk};

    #[test]
    fn names_stand_where_the_types_say() {
        for (offset, name) in [
            (TYPES[0], "u32"),
            (TYPES[10], "line"),
            (TYPES[13], "w"),
            (TYPES[22], "chunk"),
            (TYPES[25], "lines"),
        ] {
            let rest = &STRINGS[offset as usize..];
            let end = rest.iter().position(|byte| *byte == 0).unwrap();
            assert_eq!(&rest[..end], name.as_bytes());
        }
        assert_eq!(
            chunk().len(),
            HEADER_BYTES as usize + size_of_val(&TYPES) + STRINGS.len()
        );
    }
}
