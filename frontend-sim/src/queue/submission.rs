//! A request as the caller makes it.

use blkif::{MAX_SEGMENTS, PAGE_SIZE, SECTOR_SIZE};

use crate::{Disk, Error, Fault};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Write (or nothing) as a barrier.
    WriteBarrier,
    /// Flush; with bytes: and write those.
    Flush,
    /// Discard.
    Discard {
        /// Unrecoverably.
        secure: bool,
        /// How many sectors.
        sectors: u64,
    },
}

impl Operation {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::WriteBarrier => "barrier",
            Self::Flush => "flush",
            Self::Discard { .. } => "discard",
        }
    }

    pub(super) fn wire(self) -> blkif::Operation {
        match self {
            Self::Read => blkif::Operation::Read,
            Self::Write => blkif::Operation::Write,
            Self::WriteBarrier => blkif::Operation::WriteBarrier,
            Self::Flush => blkif::Operation::Flush,
            Self::Discard { secure, sectors } => {
                blkif::Operation::Discard { secure, sectors: blkif::Sectors(sectors) }
            }
        }
    }

    pub(super) fn is_read(self) -> bool {
        self == Self::Read
    }
}

/// Where a write's bytes are.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Nowhere: it has none, or it is a read.
    None,
    /// Here; they are copied into the buffer.
    Bytes(&'a [u8]),
    /// Here, and equal ones are in every buffer of the queue already
    /// ([`Queue::fill`](crate::Queue::fill)): PI is made of these, nothing is copied. For benchmarks.
    Placed(&'a [u8]),
}

impl<'a> Source<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::None => &[],
            Self::Bytes(bytes) | Self::Placed(bytes) => bytes,
        }
    }
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// What.
    pub operation: Operation,
    /// First sector, of 512 bytes.
    pub sector: u64,
    /// Bytes of data.
    pub bytes: usize,
    /// The data to write.
    pub source: Source<'a>,
    /// The caller's, given back with the completion.
    pub tag: u64,
    /// Where in the buffer's first page the data starts, in sectors, 0 to 7: segments then cut intervals.
    pub first_sector: u8,
    /// The application tag of every interval; with DIX.
    pub application: u16,
    /// Overwrite the buffer and its metadata before a read, so that what the backend does not deliver is
    /// seen.
    pub poison: bool,
    /// What to do wrong.
    pub fault: Option<Fault>,
}

impl<'a> Submission<'a> {
    fn new(operation: Operation, sector: u64, bytes: usize, source: Source<'a>) -> Self {
        Self {
            operation,
            sector,
            bytes,
            source,
            tag: 0,
            first_sector: 0,
            application: 0,
            poison: false,
            fault: None,
        }
    }

    /// A read.
    pub fn read(sector: u64, bytes: usize) -> Self {
        Self::new(Operation::Read, sector, bytes, Source::None)
    }

    /// A write.
    pub fn write(sector: u64, data: &'a [u8]) -> Self {
        Self::new(Operation::Write, sector, data.len(), Source::Bytes(data))
    }

    /// A write as a barrier.
    pub fn barrier(sector: u64, data: &'a [u8]) -> Self {
        Self::new(Operation::WriteBarrier, sector, data.len(), Source::Bytes(data))
    }

    /// A flush.
    pub fn flush() -> Self {
        Self::new(Operation::Flush, 0, 0, Source::None)
    }

    /// A discard.
    pub fn discard(sector: u64, sectors: u64) -> Self {
        Self::new(Operation::Discard { secure: false, sectors }, sector, 0, Source::None)
    }

    /// With a tag.
    pub fn tagged(self, tag: u64) -> Self {
        Self { tag, ..self }
    }

    /// With a fault, or none.
    pub fn faulty(self, fault: Option<Fault>) -> Self {
        Self { fault, ..self }
    }

    /// Pages, and so segments, that the data lies in.
    pub(crate) fn pages(&self) -> usize {
        (usize::from(self.first_sector) * SECTOR_SIZE + self.bytes).div_ceil(PAGE_SIZE)
    }

    /// What cannot be sent at all. Ranges, alignment and modes are left to the backend to refuse.
    pub(super) fn validate(&self, disk: &Disk) -> Result<(), Error> {
        let wrong = |what| Err(Error::Request(what));
        if self.first_sector > 7 {
            return wrong("a page has 8 sectors");
        }
        if !self.bytes.is_multiple_of(SECTOR_SIZE) {
            return wrong("data is whole sectors of 512 bytes");
        }
        // Only reads and writes can be indirect.
        let most = match self.operation {
            Operation::Read | Operation::Write => usize::from(disk.segments),
            _ => usize::from(disk.segments).min(MAX_SEGMENTS),
        };
        if self.bytes > 0 && self.pages() > most {
            return wrong("more segments than such a request of this disk has");
        }
        let written = self.source.bytes().len();
        if !self.operation.is_read() && written != self.bytes {
            return wrong("a write's data is as long as the write");
        }
        if self.bytes == 0 && matches!(self.operation, Operation::Read | Operation::Write) {
            return wrong("a read or write of nothing");
        }
        Ok(())
    }
}
