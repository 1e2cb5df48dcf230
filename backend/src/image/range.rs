//! A range of a disk as an operator writes it.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::str::FromStr;

/// A range: `A..B` or `A` in interval numbers, `bytes:A..B` in bytes (K, M, G and T are powers of 1024); B is not in
/// it. A range of bytes is taken to the whole intervals that it touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntervalRange {
    /// In interval numbers.
    Intervals(Range<u64>),
    /// In bytes.
    Bytes(Range<u64>),
}

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// A number is none.
    #[error("{0:?} is no number")]
    Number(String),
    /// It holds nothing.
    #[error("{0:?} is empty: a range A..B goes from A up to, but not with, B")]
    Empty(String),
}

impl IntervalRange {
    /// The range in interval numbers.
    pub fn intervals(&self, interval: u64) -> Range<u64> {
        match self {
            Self::Intervals(range) => range.clone(),
            Self::Bytes(range) => range.start / interval..range.end.div_ceil(interval),
        }
    }
}

impl FromStr for IntervalRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (bytes, range) = match text.strip_prefix("bytes:") {
            Some(range) => (true, range),
            None => (false, text),
        };
        let number = |text: &str| {
            let value = if bytes { crate::store::parse_size(text) } else { text.parse().ok() };
            value.ok_or_else(|| RangeError::Number(text.to_owned()))
        };
        let (start, end) = match range.split_once("..") {
            Some((start, end)) => (number(start)?, number(end)?),
            None => {
                let start = number(range)?;
                (start, start.checked_add(1).ok_or_else(|| RangeError::Number(range.to_owned()))?)
            }
        };
        if start >= end {
            return Err(RangeError::Empty(text.to_owned()));
        }
        Ok(if bytes { Self::Bytes(start..end) } else { Self::Intervals(start..end) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_when_well_formed_gives_intervals() {
        let intervals = |text: &str| text.parse::<IntervalRange>().map(|range| range.intervals(512));
        assert_eq!(intervals("7"), Ok(7..8));
        assert_eq!(intervals("7..9"), Ok(7..9));
        assert_eq!(intervals("bytes:1024..4K"), Ok(2..8));
        assert_eq!(intervals("bytes:1023..1025"), Ok(1..3));
        assert_eq!(intervals("bytes:512"), Ok(1..2));
    }

    #[test]
    fn parse_when_malformed_says_what_is_wrong() {
        for bad in ["", "x", "1..", "..2", "2..2", "3..2", "1K..2K", "bytes:", "-1", "18446744073709551615"] {
            assert!(bad.parse::<IntervalRange>().is_err(), "{bad}");
        }
    }
}
