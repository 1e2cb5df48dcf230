//! The ring as it is, for tests that misbehave.

use blkif::{FrontRing, RawResponse, RawSlot, SharedMemory};
use hypervisor::{EventChannel, GrantRef, Shared};

use super::{Operation, Queue, Submission};
use crate::Error;

/// A queue's ring, channel and pages, unguarded.
pub struct Raw<'a> {
    queue: &'a mut Queue,
}

impl<'a> Raw<'a> {
    pub(super) fn new(queue: &'a mut Queue) -> Self {
        Self { queue }
    }

    /// Writes any slot. It takes an entry of the ring that the queue counts as its own.
    ///
    /// # Errors
    /// [`Error::Ring`] when the ring is full.
    pub fn push(&mut self, slot: &RawSlot) -> Result<(), Error> {
        self.queue.push_raw(slot)
    }

    /// The slots that a submission would be, unsent, with buffer `index` as its pages.
    ///
    /// # Panics
    /// If there is no such buffer, or buffers are not kept.
    pub fn slots(&mut self, index: usize, submission: &Submission<'_>) -> Vec<RawSlot> {
        let queue = &mut *self.queue;
        let buffers = queue.slots[index].buffers.as_ref().expect("kept buffers");
        let flight = super::Flight::prepare(
            submission,
            buffers,
            &queue.disk,
            queue.sequence + 1,
            index,
            &mut queue.scratch,
        );
        debug_assert!(matches!(flight.operation, Operation::Read) || !flight.raw.is_empty());
        flight.raw.to_vec()
    }

    /// Publishes what was pushed, and notifies the backend whether it asked for that or not.
    ///
    /// # Errors
    /// [`Error::Hypervisor`].
    pub fn kick(&mut self) -> Result<(), Error> {
        let _ = self.queue.ring.front.publish();
        self.queue.ring.event.notify()?;
        Ok(())
    }

    /// Takes a response as it is.
    ///
    /// # Errors
    /// [`Error::Ring`].
    pub fn take_response(&mut self) -> Result<Option<RawResponse>, Error> {
        Ok(self.queue.ring.front.take_response()?)
    }

    /// The ring, and through it the memory with its indexes.
    pub fn ring(&mut self) -> &mut FrontRing<SharedMemory> {
        &mut self.queue.ring.front
    }

    /// The ring's pages, to revoke them.
    pub fn ring_pages(&self) -> &Shared {
        &self.queue.ring.pages
    }

    /// The channel, to notify without reason.
    pub fn event(&self) -> &dyn EventChannel {
        &*self.queue.ring.event
    }

    /// The data pages of a buffer, to change or revoke them.
    ///
    /// # Panics
    /// If there is no such buffer, or buffers are not kept.
    pub fn data(&self, index: usize) -> &Shared {
        &self.queue.slots[index].buffers.as_ref().expect("kept buffers").data
    }

    /// The metadata pages of a buffer; none without DIX.
    ///
    /// # Panics
    /// As [`data`](Self::data).
    pub fn metadata(&self, index: usize) -> Option<&Shared> {
        self.queue.slots[index].buffers.as_ref().expect("kept buffers").metadata.as_ref()
    }

    /// References of a buffer's data pages.
    ///
    /// # Panics
    /// As [`data`](Self::data).
    pub fn refs(&self, index: usize) -> Vec<GrantRef> {
        self.data(index).refs().to_vec()
    }
}
