//! One queue's way through a disk with a sidecar: a small state machine per request.
//!
//! ```text
//! read:    range shared     -> data read  and, at once, each block's entries -> unlock -> complete
//! write:   range exclusive  -> announced (log or bitmap) and, at once, blocks that it does not replace fetched
//!                              -> failed? nothing has changed
//!                              -> data written -> failed? old entries stay
//!                              -> each block's entries put   -> over (log or bitmap) -> more? the next step
//!                                                            -> unlock -> [FUA: flush] -> complete
//! discard: chunk exclusive  -> announced -> data punched -> whole blocks dropped and punched, else escapes put
//!                                                            -> over -> unlock -> next
//!                              -> failed? over -> unlock -> its record retired
//! flush:   the maintenance thread
//! ```
//!
//! Entries of a locked range change by nobody else's hand, so a read may copy them before or after its data. `left`
//! counts what a request still waits for in its present phase: the data, and blocks that are not done. A write is one
//! step unless its record would be too large for the log.

mod announce;
mod discard;

use crate::io::{Doorbell, Owner, Ring, Transfer};
use crate::store::file::{Outcome, admit, outcome, punch};
use crate::store::inbox::{Inbox, Waiter, Wake};
use crate::store::ranges::Span;
use crate::store::sidecar::cache::{Access, Found, Frame, Kick};
use crate::store::sidecar::{BLOCK, IntervalHash, Shared};
use crate::store::{Completion, Errno, Io, IoError, Op, StoreQueue};
use announce::Announced;
use io_uring::{opcode, types};
use slab::Slab;
use std::ops::Range;
use std::sync::Arc;

/// What a completion of the ring is about.
const DATA: u64 = 0;
const LOAD: u64 = 1;
const HOLE: u64 = 2;
const KIND_SHIFT: u32 = 48;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for its range.
    Locking,
    /// It is announced, and what is needed of the sidecar is fetched.
    Preparing,
    /// The data is read and the entries are copied out.
    Reading,
    /// The data is written or punched.
    Moving,
    /// The entries are put, or escapes.
    Putting,
    /// The maintenance thread makes it durable.
    Flushing,
}

struct Request {
    io: Io,
    phase: Phase,
    span: Option<Span>,
    /// Intervals of the present step: the whole request, a part of a write, or a discard's chunk.
    first: u64,
    count: u64,
    /// What is to be said when the step is over.
    announced: Announced,
    left: u32,
    /// Bytes of the data that are already moved.
    moved: usize,
    error: Option<Errno>,
}

/// See the module's head.
pub(super) struct SidecarQueue {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    requests: Slab<Request>,
    /// Loads under way.
    loads: usize,
    /// Memory for what the inbox gives.
    events: Vec<(usize, Wake)>,
    /// The queue is about to end.
    hurried: bool,
    /// Memory for a record's hashes.
    hashes: Vec<IntervalHash>,
}

impl SidecarQueue {
    pub(super) fn new(shared: Arc<Shared>, doorbell: Doorbell) -> Self {
        let inbox = Arc::new(Inbox::new(doorbell));
        let (events, hashes) = (Vec::new(), Vec::new());
        Self { shared, inbox, requests: Slab::new(), loads: 0, events, hashes, hurried: false }
    }
}

impl StoreQueue for SidecarQueue {
    fn submit(&mut self, io: Io, ring: &mut Ring, done: &mut Vec<Completion>) {
        if let Err(error) = admit(&io, &self.shared.geometry(), &self.shared.capabilities) {
            return done.push(Completion { id: io.id, buffer: io.buffer, result: Err(error.into()) });
        }
        let first = io.offset / self.shared.pi.layout.interval();
        let (op, bytes) = (io.op, io.bytes);
        let request = Request {
            io,
            phase: Phase::Locking,
            span: None,
            first,
            count: 0,
            announced: Announced::No,
            left: 0,
            moved: 0,
            error: None,
        };
        let slot = self.requests.insert(request);
        match op {
            Op::Flush => self.flush(slot, done),
            Op::Read | Op::Write { .. } => self.lock(slot, bytes, ring, done),
            Op::Discard => self.next_chunk(slot, ring, done),
        }
        self.settle(ring, done);
    }

    fn complete(&mut self, value: u64, result: i32, ring: &mut Ring, done: &mut Vec<Completion>) {
        let (kind, index) = (value >> KIND_SHIFT, value & ((1 << KIND_SHIFT) - 1));
        match kind {
            LOAD => self.loaded(Frame(index as u32), result, ring),
            HOLE => self.hole_made(index as usize, result, ring, done),
            _ => self.data_moved(index as usize, result, ring, done),
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

impl SidecarQueue {
    /// Goes on with whatever other threads, or this one, have made possible.
    fn settle(&mut self, ring: &mut Ring, done: &mut Vec<Completion>) {
        let mut events = std::mem::take(&mut self.events);
        while self.inbox.take(&mut events) {
            for (slot, wake) in events.drain(..) {
                match wake {
                    Wake::Range => self.start(slot, ring, done),
                    Wake::Flushed(result) => self.end(slot, result, done),
                    Wake::Retired => {
                        let error = self.requests[slot].error.unwrap_or(Errno(libc::EIO));
                        self.end(slot, Err(error), done);
                    }
                    Wake::Announced(result) => {
                        if let Err(error) = result {
                            self.requests[slot].announced = Announced::No;
                            self.fail(slot, error);
                        }
                        self.one_done(slot, ring, done);
                    }
                    Wake::Room => {
                        if self.requests[slot].error.is_some() || self.announce(slot) {
                            self.one_done(slot, ring, done);
                        }
                    }
                    Wake::Block { block, pinned, error: None } => {
                        if self.access(slot, block, pinned, ring) {
                            self.one_done(slot, ring, done);
                        }
                    }
                    Wake::Block { error: Some(error), .. } => {
                        self.fail(slot, error);
                        self.one_done(slot, ring, done);
                    }
                }
            }
        }
        self.events = events;
    }

    /// Locks `bytes` of the disk from the request's present interval on, then starts it.
    fn lock(&mut self, slot: usize, bytes: u64, ring: &mut Ring, done: &mut Vec<Completion>) {
        let Shared { pi, ranges, .. } = &*self.shared;
        let request = &mut self.requests[slot];
        let interval = pi.layout.interval();
        let exclusive = request.io.op != Op::Read;
        let Some(span) = ranges.span(request.first * interval, bytes, exclusive) else {
            return self.end(slot, Err(Errno(libc::EINVAL)), done);
        };
        (request.phase, request.span, request.count) = (Phase::Locking, Some(span), bytes / interval);
        let me = &self.inbox;
        let held = ranges.acquire(span, || Waiter { inbox: Arc::clone(me), slot }, &mut |waiter: Waiter| {
            waiter.post(Wake::Range, Some(me));
        });
        if held {
            self.start(slot, ring, done);
        }
    }

    /// The range is locked: starts the first step.
    fn start(&mut self, slot: usize, ring: &mut Ring, done: &mut Vec<Completion>) {
        let request = &mut self.requests[slot];
        match request.io.op {
            Op::Read => {
                let blocks = self.shared.pi.layout.blocks_of(request.first, request.count);
                request.phase = Phase::Reading;
                request.left = 1 + (blocks.end - blocks.start) as u32;
                self.move_data(slot, ring);
                self.access_all(slot, blocks, ring, done);
            }
            Op::Write { .. } => self.next_step(slot, ring, done),
            Op::Discard if self.hurried => self.unlock(slot, ring, done),
            Op::Discard | Op::Flush => self.prepare(slot, ring, done),
        }
    }

    /// Starts a step of a write: all that is left of it, or as much as a record can announce.
    fn next_step(&mut self, slot: usize, ring: &mut Ring, done: &mut Vec<Completion>) {
        let most = self.shared.safety.most_intervals();
        let interval = self.shared.pi.layout.interval();
        let request = &mut self.requests[slot];
        let end = (request.io.offset + request.io.bytes) / interval;
        request.count = (end - request.first).min(most);
        self.prepare(slot, ring, done);
    }

    /// Announces the present step, and fetches the blocks that it changes in part: what cannot be had is known before
    /// the data is touched.
    fn prepare(&mut self, slot: usize, ring: &mut Ring, done: &mut Vec<Completion>) {
        let layout = self.shared.pi.layout;
        let request = &mut self.requests[slot];
        let (first, count) = (request.first, request.count);
        let blocks = layout.blocks_of(first, count);
        request.phase = Phase::Preparing;
        // One for the announcement, and one more until all is started.
        request.left = 2;
        if request.io.buffer.is_some() {
            // Only a step's first and last block can be changed in part.
            let last = (blocks.end - 1 > blocks.start).then_some(blocks.end - 1);
            for block in std::iter::once(blocks.start).chain(last) {
                if !layout.piece(first, count, block).whole {
                    let ready = self.access(slot, block, false, ring);
                    self.requests[slot].left += u32::from(!ready);
                }
            }
        }
        if self.announce(slot) {
            self.requests[slot].left -= 1;
        }
        self.one_done(slot, ring, done);
    }

    /// Hands the data of the present step, or what is left of it, to the kernel.
    fn move_data(&self, slot: usize, ring: &mut Ring) {
        let Request { io, moved, first, count, .. } = &self.requests[slot];
        let fd = self.shared.data.fd();
        let user_data = Owner::Store.user_data(DATA << KIND_SHIFT | slot as u64);
        let Some(lease) = &io.buffer else {
            let interval = self.shared.pi.layout.interval();
            return punch(ring, fd, first * interval, count * interval, user_data);
        };
        let write = if io.op == Op::Read { None } else { Some(0) };
        let transfer = Transfer { fd, offset: io.offset + *moved as u64, write, pi: None };
        // SAFETY: there is no attribute, and the request has the lease until its completion has been taken.
        unsafe { ring.transfer(transfer, lease, *moved..self.step_end(slot), user_data) }
    }

    /// Where the present step ends in the request's data.
    fn step_end(&self, slot: usize) -> usize {
        let Request { io, first, count, .. } = &self.requests[slot];
        // Within the lease's length.
        ((first + count) * self.shared.pi.layout.interval() - io.offset) as usize
    }

    fn data_moved(&mut self, slot: usize, result: i32, ring: &mut Ring, done: &mut Vec<Completion>) {
        let Some(request) = self.requests.get(slot) else {
            debug_assert!(false, "a completion of nothing");
            return;
        };
        let end = if request.io.buffer.is_some() { self.step_end(slot) } else { 0 };
        let request = &mut self.requests[slot];
        match outcome(result, end - request.moved) {
            Outcome::Again { moved } => {
                request.moved += moved;
                return self.move_data(slot, ring);
            }
            Outcome::Failed(error) => request.error = Some(error),
            Outcome::Done => request.moved = end,
        }
        self.one_done(slot, ring, done);
    }

    /// One thing that the request waited for has ended. After the last one, the next phase.
    fn one_done(&mut self, slot: usize, ring: &mut Ring, done: &mut Vec<Completion>) {
        let request = &mut self.requests[slot];
        request.left -= 1;
        if request.left > 0 {
            return;
        }
        if request.error.is_some() {
            return self.unlock(slot, ring, done);
        }
        let blocks = self.shared.pi.layout.blocks_of(request.first, request.count);
        match (request.phase, request.io.op) {
            (Phase::Preparing, _) => {
                request.phase = Phase::Moving;
                request.left = 1;
                self.move_data(slot, ring);
            }
            (Phase::Moving, Op::Discard) => {
                request.phase = Phase::Putting;
                self.put_escapes(slot, blocks, ring, done);
            }
            (Phase::Moving, _) => {
                request.phase = Phase::Putting;
                request.left = (blocks.end - blocks.start) as u32;
                self.access_all(slot, blocks, ring, done);
            }
            (Phase::Putting, Op::Write { .. }) if request.moved < request.io.bytes as usize => {
                self.over(slot);
                let request = &mut self.requests[slot];
                request.first += request.count;
                self.next_step(slot, ring, done);
            }
            _ => self.unlock(slot, ring, done),
        }
    }

    /// The step is over: gives the range back, and completes the request unless there is more to it.
    fn unlock(&mut self, slot: usize, ring: &mut Ring, done: &mut Vec<Completion>) {
        let held_back = self.over(slot);
        let request = &mut self.requests[slot];
        let me = &self.inbox;
        if let Some(span) = request.span.take() {
            self.shared.ranges.release(span, &mut |waiter: Waiter| waiter.post(Wake::Range, Some(me)));
        }
        if held_back {
            return;
        }
        match (request.io.op, request.error) {
            (_, Some(error)) => self.end(slot, Err(error), done),
            (Op::Write { fua: true }, None) => self.flush(slot, done),
            (Op::Discard, None) => {
                request.first += request.count;
                self.next_chunk(slot, ring, done);
            }
            _ => self.end(slot, Ok(()), done),
        }
    }

    fn flush(&mut self, slot: usize, done: &mut Vec<Completion>) {
        if self.shared.capabilities.read_only {
            return self.end(slot, Ok(()), done);
        }
        self.requests[slot].phase = Phase::Flushing;
        self.shared.maintenance.flush(Waiter { inbox: Arc::clone(&self.inbox), slot });
    }

    fn end(&mut self, slot: usize, result: Result<(), Errno>, done: &mut Vec<Completion>) {
        let Request { io, .. } = self.requests.remove(slot);
        done.push(Completion { id: io.id, buffer: io.buffer, result: result.map_err(IoError::from) });
    }

    fn fail(&mut self, slot: usize, error: Errno) {
        self.requests[slot].error.get_or_insert(error);
    }

    /// Accesses all blocks of the present step, which `left` already counts.
    fn access_all(&mut self, slot: usize, blocks: Range<u64>, ring: &mut Ring, done: &mut Vec<Completion>) {
        let mut ready = 0;
        for block in blocks {
            ready += u32::from(self.access(slot, block, false, ring));
        }
        if ready > 0 {
            self.requests[slot].left -= ready - 1;
            self.one_done(slot, ring, done);
        }
    }

    /// Does what the request's phase is about with one block; true if it is done, else an event will come.
    fn access(&mut self, slot: usize, block: u64, pinned: bool, ring: &mut Ring) -> bool {
        let Shared { pi, cache, maintenance, .. } = &*self.shared;
        let Request { io, phase, first, count, .. } = &mut self.requests[slot];
        let piece = pi.layout.piece(*first, *count, block);
        let access = match phase {
            Phase::Putting if piece.whole => Access::Replace,
            Phase::Putting => Access::Change,
            _ => Access::Read,
        };
        let inbox = &self.inbox;
        let waiter = || Waiter { inbox: Arc::clone(inbox), slot };
        // Where the step's metadata starts in the request's.
        let start = (*first - io.offset / pi.layout.interval()) as usize * pi.layout.entry();
        let in_buffer = start + piece.in_run.start..start + piece.in_run.end;
        let fetches = *phase == Phase::Preparing;
        let found = cache.access(block, access, pinned, waiter, |bytes| {
            let entries = &mut bytes[piece.in_block];
            match (access, &mut io.buffer) {
                _ if fetches => {}
                (Access::Read, Some(lease)) => lease.parts_mut().1[in_buffer].copy_from_slice(entries),
                (_, Some(lease)) => entries.copy_from_slice(&lease.parts().1[in_buffer]),
                (_, None) => entries.fill(0xFF),
            }
        });
        match found {
            Found::Done(kick) => {
                if kick != Kick::No {
                    maintenance.kick(kick == Kick::Now);
                }
                return true;
            }
            Found::Wait => {}
            Found::Starved => maintenance.kick(true),
            Found::Load(frame) => self.load(frame, ring),
        }
        false
    }

    fn load(&mut self, frame: Frame, ring: &mut Ring) {
        let Shared { pi, cache, .. } = &*self.shared;
        let at = pi.layout.position(cache.block_of(frame));
        let entry =
            opcode::Read::new(types::Fd(pi.medium.fd()), cache.address(frame), BLOCK as u32).offset(at);
        let user_data = Owner::Store.user_data(LOAD << KIND_SHIFT | u64::from(frame.0));
        self.loads += 1;
        // SAFETY: a frame that is being loaded is touched by nobody until `Cache::loaded`, and the cache outlives
        // this queue, which does not go before its loads have ended.
        unsafe { ring.push(&entry.build().user_data(user_data)) }
    }

    fn loaded(&mut self, frame: Frame, result: i32, ring: &mut Ring) {
        self.loads -= 1;
        let result = match outcome(result, BLOCK) {
            Outcome::Done => Ok(()),
            Outcome::Again { moved: 0 } => return self.load(frame, ring),
            // A block lies within the file and is aligned as the medium wants it: a part of one is a broken medium.
            Outcome::Again { .. } => Err(Errno(libc::EIO)),
            Outcome::Failed(error) => Err(error),
        };
        self.shared.cache.loaded(frame, result, &self.inbox);
    }
}

impl Drop for SidecarQueue {
    fn drop(&mut self) {
        let idle = self.requests.is_empty() && self.loads == 0;
        debug_assert!(idle || std::thread::panicking(), "a queue went before its requests had ended");
    }
}
