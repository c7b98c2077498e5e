//! What the programs say while they are debugged: only of an object that was built with logging.

use std::os::fd::{AsRawFd, RawFd};

use aya_log::EbpfLogger;

use super::load::DataPlane;

/// The map that the logging macros write to (aya-log).
const LOGS: &str = "AYA_LOGS";

/// Reads the programs' log. Works with `tokio::io::unix::AsyncFd`: when readable, call [`KernelLog::flush`].
pub struct KernelLog(EbpfLogger<&'static dyn log::Log>);

impl KernelLog {
    /// Hands everything that was written to the process's logger.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

impl AsRawFd for KernelLog {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl DataPlane {
    /// The reader of the programs' log; `None` of the second call, and of an object without logging, as releases are: a
    /// log line for each packet would be a way to stall the machine.
    pub fn kernel_log(&mut self) -> Option<KernelLog> {
        self.ebpf.map(LOGS)?;
        match EbpfLogger::init(&mut self.ebpf) {
            Ok(logger) => Some(KernelLog(logger)),
            Err(error) => {
                tracing::warn!("the programs' log cannot be read: {error}");
                None
            }
        }
    }
}
