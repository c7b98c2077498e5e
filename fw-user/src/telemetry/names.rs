//! Names of rules and zones by their stable ids, remembered across restarts and policy changes.
//!
//! A flow may outlive the rule that allowed it, so a name that was once known is never forgotten. The file is a list of
//! JSON lines that only grows; a torn last line (power lost) is skipped.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What an id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A rule.
    Rule,
    /// A zone.
    Zone,
}

#[derive(Serialize, Deserialize)]
struct Line {
    kind: Kind,
    id: u32,
    name: String,
}

/// Names by kind and id.
#[derive(Debug, Default)]
pub struct Names {
    known: HashMap<(Kind, u32), String>,
    file: Option<PathBuf>,
    /// Lines that the file has not taken yet: the disk was full.
    unsaved: String,
}

impl Names {
    /// Reads the names from `file`; a missing file is an empty one.
    ///
    /// # Errors
    /// If the file exists and cannot be read.
    pub fn open(file: &Path) -> std::io::Result<Self> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let known = lines.map(|line| ((line.kind, line.id), line.name)).collect();
        Ok(Self {
            known,
            file: Some(file.to_owned()),
            unsaved: String::new(),
        })
    }

    /// Adds names; what is new goes to the file as well.
    ///
    /// # Errors
    /// If the file cannot be written; the names are known nevertheless, and the next call tries again.
    pub fn add<'a>(
        &mut self,
        kind: Kind,
        names: impl IntoIterator<Item = (u32, &'a str)>,
    ) -> std::io::Result<()> {
        for (id, name) in names {
            if self.known.get(&(kind, id)).is_some_and(|known| known == name) {
                continue;
            }
            self.known.insert((kind, id), name.to_owned());
            self.unsaved += &serde_json::to_string(&Line {
                kind,
                id,
                name: name.to_owned(),
            })?;
            self.unsaved.push('\n');
        }
        match &self.file {
            Some(file) if !self.unsaved.is_empty() => append(file, &self.unsaved)?,
            _ => {}
        }
        self.unsaved.clear();
        Ok(())
    }

    /// The name of an id, or `#id` in hexadecimal where no name was ever known.
    #[must_use]
    pub fn name(&self, kind: Kind, id: u32) -> String {
        self.known
            .get(&(kind, id))
            .cloned()
            .unwrap_or_else(|| format!("#{id:08x}"))
    }

    /// The zone's name; `None` for id 0 (no zone).
    #[must_use]
    pub fn zone(&self, id: u32) -> Option<String> {
        (id != 0).then(|| self.name(Kind::Zone, id))
    }

    /// The rule's name; `default` for id 0.
    #[must_use]
    pub fn rule(&self, id: u32) -> String {
        if id == 0 {
            "default".to_owned()
        } else {
            self.name(Kind::Rule, id)
        }
    }
}

/// Appends, on a line of its own even after a torn line.
fn append(file: &Path, text: &str) -> std::io::Result<()> {
    let mut handle = OpenOptions::new().create(true).append(true).open(file)?;
    handle.write_all(format!("\n{text}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{Kind, Names};

    #[test]
    fn names_survive_a_restart_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("names.jsonl");
        let mut names = Names::open(&file).unwrap();
        names.add(Kind::Rule, [(7, "admin"), (8, "web")]).unwrap();
        names.add(Kind::Zone, [(7, "gpu")]).unwrap();
        let mut text = std::fs::read_to_string(&file).unwrap();
        text.push_str("{\"kind\":\"rule\",\"id\":9,\"na");
        std::fs::write(&file, text).unwrap();

        let mut names = Names::open(&file).unwrap();
        assert_eq!(names.rule(7), "admin");
        assert_eq!(names.zone(7).as_deref(), Some("gpu"));
        assert_eq!(names.rule(9), "#00000009");
        names.add(Kind::Rule, [(9, "late")]).unwrap();
        assert_eq!(Names::open(&file).unwrap().rule(9), "late");
    }

    #[test]
    fn zero_is_the_default_rule_and_no_zone() {
        let names = Names::default();
        assert_eq!(names.rule(0), "default");
        assert_eq!(names.zone(0), None);
    }

    #[test]
    fn what_a_broken_disk_refuses_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("later/names.jsonl");
        let mut names = Names::open(&file).unwrap();
        assert!(names.add(Kind::Rule, [(7, "admin")]).is_err());
        assert!(names.add(Kind::Rule, [(7, "admin")]).is_err(), "still not saved");
        std::fs::create_dir(dir.path().join("later")).unwrap();
        names.add(Kind::Rule, []).unwrap();
        assert_eq!(Names::open(&file).unwrap().rule(7), "admin");
    }

    #[test]
    fn known_names_are_not_written_twice() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("names.jsonl");
        let mut names = Names::open(&file).unwrap();
        names.add(Kind::Rule, [(7, "admin")]).unwrap();
        let before = std::fs::read(&file).unwrap();
        names.add(Kind::Rule, [(7, "admin")]).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), before);
    }
}
