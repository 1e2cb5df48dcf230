//! A request on its way: what was sent, to send it again, and what came back so far.

use arrayvec::ArrayVec;
use blkif::{
    Encode, MAX_SEGMENTS, RawResponse, RawSlot, Request, SECTOR_SIZE, Sectors, Segment, Status, total_len,
    wire,
};

use super::buffers::Buffers;
use super::submission::{Operation, Source, Submission};
use crate::fault::flip;
use crate::{Disk, Error, Fault};

/// In an id: it is that of a payload slot.
pub(super) const PAYLOAD: u64 = 1 << 63;

/// Low bits of an id: the place in the queue. Above them is the request's number, so that a response
/// that comes twice meets another id.
const INDEX_BITS: u32 = 16;

/// The place that an id names.
pub(super) fn index_of(id: u64) -> usize {
    (id & ((1 << INDEX_BITS) - 1)) as usize
}

/// Room that requests are made in, kept so that none is allocated for each.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) metadata: Vec<u8>,
    segments: Vec<Segment>,
}

/// A request in flight, or answered and not yet given up by the caller.
pub(super) struct Flight {
    pub(super) operation: Operation,
    pub(super) sector: u64,
    pub(super) bytes: usize,
    pub(super) tag: u64,
    pub(super) first_sector: u8,
    /// Its slots: the data's, and with DIX the payload's.
    pub(super) raw: ArrayVec<RawSlot, 2>,
    /// Its number among the queue's requests.
    pub(super) sequence: u64,
    id: u64,
    echo: u8,
    fault: Option<Fault>,
    data: Option<Status>,
    payload: Option<Status>,
}

impl Flight {
    /// Fills the buffers and makes the slots.
    pub(super) fn prepare(
        submission: &Submission<'_>,
        buffers: &Buffers,
        disk: &Disk,
        sequence: u64,
        index: usize,
        scratch: &mut Scratch,
    ) -> Self {
        let Submission { operation, sector, bytes, fault, first_sector, .. } = *submission;
        let id = (sequence << INDEX_BITS | index as u64) & !PAYLOAD;
        let start = usize::from(first_sector) * SECTOR_SIZE;
        if let Source::Bytes(data) = submission.source {
            buffers.data.write(start, data);
        }
        let profile = disk.dix.filter(|_| bytes > 0 && fault != Some(Fault::Unflagged));
        let metadata = profile.map_or(0, |profile| profile.metadata_len(bytes));
        if let (Some(profile), Some(pages)) = (profile, &buffers.metadata) {
            let scratch = &mut scratch.metadata;
            scratch.clear();
            scratch.resize(metadata, 0);
            // A piece of an interval has no PI; the backend is to refuse it.
            if !operation.is_read() && bytes.is_multiple_of(profile.interval()) {
                let reference = sector * SECTOR_SIZE as u64 / profile.interval() as u64;
                let (data, tag) = (submission.source.bytes(), submission.application);
                Fault::generate(fault, &profile, data, scratch, reference, tag);
                pages.write(0, scratch);
            } else if submission.poison {
                pages.write(0, scratch);
            }
        }
        if submission.poison && operation.is_read() {
            buffers.data.write(start, &vec![0xb5; bytes]);
        }
        if let (Some(Fault::Data { bit }), false) = (fault, operation.is_read()) {
            hit(&buffers.data, start, bytes, bit);
        }
        let segments = &mut scratch.segments;
        let request = request(submission, buffers, id, profile.is_some(), segments);
        let mut raw = ArrayVec::new();
        raw.push(Encode::request(&request));
        if profile.is_some() {
            // At least one segment: a payload slot of none is no payload slot.
            buffers.metadata_segments(metadata.max(1), segments);
            debug_assert!(total_len(segments) >= metadata);
            raw.push(Encode::payload(id | PAYLOAD, request.handle, request.sector, segments));
        }
        Self {
            operation,
            sector,
            bytes,
            tag: submission.tag,
            first_sector,
            raw,
            sequence,
            id,
            echo: request.echo,
            fault,
            data: None,
            payload: None,
        }
    }

    /// The data slot's id.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whether a payload slot was sent.
    pub(super) fn has_payload(&self) -> bool {
        self.raw.len() == 2
    }

    /// Whether every response has come.
    pub(super) fn is_done(&self) -> bool {
        self.data.is_some() && self.payload.is_some() == self.has_payload()
    }

    /// The statuses of the data and the payload; to be asked when done.
    pub(super) fn statuses(&self) -> (Status, Option<Status>) {
        (self.data.unwrap_or(Status::Error), self.payload)
    }

    /// Forgets responses, as nothing is done before all have come.
    pub(super) fn restart(&mut self) {
        self.data = None;
        self.payload = None;
    }

    /// Takes a response for this flight; true when it was the last.
    pub(super) fn respond(&mut self, response: &RawResponse) -> Result<bool, Error> {
        let wrong = |what| Err(Error::Protocol { what, id: response.id });
        if response.id & PAYLOAD == 0 {
            if self.data.is_some() {
                return wrong("a second response to one request");
            }
            self.data = Some(response.check(self.echo)?);
        } else {
            if !self.has_payload() || self.payload.is_some() {
                return wrong("a response to a payload slot there is not");
            }
            if self.data.is_none() {
                return wrong("the payload slot's response came before the data slot's");
            }
            self.payload = Some(response.check(wire::OP_INTEGRITY)?);
        }
        Ok(self.is_done())
    }

    /// Puts a read's fault into what was delivered.
    pub(super) fn hit_delivered(&self, buffers: &Buffers) {
        if !self.operation.is_read() {
            return;
        }
        match (self.fault, &buffers.metadata) {
            (Some(Fault::Data { bit }), _) => {
                hit(&buffers.data, usize::from(self.first_sector) * SECTOR_SIZE, self.bytes, bit);
            }
            (Some(Fault::Payload { bit }), Some(pages)) => hit(pages, 0, pages.len(), bit),
            _ => {}
        }
    }
}

fn request(
    submission: &Submission<'_>,
    buffers: &Buffers,
    id: u64,
    dix: bool,
    segments: &mut Vec<Segment>,
) -> Request {
    let operation = submission.operation.wire();
    let sector = Sectors(submission.sector);
    if submission.bytes == 0 {
        return Request::direct(id, operation, sector, &[], dix);
    }
    buffers.data_segments(submission.first_sector, submission.bytes, segments);
    if segments.len() <= MAX_SEGMENTS {
        return Request::direct(id, operation, sector, segments, dix);
    }
    let page = buffers.put_indirect(segments);
    Request::indirect(id, operation, sector, segments.len() as u16, &[page], dix)
}

/// Flips a bit of `len` bytes from `start` on.
fn hit(shared: &hypervisor::Shared, start: usize, len: usize, bit: usize) {
    let at = start + bit / 8 % len.max(1);
    let mut byte = [0];
    shared.read(at, &mut byte);
    flip(&mut byte, bit % 8);
    shared.write(at, &byte);
}
