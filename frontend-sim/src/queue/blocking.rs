//! Requests for callers that want to wait: any length, cut into requests and sent at the queue's depth.

use blkif::SECTOR_SIZE;
use integrity::Checked;

use super::{Queue, Submission};
use crate::{Error, Grants};

impl Queue {
    /// Reads `into.len()` bytes from byte `offset` of the disk on. All PI is checked; the answer says how
    /// many intervals carried an escape instead.
    ///
    /// # Errors
    /// The first failure, after everything in flight has come back; what of `into` was read is then
    /// unspecified. [`Error::Request`] for an offset or length that is not whole blocks.
    pub fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<Checked, Error> {
        self.whole_blocks(offset, into.len())?;
        let most = self.largest();
        let len = into.len();
        let (mut sent, mut first_error) = (0, None);
        let mut checked = Checked::default();
        loop {
            while sent < len && self.free() > 0 && first_error.is_none() {
                let bytes = most.min(len - sent);
                let sector = (offset + sent as u64) / SECTOR_SIZE as u64;
                self.submit(&Submission::read(sector, bytes).tagged(sent as u64))?;
                sent += bytes;
            }
            let Some(mut done) = self.complete()? else { break };
            let (at, bytes) = (done.tag() as usize, done.bytes());
            match done.read_into(&mut into[at..at + bytes]) {
                Ok(one) => checked.escaped += one.escaped,
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(checked), Err)
    }

    /// Writes `from` from byte `offset` of the disk on.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub fn write_at(&mut self, offset: u64, from: &[u8]) -> Result<(), Error> {
        self.whole_blocks(offset, from.len())?;
        let most = self.largest();
        let (mut sent, mut first_error) = (0, None);
        loop {
            while sent < from.len() && self.free() > 0 && first_error.is_none() {
                let bytes = most.min(from.len() - sent);
                let sector = (offset + sent as u64) / SECTOR_SIZE as u64;
                self.submit(&Submission::write(sector, &from[sent..sent + bytes]))?;
                sent += bytes;
            }
            let Some(done) = self.complete()? else { break };
            if let Err(error) = done.check() {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Makes what was acknowledged durable. Where the backend offers no flush, a barrier; else nothing.
    ///
    /// # Errors
    /// [`Error::Failed`] and the queue's own.
    pub fn flush(&mut self) -> Result<(), Error> {
        if self.disk.flush {
            return self.run(&Submission::flush());
        }
        if self.disk.barrier {
            return self.run(&Submission::barrier(0, &[]));
        }
        Ok(())
    }

    /// Gives up `bytes` from byte `offset` on.
    ///
    /// # Errors
    /// [`Error::Failed`] and the queue's own.
    pub fn discard(&mut self, offset: u64, bytes: u64) -> Result<(), Error> {
        let sector = SECTOR_SIZE as u64;
        if !offset.is_multiple_of(sector) || !bytes.is_multiple_of(sector) {
            return Err(Error::Request("a discard is of whole sectors"));
        }
        self.run(&Submission::discard(offset / sector, bytes / sector))
    }

    /// Sends one request and waits until everything in flight has come back.
    ///
    /// # Errors
    /// [`Error::Failed`] for the first that failed, and the queue's own.
    pub fn run(&mut self, submission: &Submission<'_>) -> Result<(), Error> {
        self.submit(submission)?;
        let mut first_error = None;
        while let Some(done) = self.complete()? {
            if let Err(error) = done.check() {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Puts the same bytes into every buffer, for [`Source::Placed`](super::Source::Placed). `false` where
    /// buffers are made for each request, so that there are none.
    ///
    /// # Panics
    /// If they are longer than the largest request.
    pub fn fill(&mut self, bytes: &[u8]) -> bool {
        for buffers in self.slots.iter().filter_map(|slot| slot.buffers.as_ref()) {
            buffers.data.write(0, bytes);
        }
        self.supply.grants == Grants::Kept
    }

    /// The largest request that is whole blocks.
    fn largest(&self) -> usize {
        let block = self.disk.block();
        self.disk.max_bytes() / block * block
    }

    fn whole_blocks(&self, offset: u64, len: usize) -> Result<(), Error> {
        let block = self.disk.block();
        if !offset.is_multiple_of(block as u64) || !len.is_multiple_of(block) {
            return Err(Error::Request("start and length are whole blocks of the disk"));
        }
        Ok(())
    }
}
