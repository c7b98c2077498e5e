//! Tags that travel beside the frame: the negative test with the offload on.

use anyhow::{Result, ensure};
use fw_common::abi::{Engine, Reason};
use fw_tests::lab::Options;
use fw_tests::packet::Packet;
use fw_tests::wire::{TagPusher, Wire};

use crate::guarded::{Guarded, POLICY, SHORTLY, SOON, Stand};

fn scene(engine: Engine, tx_vlan: bool) -> Result<Guarded> {
    Guarded::new(
        Stand::Inline(engine, engine),
        Options {
            tx_vlan,
            ..Options::default()
        },
        POLICY,
    )
}

/// Sends a datagram that the policy allows untagged, tagged on its way out; true if anything of it arrives.
fn arrives(guarded: &Guarded, vlan: u16) -> Result<bool> {
    let (client, server) = (&guarded.scene.client, &guarded.scene.server);
    let _pusher = TagPusher::attach(&client.namespace, "eth0", vlan)?;
    let (from, to) = (
        Wire::open(&client.namespace, "eth0")?,
        Wire::open(&server.namespace, "eth0")?,
    );
    let packet = Packet::udp((client.v4, 6100 + vlan), (server.v4, 5300))
        .macs(client.mac, server.mac)
        .payload(b"tag");
    from.send(&packet.build())?;
    let timeout = if vlan == 101 { SOON } else { SHORTLY };
    Ok(to
        .receive(timeout, |arrived| arrived.ends_with(b"tag"))?
        .is_some())
}

/// TC reads the tag from the packet's metadata.
#[test]
fn tc_sees_a_tag_beside_the_frame() -> Result<()> {
    let guarded = scene(Engine::Tc, true)?;
    ensure!(
        !guarded.counts(Reason::UnknownRealm, || arrives(&guarded, 102))?,
        "a frame of an unknown realm arrived"
    );
    ensure!(
        guarded.counts(Reason::Rule, || arrives(&guarded, 101))?,
        "a frame of the tenant's realm did not arrive"
    );
    Ok(())
}

/// With the offload off, which the agent sees to, XDP finds the tag in the frame.
#[test]
fn xdp_sees_a_tag_in_the_frame() -> Result<()> {
    let guarded = scene(Engine::Xdp, false)?;
    ensure!(
        !guarded.counts(Reason::UnknownRealm, || arrives(&guarded, 102))?,
        "a frame of an unknown realm arrived"
    );
    ensure!(
        guarded.counts(Reason::Rule, || arrives(&guarded, 101))?,
        "a frame of the tenant's realm did not arrive"
    );
    Ok(())
}

/// Why the agent must turn the offload off, or take TC, or refuse policies that name VLANs: native XDP sees an untagged
/// packet and judges it as one. Should a kernel show the tag one day, this fails and the work-around can go.
#[test]
fn xdp_cannot_see_a_tag_beside_the_frame() -> Result<()> {
    let guarded = scene(Engine::Xdp, true)?;
    guarded.counts(Reason::Rule, || arrives(&guarded, 102))?;
    ensure!(guarded.packets(Reason::UnknownRealm)? == 0, "XDP saw the tag");
    Ok(())
}
