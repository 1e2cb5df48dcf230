//! What requests are held against: what the backend offered, and what the disk's PI is like.

use crate::refusal::Refusal;
use crate::units::{PAGE_SIZE, Sectors};

/// Segments of a request that holds them itself (BLKIF_MAX_SEGMENTS_PER_REQUEST).
pub const MAX_SEGMENTS: usize = 11;

/// Pages of segments of an indirect request (BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST).
pub const MAX_INDIRECT_PAGES: usize = 8;

/// Segments that fit those pages: 512 in each.
pub const MAX_INDIRECT_SEGMENTS: u16 = 4096;

/// What requests of one ring are held against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `feature-max-indirect-segments` as offered; 0: not offered, and an indirect request is
    /// answered EOPNOTSUPP. More than [`MAX_INDIRECT_SEGMENTS`] counts as that many.
    pub max_indirect: u16,
    /// The disk's PI, where DIX was offered and the frontend accepted it; none: flagged requests
    /// are answered EOPNOTSUPP.
    pub dix: Option<DixLimits>,
}

impl Default for Limits {
    /// What Linux's backend offers: 256 indirect segments; no DIX.
    fn default() -> Self {
        Self { max_indirect: 256, dix: None }
    }
}

/// What pairing must know of the disk's PI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DixLimits {
    /// `data-integrity-interval`: bytes of data that one tuple protects; a multiple of 512.
    pub interval: u32,
    /// `data-integrity-metadata-size`: bytes of metadata for each interval.
    pub metadata_size: u16,
}

impl DixLimits {
    /// Bytes that the largest payload slot can carry.
    pub const MAX_PAYLOAD: usize = MAX_SEGMENTS * PAGE_SIZE;

    /// The most indirect segments, up to `cap`, whose payload still fits one slot: the value of
    /// `feature-max-indirect-segments` beside DIX.
    pub fn max_indirect(&self, cap: u16) -> u16 {
        let metadata = u64::from(self.metadata_size).max(1);
        let intervals = u64::try_from(Self::MAX_PAYLOAD).unwrap_or(0) / metadata;
        let bytes = intervals * u64::from(self.interval);
        let segments = bytes / u64::try_from(PAGE_SIZE).unwrap_or(1);
        u16::try_from(segments).unwrap_or(u16::MAX).min(cap).min(MAX_INDIRECT_SEGMENTS)
    }

    /// Bytes of metadata that belong to `data_len` bytes from `start` on.
    ///
    /// # Errors
    /// [`Refusal::Unaligned`] where start or length is no multiple of the interval.
    pub fn metadata_len(&self, start: Sectors, data_len: usize) -> Result<usize, Refusal> {
        let refusal = Refusal::Unaligned { sector: start, bytes: data_len, interval: self.interval };
        let (Ok(interval), false) = (usize::try_from(self.interval), self.interval < 512) else {
            return Err(refusal);
        };
        if !data_len.is_multiple_of(interval) || !start.0.is_multiple_of(u64::from(self.interval / 512)) {
            return Err(refusal);
        }
        Ok(data_len / interval * usize::from(self.metadata_size))
    }
}
