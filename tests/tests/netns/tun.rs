//! Ports without Ethernet headers, filtered by TC in both directions.

use std::net::{IpAddr, SocketAddr, TcpStream};

use anyhow::{Result, ensure};
use fw_common::abi::{Engine, LinkKind, Mode, PortConfig, Reason, Side};
use fw_tests::lab::{Namespace, TcpService};
use fw_tests::wire::TunLine;
use fw_user::dataplane::{self, DataPlane, PortPlan};

use crate::guarded::{SHORTLY, SOON, apply};

const POLICY: &str = r#"
version: 1
zones:
  left:  { addresses: [10.8.0.1, "fd00:8::1"] }
rules:
  - { name: closed, reject: [tcp/83], between: [left, self] }
  - { name: in,  allow: [tcp/80, ping], from: left, to: self }
  - { name: out, allow: [tcp/81], from: self, to: left }
"#;

/// Two machines with a tunnel between them; the right one is guarded.
struct Tunnel {
    left: Namespace,
    right: Namespace,
    plane: DataPlane,
    _line: TunLine,
}

impl Tunnel {
    const NAME: &str = "tun0";

    fn new() -> Result<Self> {
        let (left, right) = (Namespace::new("left")?, Namespace::new("right")?);
        let addresses = |number: u8| [format!("10.8.0.{number}/24"), format!("fd00:8::{number}/64")];
        let line = TunLine::create(Self::NAME, [(&left, &addresses(1)), (&right, &addresses(2))])?;
        let mut plane = DataPlane::open(dataplane::Options {
            replies_per_window: 64,
            ..dataplane::Options::default()
        })?;
        apply(&plane, vec!["10.8.0.2".parse()?, "fd00:8::2".parse()?], POLICY)?;
        let ifindex = right.ifindex(Self::NAME)?;
        plane.tables().set_port(&PortConfig {
            ifindex,
            mode: Mode::Host as u8,
            engine: Engine::Tc as u8,
            link: LinkKind::Raw as u8,
            side: Side::Outer as u8,
            ..PortConfig::default()
        })?;
        let plan = PortPlan {
            name: Self::NAME.to_owned(),
            ifindex,
            engine: Engine::Tc,
            egress: true,
        };
        right.enter(|| plane.attach(&plan))??;
        Ok(Self {
            left,
            right,
            plane,
            _line: line,
        })
    }

    /// Packets that ended with this reason so far.
    fn packets(&self, reason: Reason) -> Result<u64> {
        let counters = self.plane.tables().counters()?;
        Ok(counters
            .iter()
            .find(|(number, _)| *number == reason as u8)
            .map_or(0, |(_, count)| count.packets))
    }

    /// Connects; true if somebody answered, and `reason` was counted.
    fn connects(&self, from: &Namespace, to: SocketAddr, reason: Reason) -> Result<bool> {
        let before = self.packets(reason)?;
        let connected = from.enter(|| TcpStream::connect_timeout(&to, 4 * SHORTLY))?;
        ensure!(
            self.packets(reason)? > before,
            "{to}: {connected:?} without {}; {:?}",
            reason.name(),
            self.plane.tables().counters()?
        );
        if reason == Reason::RejectRule {
            let kind = connected.as_ref().err().map(std::io::Error::kind);
            ensure!(
                kind == Some(std::io::ErrorKind::ConnectionRefused),
                "{connected:?} instead of a refused connection to {to}"
            );
        }
        Ok(connected.is_ok())
    }
}

/// What the rules allow comes through whole, what they deny does not, and what they reject is refused: into the machine and
/// out of it, by both families.
#[test]
fn tun_is_filtered_both_ways() -> Result<()> {
    let tunnel = Tunnel::new()?;
    let (left, right) = (&tunnel.left, &tunnel.right);
    for (left_address, right_address) in [("10.8.0.1", "10.8.0.2"), ("fd00:8::1", "fd00:8::2")] {
        let addresses: [IpAddr; 2] = [left_address.parse()?, right_address.parse()?];
        for (from, at, to, allowed, denied) in [
            (left, right, addresses[1], 80, 81),
            (right, left, addresses[0], 81, 80),
        ] {
            let open = SocketAddr::new(to, allowed);
            let _services = [
                TcpService::start(at, to, allowed)?,
                TcpService::start(at, to, denied)?,
                TcpService::start(at, to, 83)?,
            ];
            let page = from.check(
                &["curl", "-sgS", "--max-time", "5", &format!("http://{open}/")],
                SOON,
            )?;
            ensure!(page == TcpService::BODY, "{open}: curl read {page:?}");
            ensure!(
                tunnel.connects(from, open, Reason::Rule)?,
                "{open} did not answer"
            );
            let closed = SocketAddr::new(to, denied);
            ensure!(
                !tunnel.connects(from, closed, Reason::DenyDefault)?,
                "{closed} answered"
            );
            let closed = SocketAddr::new(to, 83);
            ensure!(
                !tunnel.connects(from, closed, Reason::RejectRule)?,
                "{closed} answered"
            );
        }
        left.check(
            &[
                "ping",
                "-c",
                "2",
                "-i",
                "0.05",
                "-W",
                "5",
                "-s",
                "4000",
                right_address,
            ],
            SOON,
        )?;
    }
    Ok(())
}
