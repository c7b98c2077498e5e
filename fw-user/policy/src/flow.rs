//! The notation of flows, for people: `tcp 10.0.0.1 10.0.0.2:22`. Used by `expect:` and by `dpufw explain`.
//!
//! ```text
//! tcp SRC DST:PORT             also udp, sctp
//! icmp SRC DST                 an echo request
//! icmp SRC DST TYPE[/CODE]     TYPE is a number or a name, such as `echo-request`; CODE is 0 if it is left out
//! esp SRC DST                  also ah, gre and every protocol by number: `50`
//! ```
//!
//! SRC and DST are addresses or names of zones. With a port an IPv6 address stands in brackets: `[fd00::2]:22`. The
//! source may carry a port too; without one it is the first dynamic port, 49152. `icmp` and `icmpv6` mean the same: the addresses say which.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use fw_common::abi::Proto;
use serde::Serialize;
use thiserror::Error;

use crate::model::Tags;
use crate::names;

/// Why a flow could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FlowError {
    /// Too few or too many words.
    #[error(
        "a flow is written `PROTOCOL SOURCE DESTINATION`, such as `tcp 10.0.0.1 10.0.0.2:22`; `{0}` is not"
    )]
    Shape(String),
    /// The first word.
    #[error("`{0}` is no protocol; write tcp, udp, sctp, icmp, icmpv6, esp, ah, gre or a protocol number")]
    Protocol(String),
    /// The destination of TCP, UDP or SCTP without a port.
    #[error("`{destination}` has no port; write `{example}`")]
    MissingPort {
        /// The destination as written.
        destination: String,
        /// The destination with a port.
        example: String,
    },
    /// A port where none belongs.
    #[error("`{0}` has a port, but {1} has none")]
    NeedlessPort(String, String),
    /// Not a number from 1 to 65535.
    #[error("`{0}` is no port; a port is a number from 1 to 65535")]
    Port(String),
    /// Neither an address nor a name.
    #[error("`{0}` is neither an address nor a zone's name")]
    Endpoint(String),
    /// Not an ICMP type.
    #[error(
        "`{0}` is no ICMP type; write a name such as `echo-request`, or TYPE/CODE as numbers from 0 to 255"
    )]
    IcmpType(String),
    /// Addresses of both families.
    #[error("`{0}` and `{1}` are of different families; a flow has two IPv4 or two IPv6 addresses")]
    Families(String, String),
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// An address.
    Address(IpAddr),
    /// A zone, which stands for one of its addresses.
    Zone(String),
}

/// The selector of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// None: the protocol has no ports.
    None,
    /// A destination port.
    Port(u16),
    /// An ICMP message; `None` is the echo request of the family.
    Icmp(Option<IcmpMessage>),
}

/// An ICMP message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum IcmpMessage {
    /// Type and code.
    Number(u8, u8),
    /// A type by name, which has a number in each family, and a code.
    Name(String, u8),
}

/// A flow as it is written; zones are not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowSpec {
    /// IP protocol number. ICMP and ICMPv6 are both [`Proto::ICMP`] here: the family is known only with the addresses.
    pub proto: u8,
    /// Who opens the flow.
    pub src: Endpoint,
    /// To whom.
    pub dst: Endpoint,
    /// Source port, where one was written.
    pub sport: Option<u16>,
    /// Destination port or ICMP message.
    pub selector: Selector,
}

/// A flow with addresses and numbers, as the packet path sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// VLAN id, of two tags the outer one; 0: untagged.
    pub vlan: u16,
    /// VLAN id of the inner tag; 0: there is none.
    pub inner_vlan: u16,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Source port, where one was written.
    pub sport: Option<u16>,
    /// Destination port, ICMP `type << 8 | code`, else 0.
    pub selector: u16,
}

/// The source port of a flow that is written without one: the first dynamic port (RFC 6335, section 6).
pub const DYNAMIC_PORT: u16 = 49_152;

impl Flow {
    /// The source port; [`DYNAMIC_PORT`] where none was written, 0 where the protocol has none.
    #[must_use]
    pub fn source_port(&self) -> u16 {
        match self.proto {
            Proto::TCP | Proto::UDP | Proto::SCTP => self.sport.unwrap_or(DYNAMIC_PORT),
            _ => 0,
        }
    }

    /// True if a machine with these addresses sends the packet: its source is one of them, or it asks for an address by DHCP
    /// and has none yet.
    #[must_use]
    pub fn leaves(&self, own: &[IpAddr]) -> bool {
        own.contains(&self.src) || asks_for_address(self.src, self.proto, (self.source_port(), self.selector))
    }

    /// The packet's tags.
    #[must_use]
    pub const fn tags(&self) -> Tags {
        Tags {
            outer: self.vlan,
            inner: self.inner_vlan,
        }
    }
}

/// True of a DHCP client's packet without an address (RFC 2131 section 4.1): from 0.0.0.0, port 68, to port 67. `ports`: source
/// and destination. Whoever asks about such a packet means that this machine sends it.
#[must_use]
pub fn asks_for_address(source: IpAddr, proto: u8, ports: (u16, u16)) -> bool {
    source == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && proto == Proto::UDP && ports == (68, 67)
}

/// The flow in the notation above, so that it can be asked again; tags are no part of it.
impl fmt::Display for Flow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (src, dst) = (self.src, self.dst);
        match self.proto {
            Proto::TCP | Proto::UDP | Proto::SCTP => {
                write!(out, "{} ", names::protocol_name(self.proto))?;
                match self.sport {
                    Some(port) => write!(out, "{}", SocketAddr::new(src, port))?,
                    None => write!(out, "{src}")?,
                }
                write!(out, " {}", SocketAddr::new(dst, self.selector))
            }
            Proto::ICMP | Proto::ICMPV6 => {
                write!(out, "icmp {src} {dst}")?;
                let (kind, code) = (self.selector >> 8, self.selector & 0xff);
                match (kind == u16::from(names::echo_request(self.proto)), code) {
                    (true, 0) => Ok(()),
                    (_, 0) => write!(out, " {kind}"),
                    _ => write!(out, " {kind}/{code}"),
                }
            }
            proto if names::PROTOCOLS.iter().any(|(_, own)| *own == proto) => {
                write!(out, "{} {src} {dst}", names::protocol_name(proto))
            }
            proto => write!(out, "{proto} {src} {dst}"),
        }
    }
}

impl From<&Flow> for FlowSpec {
    /// The flow as one would ask for it; unlike its text it may have port 0, which packets can carry and nobody writes.
    fn from(flow: &Flow) -> Self {
        let [kind, code] = flow.selector.to_be_bytes();
        let (proto, selector) = match flow.proto {
            Proto::TCP | Proto::UDP | Proto::SCTP => (flow.proto, Selector::Port(flow.selector)),
            Proto::ICMP | Proto::ICMPV6 => {
                let message = IcmpMessage::Number(kind, code);
                (Proto::ICMP, Selector::Icmp(Some(message)))
            }
            other => (other, Selector::None),
        };
        Self {
            proto,
            src: Endpoint::Address(flow.src),
            dst: Endpoint::Address(flow.dst),
            sport: flow.sport,
            selector,
        }
    }
}

impl FromStr for FlowSpec {
    type Err = FlowError;

    fn from_str(text: &str) -> Result<Self, FlowError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (&[protocol, src, dst], rest) = words.split_first_chunk().ok_or_else(|| shape(text))?;
        let proto = protocol_number(protocol)?;
        let (src_text, sport) = split_port(src)?;
        let (dst_text, dport) = split_port(dst)?;
        let selector = match (proto, rest, dport) {
            (Proto::ICMP, [], None) => Selector::Icmp(None),
            (Proto::ICMP, [message], None) => Selector::Icmp(Some(icmp_message(message)?)),
            (_, [_, ..], _) => return Err(shape(text)),
            (Proto::TCP | Proto::UDP | Proto::SCTP, [], Some(port)) => Selector::Port(port),
            (Proto::TCP | Proto::UDP | Proto::SCTP, [], None) => {
                return Err(missing_port(dst));
            }
            (_, [], Some(_)) => return Err(FlowError::NeedlessPort(dst.to_owned(), protocol.to_owned())),
            (_, [], None) => Selector::None,
        };
        let (src, dst) = (endpoint(src_text)?, endpoint(dst_text)?);
        if let (Endpoint::Address(a), Endpoint::Address(b)) = (&src, &dst)
            && a.is_ipv4() != b.is_ipv4()
        {
            return Err(FlowError::Families(a.to_string(), b.to_string()));
        }
        Ok(Self {
            proto,
            src,
            dst,
            sport,
            selector,
        })
    }
}

impl FlowSpec {
    /// Protocol number and selector for addresses of this family.
    ///
    /// # Errors
    /// [`FlowError::IcmpType`] if the family has no message of that name.
    pub fn service(&self, ipv4: bool) -> Result<(u8, u16), FlowError> {
        let proto = match self.proto {
            Proto::ICMP if !ipv4 => Proto::ICMPV6,
            proto => proto,
        };
        let selector = match &self.selector {
            Selector::None => 0,
            Selector::Port(port) => *port,
            Selector::Icmp(None) => icmp_selector(names::echo_request(proto), 0),
            Selector::Icmp(Some(IcmpMessage::Number(kind, code))) => icmp_selector(*kind, *code),
            Selector::Icmp(Some(IcmpMessage::Name(name, code))) => {
                let kind = names::icmp_type(proto, name).ok_or_else(|| FlowError::IcmpType(name.clone()))?;
                icmp_selector(kind, *code)
            }
        };
        Ok((proto, selector))
    }
}

const fn icmp_selector(kind: u8, code: u8) -> u16 {
    (kind as u16) << 8 | code as u16
}

fn shape(text: &str) -> FlowError {
    FlowError::Shape(text.to_owned())
}

fn missing_port(destination: &str) -> FlowError {
    let brackets = destination.contains(':') && !destination.starts_with('[');
    let example = if brackets {
        format!("[{destination}]:443")
    } else {
        format!("{destination}:443")
    };
    FlowError::MissingPort {
        destination: destination.to_owned(),
        example,
    }
}

fn protocol_number(word: &str) -> Result<u8, FlowError> {
    let number = names::protocol(word).or_else(|| word.parse().ok());
    match number.ok_or_else(|| FlowError::Protocol(word.to_owned()))? {
        Proto::ICMPV6 => Ok(Proto::ICMP),
        proto => Ok(proto),
    }
}

/// Takes the port off: `a:1`, `[v6]:1`; an IPv6 address without brackets has none.
fn split_port(word: &str) -> Result<(&str, Option<u16>), FlowError> {
    if let Some(inner) = word.strip_prefix('[') {
        let (address, rest) = inner
            .split_once(']')
            .ok_or_else(|| FlowError::Endpoint(word.to_owned()))?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((address, Some(parse_port(port)?))),
            None if rest.is_empty() => Ok((address, None)),
            None => Err(FlowError::Endpoint(word.to_owned())),
        };
    }
    match word.split_once(':') {
        Some((head, port)) if !port.contains(':') && !head.is_empty() => Ok((head, Some(parse_port(port)?))),
        _ => Ok((word, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, FlowError> {
    match text.parse() {
        Ok(0) | Err(_) => Err(FlowError::Port(text.to_owned())),
        Ok(port) => Ok(port),
    }
}

fn endpoint(word: &str) -> Result<Endpoint, FlowError> {
    if let Ok(address) = word.parse::<Ipv4Addr>() {
        return Ok(Endpoint::Address(address.into()));
    }
    if let Ok(address) = word.parse::<Ipv6Addr>() {
        return Ok(Endpoint::Address(address.into()));
    }
    if names::is_name(word) && word.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Ok(Endpoint::Zone(word.to_owned()));
    }
    Err(FlowError::Endpoint(word.to_owned()))
}

fn icmp_message(word: &str) -> Result<IcmpMessage, FlowError> {
    let error = || FlowError::IcmpType(word.to_owned());
    let (kind, code) = word.split_once('/').unwrap_or((word, "0"));
    let code = code.parse().map_err(|_| error())?;
    match kind.parse() {
        Ok(kind) => Ok(IcmpMessage::Number(kind, code)),
        Err(_) if names::is_icmp_name(kind) => Ok(IcmpMessage::Name(kind.to_owned(), code)),
        Err(_) => Err(error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> FlowSpec {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn flows_are_read() {
        let flow = read("tcp 10.0.0.1:4000 10.0.0.2:22");
        assert_eq!(
            (flow.proto, flow.sport, flow.selector),
            (6, Some(4000), Selector::Port(22))
        );
        let flow = read("udp fd00::1 [fd00::2]:53");
        assert_eq!(
            flow.dst,
            Endpoint::Address("fd00::2".parse().expect("an address"))
        );
        assert_eq!(read("tcp gpu storage:2049").dst, Endpoint::Zone("storage".into()));
        assert_eq!(read("icmp a b").service(true), Ok((1, 0x800)));
        assert_eq!(read("icmp a b").service(false), Ok((58, 0x8000)));
        assert_eq!(read("icmpv6 a b echo-reply").service(true), Ok((1, 0)));
        assert_eq!(read("icmp a b 3/4").service(true), Ok((1, 0x304)));
        assert_eq!(read("esp a b").service(true), Ok((50, 0)));
        assert_eq!(read("47 [fd00::1] fd00::2").service(false), Ok((47, 0)));
    }

    #[test]
    fn a_flow_is_written_as_it_is_read() {
        for text in [
            "tcp 10.0.0.1 10.0.0.2:22",
            "udp 10.0.0.1:53 10.0.0.2:4000",
            "sctp [fd00::1]:7 [fd00::2]:3868",
            "icmp 10.0.0.1 10.0.0.2",
            "icmp fd00::1 fd00::2 128/3",
            "icmp 10.0.0.1 10.0.0.2 3",
            "esp fd00::1 fd00::2",
            "89 10.0.0.1 10.0.0.2",
        ] {
            let spec = read(text);
            let (Endpoint::Address(src), Endpoint::Address(dst)) = (&spec.src, &spec.dst) else {
                panic!("{text} has addresses");
            };
            let (proto, selector) = spec.service(src.is_ipv4()).expect("a message of the family");
            let flow = Flow {
                vlan: 0,
                inner_vlan: 0,
                src: *src,
                dst: *dst,
                proto,
                sport: spec.sport,
                selector,
            };
            assert_eq!(flow.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_flow_is_refused() {
        for (text, expected) in [
            ("", shape("")),
            ("tcp 10.0.0.1", shape("tcp 10.0.0.1")),
            ("tcp a b:1 c", shape("tcp a b:1 c")),
            ("tpc a b:1", FlowError::Protocol("tpc".into())),
            ("256 a b", FlowError::Protocol("256".into())),
            (
                "tcp a b",
                FlowError::MissingPort {
                    destination: "b".into(),
                    example: "b:443".into(),
                },
            ),
            (
                "tcp a fd00::1",
                FlowError::MissingPort {
                    destination: "fd00::1".into(),
                    example: "[fd00::1]:443".into(),
                },
            ),
            ("tcp a b:70000", FlowError::Port("70000".into())),
            ("tcp a b:0", FlowError::Port("0".into())),
            ("icmp a b:1", FlowError::NeedlessPort("b:1".into(), "icmp".into())),
            ("icmp a b ping", FlowError::IcmpType("ping".into())),
            ("icmp a b 8/300", FlowError::IcmpType("8/300".into())),
            ("tcp 10.0.0.300 b:1", FlowError::Endpoint("10.0.0.300".into())),
            ("tcp [fd00::1 b:1", FlowError::Endpoint("[fd00::1".into())),
            (
                "tcp 10.0.0.1 [fd00::1]:1",
                FlowError::Families("10.0.0.1".into(), "fd00::1".into()),
            ),
        ] {
            assert_eq!(text.parse::<FlowSpec>(), Err(expected), "{text}");
        }
    }
}
