//! Replies, taken apart by another implementation and by our own parser.

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpNumber, NetHeaders, PacketBuilder, PacketHeaders, TransportHeader, icmpv4,
    icmpv6,
};
use fw_common::abi::LinkKind;
use fw_common::reply::{self, PROOF_SLOT_NS, Reply};
use fw_common::wire::{self, Meta, NO_TAG, PARSED, Packet, WINDOW_BYTES, Window};

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0c];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x05];
const CLIENT4: [u8; 4] = [10, 1, 2, 3];
const SERVER4: [u8; 4] = [10, 9, 8, 7];
const CLIENT6: [u8; 16] = [0xfd, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7];
const SERVER6: [u8; 16] = [0xfd, 0, 0, 9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4, 0, 3];
const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

#[derive(Clone, Copy)]
struct Frame<'a>(&'a [u8]);

impl Packet for Frame<'_> {
    fn len(self) -> u32 {
        self.0.len() as u32
    }

    fn load(self, offset: u32, skip: u32, into: &mut Window) -> u32 {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min((WINDOW_BYTES - skip) as usize);
        for (index, byte) in rest[..count].iter().enumerate() {
            let at = index + skip as usize;
            let mut word = into.words[at / 4].to_ne_bytes();
            word[at % 4] = *byte;
            into.words[at / 4] = u32::from_ne_bytes(word);
        }
        if count == 0 { 0 } else { skip + count as u32 }
    }

    fn ifindex(self) -> u32 {
        1
    }

    fn tag(self) -> u32 {
        NO_TAG
    }

    fn segments(self) -> u32 {
        1
    }

    fn wire_bytes(self, _len: u32) -> u32 {
        self.len()
    }

    fn egress(self) -> bool {
        false
    }

    fn came_by(self) -> u32 {
        0
    }
}

fn meta_of(frame: &[u8], link: LinkKind) -> Meta {
    let mut m = Meta::EMPTY;
    // What an earlier packet left behind must not show.
    m.window.words = [0xdead_beef; 32];
    let parsed = wire::parse(Frame(frame), link as u8, 0, &mut m);
    assert!(parsed & PARSED != 0, "reason {parsed}");
    m
}

/// The frame that goes back: what the kernel program does with a [`Reply`].
fn sent(reply: &Reply) -> Option<Vec<u8>> {
    if reply.len == 0 {
        return None;
    }
    let link = reply.link.iter().flat_map(|word| word.to_ne_bytes());
    let mut out: Vec<u8> = link.skip(2).take(reply.offset as usize).collect();
    let bytes = reply.words.iter().flat_map(|word| word.to_ne_bytes());
    out.extend(bytes.take(reply.len as usize));
    assert_eq!(out.len(), (reply.offset + reply.len) as usize);
    Some(out)
}

fn answer(frame: &[u8], link: LinkKind, how: impl Fn(&Meta, &mut Reply)) -> Option<Vec<u8>> {
    let mut m = meta_of(frame, link);
    let mut reply = Reply::EMPTY;
    reply.words = [0x5555_5555; reply::REPLY_WORDS];
    reply::capture(Frame(frame), link as u8, &mut m, &mut reply);
    how(&m, &mut reply);
    sent(&reply)
}

fn rejected(frame: &[u8]) -> Option<Vec<u8>> {
    answer(frame, LinkKind::Ethernet, reply::reject)
}

/// Checks every checksum and length of a reply with the other implementation.
fn check(packet: &PacketHeaders<'_>) {
    let payload = packet.payload.slice();
    match packet.net.as_ref().expect("an IP header") {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert!(ip.dont_fragment && ip.time_to_live == 64);
            match packet.transport.as_ref().expect("a transport header") {
                TransportHeader::Tcp(tcp) => {
                    assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(ip, payload).unwrap());
                }
                TransportHeader::Icmpv4(icmp) => {
                    assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(payload));
                }
                other => panic!("{other:?}"),
            }
        }
        NetHeaders::Ipv6(ip, _) => {
            assert_eq!((ip.hop_limit, ip.flow_label.value()), (64, 0));
            match packet.transport.as_ref().expect("a transport header") {
                TransportHeader::Tcp(tcp) => {
                    assert_eq!(tcp.checksum, tcp.calc_checksum_ipv6(ip, payload).unwrap());
                }
                TransportHeader::Icmpv6(icmp) => {
                    let sum = icmp
                        .icmp_type
                        .calc_checksum(ip.source, ip.destination, payload)
                        .unwrap();
                    assert_eq!(icmp.checksum, sum);
                }
                other => panic!("{other:?}"),
            }
        }
        NetHeaders::Arp(_) => panic!("no answer to ARP is made here"),
    }
}

fn built(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn built_tcp(builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn link() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2(CLIENT_MAC, SERVER_MAC)
}

/// A TCP segment of either family with these flags.
fn tcp(v6: bool, flags: &str, payload: &[u8]) -> Vec<u8> {
    let ip = if v6 {
        link().ipv6(CLIENT6, SERVER6, 61)
    } else {
        link().ipv4(CLIENT4, SERVER4, 61)
    };
    let mut segment = ip.tcp(40000, 443, 1_000_000, 500);
    for flag in flags.chars() {
        segment = match flag {
            'S' => segment.syn(),
            'A' => segment.ack(77_000),
            'F' => segment.fin(),
            'R' => segment.rst(),
            _ => unreachable!(),
        };
    }
    built_tcp(segment, payload)
}

fn udp(v6: bool, payload: &[u8]) -> Vec<u8> {
    let ip = if v6 {
        link().ipv6(CLIENT6, SERVER6, 61)
    } else {
        link().ipv4(CLIENT4, SERVER4, 61)
    };
    built(ip.udp(40000, 4791), payload)
}

/// Sequence number, acknowledgement and flags of the reset.
fn reset(v6: bool, flags: &str, payload: &[u8]) -> (u32, u32, u8) {
    let out = rejected(&tcp(v6, flags, payload)).expect("a reset");
    let packet = PacketHeaders::from_ethernet_slice(&out).unwrap();
    check(&packet);
    // Our own parser says the same, and takes it for the answer to what was rejected.
    let m = meta_of(&out, LinkKind::Ethernet);
    assert_eq!((m.sport, m.dport, m.payload), (443, 40000, 0));
    let asked = meta_of(&tcp(v6, flags, payload), LinkKind::Ethernet);
    assert_eq!((m.src, m.dst), (asked.dst, asked.src));
    let TransportHeader::Tcp(header) = packet.transport.unwrap() else {
        panic!("no TCP");
    };
    assert_eq!(
        (header.sequence_number, header.acknowledgment_number),
        (m.seq, m.ack)
    );
    assert!(header.rst && !header.syn && !header.fin);
    let link = packet.link.unwrap().ethernet2().unwrap();
    assert_eq!((link.destination, link.source), (CLIENT_MAC, SERVER_MAC));
    (m.seq, m.ack, m.tcp_flags)
}

#[test]
fn a_reset_takes_its_numbers_from_the_segment() {
    const RST: u8 = 0x04;
    const RST_ACK: u8 = 0x14;
    for v6 in [false, true] {
        assert_eq!(reset(v6, "S", b""), (0, 1_000_001, RST_ACK));
        assert_eq!(reset(v6, "S", b"early"), (0, 1_000_006, RST_ACK));
        assert_eq!(reset(v6, "A", b"odd"), (77_000, 0, RST));
        assert_eq!(reset(v6, "SA", b""), (77_000, 0, RST));
        assert_eq!(reset(v6, "FA", b""), (77_000, 0, RST));
    }
}

#[test]
fn a_reset_is_never_answered() {
    for v6 in [false, true] {
        assert_eq!(rejected(&tcp(v6, "R", b"")), None);
        assert_eq!(rejected(&tcp(v6, "RA", b"")), None);
    }
}

/// The ICMP error's quote, after a look at everything else.
fn prohibited(frame: &[u8]) -> Vec<u8> {
    let out = rejected(frame).expect("an ICMP error");
    let packet = PacketHeaders::from_ethernet_slice(&out).unwrap();
    check(&packet);
    match packet.transport.as_ref().unwrap() {
        TransportHeader::Icmpv4(icmp) => {
            let Some(NetHeaders::Ipv4(ip, _)) = &packet.net else {
                panic!("no IPv4");
            };
            assert_eq!(u8::from(ip.dscp) << 2, 0xc0);
            assert_eq!(
                icmp.icmp_type,
                Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FilterProhibited)
            );
        }
        TransportHeader::Icmpv6(icmp) => assert_eq!(
            icmp.icmp_type,
            Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Prohibited)
        ),
        other => panic!("{other:?}"),
    }
    // Our own parser finds the flow that the error is about.
    let mut m = meta_of(&out, LinkKind::Ethernet);
    assert!(wire::icmp_error(m.proto, m.selector));
    let asked = meta_of(frame, LinkKind::Ethernet);
    if asked.proto == IpNumber::UDP.0 && asked.l4_offset - u32::from(asked.family == 6) * 20 <= 34 {
        assert_eq!(wire::quoted(Frame(&out), &mut m), 0);
        assert_eq!(
            (m.src, m.dst, m.sport, m.dport),
            (asked.src, asked.dst, asked.sport, asked.dport)
        );
    }
    packet.payload.slice().to_vec()
}

#[test]
fn an_error_quotes_the_packet_from_its_header_on() {
    for v6 in [false, true] {
        // Every length below, at and above the longest quote.
        for length in 0..200_usize {
            let payload: Vec<u8> = (0..length).map(|byte| byte as u8 ^ 0xa5).collect();
            let frame = udp(v6, &payload);
            let packet = &frame[14..];
            assert_eq!(prohibited(&frame), &packet[..packet.len().min(128)], "{length}");
        }
    }
}

#[test]
fn padding_of_the_link_is_not_quoted() {
    let mut frame = udp(false, b"abc");
    let packet = frame[14..].to_vec();
    frame.resize(60, 0xee);
    assert_eq!(prohibited(&frame), packet);
}

#[test]
fn options_and_extension_headers_are_quoted_as_they_stand() {
    let mut ip = etherparse::Ipv4Header::new(0, 61, IpNumber::UDP, CLIENT4, SERVER4).unwrap();
    ip.options = [1_u8; 12].as_slice().try_into().unwrap();
    let frame = built(
        link()
            .ip(etherparse::IpHeaders::Ipv4(
                ip,
                etherparse::Ipv4Extensions::default(),
            ))
            .udp(1, 2),
        &[7; 30],
    );
    assert_eq!(prohibited(&frame), &frame[14..]);

    let destination = etherparse::Ipv6RawExtHeader::new_raw(IpNumber::UDP, &[1, 4, 0, 0, 0, 0]).unwrap();
    let extensions = etherparse::Ipv6Extensions {
        destination_options: Some(destination),
        ..etherparse::Ipv6Extensions::default()
    };
    let ip = etherparse::Ipv6Header {
        traffic_class: 0,
        flow_label: etherparse::Ipv6FlowLabel::ZERO,
        payload_length: 0,
        next_header: IpNumber::IPV6_DESTINATION_OPTIONS,
        hop_limit: 61,
        source: CLIENT6,
        destination: SERVER6,
    };
    let frame = built(
        link().ip(etherparse::IpHeaders::Ipv6(ip, extensions)).udp(1, 2),
        &[7; 30],
    );
    assert_eq!(
        meta_of(&frame, LinkKind::Ethernet).sport,
        1,
        "the parser is behind the extension"
    );
    assert_eq!(prohibited(&frame), &frame[14..]);
}

#[test]
fn tags_stay() {
    let frame = built(
        link()
            .single_vlan(101.try_into().unwrap())
            .ipv4(CLIENT4, SERVER4, 61)
            .udp(1, 2),
        &[7; 300],
    );
    let out = rejected(&frame).unwrap();
    assert_eq!(out[12..18], frame[12..18]);
    let packet = PacketHeaders::from_ethernet_slice(&out).unwrap();
    check(&packet);
    assert_eq!(packet.payload.slice(), &frame[18..18 + 128]);
}

#[test]
fn a_port_without_link_header_gets_a_bare_packet() {
    for v6 in [false, true] {
        for frame in [tcp(v6, "S", b""), udp(v6, &[9; 40])] {
            let with_link = rejected(&frame).unwrap();
            let bare = answer(&frame[14..], LinkKind::Raw, reply::reject).unwrap();
            assert_eq!(bare, with_link[14..]);
        }
    }
}

#[test]
fn errors_are_not_answered() {
    let error = |kind| {
        let mut frame = Vec::new();
        link()
            .ipv4(CLIENT4, SERVER4, 61)
            .icmpv4_raw(kind, 0, [0; 4])
            .write(&mut frame, &[0; 28])
            .unwrap();
        frame
    };
    for kind in [3, 4, 5, 11, 12] {
        assert_eq!(rejected(&error(kind)), None, "{kind}");
    }
    assert_eq!(prohibited(&error(8)).len(), 56);
    let error = |kind| {
        let mut frame = Vec::new();
        link()
            .ipv6(CLIENT6, SERVER6, 61)
            .icmpv6_raw(kind, 0, [0; 4])
            .write(&mut frame, &[0; 48])
            .unwrap();
        frame
    };
    for kind in [1, 2, 3, 4, 100, 127, 137] {
        assert_eq!(rejected(&error(kind)), None, "{kind}");
    }
    assert_eq!(prohibited(&error(128)).len(), 96);
}

#[test]
fn what_an_error_quotes_is_not_answered() {
    for v6 in [false, true] {
        let quoted = tcp(v6, "S", b"");
        let mut frame = Vec::new();
        if v6 {
            let ip = link().ipv6(SERVER6, CLIENT6, 61);
            ip.icmpv6_raw(1, 4, [0; 4])
                .write(&mut frame, &quoted[14..])
                .unwrap();
        } else {
            let ip = link().ipv4(SERVER4, CLIENT4, 61);
            ip.icmpv4_raw(3, 3, [0; 4])
                .write(&mut frame, &quoted[14..])
                .unwrap();
        }
        let mut m = meta_of(&frame, LinkKind::Ethernet);
        assert_eq!(wire::quoted(Frame(&frame), &mut m), 0);
        let mut reply = Reply::EMPTY;
        reply::capture(Frame(&frame), LinkKind::Ethernet as u8, &mut m, &mut reply);
        reply::reject(&m, &mut reply);
        assert_eq!(reply.len, 0);
    }
}

#[test]
fn what_is_for_many_is_not_answered() {
    let between = |src, dst| built(link().ipv4(src, dst, 61).udp(1, 2), b"");
    for bad in [[224, 0, 0, 1], [255; 4], [0; 4], [127, 0, 0, 1], [240, 0, 0, 1]] {
        assert_eq!(rejected(&between(CLIENT4, bad)), None, "{bad:?}");
        assert_eq!(rejected(&between(bad, SERVER4)), None, "{bad:?}");
    }
    let between = |src, dst| built(link().ipv6(src, dst, 61).udp(1, 2), b"");
    let mut multicast = SERVER6;
    multicast[0] = 0xff;
    let mut loopback = [0; 16];
    loopback[15] = 1;
    for bad in [multicast, loopback, [0; 16]] {
        assert_eq!(rejected(&between(CLIENT6, bad)), None, "{bad:?}");
        assert_eq!(rejected(&between(bad, SERVER6)), None, "{bad:?}");
    }
    for group in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
        let frame = built(
            PacketBuilder::ethernet2(CLIENT_MAC, group)
                .ipv4(CLIENT4, SERVER4, 61)
                .udp(1, 2),
            b"",
        );
        assert_eq!(rejected(&frame), None, "{group:?}");
    }
}

/// A UDP packet made into a fragment. Offset and flag share a word; in IPv4 the offset counts in its low bits, in IPv6 in
/// its high ones.
fn fragment(v6: bool, offset: u16, more: bool) -> Vec<u8> {
    // In IPv6 the UDP header becomes the fragment header, and this the UDP header behind it.
    let mut frame = udp(v6, &[0x9c, 0x40, 0x12, 0xb7, 0, 64, 0, 0].repeat(8));
    if v6 {
        frame[20] = 44;
        let word = (offset << 3) | u16::from(more);
        frame[54..62].copy_from_slice(&[17, 0, (word >> 8) as u8, word as u8, 0, 0, 0, 7]);
    } else {
        let word = offset | (u16::from(more) << 13);
        frame[20..22].copy_from_slice(&word.to_be_bytes());
    }
    frame
}

#[test]
fn only_the_first_fragment_is_answered() {
    for v6 in [false, true] {
        let first = fragment(v6, 0, true);
        let out = rejected(&first).expect("an ICMP error");
        let packet = PacketHeaders::from_ethernet_slice(&out).unwrap();
        check(&packet);
        assert_eq!(packet.payload.slice(), &first[14..]);
        for later in [
            fragment(v6, 8, true),
            fragment(v6, 8, false),
            fragment(v6, 1, false),
        ] {
            assert_eq!(rejected(&later), None);
        }
    }
}

#[test]
fn super_packets_are_not_answered() {
    let frame = udp(false, &[0; 64]);
    let len = |segments| {
        let mut m = meta_of(&frame, LinkKind::Ethernet);
        let mut reply = Reply::EMPTY;
        reply::capture(Frame(&frame), LinkKind::Ethernet as u8, &mut m, &mut reply);
        m.segments = segments;
        reply::reject(&m, &mut reply);
        reply.len
    };
    assert_ne!(len(1), 0);
    assert_eq!(len(2), 0);
}

#[test]
fn two_tags_stay() {
    let mut frame = udp(true, &[1; 20]);
    frame.splice(12..12, [0x88, 0xa8, 0x01, 0x2c, 0x81, 0x00, 0x20, 0x65]);
    let out = rejected(&frame).unwrap();
    assert_eq!(out[..6], CLIENT_MAC);
    assert_eq!(out[6..12], SERVER_MAC);
    assert_eq!(out[12..22], frame[12..22]);
    check(&PacketHeaders::from_ethernet_slice(&out).unwrap());
}

/// The SYN-ACK that asks for a proof, as our parser sees it.
fn question(v6: bool, isn: u32, now: u64) -> Meta {
    let ip = if v6 {
        link().ipv6(CLIENT6, SERVER6, 61)
    } else {
        link().ipv4(CLIENT4, SERVER4, 61)
    };
    let frame = built_tcp(ip.tcp(40000, 443, isn, 64000).syn(), b"");
    let out = answer(&frame, LinkKind::Ethernet, |m, reply| {
        reply::ask_for_proof(m, KEY, now, reply);
    })
    .expect("a question");
    check(&PacketHeaders::from_ethernet_slice(&out).unwrap());
    let m = meta_of(&out, LinkKind::Ethernet);
    assert_eq!((m.tcp_flags, m.sport, m.dport), (0x12, 443, 40000));
    m
}

/// The reset that a client in SYN-SENT answers with (RFC 9293 section 3.10.7.3).
fn client_reset(v6: bool, seq: u32, source: u8) -> Meta {
    let frame = if v6 {
        let mut client = CLIENT6;
        client[15] ^= source;
        link().ipv6(client, SERVER6, 61)
    } else {
        let mut client = CLIENT4;
        client[3] ^= source;
        link().ipv4(client, SERVER4, 61)
    };
    meta_of(
        &built_tcp(frame.tcp(40000, 443, seq, 0).rst(), b""),
        LinkKind::Ethernet,
    )
}

#[test]
fn a_clients_reset_proves_its_address_for_two_slots() {
    for v6 in [false, true] {
        for isn in [0, 1, 0xffff, 0x1_0000, 0x8000_0000, u32::MAX, 123_456_789] {
            let now = 10 * PROOF_SLOT_NS + 5;
            let asked = question(v6, isn, now);
            // Below the initial number, and near enough for a client's own conntrack.
            let behind = isn.wrapping_sub(asked.ack);
            assert!((1..=65_536).contains(&behind), "{behind}");
            let reset = client_reset(v6, asked.ack, 0);
            for later in [0, PROOF_SLOT_NS, PROOF_SLOT_NS + PROOF_SLOT_NS - 6] {
                assert!(reply::proves(&reset, KEY, now + later));
            }
            assert!(!reply::proves(&reset, KEY, now + 2 * PROOF_SLOT_NS));
            assert!(!reply::proves(&reset, [KEY[0] ^ 1, KEY[1]], now));
            assert!(!reply::proves(&client_reset(v6, asked.ack, 1), KEY, now));
            assert!(!reply::proves(&client_reset(v6, asked.ack ^ 1, 0), KEY, now));
            assert!(!reply::proves(&asked, KEY, now));
        }
    }
}

#[test]
fn guesses_of_a_proof_are_right_twice_in_65536() {
    let right = (0..=0xffff)
        .filter(|seq| reply::proves(&client_reset(false, *seq, 0), KEY, 7 * PROOF_SLOT_NS))
        .count();
    assert_eq!(right, 2);
}

#[test]
fn only_a_syn_is_asked_for_a_proof() {
    let ask = |frame: &[u8]| {
        answer(frame, LinkKind::Ethernet, |m, reply| {
            reply::ask_for_proof(m, KEY, 0, reply);
        })
    };
    assert!(ask(&tcp(false, "S", b"")).is_some());
    for other in [
        tcp(false, "SA", b""),
        tcp(false, "A", b""),
        tcp(true, "R", b""),
        udp(true, b""),
    ] {
        assert_eq!(ask(&other), None);
    }
}
