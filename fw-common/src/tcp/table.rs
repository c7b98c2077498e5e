//! The transition table itself, and the timeouts.

/// States, with the kernel conntrack's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Not TCP, or no state.
    None = 0,
    /// A SYN from the opener was seen.
    SynSent = 1,
    /// The answering side's SYN-ACK was seen.
    SynRecv = 2,
    /// The opener has acknowledged the answer.
    Established = 3,
    /// One side has sent a FIN.
    FinWait = 4,
    /// That FIN was acknowledged; the other side may go on sending.
    CloseWait = 5,
    /// Both sides have sent a FIN.
    LastAck = 6,
    /// The last FIN was acknowledged.
    TimeWait = 7,
    /// A reset ended the flow.
    Close = 8,
}

impl State {
    /// All states.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::SynSent,
        Self::SynRecv,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
    ];

    /// The state with this number; anything unknown is [`State::Close`].
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        match bits {
            0 => Self::None,
            1 => Self::SynSent,
            2 => Self::SynRecv,
            3 => Self::Established,
            4 => Self::FinWait,
            5 => Self::CloseWait,
            6 => Self::LastAck,
            7 => Self::TimeWait,
            _ => Self::Close,
        }
    }

    /// The kernel conntrack's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
        }
    }

    /// Seconds without a packet after which a flow in this state is over: the defaults of `nf_conntrack`
    /// (Documentation/networking/nf_conntrack-sysctl.rst), but for a half-closed connection, which lives as long as an
    /// established one: the side that has not finished may be silent for as long as it likes (RFC 9293 section 3.6).
    #[inline(always)]
    #[must_use]
    pub const fn timeout_s(self) -> u32 {
        match self {
            Self::None | Self::Close => 10,
            Self::SynSent | Self::TimeWait => 120,
            Self::SynRecv => 60,
            Self::Established | Self::FinWait | Self::CloseWait => 432_000,
            Self::LastAck => 30,
        }
    }
}

/// Kinds of segments that the table tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// SYN without ACK.
    Syn = 0,
    /// SYN with ACK.
    SynAck = 1,
    /// FIN (with ACK).
    Fin = 2,
    /// ACK alone, with or without data.
    Ack = 3,
    /// RST; judged by its sequence number, not by the table.
    Rst = 4,
}

/// One cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// The flow moves to this state (or stays in it).
    To(State),
    /// The segment passes so that the other end can answer it; the state stays.
    Ignore,
    /// The segment passes and opens a new flow in place of this one.
    Reopen,
    /// No such segment can occur: it is dropped.
    Invalid,
}

const IGNORE: u64 = 0xd;
const REOPEN: u64 = 0xe;
const INVALID: u64 = 0xf;

/// Packs a row: one nibble a state, NONE first.
const fn row(cells: [u64; 9]) -> u64 {
    let mut packed = 0;
    let mut at = 0;
    while at < cells.len() {
        packed |= cells[at] << (4 * at);
        at += 1;
    }
    packed
}

const SS: u64 = State::SynSent as u64;
const SR: u64 = State::SynRecv as u64;
const ES: u64 = State::Established as u64;
const FW: u64 = State::FinWait as u64;
const CW: u64 = State::CloseWait as u64;
const LA: u64 = State::LastAck as u64;
const TW: u64 = State::TimeWait as u64;
const CL: u64 = State::Close as u64;
const IG: u64 = IGNORE;
const RO: u64 = REOPEN;
const IV: u64 = INVALID;

/// The table: `TABLE[reply][class]`, one nibble a state (columns NONE, SYN_SENT, SYN_RECV, ESTABLISHED, `FIN_WAIT`,
/// `CLOSE_WAIT`, `LAST_ACK`, TIME_WAIT, CLOSE). A reset has no row.
///
/// As in the kernel's table, a SYN from the answering side in the middle of a connection is invalid: it would open a new
/// connection the other way round, which no rule was asked about. An ACK in SYN_SENT passes without effect: it is the
/// challenge to a SYN that reuses the ports of a connection which the other end still has (RFC 5961 section 4).
///
/// Differences from the kernel's: a simultaneous open (a SYN from the answering side in SYN_SENT) goes to SYN_RECV, the
/// kernel's `SYN_SENT2` being no state of ours, and there the same SYN may come again; a SYN-ACK that nobody can have asked
/// for is invalid in the opener's direction except as the answer in a simultaneous open; what the answering side sends
/// before the opener has acknowledged its SYN, a FIN included, leaves the flow in SYN_RECV, because only the opener's
/// acknowledgement proves that it exists.
///
/// The machine refines some cells by numbers: see `docs/tcp.md`.
pub const TABLE: [[u64; 4]; 2] = [
    [
        /* SYN     */ row([IV, SS, IG, IG, IG, IG, IG, RO, RO]),
        /* SYN-ACK */ row([IV, IV, SR, IG, IG, IG, IG, IG, IV]),
        /* FIN     */ row([IV, IV, FW, FW, LA, LA, LA, TW, CL]),
        /* ACK     */ row([IV, IV, ES, ES, CW, CW, TW, TW, CL]),
    ],
    [
        /* SYN     */ row([IV, SR, IG, IV, IV, IV, IV, RO, RO]),
        /* SYN-ACK */ row([IV, SR, SR, IG, IG, IG, IG, IG, IV]),
        /* FIN     */ row([IV, IV, SR, FW, LA, LA, LA, TW, CL]),
        /* ACK     */ row([IV, IG, SR, ES, CW, CW, TW, TW, CL]),
    ],
];

/// Looks a cell up. The row is chosen by comparisons: the verifier refuses reads from a static array at a variable
/// offset.
#[inline(always)]
pub const fn next(state: State, class: Class, reply: bool) -> Step {
    let [original, answer] = TABLE;
    let rows = if reply { answer } else { original };
    let row = match class {
        Class::Syn => rows[0],
        Class::SynAck => rows[1],
        Class::Fin => rows[2],
        Class::Ack => rows[3],
        Class::Rst => return Step::Invalid,
    };
    match row >> (4 * state as u64) & 0xf {
        IGNORE => Step::Ignore,
        REOPEN => Step::Reopen,
        INVALID => Step::Invalid,
        number => Step::To(State::from_bits(number as u32)),
    }
}
