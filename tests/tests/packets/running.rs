//! Connections that were running before a data plane without state: `pickup`.

use fw_common::abi::Reason::{DenyDefault, DenyRule, Established, PickedUp, RstInvalid, TcpNoFlow};
use fw_common::tcp::State;

use crate::case::{Case, Net, Step};

/// Connections that were running before a data plane without state.
pub fn cases(net: &Net) -> Vec<Case> {
    [adopted(net), adopted_when(net)].concat()
}

/// `pickup`: never, always, and what an adopted connection may do.
fn adopted_when(net: &Net) -> Vec<Case> {
    let c = net.connection(80);
    let case = |name: &str| Case::new(name).pick_up(60);
    vec![
        Case::new("never: what runs already is a stranger")
            .outer(c.c("A", 7000, 9000).payload(b"x"), TcpNoFlow)
            .inner(c.s("A", 9000, 7001).payload(b"y"), TcpNoFlow),
        Case::new("always")
            .step(Step::PickUp(u64::MAX))
            .wait(30 * 86_400)
            .outer(c.c("A", 7000, 9000).payload(b"x"), PickedUp)
            .inner(c.s("A", 9000, 7001).payload(b"y"), Established)
            .outer(c.c("A", 7001, 9001), Established)
            .flows(1, 0),
        case("windows of an adopted connection are not judged, its resets are")
            .outer(c.c("A", 7000, 9000).payload(b"x"), PickedUp)
            .inner(c.s("A", 9000, 7001).payload(b"y"), Established)
            .outer(c.c("A", 90_000_000, 9001).payload(b"x"), Established)
            .inner(
                c.s("R", 9000_u32.wrapping_sub((1 << 30) + 1_000_000), 0),
                RstInvalid,
            )
            .state(State::Established)
            .inner(c.s("R", 9001, 0), Established)
            .state(State::Close),
        case("an adopted connection whose other side is silent: alive until 60 s")
            .outer(c.c("A", 7000, 9000).payload(b"x"), PickedUp)
            .wait(59)
            .inner(c.s("A", 9000, 7001).payload(b"y"), Established),
        case("an adopted connection lives shortly until the other side has answered")
            .outer(c.c("A", 7000, 9000).payload(b"x"), PickedUp)
            .flows(0, 1)
            .outer(c.c("A", 7001, 9000).payload(b"x"), Established)
            .flows(0, 1)
            .wait(61)
            .inner(c.s("A", 9000, 7002).payload(b"y"), TcpNoFlow),
    ]
}

fn adopted(net: &Net) -> Vec<Case> {
    let c = net.connection(80);
    let case = |name: &str| Case::new(name).pick_up(60);
    let denied = net.connection(23);
    vec![
        case("a running connection, its opener's segment first")
            .outer(c.c("A", 7000, 9000).payload(b"x"), PickedUp)
            .inner(c.s("A", 9000, 7001).payload(b"y"), Established)
            .outer(c.c("A", 7001, 9001), Established)
            .flows(1, 0),
        case("a running connection, the answering side's segment first")
            .inner(c.s("A", 9000, 7000).payload(b"y"), PickedUp)
            .outer(c.c("A", 7000, 9001), Established)
            .inner(c.s("A", 9001, 7000), Established)
            .flows(1, 0),
        case("an adopted connection ends as any other")
            .outer(c.c("PA", 7000, 9000).payload(b"x"), PickedUp)
            .inner(c.s("R", 9000, 0), Established)
            .wait(11)
            .apply(crate::case::POLICY)
            .outer(denied.c("A", 1, 1), DenyRule),
        case("the window is open until its end")
            .wait(59)
            .outer(c.c("A", 7000, 9000).payload(b"x"), PickedUp),
        case("the window closes")
            .wait(61)
            .outer(c.c("A", 7000, 9000), TcpNoFlow),
        case("what a rule denies is not adopted")
            .outer(denied.c("A", 7000, 9000), DenyRule)
            .inner(denied.s("A", 9000, 7000), DenyDefault),
        case("what no rule allows is not adopted").outer(net.connection(81).c("A", 7000, 9000), DenyDefault),
        case("only segments of a running connection are adopted")
            .outer(c.c("SA", 1, 1), TcpNoFlow)
            .outer(c.c("FA", 1, 1), TcpNoFlow)
            .outer(c.c("R", 1, 1), TcpNoFlow)
            .outer(c.c("RA", 1, 1), TcpNoFlow),
    ]
}
