//! Frames from capture files (pcap, pcapng).

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use thiserror::Error;

/// Bytes read ahead at first: room for the longest block of an ordinary capture.
const AHEAD: usize = 1 << 20;
/// The buffer of a file with longer blocks grows up to this.
const MOST: usize = 64 << 20;
/// Link types (tcpdump.org/linktypes.html).
const ETHERNET: i32 = 1;
const RAW: [i32; 4] = [12, 101, 228, 229];
/// Units a second where a file does not say: microseconds.
const MICROSECONDS: u64 = 1_000_000;
const NANOSECONDS: u64 = 1_000_000_000;

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// The IP header itself.
    Raw,
}

/// A frame as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When; none if it was not captured.
    pub time: Option<Timestamp>,
    /// What it begins with.
    pub link: Link,
    /// The bytes that were kept.
    pub bytes: Vec<u8>,
    /// Bytes that it had on the wire.
    pub length: u32,
}

/// Why a capture cannot be read.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a capture.
    #[error("{0} is no capture: it begins neither as a pcap nor as a pcapng file")]
    Format(PathBuf),
    /// It ends in the middle, or its lengths contradict each other.
    #[error("{path} is damaged behind packet {packets}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Packets that were read.
        packets: u64,
        /// What is wrong.
        what: String,
    },
    /// Frames of another kind.
    #[error(
        "{path} holds frames of the link type {name}; captures of Ethernet and of raw IP can be judged: capture on a port, not \
         on `any` (`tcpdump -i eth0 -w FILE`)"
    )]
    Link {
        /// The file.
        path: PathBuf,
        /// The link type's name and number.
        name: String,
    },
    /// Text that is no frame.
    #[error("{0}")]
    Hex(String),
}

/// An interface of a pcapng section: its link type, units a second, and seconds to add.
#[derive(Clone, Copy)]
struct Interface {
    link: Linktype,
    units: u64,
    offset: i64,
}

/// Reads a capture packet by packet.
pub struct Capture {
    path: PathBuf,
    reader: Box<dyn PcapReaderIterator + Send>,
    interfaces: Vec<Interface>,
    packets: u64,
}

impl Capture {
    /// Opens a capture file.
    ///
    /// # Errors
    /// [`CaptureError`]: the file cannot be read, or is no capture.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let io = |source| CaptureError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Err(io(ErrorKind::IsADirectory.into()));
        }
        let reader = create_reader(AHEAD, file).map_err(|_| CaptureError::Format(path.to_owned()))?;
        Ok(Self {
            path: path.to_owned(),
            reader,
            interfaces: Vec::new(),
            packets: 0,
        })
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    /// [`CaptureError`]: the rest cannot be read.
    pub fn next_packet(&mut self) -> Result<Option<Captured>, CaptureError> {
        let mut capacity = AHEAD;
        loop {
            let step = match self.reader.next() {
                Ok((bytes, block)) => {
                    let found = packet(&block, &mut self.interfaces);
                    (bytes, found)
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) if capacity <= MOST => {
                    self.refill(&mut capacity)?;
                    continue;
                }
                Err(error) => {
                    let what = told(&error);
                    return Err(self.damaged(what));
                }
            };
            let (bytes, found) = step;
            self.reader.consume(bytes);
            match found {
                Ok(None) => {}
                Ok(Some(captured)) => {
                    self.packets += 1;
                    return Ok(Some(captured));
                }
                Err(Refused::Link(name)) => {
                    return Err(CaptureError::Link {
                        path: self.path.clone(),
                        name,
                    });
                }
                Err(Refused::Damage(what)) => return Err(self.damaged(what.to_owned())),
            }
        }
    }

    /// Reads on, into a larger buffer if this one is full already.
    fn refill(&mut self, capacity: &mut usize) -> Result<(), CaptureError> {
        if self.reader.reader_exhausted() {
            return Err(self.damaged("it ends in the middle of a packet".to_owned()));
        }
        let before = self.reader.data().len();
        let refilled = self.reader.refill().map_err(|error| told(&error));
        if let Err(what) = refilled {
            return Err(self.damaged(what));
        }
        if self.reader.data().len() == before && !self.reader.reader_exhausted() {
            *capacity *= 2;
            self.reader.grow(*capacity);
        }
        Ok(())
    }

    fn damaged(&self, what: String) -> CaptureError {
        CaptureError::Damaged {
            path: self.path.clone(),
            packets: self.packets,
            what,
        }
    }
}

/// Why a block gives no packet.
enum Refused {
    Link(String),
    Damage(&'static str),
}

/// The packet in a block; `None` for one that holds none.
fn packet(block: &PcapBlockOwned<'_>, interfaces: &mut Vec<Interface>) -> Result<Option<Captured>, Refused> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let nanoseconds = header.is_nanosecond_precision();
            interfaces.push(Interface {
                link: header.network,
                units: if nanoseconds { NANOSECONDS } else { MICROSECONDS },
                offset: 0,
            });
            Ok(None)
        }
        PcapBlockOwned::Legacy(packet) => {
            let interface = interface(interfaces, 0)?;
            let time = time(interface, u64::from(packet.ts_sec), u64::from(packet.ts_usec));
            captured(interface, time, packet.data, packet.origlen).map(Some)
        }
        PcapBlockOwned::NG(block) => section_block(block, interfaces),
    }
}

fn section_block(block: &Block<'_>, interfaces: &mut Vec<Interface>) -> Result<Option<Captured>, Refused> {
    match block {
        Block::SectionHeader(_) => interfaces.clear(),
        Block::InterfaceDescription(description) => interfaces.push(Interface {
            link: description.linktype,
            units: description.ts_resolution().unwrap_or(MICROSECONDS),
            offset: description.ts_offset(),
        }),
        Block::EnhancedPacket(packet) => {
            let interface = interface(interfaces, packet.if_id)?;
            let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            let time = time(
                interface,
                ticks / interface.units.max(1),
                ticks % interface.units.max(1),
            );
            let bytes = kept(packet.data, packet.caplen);
            return captured(interface, time, bytes, packet.origlen).map(Some);
        }
        Block::SimplePacket(packet) => {
            let interface = interface(interfaces, 0)?;
            let bytes = kept(packet.data, packet.origlen);
            return captured(interface, None, bytes, packet.origlen).map(Some);
        }
        _ => {}
    }
    Ok(None)
}

/// A block's data without its padding.
fn kept(data: &[u8], length: u32) -> &[u8] {
    &data[..data.len().min(length as usize)]
}

fn interface(interfaces: &[Interface], number: u32) -> Result<Interface, Refused> {
    let interface = interfaces.get(number as usize).copied();
    interface.ok_or(Refused::Damage(
        "a packet names an interface that the file does not describe",
    ))
}

/// Seconds and units since the epoch; a time that no clock shows is none.
fn time(interface: Interface, seconds: u64, units: u64) -> Option<Timestamp> {
    let seconds = i64::try_from(seconds).ok()?.checked_add(interface.offset)?;
    let nanoseconds = u128::from(units) * u128::from(NANOSECONDS) / u128::from(interface.units.max(1));
    Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?).ok()
}

fn captured(
    interface: Interface,
    time: Option<Timestamp>,
    bytes: &[u8],
    length: u32,
) -> Result<Captured, Refused> {
    let link = match interface.link.0 {
        ETHERNET => Link::Ethernet,
        number if RAW.contains(&number) => Link::Raw,
        _ => return Err(Refused::Link(link_name(interface.link))),
    };
    Ok(Captured {
        time,
        link,
        bytes: bytes.to_vec(),
        length: length.max(bytes.len() as u32),
    })
}

/// `LINUX_SLL (113)`.
fn link_name(link: Linktype) -> String {
    let number = link.0;
    let text = link.to_string();
    if text.contains(&number.to_string()) {
        text
    } else {
        format!("{text} ({number})")
    }
}

fn told(error: &PcapError<&[u8]>) -> String {
    match error {
        PcapError::UnexpectedEof | PcapError::Incomplete(_) => "it ends in the middle of a packet".to_owned(),
        PcapError::ReadError => "the system could not read on".to_owned(),
        _ => "its blocks contradict each other".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{Capture, CaptureError, Link};

    fn file(parts: &[&[u8]]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&parts.concat()).unwrap();
        file
    }

    /// A pcap header of this magic number and link type, little-endian.
    fn header(magic: u32, link: u32) -> Vec<u8> {
        let words = [magic, 4 << 16 | 2, 0, 0, 65_535, link];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn record(seconds: u32, units: u32, bytes: &[u8], length: u32) -> Vec<u8> {
        let words = [seconds, units, bytes.len() as u32, length];
        let words = words.iter().flat_map(|word| word.to_le_bytes());
        words.chain(bytes.iter().copied()).collect()
    }

    #[test]
    fn packets_of_a_pcap_file_are_read_with_their_times() {
        for (magic, time) in [
            (0xa1b2_c3d4, "1970-01-01T00:00:07.000005Z"),
            (0xa1b2_3c4d, "1970-01-01T00:00:07.000000005Z"),
        ] {
            let file = file(&[
                &header(magic, 1),
                &record(7, 5, &[1, 2, 3], 9),
                &record(8, 0, &[4], 1),
            ]);
            let mut capture = Capture::open(file.path()).unwrap();
            let packet = capture.next_packet().unwrap().unwrap();
            assert_eq!(packet.time, Some(time.parse().unwrap()));
            assert_eq!((packet.bytes.as_slice(), packet.length), (&[1, 2, 3][..], 9));
            assert_eq!(packet.link, Link::Ethernet);
            assert_eq!(capture.next_packet().unwrap().unwrap().bytes, [4]);
            assert_eq!(capture.next_packet().unwrap(), None);
        }
    }

    #[test]
    fn packets_of_a_pcapng_file_are_read_with_their_interfaces_units() {
        let block = |kind: u32, body: &[u8]| {
            let length = (12 + body.len() as u32).to_le_bytes();
            [&kind.to_le_bytes(), &length[..], body, &length].concat()
        };
        let words = |words: &[u32]| {
            words
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let section = block(0x0a0d_0d0a, &words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]));
        // Option 9, one byte: ten to the minus three.
        let raw = block(1, &words(&[101, 0, 1 << 16 | 9, 3, 0]));
        let packet = block(6, &words(&[0, 0, 7_005, 2, 40, 0x0201]));
        let file = file(&[&section, &raw, &packet]);
        let mut capture = Capture::open(file.path()).unwrap();
        let packet = capture.next_packet().unwrap().unwrap();
        assert_eq!(packet.time, Some("1970-01-01T00:00:07.005Z".parse().unwrap()));
        assert_eq!((packet.bytes.as_slice(), packet.length), (&[1, 2][..], 40));
        assert_eq!(packet.link, Link::Raw);
        assert_eq!(capture.next_packet().unwrap(), None);
    }

    #[test]
    fn what_is_no_capture_or_of_another_link_is_refused_by_name() {
        let sll = file(&[&header(0xa1b2_c3d4, 113), &record(7, 5, &[1, 2, 3], 3)]);
        let error = Capture::open(sll.path()).unwrap().next_packet().unwrap_err();
        assert!(error.to_string().contains("113"), "{error}");
        let text = file(&[b"version: 1\nrules: []\n and more than a header is long"]);
        assert!(matches!(Capture::open(text.path()), Err(CaptureError::Format(_))));
        assert!(matches!(
            Capture::open(std::path::Path::new("/nowhere/x.pcap")),
            Err(CaptureError::Io { .. })
        ));
        let cut = file(&[&header(0xa1b2_c3d4, 1), &record(7, 5, &[1, 2, 3], 3)[..17]]);
        let error = Capture::open(cut.path()).unwrap().next_packet().unwrap_err();
        assert!(error.to_string().contains("damaged behind packet 0"), "{error}");
    }
}
