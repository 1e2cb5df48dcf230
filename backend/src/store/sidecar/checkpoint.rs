//! The disk's maintenance thread: the one place where dirty metadata goes to disk and where flushes are served.
//!
//! ```text
//! queues -- flush, or dirty blocks --> [ work ] --> a round, when asked to or some time after the first dirty block
//!         <-- Wake::Flushed ----------------------- everybody whose flush came before the data's fdatasync
//!
//! off, bitmap:  flush? data fdatasync -> dirty blocks -> flush? sidecar fdatasync      [bitmap: idle regions clean]
//!
//! log:          flush      data fdatasync -> mark in the log
//!               checkpoint cut -> blocks copied out -> data fdatasync -> blocks written       for each batch of them
//!                              -> sidecar fdatasync -> header: the log starts at the cut -> its room is free
//! ```
//!
//! The order of a checkpoint is what the log needs. Blocks are copied out before the data is flushed, so what is written
//! is of data that is durable: whatever interval changes later still has its record. Until the header says otherwise,
//! every record of an entry in these blocks counts, so a block that is half written does no harm.

use crate::store::Errno;
use crate::store::inbox::{Waiter, Wake};
use crate::store::medium::Medium;
use crate::store::sidecar::bitmap::Bitmap;
use crate::store::sidecar::cache::Cache;
use crate::store::sidecar::wal::{Marked, Wal};
use crate::store::sidecar::writeback::{BATCH, Writeback};
use crate::store::sidecar::{Header, PiFile, Safety};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a block may stay dirty if nobody flushes and nothing is kept for a crash.
const PERIOD: Duration = Duration::from_secs(1);
/// The same where a log or a bitmap is kept, and every round flushes: what a crash may find to be done.
const SAFE_PERIOD: Duration = Duration::from_secs(5);

/// What the thread is asked to do.
#[derive(Default)]
struct Work {
    flushes: Vec<Waiter>,
    now: bool,
    stop: bool,
    /// The period is over.
    due: bool,
}

/// The thread's mailbox, and what it has come to.
#[derive(Default)]
pub(crate) struct Maintenance {
    work: Mutex<Work>,
    bell: Condvar,
    /// Whether the sidecar was written since its last fdatasync.
    unsynced: AtomicBool,
    pub(crate) rounds: AtomicU64,
}

impl Maintenance {
    /// Asks for everything completed so far to be made durable; the waiter gets [`Wake::Flushed`].
    pub(crate) fn flush(&self, waiter: Waiter) {
        self.lock().flushes.push(waiter);
        self.bell.notify_one();
    }

    /// Asks for the dirty blocks to be written, now or (as the thread looks by itself) in a while.
    pub(crate) fn kick(&self, now: bool) {
        let mut work = self.lock();
        if !(now && work.now) {
            work.now |= now;
            drop(work);
            self.bell.notify_one();
        }
    }

    /// Asks for a last round, everything durable, and for the thread's end.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.bell.notify_one();
    }

    /// The sidecar was changed by somebody else than the thread (a queue made a hole).
    pub(crate) fn changed(&self) {
        // Release: pairs with the swap before fdatasync; the change is complete.
        self.unsynced.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        // Its fields are set one by one, each valid by itself.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do; `busy` says whether there will be, after `period`.
    fn wait(&self, period: Duration, busy: impl Fn() -> bool) -> Work {
        let mut work = self.lock();
        let mut due: Option<Instant> = None;
        loop {
            if work.stop || work.now || !work.flushes.is_empty() {
                return std::mem::take(&mut work);
            }
            // Whoever makes the first block dirty kicks under the mutex, so this look cannot miss it.
            if !busy() {
                due = None;
                work = self.bell.wait(work).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left =
                due.get_or_insert_with(|| Instant::now() + period).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Work { due: true, ..std::mem::take(&mut work) };
            }
            work = self.bell.wait_timeout(work, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn take_flushes(&self, flushes: &mut Vec<Waiter>) {
        flushes.append(&mut self.lock().flushes);
    }
}

/// What a round works with.
pub(crate) struct Checkpoint<'a> {
    pub(crate) data: &'a Medium,
    pub(crate) pi: &'a PiFile,
    pub(crate) header: &'a Mutex<Header>,
    pub(crate) safety: &'a Safety,
    pub(crate) cache: &'a Cache,
    pub(crate) maintenance: &'a Maintenance,
}

/// Memory of the thread.
pub(crate) struct Scratch {
    pub(super) writeback: Writeback,
    /// Every dirty block.
    pub(super) blocks: Vec<u64>,
    /// Idle regions of the bitmap.
    pub(super) idle: Vec<usize>,
}

impl Checkpoint<'_> {
    /// The thread. Gives the last round's result.
    pub(crate) fn run(&self, mut scratch: Scratch) -> Result<(), Errno> {
        let mut last = Ok(());
        let period = if matches!(self.safety, Safety::Off) { PERIOD } else { SAFE_PERIOD };
        loop {
            let mut work = self.maintenance.wait(period, || self.busy());
            self.maintenance.rounds.fetch_add(1, Ordering::Relaxed);
            let stop = work.stop;
            let result = match self.safety {
                Safety::Off => self.round(&mut scratch, &mut work),
                Safety::Bitmap(bitmap) => self.bitmap_round(bitmap, &mut scratch, &mut work),
                Safety::Log(wal) => self.log_round(wal, &mut scratch, &mut work),
            };
            if let Err(error) = result
                && last != result
            {
                log::error!("{}: cannot keep the PI: {error}", self.pi.medium.path.display());
            }
            last = result;
            tell(&mut work.flushes, result);
            if stop {
                return result;
            }
        }
    }

    /// Whether there is something that a round would do.
    fn busy(&self) -> bool {
        self.cache.dirty() > 0
            || match self.safety {
                Safety::Off => false,
                Safety::Log(wal) => wal.retirable(),
                Safety::Bitmap(bitmap) => bitmap.any(),
            }
    }

    fn round(&self, scratch: &mut Scratch, work: &mut Work) -> Result<(), Errno> {
        let durable = work.stop || !work.flushes.is_empty();
        // Blocks are written whatever comes of it: somebody may wait for fewer dirty ones.
        let mut result = if durable { self.data.sync() } else { Ok(()) };
        self.list_dirty(scratch);
        for batch in scratch.blocks.chunks(BATCH) {
            self.maintenance.changed();
            scratch.writeback.take(self.cache, batch);
            let written = scratch.writeback.put(self.cache, &self.pi.medium, &self.pi.layout);
            result = result.and(written);
        }
        result?;
        if durable { self.sync_sidecar() } else { Ok(()) }
    }

    /// As above; every round that was not asked for in haste is durable, and then clears what has been idle since the
    /// last one.
    fn bitmap_round(&self, bitmap: &Bitmap, scratch: &mut Scratch, work: &mut Work) -> Result<(), Errno> {
        let clears = work.due || work.stop;
        if clears {
            bitmap.idle(&mut scratch.idle);
        }
        let mut durable = Work { stop: work.stop || clears, ..Work::default() };
        std::mem::swap(&mut durable.flushes, &mut work.flushes);
        let result = self.round(scratch, &mut durable);
        std::mem::swap(&mut durable.flushes, &mut work.flushes);
        if clears && result.is_ok() {
            bitmap.clean(&scratch.idle);
        }
        result
    }

    fn log_round(&self, wal: &Wal, scratch: &mut Scratch, work: &mut Work) -> Result<(), Errno> {
        let wanted = work.now || work.stop || work.due || wal.wants_checkpoint();
        let result = self.log_steps(wal, wanted, scratch, &mut work.flushes);
        if let Err(error) = result {
            // Who waits for a checkpoint to make room, in the log or in the cache, would wait for ever.
            wal.refuse(error);
            self.cache.refuse(error);
        }
        result
    }

    fn log_steps(
        &self,
        wal: &Wal,
        checkpoint: bool,
        scratch: &mut Scratch,
        flushes: &mut Vec<Waiter>,
    ) -> Result<(), Errno> {
        if !checkpoint {
            self.flush(wal, flushes)?;
            if flushes.is_empty() {
                return Ok(());
            }
        }
        self.checkpoint(wal, scratch, flushes)?;
        // Who was left there found no room for a mark. There is now, if anything is left that needs one.
        if flushes.is_empty() { Ok(()) } else { self.flush(wal, flushes) }
    }

    /// Makes the data durable, and has that noted in the log for whoever asked for it. Who finds no room is left.
    fn flush(&self, wal: &Wal, flushes: &mut Vec<Waiter>) -> Result<(), Errno> {
        self.maintenance.take_flushes(flushes);
        let cut = wal.cut();
        self.data.sync()?;
        if flushes.is_empty() {
            return Ok(());
        }
        match wal.mark(cut, flushes) {
            Marked::Queued | Marked::Full => Ok(()),
            Marked::Needless => {
                tell(flushes, Ok(()));
                Ok(())
            }
            Marked::Failed(error) => Err(error),
        }
    }

    fn checkpoint(&self, wal: &Wal, scratch: &mut Scratch, flushes: &mut Vec<Waiter>) -> Result<(), Errno> {
        let cut = wal.cut();
        self.list_dirty(scratch);
        let Scratch { writeback, blocks, .. } = scratch;
        // Once at least, for the flushes, and for records whose blocks are written already.
        let mut rest = &blocks[..];
        loop {
            let (batch, others) = rest.split_at(rest.len().min(BATCH));
            writeback.take(self.cache, batch);
            if let Err(error) = self.flush(wal, flushes) {
                writeback.give_up(self.cache, error);
                return Err(error);
            }
            self.maintenance.changed();
            writeback.put(self.cache, &self.pi.medium, &self.pi.layout)?;
            rest = others;
            if rest.is_empty() {
                break;
            }
        }
        self.sync_sidecar()?;
        if wal.retirable() {
            let mut header = self.header.lock().unwrap_or_else(PoisonError::into_inner);
            let next = Header { log_state: wal.tail(cut), ..header.clone() };
            *header = self.pi.write_header(next).map_err(|error| {
                log::error!("{error}");
                Errno(libc::EIO)
            })?;
        }
        wal.retire(cut);
        if wal.wants_checkpoint() {
            // What was open at the cut and is over now kept something that is waited for. Each round retires something.
            self.maintenance.kick(true);
        }
        Ok(())
    }

    fn sync_sidecar(&self) -> Result<(), Errno> {
        // AcqRel: what was changed before the flag was set is covered by the fdatasync that follows.
        if self.maintenance.unsynced.swap(false, Ordering::AcqRel) {
            self.pi.medium.sync().inspect_err(|_| self.maintenance.changed())?;
        }
        Ok(())
    }

    fn list_dirty(&self, scratch: &mut Scratch) {
        scratch.blocks.clear();
        if self.cache.dirty() > 0 {
            self.cache.list_dirty(&mut scratch.blocks);
        }
        scratch.blocks.sort_unstable();
    }
}

fn tell(flushes: &mut Vec<Waiter>, result: Result<(), Errno>) {
    for waiter in flushes.drain(..) {
        waiter.post(Wake::Flushed(result), None);
    }
}
