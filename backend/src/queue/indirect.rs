//! Indirect requests: the pages that hold their segments are copied once, and only the copies are parsed.

use crate::io::PAGE;
use crate::queue::Counters;
use crate::queue::copies::Copies;
use blkif::{GrantRef, Limits, Sectors, Segment, Status};
use hypervisor::{Copier, GrantStatus};
use std::ops::Range;

/// Requests of one batch.
const REQUESTS: usize = 16;
/// Bytes of a segment on the wire.
const SEGMENT: usize = 8;

/// Why an indirect request is answered without I/O.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Reason {
    #[error("grant {0} of its segment pages: {1}")]
    Grant(hypervisor::GrantRef, GrantStatus),
    #[error(transparent)]
    Refusal(#[from] blkif::Refusal),
}

impl Reason {
    /// What the guest is told.
    pub fn status(&self) -> Status {
        match self {
            Reason::Grant(..) => Status::Error,
            Reason::Refusal(refusal) => refusal.status(),
        }
    }
}

/// A batch of indirect requests and private memory for their segment pages.
#[derive(Debug)]
pub(crate) struct Indirect {
    requests: Vec<Pending>,
    /// Pages for each request, as many as the largest offered request has.
    pages: usize,
    memory: memmap2::MmapMut,
    copies: Copies,
}

#[derive(Debug)]
struct Pending {
    name: u32,
    sector: Sectors,
    count: u16,
    place: Range<usize>,
}

impl Indirect {
    /// Room for a batch of requests of up to `max_segments` segments.
    pub fn new(max_segments: u16) -> std::io::Result<Self> {
        let pages = pages(max_segments);
        let memory = memmap2::MmapMut::map_anon(REQUESTS * pages * PAGE)?;
        Ok(Self { requests: Vec::with_capacity(REQUESTS), pages, memory, copies: Copies::default() })
    }

    /// Bytes of its memory.
    pub fn footprint(max_segments: u16) -> usize {
        REQUESTS * pages(max_segments) * PAGE
    }

    pub fn has_room(&self) -> bool {
        self.requests.len() < REQUESTS
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Adds a request; `pages` hold its `count` segments. The parser has held both against the limits.
    pub fn add(&mut self, name: u32, sector: Sectors, count: u16, pages: &[GrantRef]) {
        let first = self.requests.len() * self.pages;
        let mut left = usize::from(count) * SEGMENT;
        let start = self.copies.len();
        for (index, gref) in pages.iter().take(self.pages).enumerate() {
            let local = self.memory.as_mut_ptr().wrapping_add((first + index) * PAGE);
            let bytes = left.min(PAGE);
            self.copies.add_page(*gref, local, bytes);
            left -= bytes;
        }
        self.requests.push(Pending { name, sector, count, place: start..self.copies.len() });
    }

    /// Copies the pages of the whole batch, each once.
    ///
    /// # Errors
    /// As [`Copies::run`].
    pub fn fetch(&mut self, copier: &mut dyn Copier, counters: &Counters) -> Result<(), hypervisor::Error> {
        counters.copy_calls.add(1);
        counters.copies.add(self.copies.len() as u64);
        // SAFETY: every copy goes to a page of `memory` of its own, which only this batch uses.
        unsafe { self.copies.run(copier) }
    }

    /// The queue's name of a request, and where it starts.
    pub fn named(&self, index: usize) -> (u32, Sectors) {
        let pending = &self.requests[index];
        (pending.name, pending.sector)
    }

    /// Parses the copied segments of a request into `segments`.
    pub fn parse(&self, index: usize, limits: &Limits, segments: &mut Vec<Segment>) -> Result<(), Reason> {
        let pending = &self.requests[index];
        if let Some((gref, status)) = self.copies.fault(&pending.place) {
            return Err(Reason::Grant(gref, status));
        }
        let start = index * self.pages * PAGE;
        let bytes = usize::from(pending.count) * SEGMENT;
        let copied = self.memory.get(start..start + bytes).unwrap_or_default();
        blkif::parse_indirect(copied, pending.count, limits, segments)?;
        Ok(())
    }

    /// Empties the batch.
    pub fn clear(&mut self) {
        self.requests.clear();
        self.copies.clear();
    }
}

/// Pages that hold the segments of the largest request.
fn pages(max_segments: u16) -> usize {
    (usize::from(max_segments) * SEGMENT).div_ceil(PAGE).max(1)
}
