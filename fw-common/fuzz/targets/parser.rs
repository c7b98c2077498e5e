//! Any bytes through the parser: no panic, a known reason, and not a bit of the result from behind the packet.
#![no_main]

use fw_common::abi::Reason;
use fw_common::wire::{self, ETHERNET_SKIP, Kind, Meta, NO_TAG, PARSED, plain};
use fw_fuzz::frames::Spec;
use fw_fuzz::model::Frame;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// A tag beside the frame.
    tag: Option<u16>,
    /// Kind of the link: 1 Ethernet, 2 raw.
    raw: bool,
    egress: bool,
    realm: u8,
    frame: Bytes<'a>,
}

#[derive(Arbitrary, Debug)]
enum Bytes<'a> {
    Any(&'a [u8]),
    Made(Spec),
}

/// Parses with a memory in which every byte was `fill` before.
fn parse(input: &Input<'_>, bytes: &[u8], fill: u32) -> (u32, Meta) {
    let mut frame = Frame::new(bytes, 1);
    frame.tag = input.tag.map_or(NO_TAG, u32::from);
    frame.egress = input.egress;
    let mut meta = Meta::EMPTY;
    meta.window.words.fill(fill);
    let status = wire::parse(frame, 1 + u8::from(input.raw), input.realm & 15, &mut meta);
    (status, meta)
}

/// A frame that lies in one piece.
#[derive(Clone, Copy)]
struct InPlace<'a>(&'a [u8]);

impl plain::Head for InPlace<'_> {
    fn holds(self, bytes: u32) -> bool {
        self.0.len() >= bytes as usize
    }

    fn be32(self, word: u32) -> u32 {
        let at = (4 * word - ETHERNET_SKIP) as usize;
        u32::from_be_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
}

/// What is read in place is what the parser finds.
fn in_place(input: &Input<'_>, bytes: &[u8], status: u32, a: &Meta) {
    let mut b = Meta::EMPTY;
    b.len = bytes.len() as u32;
    if input.raw || input.tag.is_some() || !plain::parse(InPlace(bytes), input.realm & 15, 0, &mut b) {
        return;
    }
    assert_eq!(status, b.status);
    assert_eq!((a.src, a.dst, a.proto, a.ttl), (b.src, b.dst, b.proto, b.ttl));
    assert_eq!((a.sport, a.dport, a.selector), (b.sport, b.dport, b.selector));
    assert_eq!((a.realm, a.screens, a.fragment), (b.realm, b.screens, b.fragment));
    assert_eq!(
        (a.l3, a.l4, a.l4_offset, a.l4_len),
        (b.l3, b.l4, b.l4_offset, b.l4_len)
    );
    assert_eq!((a.tcp_flags, a.payload), (b.tcp_flags, b.payload));
    if a.proto == 6 {
        assert_eq!((a.seq, a.ack), (b.seq, b.ack));
        assert_eq!((a.tcp_window, a.tcp_options), (b.tcp_window, b.tcp_options));
    }
}

fuzz_target!(|input: Input<'_>| {
    let made;
    let bytes = match &input.frame {
        Bytes::Any(bytes) => *bytes,
        Bytes::Made(spec) => {
            made = spec.frame();
            // Without an Ethernet header a frame begins behind it.
            if input.raw {
                made.get(14..).unwrap_or_default()
            } else {
                made.as_slice()
            }
        }
    };
    let (status, a) = parse(&input, bytes, 0);
    let (again, b) = parse(&input, bytes, u32::MAX);
    assert_eq!(status, again, "what was there before decides");
    in_place(&input, bytes, status, &a);
    if status & PARSED == 0 {
        let reason = Reason::from_number(status as u8).expect("a known reason");
        assert!(!reason.allows() && reason != Reason::Unset, "{reason:?}");
        return;
    }
    assert!(a.window_end as usize <= wire::WINDOW_BYTES as usize);
    let kind = status & !PARSED;
    assert_eq!((a.src, a.dst, a.proto), (b.src, b.dst, b.proto));
    assert_eq!((a.sport, a.dport, a.selector), (b.sport, b.dport, b.selector));
    assert_eq!((a.vlan, a.inner_vlan, a.realm), (b.vlan, b.inner_vlan, b.realm));
    assert_eq!(
        (a.fragment, a.frag_id, a.frag_offset),
        (b.fragment, b.frag_id, b.frag_offset)
    );
    assert_eq!((a.frag_len, a.frag_more), (b.frag_len, b.frag_more));
    assert_eq!((a.payload, a.ttl, a.screens), (b.payload, b.ttl, b.screens));
    if kind == Kind::Ipv4 as u32 || kind == Kind::Ipv6 as u32 {
        assert_eq!(a.tcp_flags, b.tcp_flags);
        assert!(a.len as usize == bytes.len() && a.payload <= a.len);
        if a.proto == 6 && a.fragment != wire::LATER {
            assert_eq!((a.seq, a.ack, a.tcp_window), (b.seq, b.ack, b.tcp_window));
        }
    }
});
