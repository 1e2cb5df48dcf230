//! The log of a disk that is in use: what a crash must not forget, durable before it is done.
//!
//! ```text
//! queues -- append(record) --> pending --- the log's thread: one write, one flush -----> durable
//!             |  no room                     while it is at it, the next batch gathers     |
//!             v                                                                            v
//!           Wake::Room  <--- a batch was taken, records were retired             Wake::Announced, Wake::Flushed
//!
//! queues -- close(sequence): done, and its metadata is in the cache
//!        -- disown(sequence): a discard that has failed; nobody is told so before its record is retired: Wake::Retired
//! maintenance thread: cut -> checkpoint -> header -> retire
//! ```
//!
//! `docs/sidecar.md` has the format and says why each step is where it is; [`area`] is the ring of batches, [`read`] the
//! way back after a crash.

mod area;
pub(super) mod read;
#[cfg(test)]
mod tests;

use crate::limit::Limit;
use crate::store::inbox::{Waiter, Wake};
use crate::store::medium::Medium;
use crate::store::sidecar::{Body, Header, IntervalHash, Record};
use crate::store::{Errno, StoreError};
use area::{Area, PAGE};
use memmap2::{MmapMut, MmapOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Most bytes of a batch.
const BATCH: u64 = 1 << 20;
/// What writes leave free for flush marks, so that a flush need not wait for a checkpoint.
const RESERVE: u64 = 4 * PAGE;
/// A queue that hands in nothing for so long is through with its turn: a request takes it a microsecond or two.
const QUIET: Duration = Duration::from_micros(4);
/// Longest wait for one that never is.
const LONGEST: Duration = Duration::from_micros(60);
/// Least size of any area.
const SMALLEST: u64 = 16 * PAGE;

/// Least size of an area for a disk with intervals and metadata of so many bytes: a batch is half of it, and holds two
/// of the largest records that there must be.
pub(super) fn smallest(interval: u32, entry: u16) -> u64 {
    (4 * (64 + u64::from(interval) + u64::from(entry))).next_multiple_of(2 * PAGE).max(SMALLEST)
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// It has this sequence number; the waiter gets [`Wake::Announced`] once it is durable.
    Queued(u64),
    /// There is no room now: the waiter gets [`Wake::Room`], and a checkpoint may be wanted first.
    Full {
        /// Whether a checkpoint would make room.
        checkpoint: bool,
    },
    /// The log cannot be written any more.
    Failed(Errno),
}

/// What became of a flush mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    /// The waiters get [`Wake::Flushed`].
    Queued,
    /// Nothing live is older that is not covered by a mark already; nobody is told.
    Needless,
    /// There is no room; nobody is told.
    Full,
    /// The log cannot be written any more; nobody is told.
    Failed(Errno),
}

/// Somebody who waits for a batch.
enum Committed {
    /// A request whose record it is.
    Announced(Waiter),
    /// A flush whose mark it is.
    Flushed(Waiter),
}

/// A batch that the thread has taken.
struct Taken {
    /// Its place in the area.
    at: u64,
    /// The newest mark in it, or 0.
    marking: u64,
    /// Who may try again.
    room: Vec<Waiter>,
}

struct State {
    area: Area,
    /// Records that are in no batch yet, encoded.
    pending: Vec<u8>,
    waiters: Vec<Committed>,
    /// Who found no room.
    room: Vec<Waiter>,
    /// Records of what has failed and would be taken for done in a crash, and who waits for them to be retired.
    disowned: Vec<(u64, Waiter)>,
    /// Why nothing can be made durable any more.
    failed: Option<Errno>,
    /// A checkpoint was asked for and has not been yet.
    asked: bool,
    /// The thread sleeps.
    idle: bool,
    /// Records before this one are covered by a mark: one that is durable, one that is pending.
    marked: u64,
    marking: u64,
    stop: bool,
}

/// See the module's head.
pub(super) struct Wal {
    state: Mutex<State>,
    bell: Condvar,
    uuid: Uuid,
    entry: u16,
    interval: u32,
    with_data: bool,
    /// Where the area starts in the sidecar.
    start: u64,
    /// Bytes of a batch.
    batch: u64,
    /// Records so far.
    appended: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) stalls: AtomicU64,
}

/// An epoch that nobody can guess, so that no guest can have written a record of it into its own data or metadata.
pub(super) fn new_epoch() -> u64 {
    let (a, b) = Uuid::new_v4().as_u64_pair();
    a ^ b
}

impl Wal {
    /// A log that starts empty in the area of that header; with `with_data` its records carry the data.
    pub(super) fn new(header: &Header, with_data: bool, sidecar: &Path) -> Result<Self, StoreError> {
        let (start, bytes) = header.log;
        let spec = header.profile.spec();
        let needed = smallest(spec.interval, spec.metadata_size);
        if bytes < needed {
            return Err(StoreError::SmallLog { path: sidecar.to_owned(), found: bytes, needed });
        }
        let area = Area::new(bytes, new_epoch());
        let batch = BATCH.min(area.bytes() / 2 / PAGE * PAGE);
        Ok(Self {
            state: Mutex::new(State {
                area,
                pending: Vec::new(),
                waiters: Vec::new(),
                room: Vec::new(),
                disowned: Vec::new(),
                failed: None,
                asked: false,
                idle: false,
                marked: 0,
                marking: 0,
                stop: false,
            }),
            bell: Condvar::new(),
            uuid: header.uuid,
            entry: spec.metadata_size,
            interval: spec.interval,
            with_data,
            start,
            batch,
            appended: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
        })
    }

    /// What the header has to say of the log once everything that is over at `cut` is retired.
    pub(super) fn tail(&self, cut: u64) -> [u64; 3] {
        self.lock().area.tail(cut)
    }

    /// Most intervals that one record may announce: half a batch, so that large ones do not get in each other's way.
    pub(super) fn most_intervals(&self) -> u64 {
        let each = u64::from(self.entry) + if self.with_data { u64::from(self.interval) } else { 16 };
        // At least one, as `smallest` has it.
        ((self.batch / 2 - 64) / each).max(1)
    }

    /// Makes the record of a write of whole intervals from `first` on, whose data and metadata these are. `hashes` is
    /// memory to work in.
    pub(super) fn write(
        &self,
        first: u64,
        data: &[u8],
        metadata: &[u8],
        hashes: &mut Vec<IntervalHash>,
        waiter: impl FnOnce() -> Waiter,
    ) -> Appended {
        if self.with_data {
            return self.append(Body::WriteWithData { first, metadata, data }, waiter);
        }
        hashes.clear();
        // Before the lock: this is where the time goes.
        hashes
            .extend(data.chunks_exact(self.interval as usize).map(|data| IntervalHash::of(&self.uuid, data)));
        self.append(Body::Write { first, hashes, metadata }, waiter)
    }

    /// Makes the record of a discard.
    pub(super) fn discard(&self, first: u64, count: u64, waiter: impl FnOnce() -> Waiter) -> Appended {
        self.append(Body::Discard { first, count }, waiter)
    }

    fn append(&self, body: Body<'_>, waiter: impl FnOnce() -> Waiter) -> Appended {
        let mut state = self.lock();
        if let Some(errno) = state.failed {
            return Appended::Failed(errno);
        }
        let length = state.pending.len();
        // Who waits already comes first.
        let encoded = state.room.is_empty() && state.encode(body, self.entry, self.interval);
        if !encoded || !state.fits(self.batch, RESERVE) {
            state.pending.truncate(length);
            state.room.push(waiter());
            self.stalls.fetch_add(1, Ordering::Relaxed);
            return Appended::Full { checkpoint: state.area.retirable() };
        }
        let sequence = state.area.open();
        state.waiters.push(Committed::Announced(waiter()));
        self.appended.fetch_add(1, Ordering::Relaxed);
        self.wake(state);
        Appended::Queued(sequence)
    }

    /// Notes that everything before the record `cut` is durable, and has the waiters told once the note is, too.
    pub(super) fn mark(&self, cut: u64, waiters: &mut Vec<Waiter>) -> Marked {
        let mut state = self.lock();
        if let Some(errno) = state.failed {
            return Marked::Failed(errno);
        }
        let cut = state.area.done_before(cut);
        if cut <= state.marked || cut <= state.area.first_live() {
            return Marked::Needless;
        }
        let length = state.pending.len();
        let encoded = state.encode(Body::Flush { covers: cut - 1 }, self.entry, self.interval);
        if !encoded || !state.fits(self.batch, 0) {
            state.pending.truncate(length);
            return Marked::Full;
        }
        let sequence = state.area.open();
        state.area.close(sequence);
        // With nothing open the mark is the record `cut`, and needs no other one to cover it.
        state.marking = state.marking.max(if sequence == cut { cut + 1 } else { cut });
        state.waiters.extend(waiters.drain(..).map(Committed::Flushed));
        self.wake(state);
        Marked::Queued
    }

    /// What a record announced is over, or has failed. True if a checkpoint is wanted now.
    pub(super) fn close(&self, sequence: u64, failed: bool) -> bool {
        let mut state = self.lock();
        if failed {
            state.area.fail(sequence);
        } else {
            state.area.close(sequence);
        }
        let wanted = state.wants_checkpoint();
        wanted && !std::mem::replace(&mut state.asked, true)
    }

    /// What a record announced has failed, but in a crash the record would stand for it: the waiter gets
    /// [`Wake::Retired`] once it is retired, or no checkpoint can be. One is wanted now.
    pub(super) fn disown(&self, sequence: u64, waiter: Waiter) {
        let mut state = self.lock();
        state.area.fail(sequence);
        state.disowned.push((sequence, waiter));
    }

    /// The oldest record that is not over: what is older, the checkpoint that begins now may retire.
    pub(super) fn cut(&self) -> u64 {
        self.lock().area.first_open()
    }

    /// Whether so much is live that a checkpoint is due.
    pub(super) fn wants_checkpoint(&self) -> bool {
        self.lock().wants_checkpoint()
    }

    /// Whether a checkpoint would retire anything.
    pub(super) fn retirable(&self) -> bool {
        self.lock().area.retirable()
    }

    /// The header says that the log starts behind what was over at `cut`: its room is free.
    pub(super) fn retire(&self, cut: u64) {
        let mut state = self.lock();
        state.area.retire(cut);
        state.asked = false;
        let room = std::mem::take(&mut state.room);
        let first = state.area.first_live();
        let retired: Vec<Waiter> = state
            .disowned
            .extract_if(.., |(sequence, _)| *sequence < first)
            .map(|(_, waiter)| waiter)
            .collect();
        drop(state);
        wake_room(room);
        for waiter in retired {
            waiter.post(Wake::Retired, None);
        }
    }

    /// No checkpoint can be: whoever waits for room gets the reason, and whoever failed already is told so.
    pub(super) fn refuse(&self, error: Errno) {
        let mut state = self.lock();
        state.asked = false;
        let room = std::mem::take(&mut state.room);
        let disowned = std::mem::take(&mut state.disowned);
        drop(state);
        for (_, waiter) in disowned {
            waiter.post(Wake::Retired, None);
        }
        for waiter in room {
            waiter.post(Wake::Announced(Err(error)), None);
        }
    }

    /// Bytes of live records.
    pub(super) fn used(&self) -> u64 {
        self.lock().area.used()
    }

    /// Nothing will be appended any more: the thread writes what there is and ends.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stop = true;
        self.wake(state);
    }

    /// There is something for the thread to do. A notification is a system call, so only if it sleeps.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.idle) {
            drop(state);
            self.bell.notify_one();
        }
    }

    /// Waits for a queue that is handing in one request after the other: what it hands in now, one flush will do for.
    fn gather(&self) {
        let begin = Instant::now();
        let (mut seen, mut since) = (self.appended.load(Ordering::Relaxed), begin);
        loop {
            std::hint::spin_loop();
            let (now, count) = (Instant::now(), self.appended.load(Ordering::Relaxed));
            if count != seen {
                (seen, since) = (count, now);
            }
            if now - since >= QUIET || now - begin >= LONGEST {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of it is whole before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory for the thread.
    pub(super) fn staging(&self) -> io::Result<MmapMut> {
        // A batch's length is at most 1 MiB.
        MmapOptions::new().len(self.batch as usize).map_anon()
    }

    /// The thread: writes batch after batch.
    pub(super) fn run(&self, sidecar: &Medium, mut staging: MmapMut) {
        let (mut batch, mut waiters) = (Vec::new(), Vec::new());
        while let Some(Taken { at, marking, room }) = self.take(&mut batch, &mut waiters) {
            wake_room(room);
            // Both bounded by `fits`.
            let whole = batch.len().next_multiple_of(PAGE as usize);
            staging[..batch.len()].copy_from_slice(&batch);
            staging[batch.len()..whole].fill(0);
            let written = sidecar.write_all_at(&staging[..whole], self.start + at);
            let result = match written {
                Ok(()) => sidecar.sync().inspect_err(|errno| self.lock().failed = Some(*errno)),
                Err(error) => Err(Errno(error.raw_os_error().unwrap_or(libc::EIO))),
            };
            self.batches.fetch_add(1, Ordering::Relaxed);
            match result {
                Ok(()) if marking > 0 => {
                    let mut state = self.lock();
                    state.marked = state.marked.max(marking);
                }
                Ok(()) => {}
                Err(error) => {
                    // As often as a guest writes, while the file system is full.
                    let name = sidecar.path.display().to_string();
                    let limit = Limit::of(&name, "log", module_path!());
                    limit.log(log::Level::Error, || format!("{name}: cannot write the log: {error}"));
                    self.take_back(&mut waiters);
                }
            }
            for waiter in waiters.drain(..) {
                match waiter {
                    Committed::Announced(waiter) => waiter.post(Wake::Announced(result), None),
                    Committed::Flushed(waiter) => waiter.post(Wake::Flushed(result), None),
                }
            }
        }
    }

    /// Waits for records and takes them all.
    fn take(&self, batch: &mut Vec<u8>, waiters: &mut Vec<Committed>) -> Option<Taken> {
        let mut state = self.lock();
        let mut slept = false;
        while state.pending.is_empty() {
            if state.stop {
                return None;
            }
            (state.idle, slept) = (true, true);
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if slept {
            drop(state);
            self.gather();
            state = self.lock();
        }
        batch.clear();
        std::mem::swap(batch, &mut state.pending);
        std::mem::swap(waiters, &mut state.waiters);
        let at = state.area.place((batch.len() as u64).next_multiple_of(PAGE));
        let (marking, room) = (std::mem::take(&mut state.marking), std::mem::take(&mut state.room));
        Some(Taken { at, marking, room })
    }

    /// A batch could not be written. What gathered meanwhile counts on it, so it fails, too; who waits for room tries,
    /// and learns for himself.
    fn take_back(&self, waiters: &mut Vec<Committed>) {
        let mut state = self.lock();
        state.area.take_back();
        state.pending.clear();
        state.marking = 0;
        waiters.append(&mut state.waiters);
        let room = std::mem::take(&mut state.room);
        drop(state);
        wake_room(room);
    }
}

impl State {
    /// Encodes the next record behind those that are pending; false if it is impossible.
    fn encode(&mut self, body: Body<'_>, entry: u16, interval: u32) -> bool {
        let record = Record { epoch: self.area.epoch(), sequence: self.area.next(), body };
        record.encode(entry, interval, &mut self.pending).is_ok()
    }

    fn wants_checkpoint(&self) -> bool {
        let waited_for = !self.room.is_empty() || !self.disowned.is_empty();
        self.area.retirable() && (waited_for || self.area.used() > self.area.bytes() / 2)
    }

    /// Whether what is pending fits into a batch and into the area.
    fn fits(&self, batch: u64, reserve: u64) -> bool {
        let bytes = (self.pending.len() as u64).next_multiple_of(PAGE);
        bytes <= batch && self.area.fits(bytes, reserve)
    }
}

fn wake_room(room: Vec<Waiter>) {
    for waiter in room {
        waiter.post(Wake::Room, None);
    }
}
