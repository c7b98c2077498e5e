//! Members of dynamic zones: what `dpufw zone add` and `remove` have said, kept on disk beside the policy.
//!
//! A zone's members are a set of addresses, held as prefixes, each with a deadline or none. Taking a prefix out leaves what
//! lies around it. Time is an argument.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::last_good::write_whole;

/// Prefixes that one zone may hold: all of them fit into one message of the control socket.
pub const MAX_MEMBERS: usize = 65_536;

/// Prefixes and their deadlines; `None`: until they are removed.
pub type Deadlines = BTreeMap<IpNet, Option<Timestamp>>;

/// The members of all zones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(BTreeMap<String, Deadlines>);

/// One member in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    prefix: IpNet,
    /// Wall-clock time; a machine that was off does not make it later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    zones: BTreeMap<String, Vec<Entry>>,
}

/// Version of the file's layout.
const VERSION: u32 = 1;

/// What an addition has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addition {
    /// Prefixes that were not there.
    pub added: Vec<IpNet>,
    /// Prefixes that were there with another deadline.
    pub refreshed: Vec<IpNet>,
    /// Prefixes that were there just so.
    pub known: Vec<IpNet>,
}

/// What a removal has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Members that are gone, or of which a part is gone.
    pub removed: Vec<IpNet>,
    /// Prefixes that were asked for and of which the zone held nothing.
    pub absent: Vec<IpNet>,
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("zone-members.json")
}

impl Members {
    /// Reads them; none if there is no file.
    ///
    /// # Errors
    /// If the file cannot be read or understood.
    pub fn read(state_dir: &Path) -> anyhow::Result<Self> {
        let path = path(state_dir);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let damaged = || format!("{} is damaged", path.display());
        let file: File = serde_json::from_slice(&bytes).with_context(damaged)?;
        ensure!(
            file.version == VERSION,
            "{} has version {}, and this dpufw knows version {VERSION}",
            path.display(),
            file.version
        );
        let members = |entries: Vec<Entry>| {
            entries
                .into_iter()
                .map(|entry| (entry.prefix.trunc(), entry.until))
        };
        let zones = file.zones.into_iter();
        Ok(Self(
            zones
                .map(|(zone, entries)| (zone, members(entries).collect()))
                .collect(),
        ))
    }

    /// Writes them; readers see the old or the new file, whole, even after a power cut.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&self, state_dir: &Path) -> anyhow::Result<()> {
        let entries = |members: &Deadlines| {
            let entry = |(prefix, until): (&IpNet, &Option<Timestamp>)| Entry {
                prefix: *prefix,
                until: *until,
            };
            members.iter().map(entry).collect()
        };
        let zones = self
            .0
            .iter()
            .map(|(zone, members)| (zone.clone(), entries(members)));
        let file = File {
            version: VERSION,
            zones: zones.collect(),
        };
        write_whole(&path(state_dir), &serde_json::to_vec(&file)?)
    }

    /// The members of a zone.
    #[must_use]
    pub fn of(&self, zone: &str) -> Option<&Deadlines> {
        self.0.get(zone)
    }

    /// Names of zones that have members, sorted.
    pub fn zones(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Puts prefixes into a zone until a time; a prefix that is there takes the new deadline.
    pub fn add(&mut self, zone: &str, prefixes: &[IpNet], until: Option<Timestamp>) -> Addition {
        let members = self.0.entry(zone.to_owned()).or_default();
        let mut addition = Addition::default();
        for prefix in prefixes {
            match members.insert(*prefix, until) {
                None => addition.added.push(*prefix),
                Some(before) if before == until => addition.known.push(*prefix),
                Some(_) => addition.refreshed.push(*prefix),
            }
        }
        addition
    }

    /// Takes prefixes out of a zone: afterwards none of their addresses is in it.
    pub fn remove(&mut self, zone: &str, prefixes: &[IpNet]) -> Removal {
        let mut removal = Removal::default();
        let mut members = self.0.remove(zone).unwrap_or_default();
        for hole in prefixes {
            let hit = |member: &IpNet| member.contains(hole) || hole.contains(member);
            let struck: Vec<IpNet> = members.keys().copied().filter(hit).collect();
            if struck.is_empty() {
                removal.absent.push(*hole);
            }
            for member in struck {
                let until = members.remove(&member).flatten();
                members.extend(without(member, *hole).into_iter().map(|rest| (rest, until)));
                removal.removed.push(member);
            }
        }
        if !members.is_empty() {
            self.0.insert(zone.to_owned(), members);
        }
        removal
    }

    /// Empties a zone; returns what it held.
    pub fn clear(&mut self, zone: &str) -> Vec<IpNet> {
        self.0.remove(zone).unwrap_or_default().into_keys().collect()
    }

    /// Takes out what has reached its deadline, and returns it by zone.
    pub fn expire(&mut self, now: Timestamp) -> Vec<(String, IpNet)> {
        let mut gone = Vec::new();
        for (zone, members) in &mut self.0 {
            members.retain(|prefix, until| {
                let over = until.is_some_and(|until| until <= now);
                if over {
                    gone.push((zone.clone(), *prefix));
                }
                !over
            });
        }
        self.0.retain(|_, members| !members.is_empty());
        gone
    }

    /// The next deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let deadlines = self.0.values().flat_map(BTreeMap::values);
        deadlines.copied().flatten().min()
    }
}

/// What is left of a prefix without another one: at most as many prefixes as it has bits more.
fn without(net: IpNet, hole: IpNet) -> Vec<IpNet> {
    if hole.contains(&net) {
        return Vec::new();
    }
    if !net.contains(&hole) {
        return vec![net];
    }
    // The hole is longer, so the prefix can be halved.
    let halves = net.subnets(net.prefix_len() + 1).into_iter().flatten();
    halves.flat_map(|half| without(half, hole)).collect()
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use jiff::Timestamp;

    use super::{Members, without};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| net(text)).collect()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn adding_is_idempotent_and_refreshes_deadlines() {
        let mut members = Members::default();
        let one = nets(&["10.0.0.1/32"]);
        assert_eq!(members.add("jail", &one, None).added, one);
        assert_eq!(members.add("jail", &one, None).known, one);
        assert_eq!(members.add("jail", &one, Some(at(9))).refreshed, one);
        assert_eq!(members.of("jail").unwrap()[&one[0]], Some(at(9)));
        assert_eq!(members.next_deadline(), Some(at(9)));
    }

    #[test]
    fn what_is_removed_is_gone_whatever_it_was_part_of() {
        let mut members = Members::default();
        members.add("jail", &nets(&["10.0.0.0/30", "10.1.0.1/32"]), Some(at(9)));
        let removal = members.remove("jail", &nets(&["10.0.0.2/32", "10.9.0.0/16"]));
        assert_eq!(removal.removed, nets(&["10.0.0.0/30"]));
        assert_eq!(removal.absent, nets(&["10.9.0.0/16"]));
        let left: Vec<IpNet> = members.of("jail").unwrap().keys().copied().collect();
        assert_eq!(left, nets(&["10.0.0.0/31", "10.0.0.3/32", "10.1.0.1/32"]));
        assert!(
            members
                .of("jail")
                .unwrap()
                .values()
                .all(|until| *until == Some(at(9)))
        );
        members.remove("jail", &nets(&["10.0.0.0/8"]));
        assert!(
            members.of("jail").is_none(),
            "a larger prefix takes all inside of it"
        );
        assert_eq!(members.remove("jail", &nets(&["::/0"])).absent, nets(&["::/0"]));
    }

    #[test]
    fn a_prefix_is_cut_around_a_hole() {
        assert_eq!(without(net("10.0.0.0/8"), net("10.0.0.0/8")), []);
        assert_eq!(without(net("10.0.0.0/8"), net("11.0.0.0/8")), [net("10.0.0.0/8")]);
        assert_eq!(without(net("10.0.0.0/8"), net("fd00::/8")), [net("10.0.0.0/8")]);
        let rest = without(net("::/0"), net("fd00::1/128"));
        assert_eq!(rest.len(), 128);
        assert!(
            !rest
                .iter()
                .any(|net| net.contains(&"fd00::1".parse::<std::net::IpAddr>().unwrap()))
        );
    }

    #[test]
    fn members_end_at_their_deadline() {
        let mut members = Members::default();
        members.add("jail", &nets(&["10.0.0.1/32"]), Some(at(9)));
        members.add("jail", &nets(&["10.0.0.2/32"]), None);
        members.add("job", &nets(&["10.0.0.3/32"]), Some(at(10)));
        assert!(members.expire(at(8)).is_empty());
        assert_eq!(members.expire(at(9)), [("jail".to_owned(), net("10.0.0.1/32"))]);
        assert_eq!(members.next_deadline(), Some(at(10)));
        members.expire(at(99));
        assert_eq!(
            members.zones().collect::<Vec<_>>(),
            ["jail"],
            "no empty zone is kept"
        );
    }

    #[test]
    fn they_are_read_back_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Members::read(dir.path()).unwrap(), Members::default());
        let mut members = Members::default();
        members.add("jail", &nets(&["10.0.0.1/32", "fd00::/64"]), Some(at(9)));
        members.add("job", &nets(&["10.0.0.3/32"]), None);
        members.write(dir.path()).unwrap();
        assert_eq!(Members::read(dir.path()).unwrap(), members);
        for damage in [
            "{",
            "{\"version\":2,\"zones\":{}}",
            "{\"version\":1,\"zones\":{\"a\":[{\"prefix\":1}]}}",
        ] {
            std::fs::write(super::path(dir.path()), damage).unwrap();
            assert!(Members::read(dir.path()).is_err(), "{damage}");
        }
    }
}
