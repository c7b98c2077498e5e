//! `docs/tcp.md` is made from the transition table and the timeouts.

use std::fmt::Write as _;
use std::path::Path;

use fw_common::tcp::{Class, LEAST_REACH, State, Step, next};

const HEAD: &str = "\
# TCP

How a TCP connection is followed: RFC 9293, 5961, 7323, 7413, van Rooij's *Real Stateful TCP Packet Filtering in IP Filter*,
and `nf_conntrack_proto_tcp.c` of Linux as the reference for behaviour. The code is [fw-common/src/tcp](../fw-common/src/tcp/mod.rs).
This page is made from its table by `DPUFW_BLESS=1 cargo test -p fw-common --test tcp`.

## States and timeouts
A flow that sees no packet for so long is over. Until the opener has acknowledged the answer, no flow lives longer than
120 s without an answer or 60 s with one.

| state | entered when | timeout |
| --- | --- | --- |
";

const TABLE_HEAD: &str = "
## Transitions
Rows: what comes. Columns: the state it meets. `pass`: it passes and changes nothing, so that the other end may answer it.
`reopen`: the old flow is over and the SYN is judged as the first packet of a new one. `drop`: `tcp_invalid`.
";

const TAIL: &str = "
A FIN of a side that has sent one counts as an ACK. The machine refines some cells by numbers:

- **SYN_SENT.** A SYN-ACK must acknowledge the SYN (`tcp_bad_ack`); one that acknowledges 1 to 65,536 less than the SYN's number, the
  question of a SYN proof, passes and changes nothing, and so does the reset that answers it. A SYN counts from now on,
  whatever came before.
- **SYN_RECV.** What the opener sends must acknowledge the answering side's SYN, and at most what that has sent
  (`tcp_bad_ack`): a spoofed source cannot. It moves the flow to the main table. What the answering side sends must acknowledge
  the opener's SYN and stay within the window of that SYN. A SYN of the answering side passes only if it is the same again.
- **FIN_WAIT** becomes CLOSE_WAIT only by an ACK of the other side that covers the FIN; **LAST_ACK** becomes TIME_WAIT only when
  both FINs are covered.
- **TIME_WAIT.** The opener's SYN opens a new flow at once if its sequence number is higher than all before. Another one passes.
- **A SYN that passed** in the middle of a connection, and is no late copy of the connection's own: if the answering side answers it
  with a SYN-ACK, it has lost the connection. That SYN-ACK is dropped (`tcp_invalid`), the flow is over, and the opener's next SYN, a
  second later, finds no flow and is judged by the policy. If the answering side has the connection, it challenges the SYN,
  the opener resets with the number of the challenge, and the flow is closed.

## Windows
Each side's half of the flow keeps what that side has sent, and only its own packets write it: `end`, the highest sequence number
plus one; `ack`, the highest acknowledgement; `edge`, the highest right edge of a window that it has offered (one more if that was
zero); `reach`, twice the largest window that it has offered, at least {LEAST_REACH} bytes and at most 2^30. A segment with sequence number
`seq` and end `end`, from *own* to *peer*, fits if

1. `seq <= peer.edge`,
2. `end + 1 >= min(own.end, peer.edge) - peer.reach`,
3. `ack <= peer.end`, and so each selective acknowledgement, if the peer has permitted any,
4. `ack >= peer.end - own.reach`.

What does not fit is `tcp_out_of_window`. Windows are scaled if both SYNs carried the option; those of SYNs never are. A GSO
super-packet is judged by its whole range. ECE, CWR and NS are not looked at. With `tcp: { window: loose }`, and in flows that were
picked up, whose scales nobody knows, what does not fit passes and leaves the numbers alone.

## Resets
A reset ends the flow if its sequence number is exactly the peer's last acknowledgement or the sender's `end`; in SYN_SENT, if it
acknowledges the SYN. One between the peer's last acknowledgement and rule 1 passes and ends nothing: its receiver challenges it (RFC
5961 section 3.2). Behind that acknowledgement it is dropped, however far old data may be late; but for that of a side which is gone
after its FIN: it refuses what was on its way with the number of the FIN, which may have been acknowledged meanwhile, and passes
without effect. In TIME_WAIT and CLOSE those that fit rules 1
and 2 pass: each segment on its way to a side that has gone is refused by the number that it acknowledges. One that
does not acknowledge the SYN passes in SYN_SENT (`ack` 0, or no ACK and `seq` 0), and so does the refusal of a SYN that passed. Any other
is dropped as `rst_invalid`. In loose flows everything that is not older than the peer's last acknowledgement passes; what ends
a flow is the same.

## Differences from nf_conntrack
| here | there | why |
| --- | --- | --- |
| With one FIN seen a flow lives as long as an established one | 120 s in FIN_WAIT, 60 s in CLOSE_WAIT | the other side may go on for days, or be silent (RFC 9293 section 3.6) |
| Established flows are not shortened while data is not acknowledged, or after retransmissions | 300 s | a connection over a broken path lives as long as its ends let it; the tables are guarded by caps instead |
| CLOSE_WAIT and TIME_WAIT need an ACK that covers the FIN | any ACK | a challenge in LAST_ACK needs no special case |
| A FIN sent again counts as an ACK | in FIN_WAIT it moves to LAST_ACK | it is not the other side's FIN |
| No SYN_SENT2: a simultaneous open goes through SYN_RECV | a state of its own | both mean that both SYNs were seen |
| A FIN of the answering side in SYN_RECV leaves it there | FIN_WAIT | only the opener's ACK proves the flow |
| In SYN_RECV the opener's ACK must lie in what the answering side has sent | within the window | a spoofed opener must not reach the main table |
| The answering side may send a window of data before the opener's first ACK | one segment | fast open (RFC 7413) |
| A reset must be exact in every state | in closing states any reset closes | a blind one must not end a half-close that lives for days |
| A reset that is not exact is dropped if it lies outside of the window | only below the last acknowledgement | nobody acts on it |
| A SYN-ACK shortly below the SYN's number passes without effect | it answers the SYN | it is a question (SYN proof) or old |
| A refusal without acknowledgement in SYN_SENT passes but does not end the flow | it ends it | it could be blind |
| `edge` counts from the acknowledgement | from the highest selective one | that is what the receiver offered |
| Rules 2 and 4 reach back twice the largest window, at least {LEAST_REACH} bytes | once | segments that the network reorders within a round trip are not invalid |
| A SYN-ACK that answers a SYN which passed ends the flow; the client's next SYN opens one | the flow goes over to the new connection | the policy is asked, and windows and scales are known |
| A lower SYN in TIME_WAIT passes, and opens a flow only if it is answered | it opens a flow | a late copy must not |
| A SYN sent again keeps a half-open flow alive | it does not | half-open flows are the first to be evicted |
| A SYN-ACK of the opener after the handshake passes | invalid | it is sent again in a simultaneous open |
";

fn entered(state: State) -> &'static str {
    match state {
        State::None => "never: not TCP",
        State::SynSent => "the opener's SYN",
        State::SynRecv => "the answering side's SYN-ACK, or its SYN in a simultaneous open",
        State::Established => "the opener's acknowledgement of the answer",
        State::FinWait => "the first FIN",
        State::CloseWait => "that FIN's acknowledgement",
        State::LastAck => "the second FIN",
        State::TimeWait => "both FINs are acknowledged",
        State::Close => "an exact reset",
    }
}

fn cell(state: State, class: Class, reply: bool) -> &'static str {
    match next(state, class, reply) {
        Step::To(next) => next.name(),
        Step::Ignore => "pass",
        Step::Reopen => "reopen",
        Step::Invalid => "drop",
    }
}

fn document() -> String {
    let states = &State::ALL[1..];
    let mut text = String::from(HEAD);
    for state in states {
        writeln!(
            text,
            "| {} | {} | {} s |",
            state.name(),
            entered(*state),
            state.timeout_s()
        )
        .expect("a string");
    }
    text += TABLE_HEAD;
    for (reply, side) in [(false, "opener"), (true, "answering side")] {
        let names: Vec<_> = states.iter().map(|state| state.name()).collect();
        writeln!(text, "\n| from the {side} | {} |", names.join(" | ")).expect("a string");
        writeln!(text, "| --- |{}", " --- |".repeat(states.len())).expect("a string");
        for (class, name) in [
            (Class::Syn, "SYN"),
            (Class::SynAck, "SYN-ACK"),
            (Class::Fin, "FIN"),
            (Class::Ack, "ACK"),
        ] {
            let cells: Vec<_> = states.iter().map(|state| cell(*state, class, reply)).collect();
            writeln!(text, "| {name} | {} |", cells.join(" | ")).expect("a string");
        }
    }
    text + &TAIL.replace("{LEAST_REACH}", &grouped(LEAST_REACH))
}

/// A number with a comma before each three digits.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn the_document_shows_the_table() {
    let text = document();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tcp.md");
    if std::env::var_os("DPUFW_BLESS").is_some() {
        std::fs::write(&path, &text).expect("docs/tcp.md can be written");
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        recorded == text,
        "docs/tcp.md is stale: DPUFW_BLESS=1 cargo test -p fw-common --test tcp"
    );
}
