//! What is kept of one packet while it is judged.

use super::segment::Case;
use crate::abi::{
    ClassRecord, Event, Flow, Half, Ip4, Ip6, Key4, Key6, LimitKey, PortConfig, Sent, Source, SourceKey,
};
use crate::classify::{Classified, Search, Walk};
use crate::fragment::{Datagram, FragmentKey, Scan};
use crate::reply::Reply;
use crate::wire::Meta;

/// Scratch memory of one packet: too much for the 512 bytes of a BPF stack, so it lies in a per-CPU map.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// What is known of the packet.
    pub meta: Meta,
    /// The port whose hook runs; kept from packet to packet.
    pub port: PortConfig,
    /// [`crate::abi::ControlOf::ports`] when `port` was looked up.
    pub(super) ports: u64,
    /// Key of an IPv4 packet's flow.
    pub key4: Key4,
    /// Key of an IPv6 packet's flow.
    pub key6: Key6,
    /// What the policy's tables say.
    pub class: Classified,
    /// Generation in force when the packet arrived.
    pub generation: u32,
    /// Window of the event limiter (coarse time >> 26); lives on from packet to packet.
    pub event_window: u32,
    /// Events that may still be sent in this window.
    pub events_left: u32,
    /// Window of the limiter of one-way promotions (coarse time >> 30).
    pub one_way_window: u32,
    /// One-way promotions left in that window.
    pub one_way_left: u32,
    /// [`crate::wire::Kind`] of a link packet, as a number.
    pub kind: u32,
    /// 1 if the opener of the flow that is asked about is the key's `hi` side.
    pub opener_hi: u32,
    /// 1 if the packet was judged and counted already when it came in: it is forwarded, and leaves by a flow that knows it.
    pub(super) came_before: u32,
    /// Of a later fragment: 1 if it belongs to a segment that fits its flow; see [`crate::fragment::First::FITS`].
    pub(super) goes_on: u32,
    /// Number of the rule that measures this packet; see [`Flow::policed`].
    pub policed: u32,
    /// What follows the stage that opens flows: [`super::open::then`].
    pub(super) then: u32,
    /// [`crate::abi::Side`] that the packet goes to, as a number.
    pub to: u32,
    /// 1 if the packet is one of a running connection that is adopted.
    pub running: u32,
    /// 1 if the packet comes from the answering side of its flow.
    pub reversed: u32,
    /// Log and audit events that may still be sent in the window of `event_window`.
    pub logs_left: u32,
    /// Window of the limiter of answers.
    pub reply_window: u32,
    /// Answers left in that window.
    pub replies_left: u32,
    /// Demands for proof left in the same window.
    pub demands_left: u32,
    /// Window of the limiter of looks at proofs.
    pub proof_window: u32,
    /// Looks at proofs left in that window.
    pub proofs_left: u32,
    /// Errno of a map update that failed; 0: none.
    pub errno: u16,
    /// [`crate::abi::EventKind`] to be reported although the packet passes; 0: none.
    pub event_kind: u8,
    /// Reason that was noted.
    pub noted: u8,
    /// Key of the source's entry.
    pub source_key: SourceKey,
    /// A source's entry to be inserted: all zero, but while one is made for a flow that its source opens.
    pub source: Source,
    /// 1 if the source had no entry when it was asked for its caps.
    pub(super) new_source: u32,
    /// Key of a limit's bucket.
    pub limit_key: LimitKey,
    /// Key of a fragmented datagram.
    pub fragment_key: FragmentKey,
    /// What was found among a datagram's ranges.
    pub scan: Scan,
    /// An entry for a datagram to be inserted.
    pub datagram: Datagram,
    /// An answer to be sent.
    pub reply: Reply,
    /// 1 if the flow that is being opened counts as half open for its destination.
    pub(super) counted: u32,
    /// 1 if the last flow that was looked for was not in the main table; see [`super::find`].
    pub(super) missed: u32,
    /// Tick in which this CPU has read the clock; see [`super::clock`].
    pub(super) tick: u64,
    /// What it has read.
    pub(super) now: u64,
    /// [`super::Outcome`] of the last stage that is a function of its own.
    pub word: u32,
    /// What the TCP machine is asked, and what it says.
    pub tcp: Case,
    /// A flow to be inserted.
    pub fresh: Flow,
    /// An event to be sent.
    pub event: Event,
}

impl Scratch {
    /// All zero.
    pub const EMPTY: Self = {
        let key6 = Ip6([0; 4]);
        let half = Half {
            packets: 0,
            bytes: 0,
            last_seen: 0,
        };
        let sent = Sent {
            seq_end: 0,
            ack: 0,
            edge: 0,
            window: 0,
        };
        let record = ClassRecord {
            src_row: 0,
            dst_col: 0,
            zone: 0,
            flags: 0,
        };
        let ip4 = Ip4(0);
        Self {
            meta: Meta::EMPTY,
            port: PortConfig {
                ifindex: 0,
                peer_ifindex: 0,
                mode: 0,
                engine: 0,
                link: 0,
                side: 0,
                realm: 0,
                role: 0,
                peer_role: 0,
                pad: 0,
            },
            ports: 0,
            key4: Key4 {
                lo: ip4,
                hi: ip4,
                lo_port: 0,
                hi_port: 0,
                realm: 0,
                proto: 0,
                realm_high: 0,
            },
            key6: Key6 {
                lo: key6,
                hi: key6,
                lo_port: 0,
                hi_port: 0,
                realm: 0,
                proto: 0,
                realm_high: 0,
            },
            class: Classified {
                src: record,
                dst: record,
                decision: 0,
                rule_id: 0,
                rule_flags: 0,
                rule_limits: 0,
                rule_until: 0,
                pair: 0,
                found: 0,
                src_class: 0,
                dst_class: 0,
                pad: 0,
                service: 0,
                walk: Walk {
                    x: 0,
                    base: 0,
                    index: 0,
                    tree: 0,
                    at: 0,
                    realm: 0,
                    pad: 0,
                    low: 0,
                },
                search: Search {
                    left: 0,
                    rows: [0; 4],
                    atom: 0,
                    protos: 0,
                },
            },
            generation: 0,
            event_window: 0,
            events_left: 0,
            one_way_window: 0,
            one_way_left: 0,
            kind: 0,
            opener_hi: 0,
            came_before: 0,
            goes_on: 0,
            policed: 0,
            then: 0,
            to: 0,
            running: 0,
            reversed: 0,
            logs_left: 0,
            reply_window: 0,
            replies_left: 0,
            demands_left: 0,
            proof_window: 0,
            proofs_left: 0,
            errno: 0,
            event_kind: 0,
            noted: 0,
            source_key: SourceKey {
                addr: [0; 4],
                realm: 0,
                family: 0,
            },
            source: Source {
                window: 0,
                opened: 0,
                flows: 0,
                pad: 0,
                proved_until: 0,
                completed: 0,
                denied: 0,
                banned_until: 0,
            },
            new_source: 0,
            limit_key: LimitKey {
                limit: 0,
                realm: 0,
                a: [0; 4],
                b: [0; 4],
            },
            fragment_key: FragmentKey {
                src: [0; 4],
                dst: [0; 4],
                id: 0,
                realm: 0,
                proto: 0,
                family: 0,
                pad: 0,
            },
            scan: Scan::EMPTY,
            datagram: Datagram {
                created: 0,
                ranges: [0; 8],
                lock: 0,
                progress: 0,
                end: 0,
                ports: 0,
                first: 0,
                generation: 0,
                rule: 0,
                up: 0,
                seq: 0,
                pad: 0,
            },
            reply: Reply::EMPTY,
            counted: 0,
            missed: 0,
            tick: 0,
            now: 0,
            word: 0,
            tcp: Case::EMPTY,
            fresh: Flow {
                half: [half, half],
                sent: [sent, sent],
                created: 0,
                state: 0,
                generation: 0,
                rule: 0,
                src_zone: 0,
                dst_zone: 0,
                flags: 0,
                policed: 0,
                answer: 0,
                carried_packets: 0,
                carried_bytes: 0,
            },
            event: Event {
                time: 0,
                src: [0; 4],
                dst: [0; 4],
                ifindex: 0,
                rule: 0,
                src_zone: 0,
                dst_zone: 0,
                generation: 0,
                len: 0,
                sport: 0,
                dport: 0,
                realm: 0,
                ethertype: 0,
                kind: 0,
                reason: 0,
                family: 0,
                proto: 0,
                tcp_flags: 0,
                egress: 0,
                inner_vlan: 0,
                errno: 0,
                pad: 0,
            },
        }
    };
}
