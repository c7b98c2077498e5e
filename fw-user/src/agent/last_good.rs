//! The last good policy, kept on disk so that a broken file at the next start is no catastrophe.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use fw_policy::{Policy, Source, Sources};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A policy that was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGood {
    /// Name of the file it came from.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The generation it had.
    pub generation: u32,
    /// When it was applied.
    pub applied: Timestamp,
    /// The files that it names: what it includes, and the lists of its zones.
    #[serde(default)]
    pub files: Vec<KeptFile>,
}

/// A file that a policy names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// The path by which it was loaded.
    pub name: String,
    /// Its text.
    pub text: String,
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("last-good-policy.json")
}

impl LastGood {
    /// A policy that is in force.
    #[must_use]
    pub fn new(policy: &Policy, generation: u32, applied: Timestamp) -> Self {
        let kept = |source: &Source| KeptFile {
            name: source.name.clone(),
            text: source.text.as_ref().to_owned(),
        };
        Self {
            name: policy.file.clone(),
            text: policy.text.clone(),
            generation,
            applied,
            files: policy.sources.iter().skip(1).map(kept).collect(),
        }
    }

    /// Its files as they were: none is read from disk.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let mut sources = Sources::new(&self.name, &self.text);
        for file in &self.files {
            sources.add(&file.name, &file.text);
        }
        sources
    }

    /// Reads the last good policy; `None` if there is none.
    ///
    /// # Errors
    /// If the file cannot be read or understood.
    pub fn read(state_dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = file(state_dir);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes it; readers see the old or the new one, whole, even after a power cut.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&self, state_dir: &Path) -> anyhow::Result<()> {
        write_whole(&file(state_dir), &serde_json::to_vec(self)?)
    }
}

/// Writes a file of the state directory; readers see the old or the new one, whole, even after a power cut.
///
/// # Errors
/// If the disk refuses.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let directory = path.parent().with_context(failed)?;
    let mut temporary = tempfile::NamedTempFile::new_in(directory).with_context(failed)?;
    temporary.write_all(bytes).with_context(failed)?;
    temporary.as_file().sync_all().with_context(failed)?;
    temporary.persist(path).with_context(failed)?;
    std::fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::LastGood;

    #[test]
    fn it_is_read_back_whole_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(LastGood::read(dir.path()).unwrap(), None);
        let mut good = LastGood {
            name: "policy.yaml".into(),
            text: "version: 1\n".into(),
            generation: 7,
            applied: jiff::Timestamp::UNIX_EPOCH,
            files: Vec::new(),
        };
        good.write(dir.path()).unwrap();
        assert_eq!(LastGood::read(dir.path()).unwrap(), Some(good.clone()));
        good.generation = 8;
        good.write(dir.path()).unwrap();
        assert_eq!(LastGood::read(dir.path()).unwrap().unwrap().generation, 8);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
        std::fs::write(super::file(dir.path()), "{").unwrap();
        assert!(
            LastGood::read(dir.path())
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
    }
}
