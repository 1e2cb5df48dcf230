//! An answered request.

use blkif::{SECTOR_SIZE, Status};
use integrity::{Checked, Expected};

use super::{Flight, Operation, Queue};
use crate::{Error, Failure};

/// A request that was answered. It borrows the queue; dropping it frees its buffer.
pub struct Completion<'a> {
    queue: &'a mut Queue,
    index: usize,
}

impl<'a> Completion<'a> {
    pub(super) fn new(queue: &'a mut Queue, index: usize) -> Self {
        Self { queue, index }
    }

    fn flight(&self) -> &Flight {
        self.queue.slots[self.index].flight.as_ref().expect("a completion's place is occupied")
    }

    /// The tag it was submitted with.
    pub fn tag(&self) -> u64 {
        self.flight().tag
    }

    /// What was asked.
    pub fn operation(&self) -> Operation {
        self.flight().operation
    }

    /// First sector, of 512 bytes.
    pub fn sector(&self) -> u64 {
        self.flight().sector
    }

    /// Bytes of data.
    pub fn bytes(&self) -> usize {
        self.flight().bytes
    }

    /// Whether PI was sent for, or with it.
    pub fn is_protected(&self) -> bool {
        self.flight().has_payload()
    }

    /// What the backend said of the data slot, and of the payload slot if there was one.
    pub fn statuses(&self) -> (Status, Option<Status>) {
        self.flight().statuses()
    }

    /// Whether the backend did it.
    ///
    /// # Errors
    /// [`Error::Failed`] with [`Failure::Status`].
    pub fn check(&self) -> Result<(), Error> {
        let (data, payload) = self.statuses();
        if data == Status::Okay && payload.is_none_or(|status| status == Status::Okay) {
            return Ok(());
        }
        Err(self.failed(Failure::Status { data, payload }))
    }

    /// Copies out what was read and checks its PI, on the bytes of `into` that the caller then uses.
    /// Without DIX nothing is checked.
    ///
    /// # Errors
    /// [`Error::Failed`] with either failure.
    ///
    /// # Panics
    /// If `into` is not as long as the read.
    pub fn read_into(&mut self, into: &mut [u8]) -> Result<Checked, Error> {
        self.check()?;
        let flight = self.flight();
        assert_eq!(into.len(), flight.bytes, "a place for just what was read");
        let (start, has_payload, sector) =
            (usize::from(flight.first_sector) * SECTOR_SIZE, flight.has_payload(), flight.sector);
        let queue = &mut *self.queue;
        let Some(buffers) = &queue.slots[self.index].buffers else { return Ok(Checked::default()) };
        buffers.data.read(start, into);
        let (Some(profile), Some(pages), true) = (queue.disk.dix, &buffers.metadata, has_payload) else {
            return Ok(Checked::default());
        };
        let metadata = &mut queue.scratch.metadata;
        metadata.resize(profile.metadata_len(into.len()), 0);
        pages.read(0, metadata);
        let reference = sector * SECTOR_SIZE as u64 / profile.interval() as u64;
        profile
            .verify(into, metadata, &Expected::new(reference))
            .map_err(|mismatch| self.failed(mismatch.into()))
    }

    fn failed(&self, failure: Failure) -> Error {
        let flight = self.flight();
        Error::Failed {
            operation: flight.operation.name(),
            sector: flight.sector,
            bytes: flight.bytes,
            failure,
        }
    }
}

impl Drop for Completion<'_> {
    fn drop(&mut self) {
        self.queue.release(self.index);
    }
}
