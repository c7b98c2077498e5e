//! Loaders for tests.
#![allow(dead_code, reason = "each test uses what it needs of them")]

use fw_policy::{LoadError, Loader};

/// Reads files and directories, as the agent does.
pub struct Files;

impl Loader for Files {
    fn load(&self, path: &str) -> Result<String, LoadError> {
        std::fs::read_to_string(path).map_err(|error| failed(path, &error))
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, LoadError> {
        let entries = std::fs::read_dir(directory).map_err(|error| failed(directory, &error))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut names: Vec<String> = paths
            .filter(|path| path.is_file())
            .map(|path| path.display().to_string())
            .collect();
        names.sort();
        Ok(names)
    }
}

fn failed(path: &str, error: &std::io::Error) -> LoadError {
    LoadError {
        path: path.to_owned(),
        cause: error.to_string(),
    }
}

/// Files of a test: names and texts.
pub struct Texts<'a>(pub &'a [(&'a str, &'a str)]);

impl Loader for Texts<'_> {
    fn load(&self, path: &str) -> Result<String, LoadError> {
        let found = self.0.iter().find(|(name, _)| *name == path);
        found
            .map(|(_, text)| (*text).to_owned())
            .ok_or_else(|| LoadError {
                path: path.to_owned(),
                cause: "No such file or directory (os error 2)".to_owned(),
            })
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, LoadError> {
        let inside = self
            .0
            .iter()
            .filter(|(name, _)| name.rsplit_once('/').is_some_and(|(head, _)| head == directory));
        let mut names: Vec<String> = inside.map(|(name, _)| (*name).to_owned()).collect();
        names.sort();
        if names.is_empty() {
            return Err(LoadError {
                path: directory.to_owned(),
                cause: "No such file or directory (os error 2)".to_owned(),
            });
        }
        Ok(names)
    }
}
