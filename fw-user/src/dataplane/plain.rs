//! Types that may be copied to and from the kernel byte by byte.

use fw_common::abi::{Control, Count, Event, Flow, Key4, Key6, LimitKey, PortConfig, Source, SourceKey};

/// A type that the kernel may read and overwrite as bytes.
///
/// A trait of this module rather than aya's `Pod`, because the shared types live in a crate that forbids unsafe code.
///
/// # Safety
///
/// The type is `repr(C)` or a primitive, has no padding, holds no pointer, and every bit pattern is a valid value.
pub(crate) unsafe trait Plain: Copy + Default + 'static {}

// SAFETY: an integer: no padding, all bit patterns valid.
unsafe impl Plain for u32 {}
// SAFETY: an integer: no padding, all bit patterns valid.
unsafe impl Plain for u64 {}
// SAFETY: `repr(C)`, integers only; explicit padding fields and an asserted size.
unsafe impl Plain for Control {}
// SAFETY: `repr(C)`, two u64.
unsafe impl Plain for Count {}
// SAFETY: `repr(C)`, integers only; explicit padding fields and an asserted size.
unsafe impl Plain for PortConfig {}
// SAFETY: `repr(C)`, integers only; explicit padding fields and an asserted size.
unsafe impl Plain for Key4 {}
// SAFETY: `repr(C)`, integers only; explicit padding fields and an asserted size.
unsafe impl Plain for Key6 {}
// SAFETY: `repr(C)`, integers only, each u64 at a multiple of 8, an even number of u32 between; asserted size.
unsafe impl Plain for Flow {}
// SAFETY: `repr(C)`, six u32; asserted size.
unsafe impl Plain for SourceKey {}
// SAFETY: `repr(C)`, four u32 and four u64; asserted size.
unsafe impl Plain for Source {}
// SAFETY: `repr(C)`, ten u32; asserted size.
unsafe impl Plain for LimitKey {}
// SAFETY: `repr(C)`, integers only; explicit padding fields and an asserted size.
unsafe impl Plain for Event {}

/// Copies a value out of a record; `None` if the record has another length.
pub(crate) fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: the slice has exactly the type's size, the read tolerates any alignment, and `Plain` says that every
    // bit pattern is a value.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast::<T>()) })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_record_of_another_length_is_refused() {
        assert_eq!(read::<u32>(&[1, 0, 0, 0]), Some(u32::from_ne_bytes([1, 0, 0, 0])));
        assert_eq!(read::<u32>(&[1, 0, 0]), None);
        assert_eq!(read::<u32>(&[1, 0, 0, 0, 0]), None);
    }

    #[test]
    fn an_unaligned_record_is_read() {
        let bytes = [9, 0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(
            read::<u64>(&bytes[1..]),
            Some(u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, 7]))
        );
    }
}
