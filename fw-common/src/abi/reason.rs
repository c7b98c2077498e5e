//! The one table of reasons: number, machine name, what happens to the packet by default, sentence.
//!
//! Numbers are never reused: counters, events, metrics, the CLI and `docs/reasons.md` all derive from this table.

use super::ProtectMode;

/// What happens to a packet that would open a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// Drop it.
    Deny = 0,
    /// Let it pass and follow the flow.
    Allow = 1,
    /// Drop it and tell the sender: a TCP reset, or an ICMP error.
    Reject = 2,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[repr(u8)]
pub enum Verdict {
    /// Dropped here.
    Drop = 0,
    /// Handed to this machine's stack (or, at egress, to the wire).
    Pass = 1,
    /// Sent out of the pair's other port.
    Forward = 2,
    /// Dropped here, and an answer goes back by the port that it came from.
    Reply = 3,
}

/// What happens to a packet with a reason, if the policy says nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// It passes; no policy changes that.
    Pass,
    /// It is dropped.
    Drop,
    /// It is dropped, and an answer goes back.
    Answer,
    /// It passes, and is counted and reported as what would have been dropped.
    Count,
    /// Nobody looks.
    Skip,
}

impl DefaultAction {
    /// The words of the documentation.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Answer => "drop, answer",
            Self::Count => "count",
            Self::Skip => "skip",
        }
    }

    /// The mode of a screen or threshold that does this.
    #[must_use]
    pub const fn mode(self) -> ProtectMode {
        match self {
            Self::Pass | Self::Drop | Self::Answer => ProtectMode::Drop,
            Self::Count => ProtectMode::Count,
            Self::Skip => ProtectMode::Skip,
        }
    }
}

macro_rules! reasons {
    ($($number:literal $variant:ident $name:literal $action:ident $sentence:literal,)*) => {
        /// Why a packet passed or was dropped: exactly one for each packet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Reason {
            $(#[doc = $sentence] $variant = $number,)*
        }

        impl Reason {
            /// All reasons, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The machine name: metrics label, JSON, `expect: { reason: ... }`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The sentence for people.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }

            /// What happens to a packet with this reason, if the policy says nothing of it.
            #[must_use]
            pub const fn default_action(self) -> DefaultAction {
                match self { $(Self::$variant => reasons!(@$action),)* }
            }

            /// True if a packet with this reason passes.
            #[must_use]
            pub const fn allows(self) -> bool {
                matches!(self.default_action(), DefaultAction::Pass)
            }

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
    (@pass) => { DefaultAction::Pass };
    (@drop) => { DefaultAction::Drop };
    (@answer) => { DefaultAction::Answer };
    (@count) => { DefaultAction::Count };
    (@skip) => { DefaultAction::Skip };
}

reasons! {
    0 Unset "unset" drop "The packet path ended without a reason; this is a bug of dpufw.",
    // What the policy says.
    1 Rule "rule" pass "A rule of the policy allows this flow; the packet opened it.",
    2 Established "established" pass "The packet belongs to a flow that was allowed.",
    3 Related "related" pass "An ICMP error about a packet of an allowed flow, or of traffic that a rule with `track: false` allows.",
    4 DenyRule "deny_rule" drop "A rule of the policy denies this flow.",
    5 DenyDefault "deny_default" drop "No rule of the policy allows this flow, and the default is to deny.",
    6 PolicyRevoked "policy_revoked" drop "The flow was allowed once; the policy in force denies it, so it was ended.",
    7 NoPolicy "no_policy" drop "No policy has been applied yet; the data plane starts closed.",
    8 PickedUp "picked_up" pass "A connection that was running before the data plane started without state; the policy allows it.",
    9 Untracked "untracked" pass "A rule with `track: false` allows this packet; no entry is made for it.",
    // Link protocols.
    10 LinkArp "link_arp" pass "ARP, which the policy's link section allows.",
    11 LinkNd "link_nd" pass "IPv6 neighbour discovery, which the policy's link section allows.",
    12 LinkLldp "link_lldp" pass "LLDP, which the policy's link section allows.",
    13 LinkLacp "link_lacp" pass "LACP, which the policy's link section allows.",
    14 LinkDhcp "link_dhcp" pass "DHCP of a client, which the policy's link section allows.",
    15 LinkRa "link_ra" pass "A router solicitation or advertisement, which the policy's link section allows on this port.",
    16 LinkMulticast "link_multicast" pass "Multicast group membership, which the policy's link section allows.",
    20 DenyArp "deny_arp" drop "ARP is not in the policy's link section.",
    21 DenyNd "deny_nd" drop "Neighbour discovery is not in the policy's link section.",
    22 DenyLldp "deny_lldp" drop "LLDP is not in the policy's link section.",
    23 DenyLacp "deny_lacp" drop "LACP is not in the policy's link section.",
    25 DenyRa "deny_ra" drop "A router solicitation or advertisement on a port where the policy allows none.",
    26 DenyMulticast "deny_multicast" drop "Multicast group membership is not allowed by the policy's link section.",
    27 DenyRedirect "deny_redirect" drop "An ICMP redirect; routes are not learnt from packets.",
    28 BadArp "bad_arp" drop "An ARP packet that is not IPv4 over Ethernet, or is truncated.",
    29 BadNd "bad_nd" drop "A neighbour discovery message with a hop limit other than 255, a code other than 0, truncated (RFC 4861 section 7.1) or fragmented (RFC 6980).",
    // Headers.
    40 Truncated "truncated" drop "The packet ends inside a header.",
    41 UnknownEthertype "unknown_ethertype" drop "Neither IP nor a link protocol that the policy knows.",
    42 BadIpv4 "bad_ipv4" drop "An IPv4 header whose version, header length or total length contradict the packet.",
    43 BadIpv6 "bad_ipv6" drop "An IPv6 header whose version or payload length contradict the packet.",
    44 ExtensionHeaders "extension_headers" drop "More extension headers than are followed, or one that may not stand there.",
    45 RoutingHeader0 "routing_header_0" drop "An IPv6 routing header of type 0, which is forbidden (RFC 5095).",
    46 BadTcp "bad_tcp" drop "A TCP header whose data offset contradicts the packet, or flags that no stack sends together.",
    47 BadUdp "bad_udp" drop "A UDP header whose length is less than its own 8 bytes.",
    48 BadIcmp "bad_icmp" drop "An ICMP message that ends inside its header or in the packet it quotes.",
    50 TooManyTags "too_many_tags" drop "More VLAN tags than are followed.",
    51 UnknownRealm "unknown_realm" drop "A VLAN tag that the policy names nowhere.",
    52 WrongFamily "wrong_family" drop "ICMP inside IPv6, or ICMPv6 inside IPv4.",
    53 OwnSource "own_source" drop "A packet that came in with one of this machine's own addresses as its source.",
    // State.
    60 TcpNoFlow "tcp_no_flow" drop "A TCP segment that belongs to no known flow and does not open one.",
    61 TcpInvalid "tcp_invalid" drop "A TCP segment that cannot occur in its flow's state.",
    62 TcpBadAck "tcp_bad_ack" drop "An answer to a SYN that acknowledges something else.",
    63 IcmpUnrelated "icmp_unrelated" drop "An ICMP error that quotes no packet of a known flow, nor one that a rule with `track: false` allows.",
    64 IcmpNoFlow "icmp_no_flow" drop "An ICMP echo reply that nobody asked for.",
    65 IcmpType "icmp_type" drop "An ICMP message type that is neither echo nor an error.",
    66 WrongSide "wrong_side" drop "A packet of a known flow that came in by the wrong port.",
    67 RstInvalid "rst_invalid" drop "A TCP reset whose sequence number fits neither side of its flow.",
    68 TcpOutOfWindow "tcp_out_of_window" drop "A TCP segment outside of the window that its receiver has offered, or one that acknowledges what was never sent.",
    69 IcmpBadQuote "icmp_bad_quote" drop "An ICMP error that quotes a TCP segment which its flow has not sent.",
    // Tables.
    80 TableFull "table_full" drop "The flow table is full.",
    81 TableError "table_error" drop "The kernel refused to insert a flow although the table is not full.",
    82 TableCorrupt "table_corrupt" drop "A policy table pointed outside of itself; the packet is dropped and the agent should be asked for its status.",
    83 UnknownPort "unknown_port" drop "The packet came by an interface that the data plane has no entry for.",
    85 TableBusy "table_busy" drop "The kernel refused to insert a flow three times because the table was locked (EBUSY).",
    86 TableMemory "table_memory" drop "The kernel had no memory for a flow (ENOMEM).",
    // More of what the policy says.
    100 RejectRule "reject_rule" answer "A rule of the policy rejects this flow; the sender was told, within the limit of answers.",
    101 RejectDefault "reject_default" answer "No rule of the policy allows this flow, and the default is to reject; the sender was told, within the limit of answers.",
    102 Audit "audit" pass "A rule with `audit: true` would deny this flow; it is let through and reported.",
    103 RuleExpired "rule_expired" drop "The rule that allowed this flow has passed its `until`.",
    // Limits of rules.
    110 LimitPackets "limit_packets" drop "Over a rule's limit of packets.",
    111 LimitBytes "limit_bytes" drop "Over a rule's limit of bytes.",
    112 LimitNewFlows "limit_new_flows" drop "Over a rule's limit of new flows.",
    113 LimitFlows "limit_flows" drop "Over a rule's limit of flows at a time.",
    // Caps of sources.
    120 CapHalfOpen "cap_half_open" drop "The source has more unconfirmed flows than a source may have.",
    121 CapFlows "cap_flows" drop "The source has more flows than a source may have.",
    // Floods and scans.
    130 SynProof "syn_proof" answer "A SYN during a flood, answered with a demand for proof that its source exists; a real client sends it again within a second.",
    131 SynProved "syn_proved" drop "The reset that proves a source; it has done its work here.",
    132 UdpFlood "udp_flood" count "More new UDP flows to this destination than the policy's protect section allows.",
    133 IcmpFlood "icmp_flood" count "More new ICMP flows to this destination than the policy's protect section allows.",
    134 Scan "scan" count "The source was denied more often than the policy's protect section allows.",
    135 Banned "banned" drop "The source is banned for a time because it scanned.",
    136 SynProofOver "syn_proof_over" drop "A SYN during a flood for which no proof was demanded, because the limit of answers was reached.",
    // Screens: 140 and the number of the screen (`Screen`).
    140 TtlZero "ttl_zero" drop "A packet whose time to live, or hop limit, is 0.",
    141 SourceRoute "source_route" drop "An IPv4 packet that carries a source route.",
    142 TcpNull "tcp_null" drop "A TCP segment without any flag.",
    143 TcpXmas "tcp_xmas" drop "A TCP segment with FIN, PSH and URG but without ACK.",
    144 TcpSynFin "tcp_syn_fin" drop "A TCP segment with SYN and FIN.",
    145 TcpSynRst "tcp_syn_rst" drop "A TCP segment with SYN and RST.",
    146 TcpFinNoAck "tcp_fin_no_ack" drop "A TCP segment with FIN but without ACK.",
    147 BadLength "bad_length" drop "A transport header whose length contradicts the packet.",
    148 Land "land" drop "A packet from an address to itself (a land attack).",
    149 ImpossibleSource "impossible_source" drop "A source address that no host can have.",
    150 PlaneMismatch "plane_mismatch" drop "An address of a plane that is not bound to this port.",
    // Fragments.
    160 FragmentTiny "fragment_tiny" drop "A first fragment that does not hold its transport header, or one that would write into it (RFC 1858).",
    161 FragmentBad "fragment_bad" drop "A fragment without data, or one before the last whose length is no multiple of 8.",
    162 FragmentOverrun "fragment_overrun" drop "A fragment that ends behind 65,535 bytes.",
    163 FragmentOverlap "fragment_overlap" drop "A fragment that overlaps another one of its datagram; the rest of the datagram is dropped (RFC 5722).",
    164 FragmentRanges "fragment_ranges" drop "A datagram whose fragments come in more than 8 separate ranges.",
    165 FragmentEarly "fragment_early" drop "A fragment that came before the first one of its datagram.",
    166 FragmentDenied "fragment_denied" drop "A fragment of a datagram whose first fragment was not allowed.",
    167 FragmentDuplicate "fragment_duplicate" drop "A fragment whose bytes have passed already.",
    168 FragmentEarlyPass "fragment_early_pass" pass "A fragment that came before its first one; the policy lets it pass early.",
    169 FragmentPass "fragment_pass" pass "A later fragment of a datagram whose first fragment was allowed without a flow.",
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn numbers_and_names_are_unique_and_convert_back() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(Reason::from_number(*reason as u8), Some(*reason));
            for other in &Reason::ALL[index + 1..] {
                assert_ne!(reason.name(), other.name());
                assert!(
                    (*reason as u8) < (*other as u8),
                    "{} stands before {}",
                    reason.name(),
                    other.name()
                );
            }
        }
    }
}
