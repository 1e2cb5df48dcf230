//! Copies: gntdev's GRANT_COPY, one ioctl per batch.

use std::sync::Arc;

use super::device::Device;
use super::uapi::{CopySegment, DEST_GREF, Foreign, GrantCopy, SOURCE_GREF, Side, call};
use crate::backend::validate;
use crate::counters::{CopyCounters, Counters};
use crate::{Copier, Copy, Direction, DomId, Error, GrantRef, GrantStatus};

/// One queue's copier on one domain.
pub(super) struct XenCopier {
    device: Arc<Device>,
    domain: DomId,
    /// The last batch, kept for its memory.
    segments: Segments,
    counters: Arc<Counters>,
    own: Arc<CopyCounters>,
}

struct Segments(Vec<CopySegment>);

// SAFETY: addresses of a batch that is done; they are used within `copy` only, where the caller vouches for them.
unsafe impl Send for Segments {}

impl XenCopier {
    /// A copier on `domain`.
    pub(super) fn new(device: Arc<Device>, domain: DomId, counters: Arc<Counters>) -> Self {
        let own = counters.copier();
        Self { device, domain, segments: Segments(Vec::new()), counters, own }
    }
}

impl Copier for XenCopier {
    unsafe fn copy(&mut self, batch: &mut [Copy]) -> Result<(), Error> {
        validate(batch)?;
        let segments = &mut self.segments.0;
        segments.clear();
        segments.extend(batch.iter().map(|copy| segment(self.domain, copy)));
        // SAFETY: the caller vouches for the local sides; `segments` is as long as it says.
        unsafe { copy_all(&self.device, segments) }?;
        let (mut bytes, mut failures) = (0, 0);
        for (copy, done) in batch.iter_mut().zip(segments) {
            copy.status = GrantStatus(done.status);
            if copy.status.is_okay() {
                bytes += u64::from(copy.len);
            } else {
                failures += 1;
            }
        }
        self.own.add(batch.len() as u64, bytes, failures);
        Ok(())
    }
}

impl Drop for XenCopier {
    fn drop(&mut self) {
        self.counters.retire(&self.own);
    }
}

/// A copy as gntdev wants it.
fn segment(domain: DomId, copy: &Copy) -> CopySegment {
    let foreign = Side { foreign: Foreign { gref: copy.gref.0, offset: copy.offset, domid: domain.0 } };
    let local = Side { local: copy.local.cast() };
    let (source, dest, flags) = match copy.direction {
        Direction::FromGuest => (foreign, local, SOURCE_GREF),
        Direction::ToGuest => (local, foreign, DEST_GREF),
    };
    // What the kernel does not come to is not done.
    CopySegment { source, dest, len: copy.len, flags, status: GrantStatus::GENERAL_ERROR.0 }
}

/// Does the copies.
///
/// # Safety
/// Each local side is valid for its length, and no reference to those bytes is used meanwhile.
unsafe fn copy_all(device: &Device, segments: &mut [CopySegment]) -> Result<(), Error> {
    let count = u32::try_from(segments.len()).map_err(|_| Error::Invalid { what: "too many copies" })?;
    if count == 0 {
        return Ok(());
    }
    let mut batch = GrantCopy { count, segments: segments.as_mut_ptr() };
    // SAFETY: `count` of `segments`; their local sides are the caller's promise.
    unsafe { call(device, &mut batch) }.map(drop).map_err(Error::system("copying grants"))
}

/// What Xen says of reading a byte of a grant; nothing if it could not be asked.
pub(super) fn probe(device: &Device, domain: DomId, gref: GrantRef) -> Option<GrantStatus> {
    let mut byte = 0u8;
    let copy = Copy {
        gref,
        offset: 0,
        len: 1,
        local: &raw mut byte,
        direction: Direction::FromGuest,
        status: GrantStatus::OKAY,
    };
    let mut segments = [segment(domain, &copy)];
    // SAFETY: one byte of this function's own, which nobody looks at meanwhile.
    let outcome = unsafe { copy_all(device, &mut segments) };
    outcome.ok().map(|()| GrantStatus(segments[0].status))
}
