//! A segment: a run of sectors within one granted page.

use crate::refusal::Refusal;
use crate::units::{GrantRef, SECTOR_SIZE};

/// The last sector a page has.
const LAST: u8 = 7;

/// Sectors `first_sector..=last_sector` (of 512 bytes, 0..=7) of the page behind a grant.
/// One that was parsed has `first_sector <= last_sector <= 7`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Segment {
    /// The page.
    pub gref: GrantRef,
    /// Where the run starts.
    pub first_sector: u8,
    /// Where it ends, inclusive.
    pub last_sector: u8,
}

impl Segment {
    /// Bytes from the page's start.
    #[inline]
    pub fn offset(&self) -> usize {
        usize::from(self.first_sector) * SECTOR_SIZE
    }

    /// Bytes in all: 512 to 4096 for a segment that was parsed, 0 where the end precedes the start.
    #[inline]
    pub fn bytes(&self) -> usize {
        (usize::from(self.last_sector) + 1).saturating_sub(usize::from(self.first_sector)) * SECTOR_SIZE
    }

    /// The segment in two words of the wire; `index` is for the message.
    #[inline]
    pub(crate) fn parse(index: usize, gref: u32, bounds: u32) -> Result<Segment, Refusal> {
        // Bytes 6 and 7 are padding, which guests leave uninitialised.
        let [first_sector, last_sector, ..] = bounds.to_le_bytes();
        if first_sector > last_sector || last_sector > LAST {
            return Err(Refusal::Segment { index, first: first_sector, last: last_sector });
        }
        Ok(Segment { gref: GrantRef(gref), first_sector, last_sector })
    }

    /// As two words of the wire, padding zeroed.
    pub(crate) fn words(&self) -> [u32; 2] {
        [self.gref.0, u32::from_le_bytes([self.first_sector, self.last_sector, 0, 0])]
    }
}

/// Bytes of all segments together.
#[inline]
pub fn total_len(segments: &[Segment]) -> usize {
    segments.iter().map(Segment::bytes).sum()
}
