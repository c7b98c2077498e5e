//! Policies on disk: the loader of their files, and the errors of reading them.

use std::path::Path;

use fw_policy::{Diagnostics, LoadError, Loader, Policy, decode};

use crate::exit::Failure;

/// Largest file that is read, bytes: some ten million prefixes.
const MAX_FILE: u64 = 1 << 28;

/// Reads files and directories of this machine.
pub struct Files;

impl Loader for Files {
    fn load(&self, path: &str) -> Result<String, LoadError> {
        let failed = |cause: String| LoadError {
            path: path.to_owned(),
            cause,
        };
        let about = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
        // A pipe or a device might never end.
        if !about.is_file() {
            return Err(failed("it is no regular file".to_owned()));
        }
        if about.len() > MAX_FILE {
            return Err(failed(format!(
                "it has {} bytes; at most {MAX_FILE} are read",
                about.len()
            )));
        }
        let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        decode(bytes, path).map_err(|findings| failed(in_one_line(&findings)))
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, LoadError> {
        let failed = |cause: String| LoadError {
            path: directory.to_owned(),
            cause,
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(|error| failed(error.to_string()))? {
            let path = entry.map_err(|error| failed(error.to_string()))?.path();
            // Symbolic links are followed, as a feed's writer may swap them.
            if path.is_file() {
                let name = path.to_str();
                files.push(
                    name.map(str::to_owned)
                        .ok_or_else(|| failed(format!("the name {} is no UTF-8", path.display())))?,
                );
            }
        }
        files.sort_unstable();
        Ok(files)
    }
}

/// The first finding with its line.
fn in_one_line(findings: &Diagnostics) -> String {
    let reports = findings.reports();
    reports.first().map_or_else(String::new, |report| {
        format!(
            "line {}, column {}: {}",
            report.line, report.column, report.message
        )
    })
}

/// Reads the text of a policy or of a file of tests. The inner result holds the finding if it is no text.
///
/// # Errors
/// With exit code 2 if it cannot be read.
pub fn text(path: &Path) -> Result<Result<String, Diagnostics>, Failure> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path);
    let bytes = bytes.map_err(|error| Failure::input(format!("cannot read {name}: {error}")))?;
    Ok(decode(bytes, &name))
}

/// As [`text`], where a file that is no text cannot be read.
///
/// # Errors
/// With exit code 2 if it cannot be read.
pub fn read(path: &Path) -> Result<String, Failure> {
    let name = path.display();
    text(path)?.map_err(|findings| Failure::input(format!("{name} is no text\n{findings}")))
}

/// Reads a policy and all files that it names, and checks it. The inner result holds the findings.
///
/// # Errors
/// With exit code 2 if the policy's own file cannot be read.
pub fn policy(path: &Path) -> Result<Result<(Policy, Diagnostics), Diagnostics>, Failure> {
    let name = path.display().to_string();
    Ok(text(path)?.and_then(|text| fw_policy::check_files(&Files, &text, &name)))
}

#[cfg(test)]
mod tests {
    use fw_policy::Loader as _;

    use super::{Files, policy, read};

    #[test]
    fn zones_come_from_files_and_directories_beside_the_policy() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("feeds/b.txt", "10.0.2.0/24 # two\n");
        write("feeds/a.txt", "10.0.1.0/24\n");
        write("feeds/deeper/c.txt", "10.0.3.0/24\n");
        write("one.txt", "10.9.0.1-10.9.0.2\n");
        write(
            "policy.yaml",
            "version: 1\nzones: { d: { directory: feeds }, f: { file: one.txt } }\n\
             rules: [{ name: a, deny: all, from: d, to: f }]\n",
        );
        let (checked, _) = policy(&dir.path().join("policy.yaml")).unwrap().unwrap();
        let prefixes = |zone: usize| -> Vec<String> {
            let nets = checked.zones[zone].prefixes.iter();
            nets.map(ToString::to_string).collect()
        };
        assert_eq!(prefixes(0), ["10.0.1.0/24", "10.0.2.0/24"]);
        assert_eq!(prefixes(1), ["10.9.0.1/32", "10.9.0.2/32"]);
        assert_eq!(checked.sources.iter().count(), 4);
        let here = dir.path().to_str().unwrap();
        assert!(
            Files
                .load(here)
                .unwrap_err()
                .to_string()
                .ends_with("it is no regular file")
        );
        assert!(Files.list(&format!("{here}/nowhere")).is_err());
    }

    #[test]
    fn what_is_no_text_is_a_finding_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        std::fs::write(&path, b"version: 1\n# caf\xe9\nrules: []\n").unwrap();
        let findings = policy(&path).unwrap().unwrap_err();
        let reports = findings.reports();
        let first = &reports[0];
        assert_eq!((first.code, first.line, first.column), ("not_utf8", 2, 6));
        assert!(first.message.contains("byte 17, 0xe9"), "{}", first.message);
        assert!(read(&path).unwrap_err().to_string().contains("policy.yaml:2:6"));
        let list = dir.path().join("list.txt");
        std::fs::write(&list, b"10.0.0.0/8\n\xff\n").unwrap();
        let error = Files.load(list.to_str().unwrap()).unwrap_err();
        assert!(
            error.cause.starts_with("line 2, column 1: the file is not UTF-8"),
            "{error}"
        );
    }
}
