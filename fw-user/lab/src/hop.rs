//! A hop on the way: what a NIC's hardware does for its host, done in software.

use std::time::Duration;

use anyhow::{Context, Result};

use super::tcx::{self, Tcx, Way};
use super::{End, Namespace, Veth};

/// A machine of two ports that hands every frame from one to the other, whatever its protocol.
///
/// It stands between an end whose kernel leaves segments and checksums to hardware and a port with an XDP program.
/// Without it veth would take segmentation from that end (the peer of an XDP port gets no super-packets), and a native
/// redirect would forget that a checksum is missing. Here super-packets are cut and checksums are written on the way out
/// by [`Hop::WIRE`], as a NIC does. A TCX redirect does this and not a bridge, because a bridge keeps LACP for itself.
#[derive(Debug)]
pub struct Hop {
    /// Where it lives.
    pub namespace: Namespace,
    _programs: [Option<Tcx>; 2],
}

impl Hop {
    /// The port towards the end.
    pub const HOST: &str = "host0";
    /// The port towards the firewall.
    pub const WIRE: &str = "wire0";

    /// Connects an end and a port of the firewall through a hop of its own.
    ///
    /// # Errors
    /// If a set-up command refuses.
    pub fn between(end: &End<'_>, port: &End<'_>, mtu: u32) -> Result<Self> {
        let namespace = Namespace::new("hop")?;
        // GRO is off towards the end: nothing is redirected to it by XDP, and what comes in is what the end has sent.
        let host = End::new(&namespace, Self::HOST, [2, 0, 0, 0, 2, 1])
            .offloads(true)
            .gro(false);
        let wire = End::new(&namespace, Self::WIRE, [2, 0, 0, 0, 2, 2]);
        Veth::create(end, &host, mtu)?;
        Veth::create(&wire, port, mtu)?;
        let programs = [
            redirect(&namespace, Self::HOST, Self::WIRE)?,
            redirect(&namespace, Self::WIRE, Self::HOST)?,
        ];
        Ok(Self {
            namespace,
            _programs: programs,
        })
    }
}

/// `return bpf_redirect(ifindex, 0)` for all that comes in; before Linux 6.6, which has no TCX, a filter that does the
/// same and stays with the interface.
fn redirect(namespace: &Namespace, from: &str, to: &str) -> Result<Option<Tcx>> {
    const REDIRECT: i32 = 23;
    let target = namespace.ifindex(to)?.cast_signed();
    let code = [
        tcx::set(1, target),
        tcx::set(2, 0),
        tcx::call(REDIRECT),
        tcx::EXIT,
    ];
    match Tcx::attach(namespace, from, Way::In, &code) {
        Ok(tcx) => Ok(Some(tcx)),
        Err(refused) => mirred(namespace, from, to).context(refused).map(|()| None),
    }
}

fn mirred(namespace: &Namespace, from: &str, to: &str) -> Result<()> {
    let tc = |words: &str| {
        let words: Vec<&str> = words.split_whitespace().collect();
        namespace.check(&words, Duration::from_secs(10)).map(drop)
    };
    tc(&format!("tc qdisc add dev {from} clsact"))?;
    tc(&format!(
        "tc filter add dev {from} ingress matchall action mirred egress redirect dev {to}"
    ))
}
