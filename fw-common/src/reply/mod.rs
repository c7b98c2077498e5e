//! Packets that the firewall itself answers with.
