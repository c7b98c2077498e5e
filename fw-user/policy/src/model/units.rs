//! Numbers with units, as texts for people.

/// Bytes in a unit, the largest first.
const BINARY: [(u64, &str); 4] = [
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
];
/// The same in powers of ten.
const DECIMAL: [(u64, &str); 4] = [
    (1_000_000_000_000, "TB"),
    (1_000_000_000, "GB"),
    (1_000_000, "MB"),
    (1000, "kB"),
];
/// Bits in a unit, the largest first.
const BITS: [(u64, &str); 4] = [
    (1_000_000_000_000, "Tbit"),
    (1_000_000_000, "Gbit"),
    (1_000_000, "Mbit"),
    (1000, "kbit"),
];
const SECOND: u64 = 1_000_000_000;

/// An amount: `100`, or for bytes `1 MiB`.
pub(crate) fn amount_text(units: u64, bytes: bool) -> String {
    if !bytes {
        return units.to_string();
    }
    let mut sizes = BINARY.iter().chain(&DECIMAL);
    let fits = sizes.find(|(size, _)| units != 0 && units.is_multiple_of(*size));
    match fits {
        Some((size, name)) => format!("{} {name}", units / size),
        None => format!("{units} B"),
    }
}

/// A rate: `50/s`, `64 KiB/s`, `5 Gbit/s`.
pub(crate) fn rate_text(units: u64, per_ns: u64, bytes: bool) -> String {
    let time = |per_ns: u64| match per_ns / SECOND {
        60 => "min",
        3600 => "h",
        _ => "s",
    };
    if !bytes {
        return format!("{units}/{}", time(per_ns));
    }
    // Rates that are no whole number of bytes are kept as bits in eight times the time.
    let (bits, per_ns) = match per_ns / SECOND {
        8 | 480 | 28_800 => (units, per_ns / 8),
        _ => (units.saturating_mul(8), per_ns),
    };
    let decimal = BITS.iter().find(|(size, _)| bits % size == 0 && bits != 0);
    let amount = match decimal {
        _ if bits % (8 << 10) == 0 && bits % 1_000_000 != 0 => amount_text(bits / 8, true),
        Some((size, name)) => format!("{} {name}", bits / size),
        None => format!("{bits} bit"),
    };
    format!("{amount}/{}", time(per_ns))
}

#[cfg(test)]
mod tests {
    use super::{amount_text, rate_text};

    #[test]
    fn texts_are_those_that_a_policy_would_hold() {
        assert_eq!(amount_text(100, false), "100");
        assert_eq!(amount_text(1 << 20, true), "1 MiB");
        assert_eq!(amount_text(1500, true), "1500 B");
        assert_eq!(amount_text(62_500_000, true), "62500 kB");
        assert_eq!(rate_text(50, 1_000_000_000, false), "50/s");
        assert_eq!(rate_text(600, 60_000_000_000, false), "600/min");
        assert_eq!(rate_text(625_000_000, 1_000_000_000, true), "5 Gbit/s");
        assert_eq!(rate_text(64 << 10, 1_000_000_000, true), "64 KiB/s");
        assert_eq!(rate_text(1 << 40, 3_600_000_000_000, true), "1 TiB/h");
        assert_eq!(rate_text(9, 8_000_000_000, true), "9 bit/s");
    }
}
