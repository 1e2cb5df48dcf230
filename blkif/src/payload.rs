//! The payload slot of a DIX pair: where the protection information of the data slot before it is.

use arrayvec::ArrayVec;

use crate::limits::{DixLimits, MAX_SEGMENTS};
use crate::refusal::Refusal;
use crate::response::{Response, Status};
use crate::segment::{Segment, total_len};
use crate::units::Sectors;
use crate::wire;

/// A parsed payload slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload {
    /// The payload slot's own id.
    pub id: u64,
    /// Where the metadata is, packed from the first segment's start; 1 to 11 of them, whose last may
    /// have slack.
    pub segments: ArrayVec<Segment, MAX_SEGMENTS>,
}

impl Payload {
    /// Bytes of metadata that `data_len` bytes of data from `start` on need, if the data is whole
    /// intervals and the segments have room for that. Pairing has checked it where the data slot
    /// holds its segments; after an indirect request's segments are known, the caller asks here.
    ///
    /// # Errors
    /// [`Refusal::Unaligned`] or [`Refusal::PayloadTooShort`]; both slots get ERROR then.
    #[inline]
    pub fn needed(&self, dix: &DixLimits, start: Sectors, data_len: usize) -> Result<usize, Refusal> {
        let needed = dix.metadata_len(start, data_len)?;
        let actual = total_len(&self.segments);
        if actual < needed {
            return Err(Refusal::PayloadTooShort { needed, actual });
        }
        Ok(needed)
    }

    /// The payload slot's response: the pair's status, which may name a tag that did not match.
    #[inline]
    pub fn response(&self, status: Status) -> Response {
        Response { id: self.id, operation: wire::OP_INTEGRITY, status }
    }
}
