//! Slots as a frontend writes them.

use arrayvec::ArrayVec;

use crate::limits::{MAX_INDIRECT_PAGES, MAX_SEGMENTS};
use crate::request::{Operation, Request, Segments};
use crate::segment::Segment;
use crate::slot::{RawSlot, split};
use crate::units::{GrantRef, Sectors};
use crate::wire;

/// Making slots of typed requests. ABIs differ only when a slot is put into a ring.
///
/// Nothing is checked against anybody's limits: a test of a backend wants to break them.
pub struct Encode;

impl Encode {
    /// The slot of a request; its flag is that of `request.echo`. Parsing it gives the request back.
    pub fn request(request: &Request) -> RawSlot {
        let flag = request.echo & wire::OP_DIX_FLAG;
        let [h0, h1] = request.handle.to_le_bytes();
        let operation = match request.operation {
            Operation::Read => wire::OP_READ,
            Operation::Write => wire::OP_WRITE,
            Operation::WriteBarrier => wire::OP_WRITE_BARRIER,
            Operation::Flush => wire::OP_FLUSH_DISKCACHE,
            Operation::Discard { .. } => wire::OP_DISCARD,
        };
        let mut body = [0; 2 * MAX_SEGMENTS];
        let first = match (&request.segments, request.operation) {
            (_, Operation::Discard { secure, sectors }) => {
                put(&mut body, 0, split(sectors.0));
                [operation | flag, if secure { wire::DISCARD_SECURE } else { 0 }, h0, h1]
            }
            (Segments::Direct(segments), _) => [operation | flag, put_segments(&mut body, segments), h0, h1],
            (Segments::Indirect { count, pages }, _) => {
                put(&mut body, 0, [u32::from(request.handle)]);
                put(&mut body, 1, pages.iter().map(|gref| gref.0));
                let [c0, c1] = count.to_le_bytes();
                [wire::OP_INDIRECT | flag, operation, c0, c1]
            }
        };
        RawSlot::new(first, request.id, request.sector.0, body)
    }

    /// The payload slot that follows a flagged one; handle and sector are the data slot's.
    /// Segments beyond eleven are left out.
    pub fn payload(id: u64, handle: u16, sector: Sectors, segments: &[Segment]) -> RawSlot {
        let mut body = [0; 2 * MAX_SEGMENTS];
        let [h0, h1] = handle.to_le_bytes();
        let count = put_segments(&mut body, segments);
        RawSlot::new([wire::OP_INTEGRITY, count, h0, h1], id, sector.0, body)
    }
}

impl Request {
    /// A request whose segments are in the slot, as a frontend makes it; `echo` follows.
    ///
    /// # Panics
    /// With more than eleven segments.
    pub fn direct(id: u64, operation: Operation, sector: Sectors, segments: &[Segment], dix: bool) -> Self {
        let segments: ArrayVec<_, MAX_SEGMENTS> = segments.iter().copied().collect();
        Self::new(id, operation, sector, Segments::Direct(segments), dix)
    }

    /// A request whose segments, `count` of them, are in `pages`.
    ///
    /// # Panics
    /// With more than eight pages.
    pub fn indirect(
        id: u64,
        operation: Operation,
        sector: Sectors,
        count: u16,
        pages: &[GrantRef],
        dix: bool,
    ) -> Self {
        let pages: ArrayVec<_, MAX_INDIRECT_PAGES> = pages.iter().copied().collect();
        Self::new(id, operation, sector, Segments::Indirect { count, pages }, dix)
    }

    fn new(id: u64, operation: Operation, sector: Sectors, segments: Segments, dix: bool) -> Self {
        let flag = if dix { wire::OP_DIX_FLAG } else { 0 };
        let mut request = Self { id, handle: 0, sector, operation, segments, echo: flag };
        request.echo = Encode::request(&request).echo();
        request
    }
}

fn put(body: &mut [u32], at: usize, words: impl IntoIterator<Item = u32>) {
    for (to, word) in body.iter_mut().skip(at).zip(words) {
        *to = word;
    }
}

/// How many segments were put.
fn put_segments(body: &mut [u32], segments: &[Segment]) -> u8 {
    let segments = segments.get(..MAX_SEGMENTS).unwrap_or(segments);
    put(body, 0, segments.iter().flat_map(Segment::words));
    u8::try_from(segments.len()).unwrap_or(0)
}
