//! Ways past the packet path that the kernel lets one see: packet sockets and `AF_XDP` sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Packet sockets by interface index; 0 stands for all interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bypasses {
    /// Who holds packet sockets: `name (pid)`, or `unknown`.
    pub packet_sockets: BTreeMap<u32, BTreeSet<String>>,
    /// Open `AF_XDP` sockets of this namespace.
    pub xdp_sockets: u64,
}

impl Bypasses {
    /// Reads `proc` (normally `/proc`). What cannot be read is left out: the table says what was seen.
    #[must_use]
    pub fn read(proc: &Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(proc.join("net").join(name)).unwrap_or_default();
        let sockets = packet_sockets(&read("packet"));
        let owners = if sockets.is_empty() {
            BTreeMap::new()
        } else {
            socket_owners(proc)
        };
        let mut packet_sockets = BTreeMap::<u32, BTreeSet<String>>::new();
        for (ifindex, inode) in sockets {
            let owner = owners
                .get(&inode)
                .cloned()
                .unwrap_or_else(|| "unknown".to_owned());
            packet_sockets.entry(ifindex).or_default().insert(owner);
        }
        Self {
            packet_sockets,
            xdp_sockets: sockets_of(&read("protocols"), "XDP"),
        }
    }

    /// Who holds packet sockets that can send on this interface.
    #[must_use]
    pub fn on(&self, ifindex: u32) -> BTreeSet<&str> {
        let sets = [self.packet_sockets.get(&ifindex), self.packet_sockets.get(&0)];
        sets.into_iter().flatten().flatten().map(String::as_str).collect()
    }
}

/// `(interface index, inode)` from `/proc/net/packet`.
fn packet_sockets(text: &str) -> Vec<(u32, u64)> {
    let row = |line: &str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        Some((words.get(4)?.parse().ok()?, words.get(8)?.parse().ok()?))
    };
    text.lines().skip(1).filter_map(row).collect()
}

/// How many sockets `/proc/net/protocols` counts for a protocol.
fn sockets_of(text: &str, protocol: &str) -> u64 {
    let row = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == protocol)
            .then(|| words.nth(1)?.parse().ok())
            .flatten()
    };
    text.lines().find_map(row).unwrap_or(0)
}

/// Processes by the sockets they hold open.
fn socket_owners(proc: &Path) -> BTreeMap<u64, String> {
    let mut owners = BTreeMap::new();
    for process in std::fs::read_dir(proc).into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(pid) = name
            .to_str()
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        else {
            continue;
        };
        let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        for descriptor in std::fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let Ok(target) = std::fs::read_link(descriptor.path()) else {
                continue;
            };
            let inode = target
                .to_str()
                .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                owners.insert(inode, format!("{} ({pid})", command.trim()));
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::{packet_sockets, sockets_of};

    #[test]
    fn the_kernels_tables_are_read() {
        let text = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n\
                    ffff9a1c 3      3    0003   4     1 0      0      23456\n\
                    ffff9a1d 3      10   88cc   0     1 0      0      23457\n\
                    broken line\n";
        assert_eq!(packet_sockets(text), [(4, 23456), (0, 23457)]);
        let text = "protocol  size sockets  memory press\nPACKET    1600      1      -1   NI\nXDP       1088      2      -1   NI\n";
        assert_eq!(sockets_of(text, "XDP"), 2);
        assert_eq!(sockets_of("", "XDP"), 0);
    }
}
