//! Sizes and durations as people write them.

use std::time::Duration;

/// What a size may look like, for messages.
pub const SIZE_FORM: &str = "a size such as 4096, 512K, 4MiB or 1G (binary units)";

/// What a duration may look like, for messages.
pub const DURATION_FORM: &str = "a duration such as 50us, 2ms or 30s";

/// Bytes: a number with an optional binary unit, `K`, `KiB`, `M`, `MiB`, `G`, `GiB`, `T`, `TiB`.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let shift = match unit {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// A number with a unit: `us`, `ms` or `s`. A zero needs none.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    match unit {
        "" if number == 0 => Some(Duration::ZERO),
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

/// The shortest exact way to write a size.
pub fn size_text(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// The shortest exact way to write a duration of whole microseconds.
pub fn duration_text(duration: Duration) -> String {
    let us = duration.as_micros();
    match us {
        0 => "0".to_owned(),
        _ if us.is_multiple_of(1_000_000) => format!("{}s", us / 1_000_000),
        _ if us.is_multiple_of(1_000) => format!("{}ms", us / 1_000),
        _ => format!("{us}us"),
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_when_written_and_read_then_is_the_same() {
        for bytes in [0, 1, 512, 1024, 1536, 4 << 20, 1 << 30, 3 << 40, u64::MAX] {
            assert_eq!(size(&size_text(bytes)), Some(bytes));
        }
        assert_eq!(size("4M"), size("4MiB"));
    }

    #[test]
    fn size_when_malformed_or_too_large_then_is_none() {
        for text in ["", "K", "-1", "+1", "4 M", "4m", "1.5G", "99999999999999999999", "16777216T", "é"] {
            assert_eq!(size(text), None, "{text:?}");
        }
    }

    #[test]
    fn duration_when_written_and_read_then_is_the_same() {
        for us in [0, 1, 50, 2_000, 30_000_000] {
            let duration_ = Duration::from_micros(us);
            assert_eq!(duration(&duration_text(duration_)), Some(duration_));
        }
        for text in ["", "5", "5m", "s", "-1s"] {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }
}
