//! What a verifier is told to expect, and what it answers.

use std::fmt;

/// An application tag that a tuple must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppTag {
    /// The tag's value.
    pub value: u16,
    /// Which bits of it are compared; 0xFFFF compares all of them.
    pub mask: u16,
}

/// What an escaped tuple means to a verifier.
///
/// A tuple is escaped when its application tag is 0xFFFF and, in type 3, its reference tag is all ones too
/// (SBC-4, 4.21.3): the interval was never written, or was discarded, and nothing of it can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Escape {
    /// The interval passes unchecked and is counted in [`Checked::escaped`].
    #[default]
    Accept,
    /// The interval is a mismatch of the application tag.
    Refuse,
}

/// What a verifier compares the tags with. The guard is always compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    /// Type 1: the reference tag of the first interval; each further interval's is one more, and the low 32 or 48
    /// bits ([`reference_mask`](crate::Profile::reference_mask)) are compared. Type 3: not used.
    pub reference: u64,
    /// The application tag, or `None` to let any pass.
    pub application: Option<AppTag>,
    /// What escaped tuples mean.
    pub escape: Escape,
}

impl Expected {
    /// Expects reference tags from `reference` on, any application tag, and accepts escapes.
    pub const fn new(reference: u64) -> Expected {
        Expected { reference, application: None, escape: Escape::Accept }
    }
}

/// What a verifier saw where nothing was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Checked {
    /// How many intervals carried an escape, and so were not checked.
    pub escaped: usize,
}

/// One of the three tags of a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    /// The checksum.
    Guard,
    /// The application tag.
    Application,
    /// The reference tag.
    Reference,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tag::Guard => "guard",
            Tag::Application => "application",
            Tag::Reference => "reference",
        })
    }
}

/// The first tag that was not as expected. Within one interval the order is guard, application, reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{tag} tag of interval {interval}: expected {expected:#x}, found {actual:#x}")]
pub struct Mismatch {
    /// Index of the interval within the buffer that was verified.
    pub interval: usize,
    /// Which tag.
    pub tag: Tag,
    /// What it should have been: the guard of the data; the application tag's value, or 0 where an escape was
    /// refused and no application tag was expected; the reference tag's low bits.
    pub expected: u64,
    /// What the tuple holds.
    pub actual: u64,
}
