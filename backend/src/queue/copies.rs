//! A batch of grant copies: built request by request, done in one call, answered request by request.
//!
//! A guest's segments and the private buffer agree on bytes but not on page borders; the hypervisor wants each
//! copy inside one page on both sides, so a segment that starts inside its page may become two copies.

use crate::io::PAGE;
use blkif::Segment;
use hypervisor::{Copier, Copy, Direction, GrantRef, GrantStatus};
use std::ops::Range;

/// A reusable batch.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    batch: Vec<Copy>,
}

impl Copies {
    /// Adds the first `bytes` bytes of `segments`, to or from the private memory at `local`. What the segments hold
    /// beyond is left alone. Gives the copies' place in the batch.
    pub fn add(
        &mut self,
        segments: &[Segment],
        bytes: usize,
        local: *mut u8,
        direction: Direction,
    ) -> Range<usize> {
        let start = self.batch.len();
        let mut done = 0;
        for segment in segments {
            let mut offset = segment.offset();
            let mut left = segment.bytes().min(bytes - done);
            while left > 0 {
                let at = local.wrapping_add(done);
                let len = left.min(PAGE - at.addr() % PAGE);
                self.batch.push(Copy {
                    gref: GrantRef(segment.gref.0),
                    offset: narrow(offset),
                    len: narrow(len),
                    local: at,
                    direction,
                    status: GrantStatus::OKAY,
                });
                offset += len;
                done += len;
                left -= len;
            }
        }
        start..self.batch.len()
    }

    /// Adds one whole granted page.
    pub fn add_page(&mut self, gref: blkif::GrantRef, local: *mut u8, bytes: usize) -> Range<usize> {
        let start = self.batch.len();
        self.batch.push(Copy {
            gref: GrantRef(gref.0),
            offset: 0,
            len: narrow(bytes),
            local,
            direction: Direction::FromGuest,
            status: GrantStatus::OKAY,
        });
        start..self.batch.len()
    }

    /// How many copies wait.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Does them all. A call that fails as a whole fails each of its copies.
    ///
    /// # Errors
    /// Why the call failed, for the log; each copy has its status all the same.
    ///
    /// # Safety
    /// The private memory of every copy added is valid and untouched by anyone else during the call.
    pub unsafe fn run(&mut self, copier: &mut dyn Copier) -> Result<(), hypervisor::Error> {
        // SAFETY: the caller's promise.
        let result = unsafe { copier.copy(&mut self.batch) };
        if result.is_err() {
            for copy in &mut self.batch {
                copy.status = GrantStatus::GENERAL_ERROR;
            }
        }
        result
    }

    /// The first status that is not okay among the copies of `place`.
    pub fn fault(&self, place: &Range<usize>) -> Option<(GrantRef, GrantStatus)> {
        self.batch[place.clone()]
            .iter()
            .find(|copy| !copy.status.is_okay())
            .map(|copy| (copy.gref, copy.status))
    }

    /// Empties the batch, keeping its memory.
    pub fn clear(&mut self) {
        self.batch.clear();
    }
}

/// Offsets and lengths within a page fit 16 bits.
fn narrow(n: usize) -> u16 {
    debug_assert!(n <= PAGE);
    u16::try_from(n).unwrap_or(u16::MAX)
}
