//! In which packets dpufw and nftables are known to differ: what the layer `twin` accepts, and what
//! `docs/differences-from-nftables.md` explains.

use fw_common::abi::Reason;

/// Known differences: what the packet is, or after what it came, our reason, whether nftables lets it pass.
pub const EXPLAINED: &[(&str, Reason, bool)] = &[
    (DISTURBED, Reason::Established, false),
    (DISTURBED, Reason::Related, false),
    ("tcp: a SYN in a connection", Reason::TcpInvalid, true),
    ("tcp: a simultaneous open", Reason::Established, false),
    ("tcp: a SYN-ACK for another SYN", Reason::TcpBadAck, true),
    ("tcp: a SYN-ACK in a connection", Reason::Established, false),
    ("tcp: a SYN-ACK in a connection", Reason::TcpBadAck, true),
    ("tcp: a blind refusal", Reason::RstInvalid, true),
    ("tcp: a blind reset after the SYN-ACK", Reason::RstInvalid, true),
    ("tcp: a reset far outside", Reason::RstInvalid, true),
    ("tcp: a very old acknowledgement", Reason::TcpOutOfWindow, true),
    (
        "tcp: acknowledges what was never sent",
        Reason::TcpOutOfWindow,
        true,
    ),
    ("tcp: data just behind the window", Reason::TcpOutOfWindow, true),
    ("tcp: data far outside", Reason::TcpOutOfWindow, true),
    ("tcp: data long before the window", Reason::TcpOutOfWindow, true),
    (
        "tcp: an ICMP error about a segment that was never sent",
        Reason::IcmpBadQuote,
        true,
    ),
];

/// What nftables refuses because a stranger's packet, which it may have refused too, has changed what it knows of the
/// connection.
pub const DISTURBED: &str = "after a stranger's packet";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// A difference as the page names it: the packet, `passes` or our reason, whether nftables lets it pass.
    type Row = (String, String, bool);

    /// What the page calls "passes", with or without effect, are the reasons that allow.
    fn here(reason: Reason) -> String {
        if reason.allows() { "passes" } else { reason.name() }.to_owned()
    }

    fn accepted() -> BTreeSet<Row> {
        let rows = EXPLAINED.iter().map(|(kind, reason, nft_passes)| {
            let kind = kind.strip_prefix("tcp: ").unwrap_or(kind);
            (kind.to_owned(), here(*reason), *nft_passes)
        });
        rows.collect()
    }

    /// The rows of the page's table; one that names several packets is as many.
    fn documented(page: &str) -> BTreeSet<Row> {
        let rows = page
            .lines()
            .filter(|line| line.starts_with("| ") && !line.starts_with("| ---"))
            .skip(1);
        rows.flat_map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [packets, here, nft, why] = cells[..] else {
                panic!("this row has not four cells: {row}")
            };
            assert!(!why.is_empty(), "nobody says why: {row}");
            let here = here.split(' ').next().unwrap_or_default().trim_matches('`');
            let nft_passes = match nft.split([' ', ',']).next() {
                Some("passes") => true,
                Some("drops") => false,
                _ => panic!("does nftables let it pass? {row}"),
            };
            let row = move |packet: &str| (packet.to_owned(), here.to_owned(), nft_passes);
            packets.split(", ").map(row).collect::<Vec<_>>()
        })
        .collect()
    }

    /// Whatever the test accepts has a row in the page, and every row is of something that the test accepts.
    #[test]
    fn the_page_explains_what_is_accepted() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differences-from-nftables.md");
        let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (accepted, documented) = (accepted(), documented(&page));
        let lacking: Vec<&Row> = accepted.difference(&documented).collect();
        let idle: Vec<&Row> = documented.difference(&accepted).collect();
        assert!(
            lacking.is_empty() && idle.is_empty(),
            "accepted, but not in the page: {lacking:?}; in the page, but not accepted: {idle:?}"
        );
    }

    #[test]
    fn rows_are_read() {
        let page = "| packet | here | nftables | why |\n| --- | --- | --- | --- |\n\
                    | a, b | passes without effect | drops the opener's | so |\n\
                    | c | `tcp_invalid` | passes, rarely | so |\n";
        let row = |packet: &str, here: &str, nft| (packet.to_owned(), here.to_owned(), nft);
        let wanted = [
            row("a", "passes", false),
            row("b", "passes", false),
            row("c", "tcp_invalid", true),
        ];
        assert_eq!(documented(page), BTreeSet::from(wanted));
    }
}
