//! `SipHash-1-3` (Aumasson and Bernstein, "`SipHash`: a fast short-input PRF") of messages of 48 bytes: a keyed hash that
//! whoever lacks the key cannot guess.

/// Message blocks of 8 bytes.
pub const BLOCKS: usize = 6;

struct State {
    a: u64,
    b: u64,
    c: u64,
    d: u64,
}

impl State {
    #[inline(always)]
    fn round(&mut self) {
        self.a = self.a.wrapping_add(self.b);
        self.c = self.c.wrapping_add(self.d);
        self.b = self.b.rotate_left(13) ^ self.a;
        self.d = self.d.rotate_left(16) ^ self.c;
        self.a = self.a.rotate_left(32);
        self.c = self.c.wrapping_add(self.b);
        self.a = self.a.wrapping_add(self.d);
        self.b = self.b.rotate_left(17) ^ self.c;
        self.d = self.d.rotate_left(21) ^ self.a;
        self.c = self.c.rotate_left(32);
    }

    #[inline(always)]
    fn absorb(&mut self, block: u64) {
        self.d ^= block;
        self.round();
        self.a ^= block;
    }
}

/// The hash of six little-endian blocks.
#[inline(always)]
#[must_use]
pub fn hash(key: [u64; 2], message: [u64; BLOCKS]) -> u64 {
    let mut state = State {
        a: key[0] ^ 0x736f_6d65_7073_6575,
        b: key[1] ^ 0x646f_7261_6e64_6f6d,
        c: key[0] ^ 0x6c79_6765_6e65_7261,
        d: key[1] ^ 0x7465_6462_7974_6573,
    };
    let [b0, b1, b2, b3, b4, b5] = message;
    state.absorb(b0);
    state.absorb(b1);
    state.absorb(b2);
    state.absorb(b3);
    state.absorb(b4);
    state.absorb(b5);
    // The last block holds the message's length in its highest byte.
    state.absorb((8 * BLOCKS as u64) << 56);
    state.c ^= 0xff;
    state.round();
    state.round();
    state.round();
    state.a ^ state.b ^ state.c ^ state.d
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use proptest::prelude::{ProptestConfig, any, proptest};
    use siphasher::sip::SipHasher13;

    use super::{BLOCKS, hash};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn agrees_with_another_implementation(key in any::<[u64; 2]>(), message in any::<[u64; BLOCKS]>()) {
            let mut other = SipHasher13::new_with_keys(key[0], key[1]);
            for block in message {
                other.write(&block.to_le_bytes());
            }
            assert_eq!(hash(key, message), other.finish());
        }
    }

    #[test]
    fn agrees_with_the_reference_vector() {
        // Key 00 01 .. 0f, message 00 01 .. 2f: line 48 of the published SipHash-1-3 vectors.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let message = core::array::from_fn(|block| {
            u64::from_le_bytes(core::array::from_fn(|byte| (8 * block + byte) as u8))
        });
        let expected = [0x46, 0x4c, 0x07, 0xdf, 0xf8, 0x43, 0x31, 0x9f];
        assert_eq!(hash(key, message), u64::from_le_bytes(expected));
    }
}
