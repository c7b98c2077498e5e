//! The flow log: a file of JSON lines. A record of a flow at its end has a key `ended`, a packet that a rule with `log` or
//! `audit` reports has a key `kind`.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Appends records to a file. A full disk loses records, which are counted, and nothing else.
#[derive(Debug)]
pub struct FlowLog {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    lost: u64,
}

impl FlowLog {
    /// Opens `path` for appending; it is created with mode 0600, since it says who talked to whom.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: Some(open(path)?),
            lost: 0,
        })
    }

    /// Opens the file anew, after it was renamed by log rotation.
    ///
    /// # Errors
    /// If the file cannot be opened; records are lost until the next try succeeds.
    pub fn reopen(&mut self) -> std::io::Result<()> {
        self.file = None;
        self.file = Some(open(&self.path)?);
        Ok(())
    }

    /// Appends records and hands them to the kernel.
    ///
    /// # Errors
    /// The first write error of this batch; the records behind it are counted as lost.
    pub fn write<'a, T: Serialize + 'a>(
        &mut self,
        records: impl Iterator<Item = &'a T>,
    ) -> std::io::Result<()> {
        let mut result = Ok(());
        for record in records {
            if result.is_ok() {
                result = self.line(record);
            }
            self.lost += u64::from(result.is_err());
        }
        let flushed = self.file.as_mut().map_or(Ok(()), Write::flush);
        result.and(flushed)
    }

    /// Records that could not be written.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    fn line(&mut self, record: &impl Serialize) -> std::io::Result<()> {
        let file = self
            .file
            .as_mut()
            .ok_or_else(|| std::io::Error::other("the flow log is not open"))?;
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        file.write_all(&line)
    }
}

fn open(path: &Path) -> std::io::Result<BufWriter<File>> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    Ok(BufWriter::new(file))
}
