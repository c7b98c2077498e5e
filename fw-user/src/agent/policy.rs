//! From a policy's text to tables, with the operator's own session in mind.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fw_common::abi::{Decision, Ip4, Ip6, Line, Proto};
use fw_common::classify::{Classified, classify, realm_record};
use fw_policy::{Diagnostics, Environment, Policy};

use crate::control::Session;
use crate::exit::Failure;

/// Reads and checks a policy.
///
/// # Errors
/// With exit code 2: all findings, each with line and column.
pub fn check(name: &str, text: &str) -> Result<(Policy, Diagnostics), Failure> {
    fw_policy::check(text, name).map_err(|findings| {
        Failure::input(format!(
            "{name} is no valid policy; nothing was applied\n{}",
            findings.render(false)
        ))
    })
}

/// Compiles a policy for this machine, which was started at `boot_unix_s`.
///
/// # Errors
/// With exit code 2 if the policy does not fit into tables.
pub fn compile(
    policy: &Policy,
    own: &BTreeSet<IpAddr>,
    roles: &[String],
    generation: u32,
    boot_unix_s: i64,
) -> Result<Vec<Line>, Failure> {
    let environment = Environment {
        own_addresses: own.iter().copied().collect(),
        roles: roles.to_vec(),
        generation,
        boot_unix_s,
    };
    let tables = fw_policy::compile(policy, &environment)
        .map_err(|error| Failure::input(format!("{} cannot be compiled: {error}", policy.file)))?;
    Ok(tables.lines)
}

/// True if the tables let the session be opened anew, untagged.
#[must_use]
pub fn allows(lines: &[Line], session: &Session) -> bool {
    let Ok(realm) = realm_record(lines, (0, 0)) else {
        return false;
    };
    let service = (Proto::TCP, session.server_port);
    let mut found = Classified::default();
    let decision = match (session.client, session.server) {
        (IpAddr::V4(client), IpAddr::V4(server)) => classify(
            lines,
            realm,
            (Ip4(client.to_bits()), Ip4(server.to_bits())),
            service,
            &mut found,
        ),
        (IpAddr::V6(client), IpAddr::V6(server)) => {
            let addresses = (Ip6::from_bits(client.to_bits()), Ip6::from_bits(server.to_bits()));
            classify(lines, realm, addresses, service, &mut found)
        }
        // sshd never mixes families; such a variable was set by hand and says nothing.
        _ => return true,
    };
    decision.is_ok_and(Decision::allows)
}

/// Refuses a policy that locks the caller out.
///
/// # Errors
/// With exit code 1 and the rule to add.
pub fn guard(lines: &[Line], session: Option<&Session>) -> Result<(), Failure> {
    match session {
        Some(session) if !allows(lines, session) => Err(Failure::no(format!(
            "this policy denies your own session, tcp {} -> {} port {}; nothing was applied. Add a rule such as\n\n{}\n\nor \
             repeat the command with --force",
            session.client,
            session.server,
            session.server_port,
            session.rule()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{check, compile, guard};
    use crate::control::Session;
    use crate::exit::Exit;

    const POLICY: &str = "
version: 1
zones: { bastion: [10.30.0.10, \"fd00:30::10\"] }
rules:
  - { name: admin, allow: [ssh], from: bastion, to: self }
";

    fn verdict(session: &str) -> Result<(), crate::exit::Failure> {
        let (policy, _) = check("policy.yaml", POLICY).unwrap();
        let own = BTreeSet::from(["10.30.8.4".parse().unwrap(), "fd00:30::4".parse().unwrap()]);
        let lines = compile(&policy, &own, &["uplink".to_owned()], 1, 0).unwrap();
        guard(&lines, Session::parse(session).as_ref())
    }

    #[test]
    fn the_operators_session_is_not_denied_by_accident() {
        assert_eq!(verdict("10.30.0.10 50000 10.30.8.4 22"), Ok(()));
        assert_eq!(verdict("fd00:30::10 50000 fd00:30::4 22"), Ok(()));
        assert_eq!(verdict(""), Ok(()), "no session, nothing to guard");
        let failure = verdict("10.30.0.11 50000 10.30.8.4 22").unwrap_err();
        assert_eq!(failure.exit, Exit::No);
        assert!(failure.message.contains("addresses: [10.30.0.11]"), "{failure}");
        assert!(
            verdict("10.30.0.10 50000 10.30.8.4 2222").is_err(),
            "another port"
        );
    }

    #[test]
    fn a_broken_policy_is_bad_input_with_the_place() {
        let failure = check("policy.yaml", "version: 1\nruls: []\n").unwrap_err();
        assert_eq!(failure.exit, Exit::BadInput);
        assert!(failure.message.contains("policy.yaml:2:1"), "{failure}");
    }
}
