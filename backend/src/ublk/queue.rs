//! The way of a request of a ublk device, batch by batch; one thread per queue.
//!
//! ```text
//! turn:  take      what the kernel has delivered -> a buffer of the pool, or held until there is one
//!        start     writes: data and PI copied in, PI checked or made; the store gets each I/O
//!        finish    reads: PI checked, data and PI copied out; every request answered by a commit
//!        enter     one io_uring call hands in commits and the store's I/O; deliveries and completions come back
//! ```
//!
//! Each copy is a system call of its own: pread and pwrite on the device's character device are the only way to a
//! request's PI, and through an io_uring they would go to a worker thread. All else is by the batch.
//!
//! Told to stop, a queue leaves what it has not begun: the kernel gives that to the next server.

use crate::io::{Doorbell, Lease, Owner, Pool, Ring};
use crate::limit::Limit;
use crate::queue::{Counters, Disk, Integrity, Look, Rules, Spin};
use crate::store::{Completion, Io, Op, StoreQueue};
use ::ublk::{Operation, Queue, Request, uapi};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Requests, and bytes, taken in one turn: few enough that the medium works on the first while the next are copied, enough
/// to spread the cost of each call.
const BATCH: usize = 8;
const BATCH_BYTES: u64 = 512 << 10;
/// The longest sleep. Nothing depends on it: deliveries, completions and the doorbell all end a sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);
/// What is polled in the io_uring, beside the tags, which are below it.
const BELL: u64 = 1 << 32;

/// What the queue's thread shares with the main thread.
#[derive(Debug)]
pub(super) struct Link {
    /// Set to make the queue stop.
    pub stop: AtomicBool,
    /// Wakes the queue: to stop, or to go on with what waited for another queue.
    pub bell: Doorbell,
    pub counters: Counters,
}

/// Why a queue ended by itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("io_uring_enter: {0}")]
    Kernel(#[source] io::Error),
    #[error("the driver does not take this server (FETCH_REQ: {0})")]
    Fetch(io::Error),
}

/// What a tag carries.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub request: Option<Request>,
    /// The private buffer, while the queue and not the store has it.
    pub lease: Option<Lease>,
}

/// One queue, owned by its thread.
pub(super) struct Engine {
    // Fields drop in this order: the kernel and the store let go of buffers before the pool unmaps them.
    pub uring: Ring,
    pub store: Box<dyn StoreQueue>,
    pub pool: Pool,
    pub queue: Queue,
    pub disk: Arc<Disk>,
    pub rules: Option<Rules>,
    pub link: Arc<Link>,
    pub slots: Vec<Slot>,
    pub spin: Spin,
    pub work: Work,
    /// About requests that are wrong; about what the medium or the driver does.
    pub refusal_log: Arc<Limit>,
    pub medium_log: Arc<Limit>,
}

/// What is in the engine's hands between the steps of a turn. All of it keeps its memory.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Delivered, not yet placed.
    fresh: VecDeque<u16>,
    /// The first of them waits for a buffer.
    short: bool,
    /// Requests that the store has.
    pub started: usize,
    pub done: Vec<Completion>,
    /// The kernel has said that a tag carries no more: the device goes.
    gone: bool,
}

impl Engine {
    /// Offers every tag to the kernel. Only when this has succeeded on every queue can the device be started.
    pub fn fetch(&mut self) -> Result<(), Failure> {
        for tag in 0..self.queue.depth() {
            let entry = self.queue.fetch(tag).user_data(Owner::Queue.user_data(tag.into()));
            // SAFETY: the entry names no memory.
            unsafe { self.uring.push(&entry) }
        }
        self.listen();
        while self.uring.pending() > 0 {
            self.uring.submit(None).map_err(Failure::Kernel)?;
        }
        // What the driver refuses, it refuses at once.
        self.reap()?;
        Ok(())
    }

    /// Works until told to stop or until the device goes, and everything that was begun is answered.
    pub fn run(&mut self) -> Result<(), Failure> {
        loop {
            if self.stopping() {
                self.store.hurry();
            }
            if self.turn()? {
                continue;
            }
            if self.stopping() && self.work.started == 0 {
                // The last commits are in the kernel's hands when nothing is pending.
                if self.uring.pending() == 0 {
                    return Ok(());
                }
                continue;
            }
            self.idle()?;
        }
    }

    fn stopping(&self) -> bool {
        self.work.gone || self.link.stop.load(Ordering::Relaxed)
    }

    /// One batch through all steps; whether anything was done.
    fn turn(&mut self) -> Result<bool, Failure> {
        let taken = self.take();
        let finished = self.finish();
        self.uring.submit(None).map_err(Failure::Kernel)?;
        let reaped = self.reap()?;
        self.link.counters.turns.add(1);
        self.link.counters.submits.set(self.uring.submits());
        Ok(taken || finished || reaped)
    }

    /// Looks for more work a little longer, then sleeps until a delivery, a completion or the doorbell.
    fn idle(&mut self) -> Result<(), Failure> {
        let uring = &mut self.uring;
        match self.spin.look(|| uring.ready()) {
            Look::Nothing => {}
            Look::AtOnce => return Ok(()),
            Look::Spun => {
                self.link.counters.spins_won.add(1);
                return Ok(());
            }
        }
        let before = Instant::now();
        self.uring.submit(Some(LONGEST_SLEEP)).map_err(Failure::Kernel)?;
        self.spin.learn(before.elapsed());
        self.link.counters.wakeups.add(1);
        Ok(())
    }

    /// Makes the io_uring watch the doorbell.
    fn listen(&mut self) {
        self.uring.poll(self.link.bell.as_fd().as_raw_fd(), Owner::Queue.user_data(BELL));
    }

    /// Takes the io_uring's completions; whether there were any.
    fn reap(&mut self) -> Result<bool, Failure> {
        let (mut any, mut rang) = (false, false);
        while let Some((user_data, result)) = self.uring.reap() {
            any = true;
            match Owner::of(user_data) {
                (Owner::Store, value) => {
                    self.store.complete(value, result, &mut self.uring, &mut self.work.done);
                }
                (Owner::Queue, BELL) => rang = true,
                (Owner::Queue, tag) => self.delivered(tag, result)?,
            }
        }
        if rang {
            self.link.bell.quiet();
            self.listen();
            self.store.resume(&mut self.uring, &mut self.work.done);
        }
        Ok(any)
    }

    fn delivered(&mut self, tag: u64, result: i32) -> Result<(), Failure> {
        match (u16::try_from(tag), result) {
            (Ok(tag), uapi::IO_RES_OK) => self.work.fresh.push_back(tag),
            (_, uapi::IO_RES_ABORT) => self.work.gone = true,
            (_, error) => return Err(Failure::Fetch(io::Error::from_raw_os_error(-error))),
        }
        Ok(())
    }

    /// Places and starts what was delivered, in order, as far as buffers go.
    fn take(&mut self) -> bool {
        let (mut taken, mut taken_bytes) = (0, 0);
        while !self.stopping()
            && taken < BATCH
            && taken_bytes < BATCH_BYTES
            && let Some(&tag) = self.work.fresh.front()
        {
            let request = self.queue.request(tag);
            let slot = &mut self.slots[usize::from(tag)];
            if has_data(request.operation) {
                let bytes = usize::try_from(request.bytes).unwrap_or(usize::MAX);
                let metadata = self.rules.as_ref().map_or(0, |rules| rules.profile().metadata_len(bytes));
                slot.lease = self.pool.take(bytes, metadata);
                if slot.lease.is_none() {
                    self.link.counters.pool_waits.add(u64::from(!self.work.short));
                    self.work.short = true;
                    break;
                }
                self.work.short = false;
                taken_bytes += request.bytes;
            }
            slot.request = Some(request);
            self.work.fresh.pop_front();
            self.start(tag, request);
            taken += 1;
        }
        taken > 0
    }

    fn start(&mut self, tag: u16, request: Request) {
        let op = match request.operation {
            Operation::Read => Op::Read,
            Operation::Flush => Op::Flush,
            Operation::Discard => Op::Discard,
            Operation::Write | Operation::WriteZeroes => Op::Write { fua: request.fua },
            Operation::Other(_) => return self.refuse(tag, libc::EOPNOTSUPP, "no such operation"),
        };
        if self.disk.integrity == Integrity::Require
            && matches!(request.operation, Operation::Read | Operation::Write)
            && !request.integrity
        {
            return self.refuse(tag, libc::EILSEQ, "it has no PI, and integrity=require");
        }
        match request.operation {
            Operation::Write if !self.fill(tag, &request) => return,
            Operation::WriteZeroes => self.zero(tag, request.offset),
            _ => {}
        }
        let slot = &mut self.slots[usize::from(tag)];
        let bytes = if op == Op::Flush { 0 } else { request.bytes };
        let io = Io { id: tag.into(), op, offset: request.offset, bytes, buffer: slot.lease.take() };
        self.work.started += 1;
        self.store.submit(io, &mut self.uring, &mut self.work.done);
    }
}

/// Whether a request takes a buffer here.
pub(super) fn has_data(operation: Operation) -> bool {
    matches!(operation, Operation::Read | Operation::Write | Operation::WriteZeroes)
}
