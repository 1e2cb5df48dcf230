//! A plain file or block device without PI: every request is one io_uring operation on the queue's ring.
//!
//! Overlapping requests need no order here: with no metadata beside the data there is nothing to disagree with.

use crate::io::{Doorbell, Owner, Ring};
use crate::store::flushes::{Flushes, Turn};
use crate::store::inbox::{Inbox, Waiter, Wake};
use crate::store::medium::Medium;
use crate::store::sidecar::grown_size;
use crate::store::{Capabilities, Completion, Errno, Geometry, Io, Op, Store, StoreError, StoreQueue};
use io_uring::{opcode, types};
use rustix::fs::FallocateFlags;
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most bytes that are discarded at once: a device may take seconds for as many.
const PART: u64 = 1 << 30;
/// Most discards of a queue that are in the kernel's hands: whoever stops the queue waits for these.
const DISCARDS: usize = 4;
/// What a flush's completion says, in place of a request.
const ROUND: u64 = 1 << 48;

/// A disk without PI.
pub(crate) struct FileStore {
    data: Medium,
    /// Its size, which may grow.
    bytes: AtomicU64,
    capabilities: Capabilities,
    flushes: Flushes,
}

impl FileStore {
    /// Serves an open, locked disk.
    pub(crate) fn new(data: Medium, read_only: bool, discard: bool) -> Self {
        let capabilities = plain_capabilities(&data, read_only, discard);
        Self { bytes: AtomicU64::new(data.bytes), data, capabilities, flushes: Flushes::default() }
    }
}

/// What a disk can do that has no PI.
pub(crate) fn plain_capabilities(data: &Medium, read_only: bool, discard: bool) -> Capabilities {
    let discard = if discard && !read_only { data.discard_unit() } else { None };
    // Neither a file nor a device says that a completed write is durable.
    Capabilities { profile: None, read_only, discard, volatile_cache: true }
}

impl Store for FileStore {
    fn geometry(&self) -> Geometry {
        let Medium { sector, physical, .. } = self.data;
        // Relaxed: the medium was so long before anybody could read it here.
        let bytes = self.bytes.load(Ordering::Relaxed);
        Geometry { bytes, logical_block: sector, physical_block: physical }
    }

    fn grow(&self) -> Result<u64, StoreError> {
        let bytes = grown_size(&self.data, self.bytes.load(Ordering::Relaxed), self.data.sector)?;
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(bytes)
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn queue(self: Arc<Self>, doorbell: Doorbell) -> io::Result<Box<dyn StoreQueue>> {
        Ok(Box::new(FileQueue {
            store: self,
            active: Slab::new(),
            discarding: 0,
            waiting: VecDeque::new(),
            round: Vec::new(),
            inbox: Arc::new(Inbox::new(doorbell)),
            events: Vec::new(),
            hurried: false,
        }))
    }

    fn close(&self) -> io::Result<()> {
        if self.capabilities.read_only {
            return Ok(());
        }
        self.data.file.sync_all()?;
        // The kernel tells a failure once.
        self.flushes.broken().map_or(Ok(()), |Errno(errno)| Err(io::Error::from_raw_os_error(errno)))
    }
}

/// An operation in the kernel's hands.
struct Active {
    io: Io,
    /// Bytes that are already done.
    moved: usize,
}

impl Active {
    /// Bytes of a discard's next part.
    fn part(&self) -> u64 {
        (self.io.bytes - self.moved as u64).min(PART)
    }
}

struct FileQueue {
    store: Arc<FileStore>,
    active: Slab<Active>,
    /// Discards in the kernel's hands, and those that wait for one of them to end.
    discarding: usize,
    waiting: VecDeque<usize>,
    /// The flushes of the round that this queue leads.
    round: Vec<Waiter>,
    inbox: Arc<Inbox>,
    /// Memory for what the inbox gives.
    events: Vec<(usize, Wake)>,
    /// The queue is about to end.
    hurried: bool,
}

impl StoreQueue for FileQueue {
    fn submit(&mut self, io: Io, ring: &mut Ring, done: &mut Vec<Completion>) {
        if let Err(error) = admit(&io, &self.store.geometry(), &self.store.capabilities) {
            return done.push(Completion { id: io.id, buffer: io.buffer, result: Err(error.into()) });
        }
        let (flushes, discards) = (io.op == Op::Flush, io.op == Op::Discard);
        let slot = self.active.insert(Active { io, moved: 0 });
        if flushes {
            return self.flush(slot, ring, done);
        }
        if discards && self.discarding == DISCARDS {
            return self.waiting.push_back(slot);
        }
        self.discarding += usize::from(discards);
        self.start(slot, ring);
    }

    fn complete(&mut self, value: u64, result: i32, ring: &mut Ring, done: &mut Vec<Completion>) {
        if value == ROUND {
            return self.round_ended(result, ring, done);
        }
        let slot = value as usize;
        let Some(active) = self.active.get_mut(slot) else {
            debug_assert!(false, "a completion of nothing");
            return;
        };
        let left = active.io.buffer.as_ref().map_or(0, |lease| lease.len() - active.moved);
        let result = match outcome(result, left) {
            Outcome::Done if active.io.op == Op::Discard => {
                active.moved += active.part() as usize;
                if (active.moved as u64) < active.io.bytes && !self.hurried {
                    return self.start(slot, ring);
                }
                Ok(())
            }
            // Not by RWF_DSYNC, which would be told of what others have lost in a flush's place.
            Outcome::Done if active.io.op == (Op::Write { fua: true }) => {
                return self.flush(slot, ring, done);
            }
            Outcome::Done => Ok(()),
            Outcome::Again { moved } => {
                active.moved += moved;
                return self.start(slot, ring);
            }
            Outcome::Failed(error) => Err(error.into()),
        };
        let Active { io, .. } = self.active.remove(slot);
        let discarded = io.op == Op::Discard;
        done.push(Completion { id: io.id, buffer: io.buffer, result });
        if discarded {
            self.discarding -= 1;
            self.next_discards(ring, done);
        }
    }

    fn resume(&mut self, ring: &mut Ring, done: &mut Vec<Completion>) {
        self.settle(ring, done);
    }

    fn hurry(&mut self) {
        self.hurried = true;
    }
}

impl FileQueue {
    fn flush(&mut self, slot: usize, ring: &mut Ring, done: &mut Vec<Completion>) {
        match self.store.flushes.join(Waiter { inbox: Arc::clone(&self.inbox), slot }) {
            Turn::Lead(round) => self.lead(round, ring),
            Turn::Wait => {}
            Turn::Failed(error) => self.flushed(slot, Err(error), done),
        }
    }

    fn lead(&mut self, round: Vec<Waiter>, ring: &mut Ring) {
        self.round = round;
        self.sync(ring);
    }

    fn sync(&self, ring: &mut Ring) {
        let fd = types::Fd(self.store.data.fd());
        let entry = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
        // SAFETY: the entry names no memory.
        unsafe { ring.push(&entry.user_data(Owner::Store.user_data(ROUND))) }
    }

    fn round_ended(&mut self, result: i32, ring: &mut Ring, done: &mut Vec<Completion>) {
        let result = match outcome(result, 0) {
            Outcome::Done => Ok(()),
            Outcome::Again { .. } => return self.sync(ring),
            Outcome::Failed(error) => Err(error),
        };
        let next = self.store.flushes.end(result);
        for waiter in std::mem::take(&mut self.round).into_iter().chain(next.failed) {
            waiter.post(Wake::Flushed(result), Some(&self.inbox));
        }
        if let Some(leader) = next.leader {
            leader.post(Wake::Room, Some(&self.inbox));
        }
        self.settle(ring, done);
    }

    /// Does what this or another queue has told.
    fn settle(&mut self, ring: &mut Ring, done: &mut Vec<Completion>) {
        let mut events = std::mem::take(&mut self.events);
        while self.inbox.take(&mut events) {
            for (slot, wake) in events.drain(..) {
                match wake {
                    Wake::Flushed(result) => self.flushed(slot, result, done),
                    Wake::Room => {
                        let round = self.store.flushes.lead();
                        self.lead(round, ring);
                    }
                    other => debug_assert!(false, "{other:?} is nothing that happens here"),
                }
            }
        }
        self.events = events;
    }

    fn flushed(&mut self, slot: usize, result: Result<(), Errno>, done: &mut Vec<Completion>) {
        let Active { io, .. } = self.active.remove(slot);
        done.push(Completion { id: io.id, buffer: io.buffer, result: result.map_err(Into::into) });
    }

    /// Starts what waited for a discard to end; in a hurry, ends it.
    fn next_discards(&mut self, ring: &mut Ring, done: &mut Vec<Completion>) {
        while self.discarding < DISCARDS
            && let Some(slot) = self.waiting.pop_front()
        {
            if self.hurried {
                let Active { io, .. } = self.active.remove(slot);
                done.push(Completion { id: io.id, buffer: io.buffer, result: Ok(()) });
            } else {
                self.discarding += 1;
                self.start(slot, ring);
            }
        }
    }

    fn start(&self, slot: usize, ring: &mut Ring) {
        let fd = self.store.data.fd();
        let user_data = Owner::Store.user_data(slot as u64);
        let active = &self.active[slot];
        let Active { io, moved } = active;
        let at = io.offset + *moved as u64;
        match (io.op, &io.buffer) {
            (Op::Read, Some(lease)) => ring.read(fd, lease, *moved, at, user_data),
            (Op::Write { .. }, Some(lease)) => ring.write(fd, lease, *moved, at, user_data),
            (Op::Discard, _) => punch(ring, fd, at, active.part(), user_data),
            // Admitted without a buffer, or a flush: neither comes here.
            (Op::Flush | Op::Read | Op::Write { .. }, _) => {
                debug_assert!(false, "{:?} without a buffer", io.op)
            }
        }
    }
}

/// Makes a hole of zeroes and keeps the size (fallocate(2)).
pub(crate) fn punch(ring: &mut Ring, fd: i32, offset: u64, bytes: u64, user_data: u64) {
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let entry =
        opcode::Fallocate::new(types::Fd(fd), bytes).offset(offset).mode(mode.bits().cast_signed()).build();
    // SAFETY: the entry names no memory.
    unsafe { ring.push(&entry.user_data(user_data)) }
}

/// What a store asks of a request before it touches it. The queue has admitted it, so this only keeps a mistake
/// from becoming a panic or a foreign range.
pub(crate) fn admit(io: &Io, geometry: &Geometry, capabilities: &Capabilities) -> Result<(), Errno> {
    if io.op == Op::Flush {
        return Ok(());
    }
    if capabilities.read_only && io.op != Op::Read {
        return Err(Errno(libc::EROFS));
    }
    if io.op == Op::Discard && capabilities.discard.is_none() {
        return Err(Errno(libc::EOPNOTSUPP));
    }
    let block = u64::from(geometry.logical_block);
    let inside = io.offset.checked_add(io.bytes).is_some_and(|end| end <= geometry.bytes);
    if !inside || io.bytes == 0 || !io.offset.is_multiple_of(block) || !io.bytes.is_multiple_of(block) {
        return Err(Errno(libc::EINVAL));
    }
    if io.op != Op::Discard {
        let metadata = capabilities.profile.map_or(0, |profile| profile.metadata_len(io.bytes as usize));
        let fits = |lease: &crate::io::Lease| {
            lease.len() as u64 == io.bytes && (lease.metadata_len() == metadata || metadata == 0)
        };
        if !io.buffer.as_ref().is_some_and(fits) {
            return Err(Errno(libc::EINVAL));
        }
    }
    Ok(())
}

/// How an io_uring operation went.
pub(crate) enum Outcome {
    /// All of it is done.
    Done,
    /// It is to be started again after `moved` more bytes.
    Again { moved: usize },
    /// It failed.
    Failed(Errno),
}

/// Reads the result of an operation that had `left` bytes to move (0 for one that moves none).
pub(crate) fn outcome(result: i32, left: usize) -> Outcome {
    match usize::try_from(result) {
        Err(_) if result == -libc::EINTR || result == -libc::EAGAIN => Outcome::Again { moved: 0 },
        Err(_) => Outcome::Failed(Errno(result.saturating_neg())),
        Ok(moved) if moved >= left => Outcome::Done,
        // The file has become shorter than the disk, or the device takes no more.
        Ok(0) => Outcome::Failed(Errno(libc::EIO)),
        Ok(moved) => Outcome::Again { moved },
    }
}
