//! The lock-out guard: the operator's own session.

use crate::control::Session;

/// What sshd sets in the environment of a session.
const VARIABLE: &str = "SSH_CONNECTION";
/// Parents that are asked: a shell in tmux under sudo under sshd is far below.
const MAX_PARENTS: usize = 32;

/// The parent of a process; `None` at the top.
fn parent(pid: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .to_owned();
    (parent != "0").then_some(parent)
}

/// The session variable in an environment as procfs shows it: entries that end in a zero byte.
fn variable(environment: &[u8]) -> Option<String> {
    let mut entries = environment
        .split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok());
    entries.find_map(|entry| Some(entry.strip_prefix(VARIABLE)?.strip_prefix('=')?.to_owned()))
}

impl Session {
    /// The session that this process runs in: `SSH_CONNECTION`, which sshd sets. Where it is missing, the parents are
    /// asked, since sudo takes it away from its children; an empty one says that there is no session. Of other ways in
    /// nothing is known.
    #[must_use]
    pub fn own() -> Option<Self> {
        if let Ok(text) = std::env::var(VARIABLE) {
            return Self::parse(&text);
        }
        let mut parents = std::iter::successors(parent("self"), |pid| parent(pid)).take(MAX_PARENTS);
        parents.find_map(|pid| Self::parse(&variable(&std::fs::read(format!("/proc/{pid}/environ")).ok()?)?))
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
    fn the_variable_is_found_in_a_parents_environment() {
        let environment = b"HOME=/root\0SSH_CONNECTION=10.0.0.1 1 10.0.0.2 22\0TERM=xterm\0";
        assert_eq!(
            super::variable(environment).as_deref(),
            Some("10.0.0.1 1 10.0.0.2 22")
        );
        assert_eq!(super::variable(b"XSSH_CONNECTION=1\0SSH_CONNECTIONS=2\0"), None);
        assert!(super::parent("self").is_some_and(|pid| pid.parse::<u32>().is_ok()));
    }

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
