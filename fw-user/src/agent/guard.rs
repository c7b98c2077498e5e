//! The lock-out guard: the operator's own session.

use crate::control::Session;

impl Session {
    /// The session that this process runs in: `SSH_CONNECTION`, which sshd sets. Of other ways in nothing is known.
    #[must_use]
    pub fn own() -> Option<Self> {
        Self::parse(&std::env::var("SSH_CONNECTION").ok()?)
    }

    /// Reads `client-address client-port server-address server-port`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        // A link-local address carries its interface behind `%`, which is not part of the address.
        let address = |word: &str| word.split('%').next().and_then(|address| address.parse().ok());
        let client = address(words.next()?)?;
        let client_port = words.next()?.parse().ok()?;
        let server = address(words.next()?)?;
        let server_port = words.next()?.parse().ok()?;
        Some(Self {
            client,
            client_port,
            server,
            server_port,
        })
    }

    /// The rule to add, as it stands in a policy.
    #[must_use]
    pub fn rule(&self) -> String {
        let quote = |text: String| {
            if text.contains(':') {
                format!("\"{text}\"")
            } else {
                text
            }
        };
        let client = quote(self.client.to_string());
        format!(
            "zones:\n  operator: {{ addresses: [{client}] }}\nrules:   # before the rule that denies it\n  \
             - {{ name: operator_ssh, allow: [tcp/{}], from: operator, to: self }}",
            self.server_port
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Session;

    #[test]
    fn sshs_variable_is_read() {
        let session = Session::parse("10.30.0.10 51234 10.30.8.4 22").unwrap();
        assert_eq!(session.client.to_string(), "10.30.0.10");
        assert_eq!((session.client_port, session.server_port), (51234, 22));
        assert!(session.rule().contains("allow: [tcp/22]"));
        assert!(session.rule().contains("addresses: [10.30.0.10]"));
        let session = Session::parse("fe80::1%eth0 51234 fe80::2%eth0 2222").unwrap();
        assert_eq!(session.server.to_string(), "fe80::2");
        assert!(session.rule().contains("[\"fe80::1\"]"), "YAML needs the quotes");
    }

    #[test]
    fn anything_else_is_no_session() {
        for text in ["", "UNKNOWN 65535 UNKNOWN 65535", "10.0.0.1 1 10.0.0.2"] {
            assert_eq!(Session::parse(text), None, "{text}");
        }
    }
}
