//! From a policy's text to tables, with the operator's own session in mind.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fw_common::abi::{ClassFlags, Ip4, Ip6, Line, Proto, RuleFlags, Screen};
use fw_common::classify::{self, Classified, Service, classify, realm_record};
use fw_policy::compile::DEFAULT_LIMIT;
use fw_policy::{Compiled, Diagnostics, Environment, Loader, Policy, TableSet};

use crate::control::Session;
use crate::exit::Failure;
use crate::files::Files;

/// Checks a policy; files that it names are read from disk, relative to `name`. Among its warnings are the rules whose `until`
/// is over at `now_unix_s`.
///
/// # Errors
/// With exit code 2: all findings, each with line and column.
pub fn check(name: &str, text: &str, now_unix_s: i64) -> Result<(Policy, Diagnostics), Failure> {
    check_with(&Files, name, text, now_unix_s)
}

/// The same with files from elsewhere.
///
/// # Errors
/// As [`check`].
pub fn check_with(
    loader: &dyn Loader,
    name: &str,
    text: &str,
    now_unix_s: i64,
) -> Result<(Policy, Diagnostics), Failure> {
    let (policy, mut warnings) = fw_policy::check_files(loader, text, name).map_err(|findings| {
        Failure::input(format!(
            "{name} is no valid policy; nothing was applied\n{}",
            findings.render(false)
        ))
    })?;
    let ended = fw_policy::ended_rules(&policy, now_unix_s);
    warnings.items.extend(ended.items);
    Ok((policy, warnings))
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
) -> Result<TableSet, Failure> {
    let environment = environment(own, roles, generation, boot_unix_s);
    fw_policy::compile(policy, &environment).map_err(|error| too_large(policy, &error))
}

/// As [`compile`], and keeps what does not depend on addresses: then other addresses are a matter of milliseconds.
///
/// # Errors
/// As [`compile`].
pub fn compile_to_keep(policy: &Policy, environment: &Environment) -> Result<(Compiled, TableSet), Failure> {
    Compiled::new(policy, environment, DEFAULT_LIMIT).map_err(|error| too_large(policy, &error))
}

/// The failure of a policy that does not fit into tables.
pub fn too_large(policy: &Policy, error: &fw_policy::CompileError) -> Failure {
    Failure::input(format!("{} cannot be compiled: {error}", policy.file))
}

/// This machine, as the compiler asks for it.
#[must_use]
pub fn environment(
    own: &BTreeSet<IpAddr>,
    roles: &[String],
    generation: u32,
    boot_unix_s: i64,
) -> Environment {
    Environment {
        own_addresses: own.iter().copied().collect(),
        roles: roles.to_vec(),
        generation,
        boot_unix_s,
    }
}

/// True if the tables let the session be opened anew, untagged, by a port of at least one of the first `roles` roles: by
/// which port it comes is not known. What a rule with `audit: true` would deny is let through.
#[must_use]
pub fn allows(lines: &[Line], roles: usize, session: &Session) -> bool {
    let Ok(realm) = realm_record(lines, (0, 0)) else {
        return false;
    };
    let service = Service::between(Proto::TCP, session.client_port, session.server_port);
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
    let audited = found.rule_flags & RuleFlags::AUDIT != 0;
    decision.is_ok_and(|decision| decision.allows() || audited) && planes_fit(lines, roles, &found)
}

/// True if the planes of client and server may meet at a port of one of the roles, or if the policy does not insist. As the
/// screen `plane_mismatch` for a packet to this machine itself, which is the same in both modes.
fn planes_fit(lines: &[Line], roles: usize, found: &Classified) -> bool {
    let Some(protect) = classify::protect(lines) else {
        return false;
    };
    if protect.w[0] & Screen::PlaneMismatch.bit() == 0 {
        return true;
    }
    let planes = [found.src.flags, found.dst.flags].map(ClassFlags::plane);
    let [Some(far_roles), Some(own_roles)] = planes.map(|plane| classify::plane_roles(lines, plane)) else {
        return false;
    };
    let [far, own] = planes;
    let bound = |bits: u32, role: usize| bits == 0 || bits >> (role & 31) & 1 != 0;
    (0..roles).any(|role| bound(own_roles, role) && ((own != 0 && own != far) || bound(far_roles, role)))
}

/// Refuses a policy that locks the caller out.
///
/// # Errors
/// With exit code 1 and the rule to add.
pub fn guard(lines: &[Line], roles: usize, session: Option<&Session>) -> Result<(), Failure> {
    match session {
        Some(session) if !allows(lines, roles, session) => Err(Failure::no(format!(
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
        judged(POLICY, &["uplink"], session)
    }

    fn judged(policy: &str, roles: &[&str], session: &str) -> Result<(), crate::exit::Failure> {
        let (policy, _) = check("policy.yaml", policy, 0).unwrap();
        let own = BTreeSet::from(["10.30.8.4".parse().unwrap(), "fd00:30::4".parse().unwrap()]);
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        let tables = compile(&policy, &own, &roles, 1, 0).unwrap();
        guard(&tables.lines, roles.len(), Session::parse(session).as_ref())
    }

    const SESSION: &str = "10.30.0.10 50000 10.30.8.4 22";

    #[test]
    fn a_rule_on_trial_locks_nobody_out() {
        let deny = "
version: 1
rules: [{ name: trial, deny: [ssh], from: any, to: self }]
";
        let failure = judged(deny, &["uplink"], SESSION).unwrap_err();
        assert_eq!(failure.exit, Exit::No);
        let trial = deny.replace("to: self", "to: self, audit: true");
        assert_eq!(judged(&trial, &["uplink"], SESSION), Ok(()));
    }

    #[test]
    fn a_plane_without_a_port_here_locks_out() {
        let policy = "
version: 1
zones: { bastion: { addresses: [10.30.0.10], plane: management, ports: [mgmt] } }
rules: [{ name: admin, allow: [ssh], from: bastion, to: self }]
";
        assert_eq!(judged(policy, &["mgmt", "rail"], SESSION), Ok(()));
        assert!(
            judged(policy, &["rail"], SESSION).is_err(),
            "no port of the plane"
        );
        let counted = format!("{policy}protect: {{ screens: {{ plane_mismatch: count }} }}\n");
        assert_eq!(judged(&counted, &["rail"], SESSION), Ok(()), "counted only");
    }

    #[test]
    fn a_rule_that_is_over_is_a_warning() {
        let policy = "
version: 1
rules: [{ name: vendor, allow: [ssh], from: outside, to: self, until: 1970-01-01T00:00:10Z }]
";
        let warnings = |now| check("policy.yaml", policy, now).unwrap().1.items.len();
        assert_eq!((warnings(9), warnings(10)), (0, 1));
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
        let failure = check("policy.yaml", "version: 1\nruls: []\n", 0).unwrap_err();
        assert_eq!(failure.exit, Exit::BadInput);
        assert!(failure.message.contains("policy.yaml:2:1"), "{failure}");
    }
}
