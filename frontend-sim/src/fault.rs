//! Faults that a frontend can put in on purpose, each at one hop of a request's way.
//!
//! ```text
//!   bytes --> PI made --> guest memory, payload --> ring --> backend
//!              |                |          |          |
//!              |                Data       Payload    Unflagged
//!              Reference, Application, Escape
//! ```
//!
//! On a read, `Data` and `Payload` hit what the backend delivered, before it is checked here. Faults of
//! the medium are not a frontend's to make.

use std::fmt;
use std::str::FromStr;

use integrity::{PiType, Profile};

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Flips a bit of the data in guest memory, after PI was made.
    Data {
        /// Which bit, counted from the first byte's lowest.
        bit: usize,
    },
    /// Flips a bit of the metadata in guest memory.
    Payload {
        /// Which bit, counted from the first byte's lowest.
        bit: usize,
    },
    /// Makes PI for another place: a misplaced write.
    Reference {
        /// How many intervals further on.
        off_by: i64,
    },
    /// Makes PI with this application tag.
    Application {
        /// The tag.
        tag: u16,
    },
    /// Sends escapes: "unchecked".
    Escape,
    /// Sends no PI at all, as a frontend that knows none.
    Unflagged,
}

impl Fault {
    /// The metadata of `data` with this fault in it, as far as the fault lies there.
    pub(crate) fn generate(
        fault: Option<Fault>,
        profile: &Profile,
        data: &[u8],
        metadata: &mut [u8],
        reference: u64,
        application: u16,
    ) {
        let (reference, application) = match fault {
            // Type 3 has no meaning for it: the backend must let it pass.
            Some(Fault::Reference { off_by }) => (reference.wrapping_add_signed(off_by), application),
            Some(Fault::Application { tag }) => (reference, tag),
            _ => (reference, application),
        };
        profile.generate(data, metadata, reference, application);
        match fault {
            Some(Fault::Escape) if profile.pi_type() != PiType::Type0 => profile.escape(metadata),
            Some(Fault::Payload { bit }) => flip(metadata, bit),
            _ => {}
        }
    }
}

/// Flips a bit; one beyond the end is taken modulo the length.
pub(crate) fn flip(bytes: &mut [u8], bit: usize) {
    if !bytes.is_empty() {
        bytes[bit / 8 % bytes.len()] ^= 1 << (bit % 8);
    }
}

/// Text that names no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is none of data[:BIT], payload[:BIT], reference[:OFF_BY], application[:TAG], escape, unflagged"
)]
pub struct ParseFaultError(String);

impl FromStr for Fault {
    type Err = ParseFaultError;

    fn from_str(text: &str) -> Result<Self, ParseFaultError> {
        let wrong = || ParseFaultError(text.to_owned());
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value.parse::<i64>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let bit = || usize::try_from(value.unwrap_or(0)).map_err(|_| wrong());
        Ok(match name {
            "data" => Self::Data { bit: bit()? },
            "payload" => Self::Payload { bit: bit()? },
            "reference" => Self::Reference { off_by: value.unwrap_or(1) },
            "application" => {
                Self::Application { tag: u16::try_from(value.unwrap_or(1)).map_err(|_| wrong())? }
            }
            "escape" if value.is_none() => Self::Escape,
            "unflagged" if value.is_none() => Self::Unflagged,
            _ => return Err(wrong()),
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data { bit } => write!(f, "data:{bit}"),
            Self::Payload { bit } => write!(f, "payload:{bit}"),
            Self::Reference { off_by } => write!(f, "reference:{off_by}"),
            Self::Application { tag } => write!(f, "application:{tag}"),
            Self::Escape => f.write_str("escape"),
            Self::Unflagged => f.write_str("unflagged"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_when_written_and_parsed_then_is_the_same() {
        for fault in [
            Fault::Data { bit: 9 },
            Fault::Payload { bit: 0 },
            Fault::Reference { off_by: -1 },
            Fault::Application { tag: 0xfffe },
            Fault::Escape,
            Fault::Unflagged,
        ] {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
        for wrong in ["", "data:x", "data:-1", "escape:1", "application:65536", "medium"] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }
}
