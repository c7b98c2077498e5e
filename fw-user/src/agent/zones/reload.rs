//! Zones whose addresses lie in files: the files are read again, and nothing else changes.

use std::mem;
use std::time::Instant;

use fw_policy::{LoadError, Loader, Policy, Sources};
use jiff::Timestamp;

use super::super::apply::{InForce, texts};
use super::super::core::Agent;
use super::super::policy;
use crate::control::{ReloadedZone, Session, ZonesReloaded};
use crate::exit::Failure;
use crate::files::Files;

/// Reads the lists of zones anew; policy and includes are as they were.
struct NewLists<'a>(&'a Sources);

impl Loader for NewLists<'_> {
    fn load(&self, path: &str) -> Result<String, LoadError> {
        let kept = self.0.iter().find(|source| source.name == path && !source.list);
        kept.map_or_else(|| Files.load(path), |source| Ok(source.text.as_ref().to_owned()))
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, LoadError> {
        Files.list(directory)
    }
}

impl Agent {
    /// Reads the files of the policy's zones again and puts their addresses in force.
    ///
    /// # Errors
    /// With exit code 2 if a file cannot be read or holds what is no address, with 1 if it would lock the caller out; then
    /// nothing has changed.
    pub async fn reload_zones(
        &self,
        force: bool,
        session: Option<Session>,
    ) -> Result<ZonesReloaded, Failure> {
        let mut in_force = self.policy.lock().await;
        let began = Instant::now();
        let current = in_force.as_mut().ok_or_else(super::no_text)?;
        let session = session.filter(|_| !force);
        tokio::task::block_in_place(|| {
            let mut reloaded = self.reload(current, session.as_ref())?;
            reloaded.took_ms = began.elapsed().as_secs_f64() * 1e3;
            Ok(reloaded)
        })
    }

    fn reload(&self, current: &mut InForce, session: Option<&Session>) -> Result<ZonesReloaded, Failure> {
        let old = &current.policy;
        let lists = NewLists(&old.sources);
        let (mut new, warnings) =
            policy::check_with(&lists, &old.file, &old.text, Timestamp::now().as_second())?;
        self.fill_zones(&mut new)?;
        let zones = changed(old, &new);
        let swapped = !zones.is_empty();
        if swapped {
            let old = mem::replace(&mut current.policy, new);
            if let Err(failure) = self.readdress(current, session) {
                current.policy = old;
                return Err(failure);
            }
            self.save(Some(current));
        }
        Ok(ZonesReloaded {
            generation: current.generation,
            swapped,
            zones,
            took_ms: 0.0,
            warnings: texts(&warnings),
        })
    }
}

/// Zones with other addresses; the zones themselves are the same in both.
fn changed(old: &Policy, new: &Policy) -> Vec<ReloadedZone> {
    let pairs = old.zones.iter().zip(&new.zones);
    let changed = pairs.filter(|(old, new)| old.prefixes != new.prefixes);
    changed
        .map(|(old, new)| ReloadedZone {
            zone: new.name.clone(),
            before: old.prefixes.len(),
            after: new.prefixes.len(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{NewLists, changed};
    use crate::files;

    const POLICY: &str = "
version: 1
include: [zones/base.yaml]
zones: { blocked: { file: feeds/a.txt }, more: { directory: feeds } }
rules:
  - { name: web, allow: [http], from: clients, to: any }
  - { name: blocked, deny: all, from: [blocked, more], to: any }
";

    #[test]
    fn lists_are_new_and_everything_else_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("policy.yaml", POLICY);
        write(
            "zones/base.yaml",
            "version: 1\nzones: { clients: [10.0.0.0/8] }\n",
        );
        write("feeds/a.txt", "10.1.0.0/16\n");
        let (old, _) = files::policy(&dir.path().join("policy.yaml")).unwrap().unwrap();
        write(
            "zones/base.yaml",
            "version: 1\nzones: { clients: [11.0.0.0/8] }\n",
        );
        write("policy.yaml", "not even a policy");
        write("feeds/a.txt", "10.1.0.0/16\n10.3.0.0/16 # new\n");
        write("feeds/b.txt", "10.5.0.0/16\n");
        let lists = NewLists(&old.sources);
        let (new, _) = fw_policy::check_files(&lists, &old.text, &old.file).unwrap();
        let zones: Vec<_> = changed(&old, &new)
            .into_iter()
            .map(|zone| (zone.zone, zone.before, zone.after))
            .collect();
        assert_eq!(zones, [("blocked".to_owned(), 1, 2), ("more".to_owned(), 1, 3)]);
        write("feeds/b.txt", "10.5.0.0/99\n");
        let findings = fw_policy::check_files(&lists, &old.text, &old.file).unwrap_err();
        assert!(
            findings.render(false).contains("b.txt:1:1"),
            "{}",
            findings.render(false)
        );
    }
}
