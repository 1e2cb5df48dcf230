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
        let chunk = chunk(&request.io, request.discarded, self.store.discard);
        if chunk.is_empty() || self.hurried {
            return self.end(slot, Ok(()), done);
        }
        self.lock(slot, chunk, ring, done);
    }

    pub(super) fn discard_chunk(&mut self, slot: usize, ring: &mut Ring) {
        let Request { io, scratch, left, discarded, .. } = &mut self.requests[slot];
        let Some(scratch) = scratch else { return };
        *left = 1;
        self.store.way.discard(ring, chunk(io, *discarded, self.store.discard), scratch, user_data(slot, 0));
    }
}

/// What of a discard is next, `done` bytes of it being done: up to a border between chunks of `most` bytes.
pub(super) fn chunk(io: &Io, done: u64, most: u64) -> Range<u64> {
    let (start, end) = (io.offset + done, io.offset + io.bytes);
    start..end.min((start / most + 1) * most)
}

/// How much of a discard is done at a time where the device takes `most` bytes: whole blocks, one at least.
pub(in super::super) fn at_once(most: u64, block: u32) -> u64 {
    let block = u64::from(block);
    (most.min(CHUNK) / block).max(1) * block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Op;

    #[test]
    fn discard_when_the_device_takes_little_goes_in_pieces_of_no_more() {
        for (most, block, expected) in
            [(u64::MAX, 4096, CHUNK), (1 << 20, 512, 1 << 20), (10_000, 4096, 8192), (1, 512, 512)]
        {
            assert_eq!(at_once(most, block), expected);
        }
        let io = Io { id: 0, op: Op::Discard, offset: 4096, bytes: 20_480, buffer: None };
        let most = at_once(10_000, 4096);
        let (mut done, mut pieces) = (0, Vec::new());
        loop {
            let piece = chunk(&io, done, most);
            if piece.is_empty() {
                break;
            }
            done += piece.end - piece.start;
            pieces.push(piece);
        }
        assert_eq!(pieces, [4096..8192, 8192..16_384, 16_384..24_576]);
    }
}
