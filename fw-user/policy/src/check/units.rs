//! Numbers with units: `50/s`, `5 Gbit/s`, `1 MiB`, `10m`.

const SECOND_NS: u64 = 1_000_000_000;
/// Words for the time of a rate, in nanoseconds.
const TIMES: [(&str, u64); 3] = [("s", SECOND_NS), ("min", 60 * SECOND_NS), ("h", 3600 * SECOND_NS)];
/// Bits in a unit of data.
const SIZES: [(&str, u64); 14] = [
    ("B", 8),
    ("kB", 8_000),
    ("MB", 8_000_000),
    ("GB", 8_000_000_000),
    ("TB", 8_000_000_000_000),
    ("KiB", 8 << 10),
    ("MiB", 8 << 20),
    ("GiB", 8 << 30),
    ("TiB", 8 << 40),
    ("bit", 1),
    ("kbit", 1_000),
    ("Mbit", 1_000_000),
    ("Gbit", 1_000_000_000),
    ("Tbit", 1_000_000_000_000),
];
/// Seconds in a unit of time.
const DURATIONS: [(&str, u32); 6] = [
    ("s", 1),
    ("m", 60),
    ("min", 60),
    ("h", 3600),
    ("d", 86_400),
    ("w", 604_800),
];

/// Units and the nanoseconds in which they may come.
pub(super) type UnitsPerNs = (u64, u64);

/// Why a text is no amount: what was expected there, and a suggestion.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) expected: &'static str,
    pub(super) help: Option<String>,
}

/// Reads a rate of packets or flows: `50/s`.
pub(super) fn count_rate(text: &str) -> Result<UnitsPerNs, Bad> {
    let expected = "a number and a time, such as 50/s, 600/min or 1000/h";
    let (amount, per_ns) = split_rate(text, expected)?;
    let count = count(amount).map_err(|_| Bad {
        expected,
        help: without_marks(amount).map(|amount| format!("write `{amount}/{}`", time_of(per_ns))),
    })?;
    Ok((count, per_ns))
}

/// Reads a rate of bytes: `64 KiB/s`, `5 Gbit/s`. A rate that is no whole number of bytes is one of eight times as many in
/// eight times the time.
pub(super) fn byte_rate(text: &str) -> Result<UnitsPerNs, Bad> {
    let expected = "an amount and a time, such as 64 KiB/s, 100 MB/s or 5 Gbit/s";
    let refuse = |mended: Option<String>, time| Bad {
        expected,
        help: mended.map(|amount| format!("write `{amount}/{time}`")),
    };
    if !text.contains('/') {
        let mended = bits(text).map_or_else(|mended| mended, |_| Some(text.to_owned()));
        return Err(refuse(mended, "s"));
    }
    let (amount, per_ns) = split_rate(text, expected)?;
    let bits = bits(amount).map_err(|mended| refuse(mended, time_of(per_ns)))?;
    Ok(if bits % 8 == 0 {
        (bits / 8, per_ns)
    } else {
        (bits, per_ns * 8)
    })
}

/// Reads an amount of bytes: `1 MiB`.
pub(super) fn bytes(text: &str) -> Result<u64, Bad> {
    let refuse = |mended: Option<String>| Bad {
        expected: "an amount of data, such as 64 KiB or 1 MB",
        help: mended.map(|amount| format!("write `{amount}`")),
    };
    let bits = bits(text).map_err(refuse)?;
    if bits % 8 == 0 {
        Ok(bits / 8)
    } else {
        Err(refuse(None))
    }
}

/// Reads a whole number.
pub(super) fn count(text: &str) -> Result<u64, Bad> {
    let expected = "a whole number, such as 100";
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(count) if digits => Ok(count),
        _ => Err(Bad {
            expected,
            help: without_marks(text).map(|plain| format!("write `{plain}`")),
        }),
    }
}

/// A whole number without the marks between its thousands. `None` if it has none, or if one of them may be a decimal point.
fn without_marks(text: &str) -> Option<String> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = text.split(['_', ',', '\'']);
    let mut plain = parts.next().filter(|first| digits(first))?.to_owned();
    let mut marks = 0;
    for part in parts {
        // Before other than three digits a comma may be a decimal point.
        if !digits(part) || (part.len() != 3 && text.contains(',')) {
            return None;
        }
        marks += 1;
        plain += part;
    }
    (marks > 0).then_some(plain)
}

/// The word for the time of a rate.
fn time_of(per_ns: u64) -> &'static str {
    let named = TIMES.iter().find(|(_, own)| *own == per_ns);
    named.map_or("s", |(name, _)| name)
}

/// Reads a time: `120s`, `10m`, `2h`. In seconds.
pub(super) fn duration(text: &str) -> Result<u32, Bad> {
    let expected = "a time, such as 120s, 10m, 2h or 7d";
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..at], text[at..].trim_start());
    let factor = DURATIONS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor);
    let seconds = number
        .parse::<u32>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    seconds.ok_or_else(|| Bad {
        expected,
        help: (unit.is_empty() && !number.is_empty())
            .then(|| format!("write `{number}s` for seconds"))
            .or_else(|| mended_duration(text)),
    })
}

/// A time whose number has marks between its thousands, without them.
fn mended_duration(text: &str) -> Option<String> {
    let at = text.rfind(|c: char| c.is_ascii_digit()).map_or(0, |at| at + 1);
    let plain = without_marks(&text[..at])? + text[at..].trim_start();
    duration(&plain).is_ok().then(|| format!("write `{plain}`"))
}

/// The amount, and the nanoseconds behind the stroke.
fn split_rate<'t>(text: &'t str, expected: &'static str) -> Result<(&'t str, u64), Bad> {
    let Some((amount, time)) = text.rsplit_once('/') else {
        return Err(Bad {
            expected,
            help: Some(format!("write `{text}/s` if it is meant by the second")),
        });
    };
    let (amount, time) = (amount.trim_end(), time.trim_start());
    if let Some((_, per_ns)) = TIMES.iter().find(|(name, _)| *name == time) {
        return Ok((amount, *per_ns));
    }
    let meant = match time {
        "sec" | "second" | "seconds" | "S" => Some("s"),
        "m" | "minute" | "minutes" => Some("min"),
        "hour" | "hours" | "H" => Some("h"),
        _ => None,
    };
    Err(Bad {
        expected,
        help: meant.map(|time| format!("write `{amount}/{time}`")),
    })
}

/// An amount of data in bits; else what was probably meant. Decimals are taken if they make a whole number of bits.
fn bits(text: &str) -> Result<u64, Option<String>> {
    let end = |part: fn(char) -> bool| text.find(|c: char| !part(c)).unwrap_or(text.len());
    let at = end(|c| c.is_ascii_digit() || c == '.');
    let marked = end(|c| c.is_ascii_digit() || matches!(c, '_' | ',' | '\''));
    if let Some(number) = without_marks(&text[..marked]) {
        // What is wrong with the unit is said of the number without its marks.
        let plain = format!("{number} {}", text[marked..].trim_start());
        return Err(bits(plain.trim_end()).map_or_else(|mended| mended, |_| Some(plain)));
    }
    let (number, unit) = (&text[..at], text[at..].trim_start());
    if let Some((_, factor)) = SIZES.iter().find(|(name, _)| *name == unit) {
        return decimal(number, *factor).ok_or(None);
    }
    // `Gb` is a gigabit, `gB` a gigabyte: what is written of a unit's case counts where it tells bits from bytes.
    let bits_meant = unit.ends_with('b') && !unit.contains(['i', 'I']);
    let near = SIZES
        .iter()
        .filter(|(name, _)| !bits_meant || name.ends_with("bit"))
        .find(|(name, _)| name.eq_ignore_ascii_case(unit) || same_unit(name, unit))
        .map(|(name, _)| *name)
        .or_else(|| unit.is_empty().then_some("B"));
    Err(near
        .filter(|_| !number.is_empty())
        .map(|name| format!("{number} {name}")))
}

/// Other ways of writing a unit of bits.
fn same_unit(name: &str, unit: &str) -> bool {
    let short = unit
        .trim_end_matches("ps")
        .trim_end_matches("its")
        .trim_end_matches('b');
    name.ends_with("bit")
        && (!short.is_empty() || unit == "b")
        && name.eq_ignore_ascii_case(&format!("{short}bit"))
}

/// `number * factor`, exactly, or nothing.
fn decimal(number: &str, factor: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 9 {
        return None;
    }
    let scale = 10_u128.pow(part.len() as u32);
    let value = whole
        .parse::<u64>()
        .ok()
        .map(|whole| u128::from(whole) * scale + part.parse::<u128>().unwrap_or(0))?;
    let product = value.checked_mul(u128::from(factor))?;
    (product % scale == 0)
        .then_some(product / scale)
        .and_then(|bits| u64::try_from(bits).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_amounts_are_read() {
        assert_eq!(count_rate("50/s"), Ok((50, SECOND_NS)));
        assert_eq!(count_rate("600 / min"), Ok((600, 60 * SECOND_NS)));
        assert_eq!(byte_rate("64 KiB/s"), Ok((65_536, SECOND_NS)));
        assert_eq!(byte_rate("5 Gbit/s"), Ok((625_000_000, SECOND_NS)));
        assert_eq!(byte_rate("2.5Gbit/s"), Ok((312_500_000, SECOND_NS)));
        assert_eq!(byte_rate("1 bit/h"), Ok((1, 8 * 3600 * SECOND_NS)));
        assert_eq!(bytes("1 MiB"), Ok(1 << 20));
        assert_eq!(bytes("0.5KiB"), Ok(512));
        assert_eq!(
            (duration("120s"), duration("10m"), duration("2 h")),
            (Ok(120), Ok(600), Ok(7200))
        );
    }

    #[test]
    fn what_is_no_amount_is_refused_with_a_suggestion() {
        let help =
            |result: Result<UnitsPerNs, Bad>| result.err().and_then(|bad| bad.help).unwrap_or_default();
        assert_eq!(
            help(count_rate("50")),
            "write `50/s` if it is meant by the second"
        );
        assert_eq!(help(count_rate("50/sec")), "write `50/s`");
        assert_eq!(help(byte_rate("5 gbit/s")), "write `5 Gbit/s`");
        assert_eq!(help(byte_rate("5 Gbps")), "write `5 Gbit/s`");
        assert_eq!(help(byte_rate("5 kib/min")), "write `5 KiB/min`");
        assert_eq!(help(byte_rate("5 MB")), "write `5 MB/s`");
        assert_eq!(help(byte_rate("5/s")), "write `5 B/s`");
        for text in [
            "/s",
            "x/s",
            "-1/s",
            "5 Gbit/",
            "0.3 bit/s",
            "1.2.3 B/s",
            "99999999999999 TB/s",
        ] {
            assert!(count_rate(text).is_err() && byte_rate(text).is_err(), "{text}");
        }
        assert_eq!(
            count("1_000").err().and_then(|bad| bad.help),
            Some("write `1000`".into())
        );
        assert_eq!(
            duration("120").err().and_then(|bad| bad.help),
            Some("write `120s` for seconds".into())
        );
        assert!(duration("9999999w").is_err() && duration("").is_err() && bytes("3 bit").is_err());
    }

    /// A small `b` is a bit: advice that makes eight times as much of it would be worse than none.
    #[test]
    fn bits_are_not_made_bytes() {
        for (text, help) in [
            ("10 Gb/s", "write `10 Gbit/s`"),
            ("100 Mb/s", "write `100 Mbit/s`"),
            ("1 Kb/s", "write `1 kbit/s`"),
            ("8 b/s", "write `8 bit/s`"),
            ("10 gB/s", "write `10 GB/s`"),
            ("10 GBIT/s", "write `10 Gbit/s`"),
        ] {
            assert_eq!(byte_rate(text).unwrap_err().help.as_deref(), Some(help), "{text}");
        }
    }
}
