//! Finds the intervals of a piece of a disk that do not match their PI, or cannot be read at all.

use crate::image::scan::Chunk;
use crate::store::Errno;
use crate::store::medium::Medium;
use integrity::{Expected, PiType, Profile, Tag};
use std::fmt;

/// What is wrong with an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A tag is not what it should be.
    Mismatch {
        /// Which tag.
        tag: Tag,
        /// What it should be, going by the data and the interval's place.
        expected: u64,
        /// What the tuple holds.
        actual: u64,
    },
    /// The data cannot be read.
    Unreadable(Errno),
}

/// An interval that does not match its PI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadInterval {
    /// Its number on the disk.
    pub number: u64,
    /// Where its data starts, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for BadInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interval {} at byte {}: ", self.number, self.offset)?;
        match self.fault {
            Fault::Mismatch { tag, expected, actual } => {
                write!(f, "{tag} tag: expected {expected:#x}, found {actual:#x}")
            }
            Fault::Unreadable(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

/// Checks pieces of one disk.
pub(crate) struct Finder {
    pub(crate) profile: Profile,
    /// Intervals that carry an escape, so far.
    pub(crate) unprotected: u64,
    /// One interval's data, where direct I/O wants it.
    single: Single,
}

/// As large as an interval may be.
#[repr(align(4096))]
struct Aligned([u8; 65536]);

type Single = Box<Aligned>;

impl Finder {
    pub(crate) fn new(profile: Profile) -> Self {
        Self { profile, unprotected: 0, single: Box::new(Aligned([0; 65536])) }
    }

    /// What to expect of the interval of that number.
    fn expected(&self, number: u64) -> Expected {
        Expected::new(if self.profile.pi_type() == PiType::Type1 { number } else { 0 })
    }

    /// Calls `bad` for every bad interval of a chunk, with its data where there is some and its metadata.
    pub(crate) fn find<E>(
        &mut self,
        medium: &Medium,
        chunk: Chunk,
        data: Result<&[u8], Errno>,
        metadata: &mut [u8],
        mut bad: impl FnMut(BadInterval, Option<&[u8]>, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        // As a rule all is well, which one call finds out fastest.
        if let Ok(data) = data
            && let Ok(checked) = self.profile.verify(data, metadata, &self.expected(chunk.first))
        {
            self.unprotected += checked.escaped as u64;
            return Ok(());
        }
        let interval = self.profile.interval();
        for (index, entry) in metadata.chunks_exact_mut(self.profile.metadata_size()).enumerate() {
            let number = chunk.first + index as u64;
            let offset = number * interval as u64;
            let expected = self.expected(number);
            let (profile, single) = (self.profile, &mut self.single.0[..interval]);
            let piece = match data {
                Ok(data) => Ok(&data[index * interval..][..interval]),
                // Somewhere in the chunk: which interval it is, reads of one at a time tell.
                Err(_) => medium.read_exact_at(single, offset).map(|()| &*single),
            };
            let report = |fault| BadInterval { number, offset, fault };
            match piece {
                Ok(piece) => match profile.verify(piece, entry, &expected) {
                    Ok(checked) => self.unprotected += checked.escaped as u64,
                    Err(found) => {
                        let (tag, expected, actual) = (found.tag, found.expected, found.actual);
                        bad(report(Fault::Mismatch { tag, expected, actual }), Some(piece), entry)?;
                    }
                },
                Err(error) => {
                    let errno = Errno(error.raw_os_error().unwrap_or(libc::EIO));
                    bad(report(Fault::Unreadable(errno)), None, entry)?;
                }
            }
        }
        Ok(())
    }

    /// Whether all intervals carry an escape.
    pub(crate) fn all_escaped(&self, metadata: &[u8]) -> bool {
        metadata.chunks_exact(self.profile.metadata_size()).all(|entry| self.profile.is_escaped(entry))
    }
}
