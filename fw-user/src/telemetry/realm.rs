//! Realms as people read them.

/// What the 24 bits of a realm say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Realm {
    /// Realm of the port, 0..=15.
    pub port: u8,
    /// VLAN id, of two tags the outer one; 0: untagged.
    pub vlan: u16,
    /// VLAN id of the inner tag of two; 0: none.
    pub inner_vlan: u16,
}

/// First realm number of two tags, and inner ids for each outer one: see [`fw_common::wire::stacked_realm`].
const STACKED: u32 = 1 << 16;
const INNER: u32 = 4094;

impl Realm {
    /// Takes a realm apart. Any number gives a result.
    #[must_use]
    pub const fn new(realm: u32) -> Self {
        let Some(stacked) = realm.checked_sub(STACKED) else {
            return Self {
                port: (realm >> 12) as u8,
                vlan: (realm & 0xfff) as u16,
                inner_vlan: 0,
            };
        };
        Self {
            port: 0,
            vlan: (stacked / INNER + 1) as u16,
            inner_vlan: (stacked % INNER + 1) as u16,
        }
    }

    /// The tags: empty, ` vlan 101`, or ` vlan 101.5`.
    #[must_use]
    pub fn tags(vlan: u16, inner_vlan: u16) -> String {
        match (vlan, inner_vlan) {
            (0, 0) => String::new(),
            (vlan, 0) => format!(" vlan {vlan}"),
            (vlan, inner) => format!(" vlan {vlan}.{inner}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use fw_common::wire::stacked_realm;

    use super::Realm;

    #[test]
    fn a_realm_comes_apart_as_it_was_put_together() {
        let one = Realm::new(0x3065);
        assert_eq!((one.port, one.vlan, one.inner_vlan), (3, 101, 0));
        for outer in [1, 2, 100, 4079, 4080] {
            for inner in [1, 2, 4093, 4094] {
                let realm = Realm::new(stacked_realm(outer, inner).unwrap());
                assert_eq!((realm.port, realm.vlan, realm.inner_vlan), (0, outer, inner));
            }
        }
        assert_eq!(Realm::tags(101, 5), " vlan 101.5");
        let _no_panic = Realm::new(u32::MAX);
    }
}
