//! What is told about a policy, so that its reader finds the place and knows what to write.

mod common;

use common::Texts;
use fw_policy::{
    Asked, Diagnostics, Environment, Level, Policy, add_tests, ask, check_files, compile, decode, diff,
    explain, run_expectations, unnamed_role,
};

fn read(files: &[(&str, &str)]) -> Result<(Policy, Diagnostics), Diagnostics> {
    check_files(&Texts(files), files[0].1, files[0].0)
}

/// A policy whose first rules stand in another file, and one whose own rules they shadow.
fn in_two_files(rest: &str) -> Result<(Policy, Diagnostics), Diagnostics> {
    let base = "version: 1\nzones: { gpu: [10.10.0.0/16], bmc: [10.31.0.0/16] }\nrules:\n  - { name: wide, allow: [tcp], from: gpu, to: bmc }\n";
    let policy = format!(
        "version: 1\ninclude: [base.yaml]\nrules:\n  - {{ name: web, allow: [http], from: gpu, to: bmc }}\n  - {{ name: name, allow: [dns], from: gpu, to: bmc }}\n{rest}"
    );
    read(&[("policy.yaml", &policy), ("base.yaml", base)])
}

#[test]
fn a_rule_of_another_file_is_named_with_its_file() {
    let (policy, warnings) = in_two_files("").unwrap_or_else(|findings| panic!("{findings}"));
    let messages: Vec<&str> = warnings.items.iter().map(|item| item.message.as_str()).collect();
    assert_eq!(
        messages,
        ["no packet reaches the rule `web`: `wide` (base.yaml:4) matches everything that it matches"]
    );
    let environment = Environment::sample();
    let tables = compile(&policy, &environment).expect("tables");
    let flow = "udp gpu bmc:53".parse().expect("a flow");
    let found = explain(&policy, &tables, &environment, &flow, None, None).expect("addresses");
    let text = found.to_string();
    for line in [
        "  allowed by rule `name` (policy.yaml:5)",
        "  not `wide` (base.yaml:4): another service",
        "  not `web` (policy.yaml:4): another service",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let (other, _) = read(&[(
        "other.yaml",
        "version: 1\nzones: { gpu: [10.10.0.0/16], bmc: [10.31.0.0/16] }\nrules:\n  - { name: name, allow: [dns], from: gpu, to: bmc }\n",
    )])
    .unwrap_or_else(|findings| panic!("{findings}"));
    let diff = diff::diff(&other, &policy, &environment).expect("comparable");
    assert!(diff.to_string().contains("allow: wide, base.yaml:4"), "{diff}");
}

#[test]
fn crossings_and_expectations_name_the_file_too() {
    let findings = in_two_files("isolate: [{ zones: [gpu, bmc] }]\n").expect_err("a crossing");
    assert!(
        findings
            .items
            .iter()
            .any(|item| item.message.contains("by the rule `wide` (base.yaml:4)")),
        "{findings}"
    );
    let (policy, _) = in_two_files("expect: [{ flow: tcp gpu bmc:22, is: deny }]\n")
        .unwrap_or_else(|findings| panic!("{findings}"));
    let results = run_expectations(&policy, &Environment::sample()).expect("a small policy");
    let help = results.diagnostics.items[0].help.as_deref();
    assert_eq!(help, Some("the rule `wide` (base.yaml:4) decides this flow"));
}

/// The suggestions for a text that stands for a zone's addresses, and for a limit.
fn help(text: &str) -> String {
    let findings = read(&[("policy.yaml", text)]).expect_err(text);
    let errors: Vec<_> = findings
        .items
        .iter()
        .filter(|item| item.level == Level::Error)
        .collect();
    assert_eq!(errors.len(), 1, "{findings}");
    errors[0].help.clone().unwrap_or_default()
}

#[test]
fn addresses_of_other_notations_are_refused_with_what_to_write() {
    for (written, expected) in [
        (
            "::ffff:10.0.0.0/104",
            "write 10.0.0.0/8: mapped addresses never stand in packets",
        ),
        (
            "::ffff:10.0.0.1/128",
            "write 10.0.0.1/32: mapped addresses never stand in packets",
        ),
        (
            "::ffff:10.0.0.1/104",
            "write 10.0.0.0/8: mapped addresses never stand in packets",
        ),
        (
            "::ffff:0:0/95",
            "write it as an IPv4 prefix, such as 10.0.0.0/8: mapped addresses never stand in packets",
        ),
        ("10.0.0.0/08", "write 10.0.0.0/8"),
        (
            "10.0.0.0/00",
            "write 0.0.0.0/0 for the network, or 10.0.0.0 for the one address",
        ),
        ("10.0.0.0/255.0.0.0", "write 10.0.0.0/8"),
        (
            "10.1.2.3/255.255.0.0",
            "write 10.1.0.0/16 for the network, or 10.1.2.3 for the one address",
        ),
        ("10.0.0.0/0.255.255.255", "write 10.0.0.0/8"),
        ("10.0.0.0/255.0.255.0", ""),
        ("fd00::/255.0.0.0", ""),
        ("10/8", "an IPv4 address has four numbers, such as 10.0.0.0/8"),
        ("10", "an IPv4 address has four numbers, such as 10.0.0.0"),
        (
            "167772161",
            "an IPv4 address has four numbers; write 10.0.0.1 if that is meant",
        ),
        (
            "10.400",
            "each of the four numbers is at most 255, without leading zeros",
        ),
    ] {
        let text = format!("version: 1\nzones: {{ a: [\"{written}\"] }}\nrules: []\n");
        assert_eq!(help(&text), expected, "{written}");
    }
    read(&[(
        "policy.yaml",
        "version: 1\nzones: { a: [0.0.0.0/0] }\nrules: []\n",
    )])
    .expect("a length of one zero");
}

#[test]
fn marks_between_thousands_are_refused_with_what_to_write() {
    for (written, expected) in [
        ("new_flows: 1_000/s", "write `1000/s`"),
        ("packets: \"1,000,000/min\"", "write `1000000/min`"),
        ("packets: \"1,5/s\"", ""),
        ("bytes: 1_000 KiB/s", "write `1000 KiB/s`"),
        ("bytes: 1'000 kib/s", "write `1000 KiB/s`"),
        ("bytes: \"2,5 Gbit/s\"", ""),
        ("flows: 4_096", "write `4096`"),
    ] {
        let text = format!(
            "version: 1\nzones: {{ a: [10.0.0.0/8] }}\nrules: [{{ name: r, allow: [ssh], from: a, to: self, limit: [{{ {written} }}] }}]\n"
        );
        assert_eq!(help(&text), expected, "{written}");
    }
    let text = "version: 1\nrules: []\ntcp: { cold_start: 1_20s }\n";
    assert_eq!(help(text), "write `120s`");
}

#[test]
fn a_missing_include_hides_no_other_error() {
    let policy = "version: 1\ninclude: [missing.yaml]\nzones: { gpu: [10.10.0.1/16] }\nservices: { api: [tcp/1] }\nrules:\n  - { name: r, allow: [other], from: gpu, to: elsewhere, audit: maybe }\n";
    let findings = read(&[("policy.yaml", policy)]).expect_err("a missing file");
    let codes: Vec<&str> = findings.items.iter().map(|item| item.code).collect();
    assert_eq!(codes, ["cannot_read", "bad_prefix", "unknown_word"], "{findings}");
    // What the missing file may hold is not asked for.
    let findings =
        read(&[("policy.yaml", "version: 1\ninclude: [missing.yaml]\n")]).expect_err("a missing file");
    assert_eq!(findings.items.len(), 1, "{findings}");
    let broken = [
        (
            "policy.yaml",
            "version: 1\ninclude: [base.yaml]\nrules: []\nlink: { dhcp: yes }\n",
        ),
        ("base.yaml", "version: 1\nzones: { a: [\n"),
    ];
    let findings = read(&broken).expect_err("a broken file");
    let codes: Vec<&str> = findings.items.iter().map(|item| item.code).collect();
    assert_eq!(codes, ["unknown_word", "syntax"], "{findings}");
}

const DHCP: &str = "version: 1
zones: { near: [10.0.0.0/8], far: [192.168.0.0/16] }
link: { dhcp: client }
rules: [{ name: renew, allow: [udp/67], from: self, to: far }]
";

/// Reason and note of a flow on the sample machine (192.0.2.1), mode `host` or `inline`.
fn answer(text: &str, flow: &str, inline: bool, guarded: bool) -> (&'static str, bool) {
    let (policy, _) = read(&[("policy.yaml", text)]).unwrap_or_else(|findings| panic!("{findings}"));
    let environment = Environment::sample();
    let tables = compile(&policy, &environment).expect("tables");
    let asked = Asked {
        flow: &flow.parse().expect("a flow"),
        tags: None,
        role: inline.then_some("in"),
        peer: inline.then_some("out"),
        guarded,
    };
    let found = ask(&policy, &tables, &environment, &asked).expect("addresses");
    (found.reason, found.note.is_some())
}

const V6_REQUEST: &str = "udp [fe80::1]:546 [ff02::1:2]:547";

/// Flows, how they come (mode `inline`, from the guarded side), the reason, and whether a note says that rules decide.
const DHCP_FLOWS: [(&str, [bool; 2], &str, bool); 13] = [
    ("udp 0.0.0.0:68 255.255.255.255:67", HOST, "link_dhcp", false),
    ("udp 192.0.2.1:68 255.255.255.255:67", HOST, "link_dhcp", false),
    ("udp 192.168.0.1:67 192.0.2.1:68", HOST, "link_dhcp", false),
    ("udp 192.168.0.1:67 255.255.255.255:68", HOST, "link_dhcp", false),
    // A renewal is for the rules, as are a request of another machine, other ports, and answers of this machine.
    ("udp 192.0.2.1:68 192.168.0.1:67", HOST, "rule", true),
    ("udp 10.0.0.1:68 255.255.255.255:67", HOST, "deny_default", true),
    ("udp 192.168.0.1:4000 192.0.2.1:68", HOST, "deny_default", true),
    ("udp 192.0.2.1:67 10.0.0.1:68", HOST, "deny_default", true),
    ("udp 192.168.0.1:67 10.0.0.1:68", NETWORK, "link_dhcp", false),
    (V6_REQUEST, NETWORK, "deny_default", true),
    (V6_REQUEST, GUARDED, "link_dhcp", false),
    ("udp [fe80::2]:547 [fe80::1]:546", NETWORK, "link_dhcp", false),
    ("udp [fd00::2]:547 [fd00::1]:546", NETWORK, "deny_default", true),
];
const HOST: [bool; 2] = [false, false];
const NETWORK: [bool; 2] = [true, false];
const GUARDED: [bool; 2] = [true, true];

#[test]
fn dhcp_passes_where_the_packet_path_lets_it_pass() {
    for (flow, [inline, guarded], reason, noted) in DHCP_FLOWS {
        let found = answer(DHCP, flow, inline, guarded);
        assert_eq!(found, (reason, noted), "{flow} {inline} {guarded}");
    }
    let never = DHCP.replace("client }", "never }");
    let request = "udp 0.0.0.0:68 255.255.255.255:67";
    assert_eq!(
        answer(&never, request, false, false),
        ("impossible_source", false)
    );
}

/// Codes, messages and suggestions of all warnings.
fn warnings(text: &str) -> Vec<(&'static str, String, String)> {
    let (_, warnings) = read(&[("policy.yaml", text)]).unwrap_or_else(|findings| panic!("{findings}"));
    let items = warnings.items.into_iter();
    items
        .map(|item| (item.code, item.message, item.help.unwrap_or_default()))
        .collect()
}

#[test]
fn ah_is_said_to_be_looked_through() {
    let text = "version: 1
zones: { a: [10.0.0.0/8] }
rules:
  - { name: named, allow: [ah, ssh], from: a, to: self }
  - { name: number, deny: [proto/51], from: self, to: a }
  - { name: every, allow: all, from: a, to: a }
";
    let found = warnings(text);
    let messages: Vec<&str> = found.iter().map(|(_, message, _)| message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "the rule `named` names ah (protocol 51), as which no packet is judged",
            "the rule `number` names ah (protocol 51), as which no packet is judged"
        ]
    );
    assert_eq!(answer(text, "ah a self", false, false), ("rule", true));
    assert_eq!(answer(text, "esp a a", false, false), ("rule", false));
}

#[test]
fn lustre_that_is_allowed_one_way_is_warned_of() {
    let policy = |rules: &str| {
        format!(
            "version: 1\nzones: {{ clients: [10.1.0.0/16], few: [10.1.2.0/24], servers: [10.2.0.0/16] }}\nrules:\n  - {{ name: few, allow: [ssh], from: few, to: self }}\n{rules}"
        )
    };
    let one = "  - { name: lustre, allow: [lustre], from: clients, to: servers }\n";
    let found = warnings(&policy(one));
    assert_eq!(
        found,
        [(
            "one_way",
            "the rule `lustre` allows Lustre (tcp/988) from `clients` to `servers`, and no rule allows it back"
                .to_owned(),
            "Lustre servers open connections to clients too: write `between: [clients, servers]`".to_owned()
        )]
    );
    for back in [
        "  - { name: back, allow: [lustre_secure], from: servers, to: few }\n",
        "  - { name: back, allow: [tcp], from: any, to: clients }\n",
    ] {
        assert_eq!(warnings(&policy(&format!("{one}{back}"))), [], "{back}");
    }
    for sound in [
        "  - { name: r, allow: [lustre], between: [clients, servers] }\n",
        "  - { name: r, allow: [lustre], from: servers, to: servers }\n",
        "  - { name: r, allow: [tcp], from: clients, to: servers }\n",
        "  - { name: r, deny: [lustre], from: clients, to: servers }\n",
    ] {
        let found = warnings(&policy(sound));
        assert!(
            found.iter().all(|(code, ..)| *code != "one_way"),
            "{sound} {found:?}"
        );
    }
}

const PORTS: &str = "version: 1
zones:
  gpu: { addresses: [10.1.0.0/16], plane: training, ports: [rail] }
  bmc: { addresses: [10.2.0.0/16], plane: management, ports: [mgmt] }
link: { router_advertisement: [uplink] }
rules:
  - { name: r, allow: [ssh], from: [gpu, bmc], to: self }
expect:
";

#[test]
fn a_role_that_nothing_else_names_is_warned_of() {
    let hints = |lines: &str| -> Vec<String> {
        let found = warnings(&format!("{PORTS}{lines}"));
        found
            .into_iter()
            .map(|(code, message, help)| format!("{code}: {message}: {help}"))
            .collect()
    };
    let message =
        |role: &str| format!("unknown_role: no zone and no other section names the port role `{role}`");
    let none: [String; 0] = [];
    let sound = "  - { flow: tcp gpu self:22, in: rail, is: allow }\n  - { flow: tcp gpu bmc:22, in: rail, out: uplink, is: deny }\n";
    assert_eq!(hints(sound), none);
    let near = "  - { flow: tcp bmc self:22, in: mgnt, is: deny, reason: plane_mismatch }\n";
    assert_eq!(
        hints(near),
        [format!("{}: did you mean `mgmt`?", message("mgnt"))]
    );
    let other = "  - { flow: tcp outside self:22, in: storage, is: deny }\n";
    let expected = format!(
        "{}: roles that the policy names: mgmt, rail, uplink",
        message("storage")
    );
    assert_eq!(hints(other), [expected.as_str()]);
    // A port of no plane is named to say so, or more than once.
    assert_eq!(hints(&format!("{other}{other}")), none);
    let refused = "  - { flow: tcp gpu self:22, in: storage, is: deny, reason: plane_mismatch }\n";
    assert_eq!(hints(refused), none);

    let (mut policy, _) = read(&[("policy.yaml", &format!("{PORTS}{sound}"))]).expect("a sound policy");
    assert_eq!(unnamed_role(&policy, "rail"), None);
    assert_eq!(
        unnamed_role(&policy, "rial").as_deref(),
        Some("policy.yaml does not name the port role `rial`; did you mean `rail`?")
    );
    assert_eq!(
        unnamed_role(&policy, "storage").as_deref(),
        Some("policy.yaml does not name the port role `storage`; it names mgmt, rail, uplink")
    );
    let tests = "expect:\n  - { flow: tcp gpu self:22, in: rial, is: deny }\n";
    let found = add_tests(&mut policy, tests, "tests.yaml").expect("a sound test");
    let reports = found.reports();
    assert_eq!(
        (reports[0].code, reports[0].file.as_str(), reports[0].line),
        ("unknown_role", "tests.yaml", 2)
    );
    let (policy, _) = read(&[("policy.yaml", "version: 1\nrules: []\n")]).expect("a sound policy");
    assert_eq!(unnamed_role(&policy, "rail"), None);
}

#[test]
fn what_is_no_utf8_is_a_finding_with_its_place() {
    assert_eq!(
        decode(b"version: 1\n".to_vec(), "p").as_deref(),
        Ok("version: 1\n")
    );
    for (bytes, place, help) in [
        (
            &b"version: 1\n# caf\xe9\nrules: []\n"[..],
            (2, 6),
            "save it as UTF-8, or convert it: `iconv -f WINDOWS-1252",
        ),
        (
            b"\xff\xfev\0e\0",
            (1, 1),
            "it begins as UTF-16 does; convert it: `iconv -f UTF-16 -t UTF-8 p`",
        ),
        (b"\x7fELF\x02\0\xf0\0", (1, 7), "it holds bytes that no text has"),
        (b"version: 1\n\xe2\x82", (2, 1), "save it as UTF-8"),
    ] {
        let findings = decode(bytes.to_vec(), "p").expect_err("no text");
        let report = &findings.reports()[0];
        assert_eq!((report.code, (report.line, report.column)), ("not_utf8", place));
        assert!(
            report.help.as_ref().is_some_and(|text| text.starts_with(help)),
            "{findings}"
        );
        assert!(!findings.render(false).is_empty());
    }
}
