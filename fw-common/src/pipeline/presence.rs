//! Which flows are surely in no table: a bit by keyed hash in front of three look-ups that would find nothing.
//!
//! A Bloom filter with one hash (Bloom, "Space/time trade-offs in hash coding with allowable errors", CACM 13(7), 1970), in
//! two halves. The packet path sets a flow's bit before it inserts the flow, and clears none; the agent fills the half that
//! is not read with the bits of the flows that there are, and then lets packets read that one ([`Presence`]). A bit that is
//! set says nothing; one that is not says that no table has the flow.

use super::Tables;
use super::source::mix;
use crate::abi::{Key4, Key6, Presence};

/// Keys of flows.
pub trait Hashed {
    /// Keyed hash of all of the key's fields.
    fn hash(&self, secret: u64) -> u64;
}

/// Ports, realm and protocol as one word.
#[inline(always)]
const fn rest(lo_port: u16, hi_port: u16, realm: u16, proto: u8, realm_high: u8) -> u64 {
    ((lo_port as u64) << 48)
        | ((hi_port as u64) << 32)
        | ((realm as u64) << 16)
        | ((proto as u64) << 8)
        | realm_high as u64
}

impl Hashed for Key4 {
    #[inline(always)]
    fn hash(&self, secret: u64) -> u64 {
        let addresses = (u64::from(self.lo.0) << 32) | u64::from(self.hi.0);
        let rest = rest(
            self.lo_port,
            self.hi_port,
            self.realm,
            self.proto,
            self.realm_high,
        );
        mix(mix(secret, addresses), rest)
    }
}

impl Hashed for Key6 {
    #[inline(always)]
    fn hash(&self, secret: u64) -> u64 {
        let mut hash = secret;
        let (lo, hi) = (&self.lo.0, &self.hi.0);
        hash = mix(hash, (u64::from(lo[0]) << 32) | u64::from(lo[1]));
        hash = mix(hash, (u64::from(lo[2]) << 32) | u64::from(lo[3]));
        hash = mix(hash, (u64::from(hi[0]) << 32) | u64::from(hi[1]));
        hash = mix(hash, (u64::from(hi[2]) << 32) | u64::from(hi[3]));
        let rest = rest(
            self.lo_port,
            self.hi_port,
            self.realm,
            self.proto,
            self.realm_high,
        );
        mix(hash, rest)
    }
}

/// Word (of one half) and bit of a hash, where a half has `words` words, a power of two.
#[inline(always)]
#[must_use]
pub const fn place(hash: u64, words: u32) -> (u32, u64) {
    ((hash >> 6) as u32 & words.wrapping_sub(1), 1 << (hash & 63))
}

/// True if no table has a flow of this key. False says nothing.
#[inline(always)]
pub(super) fn absent<'a, T: Tables<'a>>(t: T, key: &impl Hashed) -> bool {
    let words = t.presence_words();
    let Some(control) = t.control() else {
        return false;
    };
    let presence = control.presence.load();
    if words == 0 || presence & Presence::READ == 0 {
        return false;
    }
    let (word, bit) = place(key.hash(control.secret[0].load()), words);
    let half = presence & Presence::SECOND;
    t.presence(half * words + word)
        .is_some_and(|bits| bits.load() & bit == 0)
}

/// Sets the bit of a flow that is about to be inserted, in each half that is kept.
#[inline(always)]
pub(super) fn mark<'a, T: Tables<'a>>(t: T, key: &impl Hashed) {
    let words = t.presence_words();
    let Some(control) = t.control() else {
        return;
    };
    let presence = control.presence.load();
    if words == 0 || presence & Presence::KEPT == 0 {
        return;
    }
    let (word, bit) = place(key.hash(control.secret[0].load()), words);
    if presence & Presence::KEEP[0] != 0 {
        set(t, word, bit);
    }
    if presence & Presence::KEEP[1] != 0 {
        set(t, words + word, bit);
    }
}

/// Sets a bit, without writing where it is set already: most inserted flows are not the first of their bit for long.
#[inline(always)]
fn set<'a, T: Tables<'a>>(t: T, word: u32, bit: u64) {
    if let Some(bits) = t.presence(word)
        && bits.load() & bit == 0
    {
        t.or64(bits, bit);
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::{Hashed, place};
    use crate::abi::{Ip4, Ip6, Key4, Key6};

    /// How many hashes there are of a key under two secrets and of changed ones.
    fn distinct<K: Hashed>(plain: &K, changed: &[K]) -> usize {
        let mut hashes: Vec<u64> = changed.iter().chain([plain]).map(|key| key.hash(7)).collect();
        hashes.push(plain.hash(8));
        hashes.sort_unstable();
        hashes.dedup();
        hashes.len()
    }

    #[test]
    fn every_field_of_a_key_counts() {
        let plain = Key4::default();
        let changed = [
            Key4 { lo: Ip4(1), ..plain },
            Key4 { hi: Ip4(1), ..plain },
            Key4 { lo_port: 1, ..plain },
            Key4 { hi_port: 1, ..plain },
            Key4 { realm: 1, ..plain },
            Key4 { proto: 1, ..plain },
            Key4 {
                realm_high: 1,
                ..plain
            },
        ];
        assert_eq!(distinct(&plain, &changed), 9);
    }

    #[test]
    fn every_field_of_an_ipv6_key_counts() {
        let plain = Key6::default();
        let word = |index: usize| {
            let mut address = [0; 4];
            address[index] = 1;
            Ip6(address)
        };
        let mut changed = vec![
            Key6 { lo_port: 1, ..plain },
            Key6 { hi_port: 1, ..plain },
            Key6 { realm: 1, ..plain },
            Key6 { proto: 1, ..plain },
            Key6 {
                realm_high: 1,
                ..plain
            },
        ];
        changed.extend((0..4).map(|index| Key6 {
            lo: word(index),
            ..plain
        }));
        changed.extend((0..4).map(|index| Key6 {
            hi: word(index),
            ..plain
        }));
        assert_eq!(distinct(&plain, &changed), 15);
    }

    #[test]
    fn a_place_lies_in_its_half() {
        for hash in [0, 63, 64, u64::MAX, 0x1234_5678_9abc_def0] {
            let (word, bit) = place(hash, 16);
            assert!(word < 16 && bit.is_power_of_two());
        }
        assert_eq!(place(64 + 5, 16), (1, 32));
        assert_eq!(place(16 * 64, 16), (0, 1));
    }
}
