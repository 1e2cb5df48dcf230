//! Requests: what a slot means once it was parsed.
//!
//! Parsing checks what blkif alone can know: the operation, counts, each segment's bounds, that
//! offsets do not overflow. The disk's size, mode and alignment are the backend's to check.

use arrayvec::ArrayVec;

use crate::limits::{Limits, MAX_INDIRECT_PAGES, MAX_INDIRECT_SEGMENTS, MAX_SEGMENTS};
use crate::refusal::Refusal;
use crate::response::{Response, Status};
use crate::segment::Segment;
use crate::slot::{RawSlot, indirect_pages};
use crate::units::{GrantRef, SECTOR_SIZE, Sectors};
use crate::wire;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// From the disk to the guest.
    Read,
    /// From the guest to the disk.
    Write,
    /// A write (empty: none) that no other of its ring passes, durable when answered.
    WriteBarrier,
    /// Make durable what was acknowledged; with data: and write that.
    Flush,
    /// Give up sectors, from the request's `sector` on; no segments.
    Discard {
        /// The range must become unrecoverable.
        secure: bool,
        /// How many; may be 0.
        sectors: Sectors,
    },
}

/// Where a request's data is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Segments {
    /// In segments that the slot held. Empty only for a discard, a flush or a barrier.
    Direct(ArrayVec<Segment, MAX_SEGMENTS>),
    /// In segments that other pages hold: copy those once, then [`crate::parse_indirect`].
    Indirect {
        /// How many segments; at least 1, and within the limits.
        count: u16,
        /// The pages, exactly as many as hold `count` segments of 8 bytes.
        pages: ArrayVec<GrantRef, MAX_INDIRECT_PAGES>,
    },
}

/// A parsed request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The guest's name for it; opaque, and not necessarily unique.
    pub id: u64,
    /// The guest's name for the disk; backends ignore it.
    pub handle: u16,
    /// Where on the disk. Means nothing, and may be garbage, where there is no data.
    pub sector: Sectors,
    /// What.
    pub operation: Operation,
    /// The data.
    pub segments: Segments,
    /// The operation byte that the response must carry.
    pub echo: u8,
}

impl Request {
    /// Parses a slot that stands alone. The DIX flag is left to [`crate::Pairing`]: here it only
    /// shows in `echo`.
    ///
    /// # Errors
    /// What is wrong with the slot; its `id` and `echo` still are what the response must carry.
    pub fn parse(slot: &RawSlot, limits: &Limits) -> Result<Request, Refusal> {
        let mut request = Request::named(slot);
        request.fill(slot, limits)?;
        Ok(request)
    }

    /// What any slot has; the rest is for [`Self::fill`]. In two steps, so that a request can be parsed
    /// where it is to be: moving one costs more than parsing it.
    #[inline]
    pub(crate) fn named(slot: &RawSlot) -> Request {
        Request {
            id: slot.id(),
            handle: slot.handle(),
            sector: Sectors(slot.sector()),
            operation: Operation::Read,
            segments: Segments::Direct(ArrayVec::new_const()),
            echo: slot.echo(),
        }
    }

    /// Parses operation and segments into a request that [`Self::named`] made of the same slot.
    #[inline]
    pub(crate) fn fill(&mut self, slot: &RawSlot, limits: &Limits) -> Result<(), Refusal> {
        self.operation = match slot.base_operation() {
            wire::OP_READ => Operation::Read,
            wire::OP_WRITE => Operation::Write,
            wire::OP_WRITE_BARRIER => Operation::WriteBarrier,
            wire::OP_FLUSH_DISKCACHE => Operation::Flush,
            wire::OP_DISCARD => {
                self.operation = discard(slot)?;
                return Ok(());
            }
            wire::OP_INDIRECT => return self.fill_indirect(slot, limits),
            _ => return Err(Refusal::UnknownOperation(slot.operation())),
        };
        let Segments::Direct(segments) = &mut self.segments else { return Ok(()) };
        let bytes = parse_segments(slot, segments)?;
        if bytes != 0 {
            extent(self.sector, bytes)?;
        } else if matches!(self.operation, Operation::Read | Operation::Write) {
            return Err(Refusal::NoSegments);
        }
        // Guests leave sector_number uninitialised in an empty flush: nothing is checked there.
        Ok(())
    }

    fn fill_indirect(&mut self, slot: &RawSlot, limits: &Limits) -> Result<(), Refusal> {
        let max = limits.max_indirect.min(MAX_INDIRECT_SEGMENTS);
        if max == 0 {
            return Err(Refusal::IndirectNotOffered);
        }
        self.operation = match slot.second() {
            wire::OP_READ => Operation::Read,
            wire::OP_WRITE => Operation::Write,
            other => return Err(Refusal::IndirectOperation(other)),
        };
        let count = slot.nr_segments();
        if count == 0 {
            return Err(Refusal::NoSegments);
        }
        if count > max {
            return Err(Refusal::TooManySegments { count, max });
        }
        // Each segment has at least one sector; the caller checks the whole when it knows it.
        range(self.sector, Sectors(u64::from(count)))?;
        let pages = slot.grants().iter().take(indirect_pages(count)).map(|gref| GrantRef(*gref)).collect();
        self.segments = Segments::Indirect { count, pages };
        Ok(())
    }

    /// Whether the DIX flag was set, and a payload slot belongs to this.
    #[inline]
    pub fn is_flagged(&self) -> bool {
        self.echo & wire::OP_DIX_FLAG != 0
    }

    /// The response; a tag mismatch becomes ERROR, as a data slot's response has to say it.
    #[inline]
    pub fn response(&self, status: Status) -> Response {
        Response { id: self.id, operation: self.echo, status: status.for_data() }
    }
}

fn discard(slot: &RawSlot) -> Result<Operation, Refusal> {
    let sectors = Sectors(slot.nr_sectors());
    range(Sectors(slot.sector()), sectors)?;
    // Other bits of the flag byte are undefined, and ignored as Linux ignores them.
    let secure = slot.second() & wire::DISCARD_SECURE != 0;
    Ok(Operation::Discard { secure, sectors })
}

/// The segments of a slot that holds them itself, added to `segments`, which is empty; gives their
/// bytes.
#[inline]
pub(crate) fn parse_segments(
    slot: &RawSlot,
    segments: &mut ArrayVec<Segment, MAX_SEGMENTS>,
) -> Result<usize, Refusal> {
    let count = slot.second();
    let Some(words) = slot.segment_words().get(..usize::from(count)) else {
        let max = u16::try_from(MAX_SEGMENTS).unwrap_or(0);
        return Err(Refusal::TooManySegments { count: u16::from(count), max });
    };
    let mut bytes = 0;
    for (index, [gref, bounds]) in words.iter().enumerate() {
        let segment = Segment::parse(index, *gref, *bounds)?;
        bytes += segment.bytes();
        segments.push(segment);
    }
    Ok(bytes)
}

/// The sectors that `bytes` bytes from `start` on cover, if all their offsets fit a file offset.
///
/// # Errors
/// [`Refusal::Overflow`].
#[inline]
pub fn extent(start: Sectors, bytes: usize) -> Result<Sectors, Refusal> {
    let sectors = Sectors(u64::try_from(bytes.div_ceil(SECTOR_SIZE)).unwrap_or(u64::MAX));
    range(start, sectors)?;
    Ok(sectors)
}

#[inline]
fn range(start: Sectors, sectors: Sectors) -> Result<(), Refusal> {
    match start.0.checked_add(sectors.0) {
        Some(end) if end <= Sectors::MAX.0 => Ok(()),
        _ => Err(Refusal::Overflow { start, sectors }),
    }
}
