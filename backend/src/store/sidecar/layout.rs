//! Where each interval's metadata lies in a sidecar: in blocks of 4 KiB, no entry across two of them.
//!
//! ```text
//! block 0               block 1
//! | m0 | m1 | .. |slack | m.. |          `per_block` entries each; the slack is smaller than one entry
//! ```
#![forbid(unsafe_code)]

use integrity::Profile;
use std::ops::Range;

/// Bytes of a sidecar block, the unit in which the sidecar is read, cached and written.
pub const BLOCK: usize = 4096;

/// The metadata area of one sidecar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    intervals: u64,
    interval: u32,
    entry: u32,
    per_block: u32,
    /// Where block 0 starts in the sidecar, in bytes.
    start: u64,
}

/// The part of a run of intervals that lies in one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The block's number.
    pub block: u64,
    /// The bytes of the block.
    pub in_block: Range<usize>,
    /// The same bytes in the run's metadata.
    pub in_run: Range<usize>,
    /// Whether these are all entries that the block has room for. A last block that is not full is never whole: the disk
    /// may grow into it.
    pub whole: bool,
}

impl Layout {
    /// The layout for `data_bytes` of data, a whole number of intervals, with metadata from `start` on.
    pub fn new(profile: &Profile, data_bytes: u64, start: u64) -> Self {
        let interval = profile.spec().interval;
        let entry = u32::from(profile.spec().metadata_size);
        let intervals = data_bytes / u64::from(interval);
        Self { intervals, interval, entry, per_block: BLOCK as u32 / entry, start }
    }

    /// How many intervals the disk has.
    pub fn intervals(&self) -> u64 {
        self.intervals
    }

    /// Bytes of data in an interval.
    pub fn interval(&self) -> u64 {
        u64::from(self.interval)
    }

    /// Bytes of metadata of an interval.
    pub fn entry(&self) -> usize {
        self.entry as usize
    }

    /// How many blocks hold them all.
    pub fn blocks(&self) -> u64 {
        self.intervals.div_ceil(u64::from(self.per_block))
    }

    /// Bytes of data whose metadata fills a block.
    pub fn data_per_block(&self) -> u64 {
        u64::from(self.per_block) * self.interval()
    }

    /// Where a block starts in the sidecar, in bytes.
    pub fn position(&self, block: u64) -> u64 {
        self.start + block * BLOCK as u64
    }

    /// The blocks that hold the metadata of `count` intervals from `first` on; `count` is not 0.
    pub fn blocks_of(&self, first: u64, count: u64) -> Range<u64> {
        let per_block = u64::from(self.per_block);
        first / per_block..(first + count - 1) / per_block + 1
    }

    /// What of the run of `count` intervals from `first` on lies in `block`, which is one of
    /// [`blocks_of`](Self::blocks_of) it.
    pub fn piece(&self, first: u64, count: u64, block: u64) -> Piece {
        let entry = self.entry();
        let block_first = block * u64::from(self.per_block);
        let block_end = block_first + u64::from(self.per_block);
        let (from, to) = (first.max(block_first), (first + count).min(block_end));
        // Both differences are bounded by a block's entries or the run's length, which is in memory.
        let bytes = |intervals: u64| intervals as usize * entry;
        Piece {
            block,
            in_block: bytes(from - block_first)..bytes(to - block_first),
            in_run: bytes(from - first)..bytes(to - first),
            whole: from == block_first && to == block_end,
        }
    }

    /// All pieces of a run, in order.
    pub fn pieces(&self, first: u64, count: u64) -> impl Iterator<Item = Piece> {
        let layout = *self;
        self.blocks_of(first, count).map(move |block| layout.piece(first, count, block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use integrity::{Guard, PiType, ProfileSpec};

    fn profile(metadata_size: u16, interval: u32) -> Profile {
        let (guard, pi_type) = (Guard::None, PiType::Type0);
        Profile::new(ProfileSpec { guard, interval, metadata_size, pi_offset: 0, tag_size: 0, pi_type })
            .unwrap()
    }

    #[test]
    fn pieces_when_entries_leave_slack_cover_the_run_once_and_never_straddle() {
        for (size, interval, intervals) in
            [(8, 512, 4096), (16, 4096, 999), (255, 512, 100), (9, 512, 456), (1, 512, 1)]
        {
            let layout = Layout::new(&profile(size, interval), intervals * u64::from(interval), 8192);
            assert_eq!(layout.intervals(), intervals);
            let per_block = u64::from(4096 / u32::from(size));
            for first in (0..intervals).step_by(37) {
                for count in [1, 2, per_block, intervals - first] {
                    let count = count.min(intervals - first);
                    let mut next = 0;
                    for piece in layout.pieces(first, count) {
                        assert!(piece.block < layout.blocks());
                        assert_eq!(piece.in_run.start, next);
                        assert_eq!(piece.in_run.len(), piece.in_block.len());
                        assert!(!piece.in_run.is_empty() && piece.in_block.end <= BLOCK);
                        let interval = first + (piece.in_run.start / usize::from(size)) as u64;
                        assert_eq!(piece.block, interval / per_block);
                        assert_eq!(piece.in_block.start as u64, interval % per_block * u64::from(size));
                        next = piece.in_run.end;
                    }
                    assert_eq!(next as u64, count * u64::from(size));
                }
            }
        }
    }

    #[test]
    fn whole_when_the_last_block_is_short_is_false_for_the_disk_may_grow_into_it() {
        let layout = Layout::new(&profile(8, 512), 600 * 512, 0);
        assert_eq!(layout.blocks(), 2);
        assert!(layout.piece(0, 600, 0).whole && !layout.piece(0, 600, 1).whole);
        assert!(!layout.piece(1, 599, 0).whole && layout.piece(0, 1024, 1).whole);
        assert_eq!((layout.data_per_block(), layout.position(3)), (512 * 512, 3 * 4096));
    }
}
