//! Discards: the data punched, then the metadata of whole blocks punched too and escapes put elsewhere, chunk by chunk.

use super::{HOLE, KIND_SHIFT, Request, SidecarQueue};
use crate::io::{Owner, Ring};
use crate::store::file::{Outcome, outcome, punch};
use crate::store::sidecar::BLOCK;
use crate::store::{Completion, Errno};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Most data that one discard locks at a time: a sixteenth of what the range table tells apart.
const CHUNK: u64 = 16 << 20;

impl SidecarQueue {
    /// Goes on with a discard: the next chunk, up to a border between chunks, so that blocks stay whole.
    pub(super) fn next_chunk(&mut self, slot: usize, ring: &mut Ring, done: &mut Vec<Completion>) {
        let layout = &self.shared.pi.layout;
        let interval = layout.interval();
        let chunk = (CHUNK / layout.data_per_block()).max(1) * layout.data_per_block();
        // Blocks that cover more than a chunk are not worth keeping whole.
        let chunk = if chunk > CHUNK { CHUNK } else { chunk } / interval;
        let request = &self.requests[slot];
        // Whole intervals inside the range only.
        let start = request.io.offset.div_ceil(interval).max(request.first);
        let end = (request.io.offset + request.io.bytes) / interval;
        if start >= end || self.hurried {
            return self.end(slot, Ok(()), done);
        }
        let next = ((start / chunk + 1) * chunk).min(end);
        self.requests[slot].first = start;
        self.lock(slot, (next - start) * interval, ring, done);
    }

    /// The data of a chunk is gone: makes holes where blocks are all the chunk's, puts escapes elsewhere.
    pub(super) fn put_escapes(
        &mut self,
        slot: usize,
        blocks: Range<u64>,
        ring: &mut Ring,
        done: &mut Vec<Completion>,
    ) {
        // One more than there is to wait for, until all is started.
        self.requests[slot].left = 1 + (blocks.end - blocks.start) as u32;
        let mut hole: Option<Range<u64>> = None;
        for block in blocks {
            if self.shared.holes.load(Ordering::Relaxed) && self.absent(slot, block) {
                match &mut hole {
                    Some(hole) if hole.end == block => hole.end += 1,
                    _ => {
                        self.make_hole(slot, hole.take(), ring);
                        hole = Some(block..block + 1);
                    }
                }
            } else if self.access(slot, block, false, ring) {
                self.requests[slot].left -= 1;
            }
        }
        self.make_hole(slot, hole, ring);
        self.one_done(slot, ring, done);
    }

    /// Whether a block is all the request's, and not in the cache any more. Nobody else can bring it there meanwhile:
    /// its whole range is locked, and a request that has it fetched keeps its range until it has come.
    fn absent(&self, slot: usize, block: u64) -> bool {
        let Request { first, count, .. } = self.requests[slot];
        self.shared.pi.layout.piece(first, count, block).whole && self.shared.cache.forget(block)
    }

    fn make_hole(&mut self, slot: usize, hole: Option<Range<u64>>, ring: &mut Ring) {
        let Some(hole) = hole else { return };
        let (at, blocks) = (self.shared.pi.layout.position(hole.start), hole.end - hole.start);
        // A run of blocks is one thing to wait for.
        self.requests[slot].left -= blocks as u32 - 1;
        let user_data = Owner::Store.user_data(HOLE << KIND_SHIFT | slot as u64);
        punch(ring, self.shared.pi.medium.fd(), at, blocks * BLOCK as u64, user_data);
    }

    pub(super) fn hole_made(
        &mut self,
        slot: usize,
        result: i32,
        ring: &mut Ring,
        done: &mut Vec<Completion>,
    ) {
        self.shared.maintenance.changed();
        let Request { first, count, .. } = self.requests[slot];
        match outcome(result, 0) {
            Outcome::Done => {}
            Outcome::Failed(Errno(error)) if error != libc::EOPNOTSUPP => self.fail(slot, Errno(error)),
            failed => {
                // Impossible here: from now on everything goes through the cache. Or interrupted. Either way this
                // chunk does so, once more from the start.
                let possible = !matches!(failed, Outcome::Failed(_));
                self.shared.holes.fetch_and(possible, Ordering::Relaxed);
                let blocks = self.shared.pi.layout.blocks_of(first, count);
                self.requests[slot].left += (blocks.end - blocks.start) as u32;
                self.access_all(slot, blocks, ring, done);
            }
        }
        self.one_done(slot, ring, done);
    }
}
