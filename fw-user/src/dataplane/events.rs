//! Denied packets, as the kernel reports them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::maps::{Map, MapData, MapError, RingBuf};
use fw_common::abi::{Event, map_names};

use super::error::DataPlaneError;
use super::plain;

/// Reads the event ring. Works with `tokio::io::unix::AsyncFd`: when readable, call [`EventReader::next_event`] until it
/// returns `None`.
///
/// Events are hostile input: any number may stand in any field.
pub struct EventReader {
    ring: RingBuf<MapData>,
    malformed: u64,
}

impl EventReader {
    pub(super) fn new(map: MapData) -> Result<Self, DataPlaneError> {
        let aya = |source: MapError| DataPlaneError::AyaMap {
            action: "opening",
            map: map_names::EVENTS,
            source: Box::new(source),
        };
        let map = Map::from_map_data(map).map_err(aya)?;
        Ok(Self {
            ring: RingBuf::try_from(map).map_err(aya)?,
            malformed: 0,
        })
    }

    /// The next event; `None` if there is none now. Records of another size than an event are skipped and counted.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let record = self.ring.next()?;
            if let Some(event) = plain::read(&record) {
                return Some(event);
            }
            self.malformed += 1;
        }
    }

    /// Records skipped so far because they had another size.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl AsRawFd for EventReader {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl AsFd for EventReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl std::fmt::Debug for EventReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventReader")
            .field("malformed", &self.malformed)
            .finish_non_exhaustive()
    }
}
