//! One match of a service: `tcp/22`, `icmp/echo-request`, `esp`.

use fw_common::abi::Proto;

use crate::diagnostic::{Diagnostic, Span};
use crate::model::ServiceMatch;
use crate::names;
use crate::services;

/// Why a text is no match.
pub(super) struct Bad {
    pub(super) message: String,
    pub(super) label: String,
    pub(super) help: Option<String>,
}

impl Bad {
    fn new(message: String, label: &str, help: Option<String>) -> Self {
        Self {
            message,
            label: label.to_owned(),
            help,
        }
    }
}

/// Reads `tcp/22`, `tcp/1-5`, `tcp`, `icmp/echo-request`, `icmp/8`, `icmp/3/4`, `esp`, `proto/50`, and of those with ports
/// the source ports behind `from`: `tcp/2049 from 600-1023`.
pub(super) fn parse(text: &str) -> Result<ServiceMatch, Bad> {
    let mut words = text.split_ascii_whitespace();
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(only), None, ..) => one(only),
        (Some(name), Some("from"), Some(ports), None) if services::built_in(name).is_some() => Err(Bad::new(
            format!("`{name}` is the name of a service, and `from` narrows a protocol with its ports"),
            "expected a match such as tcp/22 before `from`",
            services::built_in(name)
                .and_then(|service| service.matches.iter().find(|text| !text.contains(' ')))
                .map(|text| format!("write `{text} from {ports}`")),
        )),
        (Some(found), Some("from"), Some(ports), None) => from_ports(one(found)?, found, ports),
        _ => Err(Bad::new(
            format!("`{text}` is no service"),
            "expected a service's name, a match such as tcp/22, or one with source ports such as `tcp/22 from 1-1023`",
            None,
        )),
    }
}

/// Narrows a match to source ports.
fn from_ports(found: ServiceMatch, text: &str, ports: &str) -> Result<ServiceMatch, Bad> {
    if !matches!(found.proto, Some(Proto::TCP | Proto::UDP | Proto::SCTP)) {
        return Err(Bad::new(
            format!("`{text}` has no source ports"),
            "only tcp, udp and sctp have ports",
            Some(format!("write `{text}`")),
        ));
    }
    let head = text.split('/').next().unwrap_or(text);
    let (src_lo, src_hi) = port_range(ports, &format!("{text} from "), head)?;
    Ok(ServiceMatch {
        src_lo,
        src_hi,
        ..found
    })
}

fn one(text: &str) -> Result<ServiceMatch, Bad> {
    let (head, rest) = match text.split_once('/') {
        Some((head, rest)) => (head, Some(rest)),
        None => (text, None),
    };
    if head == "proto" {
        let number = rest.and_then(|rest| rest.parse().ok()).ok_or_else(|| {
            Bad::new(
                format!("`{text}` names no protocol"),
                "expected `proto/NUMBER`, 0 to 255",
                None,
            )
        })?;
        return Ok(ServiceMatch::protocol(number));
    }
    let Some(proto) = names::protocol(head) else {
        let message = match rest {
            Some(_) => format!("`{head}` is no protocol"),
            None => format!("there is no service `{text}`"),
        };
        let near = rest.and_then(|rest| {
            let near = names::nearest(head, names::PROTOCOLS.iter().map(|(name, _)| *name))?;
            Some(format!("did you mean `{near}/{rest}`?"))
        });
        let label = match rest {
            Some(_) => "expected tcp, udp, sctp, icmp, icmpv6, esp, ah, gre or proto",
            None => "expected a service's name, or a match such as tcp/22",
        };
        return Err(Bad::new(message, label, near));
    };
    match (rest, proto) {
        (None, _) => Ok(ServiceMatch::protocol(proto)),
        (Some(rest), Proto::TCP | Proto::UDP | Proto::SCTP) => ports(head, proto, rest),
        (Some(rest), Proto::ICMP | Proto::ICMPV6) => icmp(head, proto, rest),
        (Some(_), _) => {
            let message = format!("{head} has no ports");
            Err(Bad::new(
                message,
                "expected the protocol alone",
                Some(format!("write `{head}`")),
            ))
        }
    }
}

fn ports(head: &str, proto: u8, rest: &str) -> Result<ServiceMatch, Bad> {
    let (lo, hi) = port_range(rest, &format!("{head}/"), head)?;
    Ok(ServiceMatch::selectors(proto, lo, hi))
}

/// Reads a port or a range of them; `before` is what stands before it.
fn port_range(text: &str, before: &str, head: &str) -> Result<(u16, u16), Bad> {
    let (lo, hi) = text.split_once('-').unwrap_or((text, text));
    let (lo, hi) = (port(lo, head)?, port(hi, head)?);
    if lo > hi {
        let message = format!("the range {lo}-{hi} is empty");
        return Err(Bad::new(
            message,
            "expected the lower port first",
            Some(format!("write `{before}{hi}-{lo}`")),
        ));
    }
    Ok((lo, hi))
}

fn port(text: &str, head: &str) -> Result<u16, Bad> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if port > 0 && digits => Ok(port),
        _ => {
            let help = match services::built_in(text) {
                Some(_) => Some(format!("write `{text}` alone")),
                None => Some(format!("write `{head}/8000`, or `{head}` for all ports")),
            };
            let message = match text {
                "" => format!("there is no port behind `{head}/`"),
                _ => format!("`{text}` is no port"),
            };
            Err(Bad::new(
                message,
                "expected a number from 1 to 65535, or a range such as 8000-8010",
                help,
            ))
        }
    }
}

fn icmp(head: &str, proto: u8, rest: &str) -> Result<ServiceMatch, Bad> {
    let (kind_text, code) = match rest.split_once('/') {
        Some((kind, code)) => (kind, Some(code)),
        None => (rest, None),
    };
    let named = names::icmp_type(proto, kind_text);
    let Some(kind) = named.or_else(|| kind_text.parse::<u8>().ok()) else {
        let near = names::nearest(kind_text, names::icmp_names(proto));
        let help = near.map(|near| format!("did you mean `{head}/{near}`?"));
        let message = format!("`{kind_text}` is no message of {head}");
        return Err(Bad::new(
            message,
            "expected a name such as echo-request, or a number from 0 to 255",
            help,
        ));
    };
    let base = u16::from(kind) << 8;
    let Some(code) = code else {
        return Ok(ServiceMatch::selectors(proto, base, base | 0xff));
    };
    let code: u8 = code.parse().map_err(|_| {
        Bad::new(
            format!("`{code}` is no ICMP code"),
            "expected a number from 0 to 255 behind the type",
            None,
        )
    })?;
    let selector = base | u16::from(code);
    Ok(ServiceMatch::selectors(proto, selector, selector))
}

/// Sorted, overlapping and adjacent ranges joined.
pub(super) fn merged(mut matches: Vec<ServiceMatch>) -> Vec<ServiceMatch> {
    if matches.contains(&ServiceMatch::ALL) {
        return vec![ServiceMatch::ALL];
    }
    matches.sort_unstable();
    let mut out: Vec<ServiceMatch> = Vec::with_capacity(matches.len());
    for found in matches {
        match out.last_mut() {
            Some(last)
                if (last.proto, last.src_lo, last.src_hi) == (found.proto, found.src_lo, found.src_hi)
                    && u32::from(found.lo) <= u32::from(last.hi) + 1 =>
            {
                last.hi = last.hi.max(found.hi);
            }
            _ => out.push(found),
        }
    }
    out
}

/// True if a flow can be opened by something that the match holds: of ICMP only echo requests open flows.
pub(super) fn opens_flows(found: ServiceMatch) -> bool {
    match found.proto {
        Some(proto @ (Proto::ICMP | Proto::ICMPV6)) => {
            let echo = u16::from(names::echo_request(proto)) << 8;
            found.lo <= (echo | 0xff) && echo <= found.hi
        }
        _ => true,
    }
}

/// The finding for a rule of which nothing can open a flow.
pub(super) fn never_opens(rule: &str, span: Span) -> Diagnostic {
    let message = format!("the rule `{rule}` matches only ICMP messages that open no flow");
    Diagnostic::warning("no_flow", span, message)
        .help("errors and replies pass with the flow they belong to; only echo requests need a rule")
}

/// The finding for a rule that names AH.
pub(super) fn looked_through(rule: &str, span: Span) -> Diagnostic {
    let message = format!("the rule `{rule}` names ah (protocol 51), as which no packet is judged");
    Diagnostic::warning("looked_through", span, message).help(
        "authentication headers are looked through: name what is behind them, such as esp or tcp/22; none can be allowed or \
         denied for the header itself",
    )
}
