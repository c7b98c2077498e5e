//! Is a frame the refusal of something that was sent?

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// True if a frame tells `sender` that what it sent is refused: a TCP reset, or an ICMP destination unreachable (RFC 792,
/// RFC 4443 section 3.1).
#[must_use]
pub fn refuses(frame: &[u8], sender: IpAddr) -> bool {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else {
        return false;
    };
    let to: IpAddr = match &packet.net {
        Some(NetSlice::Ipv4(v4)) => v4.header().destination_addr().into(),
        Some(NetSlice::Ipv6(v6)) => v6.header().destination_addr().into(),
        _ => return false,
    };
    let refusal = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => tcp.rst(),
        Some(TransportSlice::Icmpv4(icmp)) => icmp.type_u8() == 3,
        Some(TransportSlice::Icmpv6(icmp)) => icmp.type_u8() == 1,
        _ => false,
    };
    refusal && to == sender
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, Unreachable};
    use super::refuses;

    #[test]
    fn resets_and_unreachables_to_the_sender_are_refusals() {
        let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let syn = Packet::tcp((a, 1000), (b, 80)).flags("S");
        let reset = syn.clone().reversed().flags("R").tags(&[101]);
        assert!(refuses(&reset.build(), a.into()));
        assert!(!refuses(&reset.build(), b.into()));
        assert!(!refuses(&syn.build(), b.into()));
        let told = Packet::unreachable(b, a, Unreachable::Port, &syn);
        assert!(refuses(&told.build(), a.into()));
        assert!(!refuses(&Packet::echo_reply(b, a, 1, 1).build(), a.into()));
        assert!(!refuses(&[0; 20], a.into()));
    }
}
