//! The internet checksum (RFC 1071).

/// Folds a sum of words and complements it. A sum of 32-bit words is, by modulus 65535, the sum of their halves
/// (RFC 1071 section 2 (C)); whole words in memory order give the checksum in memory order (section 2 (B)).
#[inline(always)]
#[must_use]
pub const fn finish(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::finish;

    #[test]
    fn agrees_with_the_example_of_rfc_1071() {
        // Section 3: the bytes 00 01 f2 03 f4 f5 f6 f7 sum up to ddf2.
        assert_eq!(finish(0x0001_f203 + 0xf4f5_f6f7), !0xddf2);
    }

    #[test]
    fn carries_run_to_the_end() {
        assert_eq!(finish(0), 0xffff);
        assert_eq!(finish(0xffff_ffff), 0);
        assert_eq!(finish(0xffff_ffff * 3), 0);
        assert_eq!(finish(0xffff_ffff + 1), !1);
    }
}
