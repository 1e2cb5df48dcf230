//! Discards, chunk by chunk.
#![forbid(unsafe_code)]

use super::{DeviceQueue, Request, user_data};
use crate::io::Ring;
use crate::store::{Completion, Io};
use std::ops::Range;

/// Most data that one discard locks at a time: a quarter of what the range table tells apart.
const CHUNK: u64 = 64 << 20;

impl DeviceQueue {
    /// Goes on with a discard, chunk by chunk.
    pub(super) fn discard(&mut self, slot: usize, ring: &mut Ring, done: &mut Vec<Completion>) {
        let request = &self.requests[slot];
        let chunk = chunk(&request.io, request.discarded);
        if chunk.is_empty() || self.hurried {
            return self.end(slot, Ok(()), done);
        }
        self.lock(slot, chunk, ring, done);
    }

    pub(super) fn discard_chunk(&mut self, slot: usize, ring: &mut Ring) {
        let Request { io, scratch, left, discarded, .. } = &mut self.requests[slot];
        let Some(scratch) = scratch else { return };
        *left = 1;
        self.store.way.discard(ring, chunk(io, *discarded), scratch, user_data(slot, 0));
    }
}

/// What of a discard is next, `done` bytes of it being done: up to a border between chunks.
pub(super) fn chunk(io: &Io, done: u64) -> Range<u64> {
    let (start, end) = (io.offset + done, io.offset + io.bytes);
    start..end.min((start / CHUNK + 1) * CHUNK)
}
