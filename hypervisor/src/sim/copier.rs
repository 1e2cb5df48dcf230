//! Copies, without a broker, a lock or a system call: check the entry, copy the bytes.

use std::sync::Arc;

use super::client::{Handle, Peer};
use super::table::{enter, leave};
use super::wire::call;
use crate::backend::validate;
use crate::counters::CopyCounters;
use crate::{Copier, Copy, Direction, DomId, Error, GrantStatus, PAGE_SIZE, memory};

/// One queue's copier on one domain.
pub(super) struct SimCopier {
    pub(super) handle: Arc<Handle>,
    pub(super) peer: Arc<Peer>,
    pub(super) slot: usize,
    pub(super) counters: Arc<CopyCounters>,
}

impl Copier for SimCopier {
    unsafe fn copy(&mut self, batch: &mut [Copy]) -> Result<(), Error> {
        validate(batch)?;
        let (mut bytes, mut failures) = (0, 0);
        let me = self.handle.id();
        let slot = self.peer.table.slot(self.slot);
        enter(slot);
        let dead = self.peer.table.is_dead();
        for copy in batch.iter_mut() {
            copy.status = match copy.len {
                0 => GrantStatus::OKAY,
                _ if dead => GrantStatus::BAD_DOMAIN,
                // SAFETY: the caller vouches for `local`; `validate` kept both sides inside their pages.
                _ => unsafe { one(&self.peer, me, copy) },
            };
            if copy.status.is_okay() {
                bytes += u64::from(copy.len);
            } else {
                failures += 1;
            }
        }
        leave(slot);
        self.counters.add(batch.len() as u64, bytes, failures);
        Ok(())
    }
}

/// Does one copy.
///
/// # Safety
/// `local` is good for `len` bytes, and `offset + len` is at most a page.
#[inline(always)]
unsafe fn one(peer: &Peer, me: DomId, copy: &Copy) -> GrantStatus {
    let entry = match peer.table.entry(copy.gref) {
        Ok(entry) => entry,
        Err(status) => return status,
    };
    let status = entry.check(me, copy.direction == Direction::ToGuest);
    if !status.is_okay() {
        return status;
    }
    let at = entry.frame as usize * PAGE_SIZE;
    if at >= peer.memory.len() {
        return GrantStatus::BAD_PAGE;
    }
    let guest = peer.memory.base().wrapping_add(at + usize::from(copy.offset));
    let (from, into) = match copy.direction {
        Direction::FromGuest => (guest.cast_const(), copy.local),
        Direction::ToGuest => (copy.local.cast_const(), guest),
    };
    // SAFETY: the guest's bytes are inside one page of its mapped memory (memory is whole pages), the
    // others are the caller's promise; private memory does not overlap a guest's.
    unsafe { memory::copy(from, into, usize::from(copy.len)) };
    GrantStatus::OKAY
}

impl Drop for SimCopier {
    fn drop(&mut self) {
        self.handle.counters().retire(&self.counters);
        self.handle.forget(&[call::COPIER_END, self.peer.incarnation, self.slot as u64]);
    }
}
