//! One queue of a device: its tags' descriptors, the entries that fetch and commit, and the copies.
//!
//! ```text
//! fetch(tag) -> [completion: IO_RES_OK] -> request(tag) -> read_data, read_integrity      (a write)
//!                                                       -> write_data, write_integrity    (a read)
//!            <- the same, by commit(tag, result) <-------
//! ```
//!
//! Copies are possible from the completion that delivers a request to the commit that answers it, from the thread that
//! fetched, in any order.

use crate::uapi::{self, IoCmd, IoDesc};
use crate::{Error, Info};
use io_uring::{opcode, squeue, types};
use memmap2::{MmapOptions, MmapRaw};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;
use zerocopy::IntoBytes;

/// Most bytes of a request that the offsets of the copies have room for.
pub const MAX_REQUEST: u32 = 1 << uapi::IO_BUF_BITS;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Fill the request's buffers.
    Read,
    /// Store what is in them.
    Write,
    /// Make everything written durable.
    Flush,
    /// The range is not needed any more.
    Discard,
    /// Store zeroes; there is no data.
    WriteZeroes,
    /// An operation this library has no use for.
    Other(u8),
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// Where, in bytes on the device.
    pub offset: u64,
    /// How much, in bytes.
    pub bytes: u64,
    /// Durably, before it is answered.
    pub fua: bool,
    /// It has integrity metadata: reference tags count the device's intervals from 0.
    pub integrity: bool,
}

/// A device's character device, open; one process at a time has it.
#[derive(Debug)]
pub struct Device {
    file: File,
    info: Info,
    page: usize,
}

impl Device {
    /// Opens it. A device that was just added may not have its node yet: that is waited for, two seconds at most.
    ///
    /// # Errors
    /// [`Error::Device`]; EBUSY: a server has it.
    pub fn open(info: Info) -> Result<Arc<Self>, Error> {
        let path = format!("/dev/ublkc{}", info.id);
        let mut tries = 0;
        let file = loop {
            match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => break file,
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 200 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(source) => return Err(Error::Device { path, doing: "cannot open", source }),
            }
        };
        Ok(Arc::new(Self { file, info, page: rustix::param::page_size() }))
    }

    /// What it is.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// One of its queues. It belongs to one thread.
    ///
    /// # Errors
    /// [`Error::Device`]: its descriptors cannot be mapped.
    pub fn queue(self: &Arc<Self>, index: u16) -> Result<Queue, Error> {
        let length = usize::from(self.info.depth) * size_of::<IoDesc>();
        // Each queue's descriptors start where those of the deepest possible queue before it would end.
        let stride = usize::from(uapi::MAX_QUEUE_DEPTH) * size_of::<IoDesc>();
        let stride = u64::try_from(stride.next_multiple_of(self.page)).unwrap_or(u64::MAX);
        let descriptors = MmapOptions::new()
            .len(length.next_multiple_of(self.page))
            .offset(uapi::CMD_BUF_OFFSET + u64::from(index) * stride)
            .map_raw_read_only(&self.file)
            .map_err(|source| Error::Device {
                path: format!("/dev/ublkc{}", self.info.id),
                doing: "cannot map a queue's descriptors",
                source,
            })?;
        Ok(Queue { device: Arc::clone(self), descriptors, index })
    }
}

/// A queue. See the module's head.
#[derive(Debug)]
pub struct Queue {
    device: Arc<Device>,
    descriptors: MmapRaw,
    index: u16,
}

impl Queue {
    /// How many tags it has.
    pub fn depth(&self) -> u16 {
        self.device.info.depth
    }

    /// The entry that fetches a tag's first request. It names no memory. Its completion has the result
    /// [`uapi::IO_RES_OK`] when there is a request; any other means that this tag carries none any more.
    pub fn fetch(&self, tag: u16) -> squeue::Entry {
        self.entry(uapi::IO_FETCH_REQ, tag, 0)
    }

    /// The entry that answers a tag's request and fetches the next: bytes done (0 for operations without data), or a
    /// negated error number. EILSEQ reaches the submitter as "invalid protection information". It names no memory.
    pub fn commit(&self, tag: u16, result: i32) -> squeue::Entry {
        self.entry(uapi::IO_COMMIT_AND_FETCH_REQ, tag, result)
    }

    fn entry(&self, operation: u32, tag: u16, result: i32) -> squeue::Entry {
        let command = IoCmd { q_id: self.index, tag, result, addr: 0 };
        let mut bytes = [0; size_of::<IoCmd>()];
        bytes.copy_from_slice(command.as_bytes());
        opcode::UringCmd16::new(types::Fd(self.device.file.as_raw_fd()), operation).cmd(bytes).build()
    }

    /// The request that a completion has delivered on `tag`.
    ///
    /// # Panics
    /// If the queue has no such tag.
    pub fn request(&self, tag: u16) -> Request {
        assert!(tag < self.depth(), "tag {tag} of a queue of {}", self.depth());
        let descriptors: *const IoDesc = self.descriptors.as_ptr().cast();
        let descriptor = descriptors.wrapping_add(tag.into());
        // SAFETY: inside the mapping, which has a descriptor for every tag and is page-aligned; the kernel wrote this
        // one before it posted the completion, and writes it again only after the commit. Volatile, for the mapping is
        // shared.
        decode(&unsafe { descriptor.read_volatile() })
    }

    /// Copies a write's data out of the request.
    ///
    /// # Errors
    /// The kernel's; nothing is assumed of `data` then.
    pub fn read_data(&self, tag: u16, data: &mut [u8]) -> io::Result<()> {
        self.read(position(self.index, tag), data)
    }

    /// Copies a write's metadata out of the request.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_integrity(&self, tag: u16, metadata: &mut [u8]) -> io::Result<()> {
        self.read(position(self.index, tag) | uapi::IO_INTEGRITY_FLAG, metadata)
    }

    /// Copies a read's data into the request.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_data(&self, tag: u16, data: &[u8]) -> io::Result<()> {
        self.write(position(self.index, tag), data)
    }

    /// Copies a read's metadata into the request.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_integrity(&self, tag: u16, metadata: &[u8]) -> io::Result<()> {
        self.write(position(self.index, tag) | uapi::IO_INTEGRITY_FLAG, metadata)
    }

    fn read(&self, mut at: u64, mut to: &mut [u8]) -> io::Result<()> {
        while !to.is_empty() {
            let done = rustix::io::pread(&self.device.file, &mut *to, at)?;
            to = to.get_mut(done..).filter(|_| done > 0).ok_or(io::ErrorKind::UnexpectedEof)?;
            at += u64::try_from(done).unwrap_or(0);
        }
        Ok(())
    }

    fn write(&self, mut at: u64, mut from: &[u8]) -> io::Result<()> {
        while !from.is_empty() {
            let done = rustix::io::pwrite(&self.device.file, from, at)?;
            from = from.get(done..).filter(|_| done > 0).ok_or(io::ErrorKind::WriteZero)?;
            at += u64::try_from(done).unwrap_or(0);
        }
        Ok(())
    }
}

/// Where on the character device a request's data begins.
fn position(queue: u16, tag: u16) -> u64 {
    uapi::IO_BUF_OFFSET + (u64::from(queue) << uapi::QID_OFF | u64::from(tag) << uapi::TAG_OFF)
}

fn decode(descriptor: &IoDesc) -> Request {
    let IoDesc { op_flags, nr_sectors, start_sector, .. } = *descriptor;
    let [operation, ..] = op_flags.to_le_bytes();
    Request {
        operation: match operation {
            uapi::IO_OP_READ => Operation::Read,
            uapi::IO_OP_WRITE => Operation::Write,
            uapi::IO_OP_FLUSH => Operation::Flush,
            uapi::IO_OP_DISCARD => Operation::Discard,
            uapi::IO_OP_WRITE_ZEROES => Operation::WriteZeroes,
            other => Operation::Other(other),
        },
        offset: start_sector.saturating_mul(512),
        bytes: u64::from(nr_sectors) * 512,
        fua: op_flags & uapi::IO_F_FUA != 0,
        integrity: op_flags & uapi::IO_F_INTEGRITY != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_when_compiled_from_the_header_is_the_same() {
        // Queue 1, tag 2, byte 3, integrity: computed by the header's own macros.
        assert_eq!((position(1, 2) + 3) | uapi::IO_INTEGRITY_FLAG, 0x4000_0200_8400_0003);
    }

    #[test]
    fn descriptor_when_decoded_tells_operation_range_and_flags() {
        let raw = IoDesc { op_flags: 1 | 1 << 13 | 1 << 18, nr_sectors: 8, start_sector: 3, addr: 0 };
        let write =
            Request { operation: Operation::Write, offset: 1536, bytes: 4096, fua: true, integrity: true };
        assert_eq!(decode(&raw), write);
        let zone = decode(&IoDesc { op_flags: 15, start_sector: u64::MAX, ..IoDesc::default() });
        assert_eq!((zone.operation, zone.offset, zone.integrity), (Operation::Other(15), u64::MAX, false));
    }
}
