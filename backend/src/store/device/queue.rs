//! One queue's way to a device that keeps PI: a request in parts, and what follows when the device refuses one.
//!
//! ```text
//! submit -> lock the range -> begin: PI into the scratch buffer, a part for each run that goes straight through -> .. all parts ended
//!   -> settled:  done      -> a read's PI out of the buffer -> complete
//!                mismatch  -> a write: our own check, then once more     a read: Unchecked, Search (diagnose) -> complete
//!                failed    -> complete
//! ```
//!
//! Overlapping requests of all queues are ordered, as they are with a sidecar: an NVMe controller keeps data and PI of a
//! block together by itself, but an emulated one, a ublk server or a mirror may not.

mod discard;
mod fault;

pub(super) use self::discard::at_once;
use self::discard::chunk;
use super::DeviceStore;
use super::convert::complete_escapes;
use super::diagnose::{Next, Stage, located, narrow};
use super::scratch::{Scratch, Shelf};
use super::way::{Ended, Part};
use crate::io::{Doorbell, Owner, Ring};
use crate::limit::Limit;
use crate::store::file::admit;
use crate::store::inbox::{Inbox, Waiter, Wake};
use crate::store::ranges::Span;
use crate::store::{Completion, Errno, Io, IoError, Op, PiFault, Store, StoreQueue};
use integrity::Tag;
use slab::Slab;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// In the lower bits of a completion's value is the request, above them its part.
const PART_SHIFT: u32 = 32;
/// What a buffer for one block's tuples is filled with, to see whether any came.
const UNTOUCHED: u8 = 0xA5;

struct Request {
    io: Io,
    stage: Stage,
    /// Of the data, in bytes: what the present operations are about.
    window: Range<usize>,
    /// Whether the device checks these.
    check: bool,
    scratch: Option<Scratch>,
    /// The range, while it is held.
    span: Option<Span>,
    /// Operations in the kernel's hands.
    left: u32,
    error: Option<Errno>,
    /// A mismatch, and the tag if the device said it.
    mismatch: Option<Option<Tag>>,
    /// It is its second attempt.
    again: bool,
    /// Bytes of a discard that are done.
    discarded: u64,
}

/// See the module's head.
pub(super) struct DeviceQueue {
    store: Arc<DeviceStore>,
    requests: Slab<Request>,
    shelf: Shelf,
    inbox: Arc<Inbox>,
    /// Memory for what the inbox gives.
    events: Vec<(usize, Wake)>,
    /// The queue is about to end.
    hurried: bool,
    log: Arc<Limit>,
}

impl DeviceQueue {
    pub fn new(store: Arc<DeviceStore>, doorbell: Doorbell) -> Self {
        let inbox = Arc::new(Inbox::new(doorbell));
        let log = Limit::of(&store.way.path().display().to_string(), "device", module_path!());
        Self {
            store,
            requests: Slab::new(),
            shelf: Shelf::default(),
            inbox,
            events: Vec::new(),
            hurried: false,
            log,
        }
    }
}

impl StoreQueue for DeviceQueue {
    fn submit(&mut self, io: Io, ring: &mut Ring, done: &mut Vec<Completion>) {
        if let Err(error) = admit(&io, &self.store.geometry(), &self.store.capabilities) {
            return done.push(Completion { id: io.id, buffer: io.buffer, result: Err(error.into()) });
        }
        let op = io.op;
        let window = 0..io.buffer.as_ref().map_or(0, |lease| lease.len());
        let metadata = self.store.convert.device.metadata_len(window.len());
        let parts = self.store.cut.parts(io.offset, &window);
        let scratch = match op {
            Op::Flush => None,
            // 16 bytes: the range of a discard by passthrough.
            Op::Read | Op::Write { .. } | Op::Discard => {
                match self.shelf.take(metadata.max(16), parts.max(1)) {
                    Ok(scratch) => Some(scratch),
                    Err(_) => {
                        let result = Err(Errno(libc::ENOMEM).into());
                        return done.push(Completion { id: io.id, buffer: io.buffer, result });
                    }
                }
            }
        };
        if parts > 1 {
            self.store.counters.split.fetch_add(1, Ordering::Relaxed);
        }
        let slot = self.requests.insert(Request {
            io,
            stage: Stage::Only,
            window: window.clone(),
            check: true,
            scratch,
            span: None,
            left: 0,
            error: None,
            mismatch: None,
            again: false,
            discarded: 0,
        });
        match op {
            Op::Read | Op::Write { .. } => {
                let Io { offset, bytes, .. } = self.requests[slot].io;
                self.lock(slot, offset..offset + bytes, ring, done);
            }
            Op::Discard => self.discard(slot, ring, done),
            Op::Flush if self.store.capabilities.read_only => self.end(slot, Ok(()), done),
            Op::Flush => {
                self.requests[slot].left = 1;
                self.store.way.flush(ring, user_data(slot, 0));
            }
        }
        self.settle(ring, done);
    }

    fn complete(&mut self, value: u64, result: i32, ring: &mut Ring, done: &mut Vec<Completion>) {
        let (slot, index) = ((value & ((1 << PART_SHIFT) - 1)) as usize, (value >> PART_SHIFT) as usize);
        let Some(request) = self.requests.get_mut(slot) else {
            debug_assert!(false, "a completion of nothing");
            return;
        };
        let bytes = match request.io.op {
            Op::Read | Op::Write { .. } => {
                self.store.cut.part(request.io.offset, &request.window, index).len()
            }
            Op::Discard | Op::Flush => 0,
        };
        match self.store.way.ended(result, bytes) {
            Ended::Again => {
                self.once_more(slot, index, ring, done);
                return self.settle(ring, done);
            }
            Ended::Done => {}
            Ended::Mismatch(_) if bytes == 0 => {
                request.error.get_or_insert(Errno(libc::EILSEQ));
            }
            Ended::Mismatch(tag) => {
                let known = request.mismatch.flatten().or(tag);
                request.mismatch = Some(known);
            }
            Ended::Failed(error) => {
                request.error.get_or_insert(error);
            }
        }
        request.left -= 1;
        if request.left == 0 {
            self.settled(slot, ring, done);
        }
        self.settle(ring, done);
    }

    fn resume(&mut self, ring: &mut Ring, done: &mut Vec<Completion>) {
        self.settle(ring, done);
    }

    fn hurry(&mut self) {
        self.hurried = true;
    }
}

fn user_data(slot: usize, part: usize) -> u64 {
    Owner::Store.user_data((part as u64) << PART_SHIFT | slot as u64)
}

impl DeviceQueue {
    /// Goes on with whatever waited for a range that is now held for it.
    fn settle(&mut self, ring: &mut Ring, done: &mut Vec<Completion>) {
        let mut events = std::mem::take(&mut self.events);
        while self.inbox.take(&mut events) {
            for (slot, _) in events.drain(..) {
                self.locked(slot, ring, done);
            }
        }
        self.events = events;
    }

    /// Locks a range of the disk, then goes on.
    fn lock(&mut self, slot: usize, range: Range<u64>, ring: &mut Ring, done: &mut Vec<Completion>) {
        let request = &mut self.requests[slot];
        let ranges = &self.store.ranges;
        let Some(span) = ranges.span(range.start, range.end - range.start, request.io.op != Op::Read) else {
            return self.end(slot, Err(Errno(libc::EINVAL).into()), done);
        };
        request.span = Some(span);
        let me = &self.inbox;
        let held = ranges.acquire(span, || Waiter { inbox: Arc::clone(me), slot }, &mut |waiter: Waiter| {
            waiter.post(Wake::Range, Some(me));
        });
        if held {
            self.locked(slot, ring, done);
        }
    }

    fn unlock(&mut self, slot: usize) {
        let me = &self.inbox;
        if let Some(span) = self.requests[slot].span.take() {
            self.store.ranges.release(span, &mut |waiter: Waiter| waiter.post(Wake::Range, Some(me)));
        }
    }

    fn locked(&mut self, slot: usize, ring: &mut Ring, done: &mut Vec<Completion>) {
        let request = &self.requests[slot];
        if request.io.op == Op::Discard {
            return self.discard_chunk(slot, ring);
        }
        let window = request.window.clone();
        self.begin(slot, Stage::Only, window, ring, done);
    }

    /// Starts a stage of a read or write over a window of its data.
    fn begin(
        &mut self,
        slot: usize,
        stage: Stage,
        window: Range<usize>,
        ring: &mut Ring,
        done: &mut Vec<Completion>,
    ) {
        let request = &mut self.requests[slot];
        let parts = self.store.cut.parts(request.io.offset, &window);
        request.check = stage != Stage::Unchecked;
        (request.stage, request.window) = (stage, window);
        (request.left, request.error, request.mismatch) = (parts as u32, None, None);
        for index in 0..parts {
            if let Err(fault) = self.prepare(slot, index) {
                // Nothing of it is under way: this is before the first part is started.
                return self.end(slot, Err(IoError::Mismatch(fault)), done);
            }
        }
        for index in 0..parts {
            self.start(slot, index, ring);
        }
    }

    /// Puts the PI of one part into the scratch buffer.
    fn prepare(&mut self, slot: usize, index: usize) -> Result<(), PiFault> {
        let convert = &self.store.convert;
        let Request { io, window, stage, scratch, again, .. } = &mut self.requests[slot];
        let (Some(lease), Some(scratch)) = (&io.buffer, scratch) else { return Ok(()) };
        let data = self.store.cut.part(io.offset, window, index);
        let to = scratch.pi_mut(metadata(&convert.device, &data));
        if io.op == Op::Read {
            if matches!(stage, Stage::Search(_)) {
                to.fill(UNTOUCHED);
            }
            return Ok(());
        }
        let from = &lease.parts().1[metadata(&convert.guest, &data)];
        let offset = io.offset + data.start as u64;
        let bytes = &lease.parts().0[data];
        if convert.is_identity() {
            to.copy_from_slice(from);
            if *again {
                // SCSI disks know escapes on reads only, and check every tag that is written.
                complete_escapes(&convert.device, bytes, to, offset);
            }
            return Ok(());
        }
        convert.for_device(bytes, from, to, offset).map_err(|found| located(&convert.guest, found, offset))
    }

    fn start(&mut self, slot: usize, index: usize, ring: &mut Ring) {
        let request = &self.requests[slot];
        let data = self.store.cut.part(request.io.offset, &request.window, index);
        let offset = request.io.offset + data.start as u64;
        let seed = self.number(offset, !request.check);
        let Self { store, requests, .. } = self;
        let Request { io, scratch, check, .. } = &mut requests[slot];
        let (Some(lease), Some(scratch)) = (&io.buffer, scratch) else { return };
        let device = &store.convert.device;
        let part = Part {
            index,
            pi: metadata(device, &data),
            data,
            offset,
            seed,
            write: match io.op {
                Op::Write { fua } => Some(fua),
                _ => None,
            },
            check: *check,
        };
        store.way.start(ring, device, &part, lease, scratch, user_data(slot, index));
    }

    /// Starts an operation again that was interrupted.
    fn once_more(&mut self, slot: usize, index: usize, ring: &mut Ring, done: &mut Vec<Completion>) {
        match self.requests[slot].io.op {
            Op::Flush => self.store.way.flush(ring, user_data(slot, 0)),
            Op::Discard => self.discard_chunk(slot, ring),
            Op::Read | Op::Write { .. } => match self.prepare(slot, index) {
                Ok(()) => self.start(slot, index, ring),
                Err(_) => {
                    // Memory has changed since the first time; what follows finds that out.
                    let request = &mut self.requests[slot];
                    request.mismatch.get_or_insert(None);
                    request.left -= 1;
                    if request.left == 0 {
                        self.settled(slot, ring, done);
                    }
                }
            },
        }
    }

    /// Everything that was under way has ended.
    fn settled(&mut self, slot: usize, ring: &mut Ring, done: &mut Vec<Completion>) {
        let request = &mut self.requests[slot];
        if request.io.op == Op::Discard && request.error.is_none() {
            let chunk = chunk(&request.io, request.discarded, self.store.discard);
            request.discarded += chunk.end - chunk.start;
            self.unlock(slot);
            return self.discard(slot, ring, done);
        }
        if let Some(error) = request.error {
            return self.end(slot, Err(error.into()), done);
        }
        let (stage, mismatch) = (request.stage.clone(), request.mismatch);
        if stage == Stage::Only && mismatch.is_some() && !request.again {
            self.store.counters.refusals.fetch_add(1, Ordering::Relaxed);
        }
        match (stage, mismatch, request.io.op) {
            (Stage::Only, None, Op::Read) => {
                let result = self.deliver(slot).map_err(IoError::Mismatch);
                self.recovered(slot, result.is_ok());
                self.end(slot, result, done);
            }
            (Stage::Only, None, _) => {
                self.recovered(slot, true);
                self.end(slot, Ok(()), done);
            }
            (Stage::Only, Some(_), Op::Read) => {
                let window = self.requests[slot].window.clone();
                self.begin(slot, Stage::Unchecked, window, ring, done);
            }
            (Stage::Only, Some(tag), _) => self.write_refused(slot, tag, ring, done),
            (Stage::Unchecked, None, _) => self.unchecked(slot, ring, done),
            (Stage::Unchecked, Some(_), _) => {
                let whole = self.requests[slot].window.clone();
                self.search(slot, whole, ring, done);
            }
            (Stage::Search(range), mismatch, _) => match narrow(&range, self.block(), mismatch.is_some()) {
                Next::Search(range) => self.search(slot, range, ring, done),
                Next::Here(range) => {
                    let fault = self.what_the_tuples_say(slot, &range, mismatch.flatten());
                    self.end(slot, Err(IoError::Mismatch(fault)), done);
                }
                Next::Nowhere => self.again(slot, None, ring, done),
            },
        }
    }

    /// Gives a read its PI.
    fn deliver(&mut self, slot: usize) -> Result<(), PiFault> {
        let store = &self.store;
        let Request { io, window, scratch, .. } = &mut self.requests[slot];
        let (Some(lease), Some(scratch)) = (&mut io.buffer, scratch) else { return Ok(()) };
        let from = scratch.pi(metadata(&store.convert.device, window));
        let offset = io.offset;
        let (data, to) = lease.parts_mut();
        if !store.convert.is_identity() {
            let converted = store.convert.for_guest(data, from, to, offset);
            return converted.map_err(|found| located(&store.convert.device, found, offset));
        }
        // The queue checks what it is given.
        to.copy_from_slice(from);
        Ok(())
    }

    /// The number that the interval at `offset` has on the disk; or on the device, if that is wanted and known.
    fn number(&self, offset: u64, on_device: bool) -> u64 {
        let number = offset / self.store.convert.device.interval() as u64;
        let known = if on_device { self.store.way.device_interval(number) } else { None };
        known.unwrap_or(number)
    }

    fn end(&mut self, slot: usize, result: Result<(), IoError>, done: &mut Vec<Completion>) {
        self.unlock(slot);
        let Request { io, scratch, .. } = self.requests.remove(slot);
        if let Some(scratch) = scratch {
            self.shelf.give_back(scratch);
        }
        done.push(Completion { id: io.id, buffer: io.buffer, result });
    }
}

/// The metadata of a range of data.
fn metadata(profile: &integrity::Profile, data: &Range<usize>) -> Range<usize> {
    profile.metadata_len(data.start)..profile.metadata_len(data.end)
}

impl Drop for DeviceQueue {
    fn drop(&mut self) {
        debug_assert!(
            self.requests.is_empty() || std::thread::panicking(),
            "a queue went before its requests had ended"
        );
    }
}
