//! What tests of policies on disk share.

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
