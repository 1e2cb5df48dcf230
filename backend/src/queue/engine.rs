//! The way of a request, batch by batch.
//!
//! ```text
//! turn:  consume   ring -> pair -> admit -> place (a buffer of the pool)
//!        fetch     one grant copy for the batch's writes; PI checked or made on the private bytes
//!        start     the store gets each I/O with its buffer
//!        enter     one io_uring call hands in what the store queued; completions come back
//!        finish    reads: PI checked, one grant copy for the batch; every request answered
//!        publish   one store of rsp_prod, at most one notification
//! ```
//!
//! A request that finds no buffer, or a barrier that finds others under way, is *held*; while anything is held the
//! ring is left alone, so the order of the ring is kept and a small pool only slows its own queue.

use crate::io::{Doorbell, Owner, Pool, Ring};
use crate::queue::active::{Stage, Table};
use crate::queue::admit::{Kind, admit};
use crate::queue::copies::Copies;
use crate::queue::indirect::Indirect;
use crate::queue::limit::Limit;
use crate::queue::protect::Rules;
use crate::queue::spin::{Look, Spin};
use crate::queue::{Counters, Disk};
use crate::store::{Completion, Errno, Io, Op, StoreQueue};
use blkif::{BackRing, Operation, Paired, Pairing, Payload, Request, Segments, SharedMemory, Status};
use hypervisor::{Copier, Direction, EventChannel};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Requests taken in one turn: few enough that the frontend works on the first answers while the next are made (with 32
/// the two take turns, and sleep between them), enough to spread the cost of each call. With PI, 8 requests of a page
/// are 16 copies, which is what gntdev hands to the hypervisor at a time.
const BATCH: usize = 8;
/// Data taken in one turn: it stays in the second-level cache from the copy to the check.
const BATCH_BYTES: u64 = 512 << 10;
/// The longest sleep. Nothing depends on it: events, completions and the doorbell all end a sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

/// What this queue polls in its io_uring.
const EVENT: u64 = 0;
const BELL: u64 = 1;

/// What the control thread shares with the queue's thread.
#[derive(Debug)]
pub(crate) struct Link {
    /// Set to make the queue stop.
    pub stop: AtomicBool,
    /// Wakes the queue: to stop, or to go on with what waited for another queue.
    pub bell: Doorbell,
    pub counters: Counters,
}

/// Why a queue ended by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the frontend broke the ring: {0}")]
    Ring(#[from] blkif::RingError),
    #[error("io_uring_enter: {0}")]
    Kernel(#[source] io::Error),
    #[error("event channel: {0}")]
    Event(#[from] hypervisor::Error),
}

/// One queue, owned by its thread.
pub(crate) struct Engine {
    // Fields drop in this order: the kernel and the store let go of buffers before the pool unmaps them.
    pub uring: Ring,
    pub store: Box<dyn StoreQueue>,
    pub pool: Pool,
    pub ring: BackRing<SharedMemory>,
    pub pairing: Pairing,
    pub channel: Box<dyn EventChannel>,
    pub copier: Box<dyn Copier>,
    pub disk: Arc<Disk>,
    pub rules: Option<Rules>,
    /// Whether the store may lose a completed write until a flush.
    pub volatile: bool,
    pub link: Arc<Link>,
    pub table: Table,
    pub indirect: Indirect,
    pub spin: Spin,
    pub work: Work,
    pub guest_log: Limit,
    pub medium_log: Limit,
    pub host_log: Limit,
}

/// What is in the engine's hands between the steps of a turn. All of it keeps its memory.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Taken, and waiting for a buffer or, a barrier, for the others to end.
    held: VecDeque<u32>,
    /// A barrier is under way: nothing else is taken.
    barrier: bool,
    /// Placed in this turn, not started.
    fresh: Vec<u32>,
    /// Bytes of data placed in this turn.
    fresh_bytes: u64,
    /// Reads whose data is being copied out.
    outgoing: Vec<u32>,
    done: Vec<Completion>,
    copies: Copies,
    /// Half a pair is visible: the ring is armed for the whole.
    half_pair: bool,
    /// The queue cannot go on; what is under way is still answered.
    broken: Option<Failure>,
    /// An event was acknowledged: the channel is masked until this queue sleeps.
    masked: bool,
    event_polled: bool,
    event_due: bool,
    answered: bool,
}

impl Engine {
    /// Works until told to stop, and drained. The ring then stands at its last response.
    pub fn run(&mut self) -> Result<(), Failure> {
        // Whoever was here before may have left requests and a frontend that waits: look at once, and tell it once.
        self.channel.notify()?;
        self.listen();
        loop {
            if self.turn()? {
                continue;
            }
            if self.stopping() && self.table.is_empty() {
                return self.work.broken.take().map_or(Ok(()), Err);
            }
            self.idle()?;
        }
    }

    /// One batch through all steps; whether anything was done.
    fn turn(&mut self) -> Result<bool, Failure> {
        let mut worked = self.consume();
        self.fetch();
        self.start();
        self.uring.submit(None).map_err(Failure::Kernel)?;
        worked |= self.reap();
        if std::mem::take(&mut self.work.event_due) {
            let acknowledged = self.channel.acknowledge();
            self.work.masked |= self.heard(acknowledged).unwrap_or(false);
        }
        worked |= self.finish();
        if std::mem::take(&mut self.work.answered) && self.ring.publish() {
            self.link.counters.notifications.add(1);
            let notified = self.channel.notify();
            self.heard(notified);
        }
        self.link.counters.turns.add(1);
        self.link.counters.submits.set(self.uring.submits());
        Ok(worked)
    }

    /// What the event channel gave. If it failed, the queue stops, but the store may have requests under way that
    /// must not outlive it: they are waited for.
    fn heard<T>(&mut self, result: Result<T, hypervisor::Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.work.broken.get_or_insert(error.into());
                None
            }
        }
    }

    fn stopping(&self) -> bool {
        self.work.broken.is_some() || self.link.stop.load(Ordering::Relaxed)
    }

    /// Whether the ring may be looked at for more.
    fn accepts(&self) -> bool {
        self.work.held.is_empty() && !self.work.barrier && !self.stopping()
    }

    // --- consume ---------------------------------------------------------------------------------------------

    /// Takes requests from the ring and places them; whether there were any.
    fn consume(&mut self) -> bool {
        let before = self.table.len();
        let answered = self.work.answered;
        while let Some(&name) = self.work.held.front() {
            if !self.place(name) {
                break;
            }
            self.work.held.pop_front();
        }
        let (mut slot, mut barrier, mut taken) = (Paired::NeedMore(1), None, 0);
        self.work.half_pair = false;
        while self.accepts()
            && barrier.is_none()
            && taken < BATCH
            && self.work.fresh_bytes < BATCH_BYTES
            && self.indirect.has_room()
        {
            match self.pairing.next_into(&mut self.ring, &mut slot) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.work.broken = Some(error.into());
                    break;
                }
            }
            match &slot {
                Paired::Single(request) => barrier = self.take(request, None),
                Paired::Pair { data, payload } => barrier = self.take(data, Some(payload)),
                Paired::Refused(refused) => self.refuse(refused),
                Paired::NeedMore(_) => {
                    self.work.half_pair = true;
                    break;
                }
            }
            taken += 1;
        }
        self.read_indirect();
        // A barrier is placed last: what came before it in this batch must be under way first.
        if let Some(name) = barrier {
            self.place_or_hold(name);
        }
        self.link.counters.batches.add(u64::from(taken > 0));
        taken > 0
            || self.table.len() != before
            || self.work.answered != answered
            || !self.work.fresh.is_empty()
    }

    /// Answers what the parser refused.
    fn refuse(&mut self, refused: &blkif::Refused) {
        self.link.counters.refused.add(1);
        self.link.counters.errors.add(1);
        let name = &self.disk.name;
        self.guest_log
            .log(log::Level::Debug, || format!("{name}: a request was refused: {}", refused.reason));
        for response in &refused.responses {
            self.ring.respond(response);
        }
        self.work.answered = true;
    }

    /// Takes a parsed request into the table and places it; gives its name back if it is a barrier.
    fn take(&mut self, request: &Request, payload: Option<&Payload>) -> Option<u32> {
        let name = self.table.take()?;
        let active = &mut self.table[name];
        let (kind, bytes) = match request.operation {
            Operation::Read => (Kind::Read, 0),
            Operation::Write => (Kind::Write, 0),
            Operation::WriteBarrier => (Kind::Barrier, 0),
            Operation::Flush => (Kind::Flush, 0),
            // Checked by the parser to fit an offset.
            Operation::Discard { secure, sectors } => {
                (Kind::Discard { secure }, sectors.bytes().unwrap_or(u64::MAX))
            }
        };
        active.id = request.id;
        active.echo = request.echo;
        active.kind = kind;
        active.stage = Stage::Only;
        active.bytes = bytes;
        active.escaped = 0;
        active.segments.clear();
        active.metadata.clear();
        active.payload = payload.map(|payload| payload.id);
        if let Some(payload) = payload {
            active.metadata.clone_from(&payload.segments);
        }
        match &request.segments {
            Segments::Direct(segments) => {
                active.segments.extend_from_slice(segments);
                if kind.is_discard() {
                    return self.settle(name, request.sector, bytes);
                }
                let bytes = blkif::total_len(segments) as u64;
                self.settle(name, request.sector, bytes)
            }
            Segments::Indirect { count, pages } => {
                self.indirect.add(name, request.sector, *count, pages);
                None
            }
        }
    }

    /// Admits a request whose size is known, and places it unless it is a barrier, whose name it gives back.
    fn settle(&mut self, name: u32, sector: blkif::Sectors, bytes: u64) -> Option<u32> {
        let active = &mut self.table[name];
        let flagged = active.payload.is_some();
        match admit(&self.disk, active.kind, flagged, sector, bytes) {
            Ok(offset) => {
                (active.offset, active.bytes) = (offset, bytes);
                if active.kind.is_discard() {
                    let block = u64::from(self.disk.block());
                    let start = offset.next_multiple_of(block);
                    let end = (offset + bytes) / block * block;
                    (active.offset, active.bytes) = (start, end.saturating_sub(start));
                    if active.bytes == 0 {
                        self.answer(name, Status::Okay);
                        return None;
                    }
                }
                if active.kind == Kind::Barrier {
                    return Some(name);
                }
                self.place_or_hold(name);
            }
            Err(refused) => {
                self.link.counters.refused.add(1);
                let (disk, kind) = (&self.disk.name, active.kind);
                self.guest_log.log(log::Level::Debug, || {
                    format!("{disk}: {kind:?} of {bytes} bytes at sector {sector} was refused: {refused}")
                });
                self.answer(name, refused.status());
            }
        }
        None
    }

    /// Copies the batch's indirect pages once, parses the copies, and places the requests.
    fn read_indirect(&mut self) {
        if self.indirect.is_empty() {
            return;
        }
        if let Err(error) = self.indirect.fetch(&mut *self.copier, &self.link.counters) {
            self.copy_failed(&error);
        }
        for index in 0..self.indirect.len() {
            let (name, sector) = self.indirect.named(index);
            let active = &mut self.table[name];
            let parsed = self.indirect.parse(index, self.pairing.limits(), &mut active.segments);
            let bytes = blkif::total_len(&active.segments);
            let checked = parsed.and_then(|()| {
                let payload = blkif::total_len(&active.metadata);
                match (active.payload, self.pairing.limits().dix) {
                    (Some(_), Some(dix)) => {
                        let needed = dix.metadata_len(sector, bytes)?;
                        if payload < needed {
                            return Err(blkif::Refusal::PayloadTooShort { needed, actual: payload }.into());
                        }
                        Ok(())
                    }
                    _ => Ok(()),
                }
            });
            match checked {
                Ok(()) => {
                    self.settle(name, sector, bytes as u64);
                }
                Err(reason) => {
                    self.link.counters.refused.add(1);
                    let disk = &self.disk.name;
                    self.guest_log.log(log::Level::Debug, || {
                        format!("{disk}: an indirect request at sector {sector} was refused: {reason}")
                    });
                    self.answer(name, reason.status());
                }
            }
        }
        self.indirect.clear();
    }

    fn place_or_hold(&mut self, name: u32) {
        // Behind what is held already, so that a barrier keeps its place.
        if self.work.held.is_empty() {
            if self.place(name) {
                return;
            }
            self.link.counters.pool_waits.add(u64::from(self.table[name].kind != Kind::Barrier));
        }
        self.work.held.push_back(name);
    }

    /// Gives a request what it needs to start; false if it has to wait.
    fn place(&mut self, name: u32) -> bool {
        let alone = self.table.len() == 1;
        let active = &mut self.table[name];
        if active.kind == Kind::Barrier && !alone {
            return false;
        }
        if active.has_data() {
            let bytes = active.bytes as usize;
            let metadata = self.rules.as_ref().map_or(0, |rules| rules.profile().metadata_len(bytes));
            active.lease = self.pool.take(bytes, metadata);
            if active.lease.is_none() {
                return false;
            }
            self.work.fresh_bytes += active.bytes;
        }
        self.work.barrier |= active.kind == Kind::Barrier;
        self.work.fresh.push(name);
        true
    }

    // --- fetch -----------------------------------------------------------------------------------------------

    /// Copies the data of the batch's writes in, and checks or makes their PI.
    fn fetch(&mut self) {
        let work = &mut self.work;
        work.copies.clear();
        for &name in &work.fresh {
            let active = &mut self.table[name];
            active.place = 0..0;
            if active.kind == Kind::Read {
                continue;
            }
            if let Some(lease) = &active.lease {
                let start = work.copies.len();
                work.copies.add(&active.segments, lease.len(), lease.data_ptr(), Direction::FromGuest);
                if active.payload.is_some() {
                    work.copies.add(
                        &active.metadata,
                        lease.metadata_len(),
                        lease.metadata_ptr(),
                        Direction::FromGuest,
                    );
                }
                active.place = start..work.copies.len();
            }
        }
        self.run_copies();
        let mut fresh = std::mem::take(&mut self.work.fresh);
        fresh.retain(|&name| match self.fetched(name) {
            Ok(()) => true,
            Err(status) => {
                self.answer(name, status);
                false
            }
        });
        self.work.fresh = fresh;
    }

    /// What becomes of a request after its copies: its PI is right or made, or it is answered with a status.
    fn fetched(&mut self, name: u32) -> Result<(), Status> {
        let active = &mut self.table[name];
        let (Some(lease), false) = (&mut active.lease, active.kind == Kind::Read) else {
            return Ok(());
        };
        if let Some((gref, status)) = self.work.copies.fault(&active.place) {
            self.link.counters.grant_errors.add(1);
            let disk = &self.disk.name;
            self.guest_log.log(log::Level::Debug, || format!("{disk}: grant {gref} of a write: {status}"));
            return Err(Status::Error);
        }
        let Some(rules) = &self.rules else { return Ok(()) };
        if active.payload.is_none() {
            rules.make(lease, active.offset);
            return Ok(());
        }
        match rules.check_guest(lease, active.offset) {
            Ok(escaped) => {
                active.escaped = escaped as u64;
                Ok(())
            }
            Err(fault) => {
                self.link.counters.guest_mismatches.add(1);
                let disk = &self.disk.name;
                self.guest_log.log(log::Level::Warn, || {
                    format!("{disk}: the guest's PI of a write does not match, nothing was written: {fault}")
                });
                Err(fault.status())
            }
        }
    }

    // --- start -----------------------------------------------------------------------------------------------

    /// Hands the batch to the store.
    fn start(&mut self) {
        let mut fresh = std::mem::take(&mut self.work.fresh);
        for &name in &fresh {
            let active = &mut self.table[name];
            let op = match active.kind {
                Kind::Read => Op::Read,
                Kind::Write => Op::Write { fua: false },
                Kind::Barrier | Kind::Flush if active.bytes == 0 => Op::Flush,
                Kind::Barrier | Kind::Flush if self.volatile => {
                    active.stage = Stage::FlushFirst;
                    Op::Flush
                }
                Kind::Barrier | Kind::Flush => Op::Write { fua: true },
                Kind::Discard { .. } => Op::Discard,
            };
            self.submit(name, op);
        }
        fresh.clear();
        self.work.fresh = fresh;
        self.work.fresh_bytes = 0;
    }

    fn submit(&mut self, name: u32, op: Op) {
        let active = &mut self.table[name];
        let io = match op {
            Op::Flush => Io { id: name, op, offset: 0, bytes: 0, buffer: None },
            Op::Discard => Io { id: name, op, offset: active.offset, bytes: active.bytes, buffer: None },
            Op::Read | Op::Write { .. } => {
                Io { id: name, op, offset: active.offset, bytes: active.bytes, buffer: active.lease.take() }
            }
        };
        self.store.submit(io, &mut self.uring, &mut self.work.done);
    }

    // --- finish ----------------------------------------------------------------------------------------------

    /// Takes the io_uring's completions; whether there were any.
    fn reap(&mut self) -> bool {
        let (mut any, mut bell_rang) = (false, false);
        while let Some((user_data, result)) = self.uring.reap() {
            any = true;
            match Owner::of(user_data) {
                (Owner::Store, value) => {
                    self.store.complete(value, result, &mut self.uring, &mut self.work.done);
                }
                (Owner::Queue, BELL) => bell_rang = true,
                (Owner::Queue, _) => {
                    self.work.event_polled = false;
                    self.work.event_due = true;
                }
            }
        }
        if bell_rang {
            self.link.bell.quiet();
            // Not only on the way to sleep: a queue that is kept awake must hear the next ring too.
            self.listen();
            self.store.resume(&mut self.uring, &mut self.work.done);
        }
        any
    }

    /// Answers what the store has completed; whether there was anything.
    fn finish(&mut self) -> bool {
        if self.work.done.is_empty() {
            return false;
        }
        self.work.copies.clear();
        // A barrier's write, started here, may complete at once, so the list is looked at until it stays empty.
        while !self.work.done.is_empty() {
            let mut done = std::mem::take(&mut self.work.done);
            for completion in done.drain(..) {
                self.completed(completion);
            }
            if self.work.done.is_empty() {
                self.work.done = done;
                break;
            }
        }
        self.run_copies();
        let mut outgoing = std::mem::take(&mut self.work.outgoing);
        for name in outgoing.drain(..) {
            let active = &self.table[name];
            let status = match self.work.copies.fault(&active.place) {
                None => Status::Okay,
                Some((gref, status)) => {
                    self.link.counters.grant_errors.add(1);
                    let disk = &self.disk.name;
                    self.guest_log
                        .log(log::Level::Debug, || format!("{disk}: grant {gref} of a read: {status}"));
                    Status::Error
                }
            };
            self.answer(name, status);
        }
        self.work.outgoing = outgoing;
        true
    }

    /// Takes one completion: answers it, starts its next stage, or adds it to the copies out.
    fn completed(&mut self, completion: Completion) {
        let name = completion.id;
        let active = &mut self.table[name];
        if completion.buffer.is_some() {
            active.lease = completion.buffer;
        }
        if let Err(errno) = completion.result {
            let (kind, offset, bytes) = (active.kind, active.offset, active.bytes);
            let disk = &self.disk.name;
            self.medium_log.log(log::Level::Error, || {
                format!("{disk}: {kind:?} of {bytes} bytes at byte {offset} failed: {errno}")
            });
            let status = if errno.0 == libc::EOPNOTSUPP { Status::Unsupported } else { Status::Error };
            self.answer(name, status);
            return;
        }
        if active.stage == Stage::FlushFirst {
            active.stage = Stage::Only;
            self.submit(name, Op::Write { fua: true });
            return;
        }
        let (Kind::Read, Some(lease)) = (active.kind, &active.lease) else {
            self.answer(name, Status::Okay);
            return;
        };
        if let Some(rules) = &self.rules {
            match rules.check_medium(lease, active.offset) {
                Ok(escaped) => active.escaped = escaped as u64,
                Err(fault) => {
                    self.link.counters.medium_mismatches.add(1);
                    let disk = &self.disk.name;
                    self.medium_log.log(log::Level::Error, || {
                        format!("{disk}: what the medium holds does not match its PI: {fault}")
                    });
                    self.answer(name, fault.status());
                    return;
                }
            }
        }
        let copies = &mut self.work.copies;
        let start = copies.len();
        copies.add(&active.segments, lease.len(), lease.data_ptr(), Direction::ToGuest);
        if active.payload.is_some() {
            copies.add(&active.metadata, lease.metadata_len(), lease.metadata_ptr(), Direction::ToGuest);
        }
        active.place = start..copies.len();
        self.work.outgoing.push(name);
    }

    fn run_copies(&mut self) {
        let copies = &mut self.work.copies;
        if copies.len() == 0 {
            return;
        }
        self.link.counters.copy_calls.add(1);
        self.link.counters.copies.add(copies.len() as u64);
        // SAFETY: every copy was added from a lease that this engine holds, and goes back to the pool only after.
        if let Err(error) = unsafe { copies.run(&mut *self.copier) } {
            self.copy_failed(&error);
        }
    }

    fn copy_failed(&mut self, error: &hypervisor::Error) {
        let disk = &self.disk.name;
        self.host_log.log(log::Level::Error, || format!("{disk}: a batch of grant copies failed: {error}"));
    }

    /// Answers a request and forgets it. Its grants were used by copies only, so nothing of them is held.
    fn answer(&mut self, name: u32, status: Status) {
        let active = &mut self.table[name];
        if let Some(lease) = active.lease.take() {
            self.pool.give_back(lease);
        }
        if active.kind == Kind::Barrier {
            self.work.barrier = false;
        }
        for response in active.responses(status) {
            self.ring.respond(&response);
        }
        let counters = &self.link.counters;
        if status == Status::Okay {
            match active.kind {
                Kind::Read => {
                    counters.reads.add(1);
                    counters.read_bytes.add(active.bytes);
                }
                Kind::Barrier | Kind::Flush if active.bytes == 0 => counters.flushes.add(1),
                Kind::Discard { .. } => counters.discards.add(1),
                Kind::Write | Kind::Barrier | Kind::Flush => {
                    counters.writes.add(1);
                    counters.written_bytes.add(active.bytes);
                }
            }
            if active.payload.is_some() {
                counters.dix_requests.add(1);
            } else if self.rules.is_some() && active.has_data() {
                counters.daemon_requests.add(1);
            }
            if active.escaped != 0 {
                counters.escaped_intervals.add(active.escaped);
            }
        } else {
            counters.errors.add(1);
        }
        self.table.give_back(name);
        self.work.answered = true;
    }

    // --- idle ------------------------------------------------------------------------------------------------

    /// Looks for work a little longer, then sleeps until an event, a completion or the doorbell.
    fn idle(&mut self) -> Result<(), Failure> {
        let accepts = self.accepts();
        let want = if self.work.half_pair { 2 } else { 1 };
        let (ring, uring, stop) = (&mut self.ring, &mut self.uring, &self.link.stop);
        let stopping = self.work.broken.is_some();
        let found = self.spin.look(|| {
            uring.ready()
                || accepts && ring.unconsumed().map_or(true, |n| n >= want)
                || !stopping && stop.load(Ordering::Relaxed)
        });
        if found != Look::Nothing && (accepts || self.uring.ready()) {
            self.link.counters.spins_won.add(u64::from(found == Look::Spun));
            return Ok(());
        }
        if std::mem::take(&mut self.work.masked) {
            // After the work and before the last look at the ring: what was notified meanwhile is delivered now.
            let unmasked = self.channel.unmask();
            self.heard(unmasked);
        }
        if accepts && self.ring.arm(want) {
            return Ok(());
        }
        // A queue that stops wants nothing more of the frontend, and a channel that failed would be ready without end.
        if !self.work.event_polled && !self.stopping() {
            self.uring.poll(self.channel.as_fd().as_raw_fd(), Owner::Queue.user_data(EVENT));
            self.work.event_polled = true;
        }
        let before = Instant::now();
        self.uring.submit(Some(LONGEST_SLEEP)).map_err(Failure::Kernel)?;
        self.spin.learn(before.elapsed());
        self.link.counters.wakeups.add(1);
        self.link.counters.submits.set(self.uring.submits());
        Ok(())
    }

    /// Makes the io_uring watch the doorbell. From the start to the end of the queue it does.
    fn listen(&mut self) {
        self.uring.poll(self.link.bell.as_fd().as_raw_fd(), Owner::Queue.user_data(BELL));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.table.is_empty() {
            return;
        }
        // Only after a panic, or if io_uring itself failed, are requests left. What is here goes back to the pool. What
        // the store has, the kernel may still work on, and nobody can wait for it any more: its buffers (the pool keeps
        // its memory while a lease is out) and the store's own stay where they are, for good.
        let done = self.work.done.drain(..).filter_map(|completion| completion.buffer);
        for lease in self.table.leases().chain(done) {
            self.pool.give_back(lease);
        }
        std::mem::forget(std::mem::replace(&mut self.store, Box::new(Lost)));
    }
}

/// In the place of a store's queue that is left to the kernel.
struct Lost;

impl StoreQueue for Lost {
    fn submit(&mut self, io: Io, _: &mut Ring, done: &mut Vec<Completion>) {
        done.push(Completion { id: io.id, buffer: io.buffer, result: Err(Errno(libc::EIO)) });
    }

    fn complete(&mut self, _: u64, _: i32, _: &mut Ring, _: &mut Vec<Completion>) {}

    fn resume(&mut self, _: &mut Ring, _: &mut Vec<Completion>) {}
}
