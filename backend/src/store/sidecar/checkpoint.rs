//! The disk's maintenance thread: the one place where dirty metadata goes to disk and where things are made durable.
//!
//! ```text
//! queues -- flush, or dirty blocks ---> [ work ] ---> a round, when asked to or PERIOD after the first dirty block:
//!                                                       durable? data fdatasync
//!                                                       dirty blocks, sorted, in runs of neighbours
//!                                                       durable? sidecar fdatasync
//!         <-- Wake::Flushed ------------------------  everybody whose flush came before the round
//! ```
//!
//! Flushes that come while a round runs share the next one.

use crate::io::{Owner, Ring};
use crate::store::Errno;
use crate::store::inbox::{Waiter, Wake};
use crate::store::medium::Medium;
use crate::store::sidecar::cache::Cache;
use crate::store::sidecar::{BLOCK, Layout};
use io_uring::{opcode, types};
use memmap2::{MmapMut, MmapOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a block may stay dirty if nobody flushes.
const PERIOD: Duration = Duration::from_secs(1);
/// Blocks written at once.
const BATCH: usize = 256;

/// What the thread is asked to do.
#[derive(Default)]
struct Work {
    flushes: Vec<Waiter>,
    now: bool,
    stop: bool,
}

/// The thread's mailbox, and what it has come to.
#[derive(Default)]
pub(crate) struct Maintenance {
    work: Mutex<Work>,
    bell: Condvar,
    /// The errno after which nothing can be called durable any more, or 0: after a failed fdatasync the kernel may
    /// have dropped what it could not write, and the next one would succeed over it.
    broken: AtomicI32,
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

    /// Waits for something to do.
    fn wait(&self, cache: &Cache) -> Work {
        let mut work = self.lock();
        let mut due: Option<Instant> = None;
        loop {
            if work.stop || work.now || !work.flushes.is_empty() {
                return std::mem::take(&mut work);
            }
            // Whoever makes the first block dirty kicks under the mutex, so this look cannot miss it.
            if cache.dirty() == 0 {
                due = None;
                work = self.bell.wait(work).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left =
                due.get_or_insert_with(|| Instant::now() + PERIOD).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return std::mem::take(&mut work);
            }
            work = self.bell.wait_timeout(work, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What a round works with.
pub(crate) struct Checkpoint<'a> {
    pub(crate) data: &'a Medium,
    pub(crate) sidecar: &'a Medium,
    pub(crate) layout: Layout,
    pub(crate) cache: &'a Cache,
    pub(crate) maintenance: &'a Maintenance,
}

/// Memory of the thread.
pub(crate) struct Scratch {
    ring: Ring,
    /// Every dirty block.
    blocks: Vec<u64>,
    /// Copies of a batch of them.
    staging: MmapMut,
    /// Runs of neighbours in the batch: where in it, and how many blocks.
    runs: Vec<(usize, usize)>,
}

impl Scratch {
    /// Made by the thread that will use it.
    pub(crate) fn new() -> io::Result<Self> {
        let mut ring = Ring::new(64).map_err(io::Error::other)?;
        ring.enable()?;
        let staging = MmapOptions::new().len(BATCH * BLOCK).map_anon()?;
        Ok(Self { ring, blocks: Vec::new(), staging, runs: Vec::new() })
    }
}

impl Checkpoint<'_> {
    /// The thread. Gives the last round's result.
    pub(crate) fn run(&self, mut scratch: Scratch) -> Result<(), Errno> {
        let mut last = Ok(());
        loop {
            let work = self.maintenance.wait(self.cache);
            let result = self.round(&mut scratch, work.stop || !work.flushes.is_empty());
            if let Err(error) = result
                && last != result
            {
                log::error!("{}: cannot keep the PI: {error}", self.sidecar.path.display());
            }
            last = result;
            for waiter in work.flushes {
                waiter.post(Wake::Flushed(result), None);
            }
            if work.stop {
                return result;
            }
        }
    }

    fn round(&self, scratch: &mut Scratch, durable: bool) -> Result<(), Errno> {
        self.maintenance.rounds.fetch_add(1, Ordering::Relaxed);
        if durable {
            self.sync(self.data)?;
        }
        self.write_dirty(scratch)?;
        // AcqRel: what was changed before the flag was set is covered by the fdatasync that follows.
        if durable && self.maintenance.unsynced.swap(false, Ordering::AcqRel) {
            self.sync(self.sidecar)?;
        }
        Ok(())
    }

    fn sync(&self, medium: &Medium) -> Result<(), Errno> {
        match self.maintenance.broken.load(Ordering::Relaxed) {
            0 => {}
            broken => return Err(Errno(broken)),
        }
        medium.file.sync_data().map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            self.maintenance.broken.store(errno, Ordering::Relaxed);
            Errno(errno)
        })
    }

    /// Writes every block that is dirty now.
    fn write_dirty(&self, scratch: &mut Scratch) -> Result<(), Errno> {
        let mut blocks = std::mem::take(&mut scratch.blocks);
        blocks.clear();
        if self.cache.dirty() > 0 {
            self.cache.list_dirty(&mut blocks);
        }
        blocks.sort_unstable();
        let mut result = Ok(());
        for batch in blocks.chunks_mut(BATCH) {
            if let Err(error) = self.write_batch(scratch, batch) {
                result = Err(error);
            }
        }
        scratch.blocks = blocks;
        result
    }

    fn write_batch(&self, scratch: &mut Scratch, batch: &mut [u64]) -> Result<(), Errno> {
        self.maintenance.changed();
        let Scratch { ring, staging, runs, .. } = scratch;
        runs.clear();
        let mut taken = 0;
        for at in 0..batch.len() {
            let block = batch[at];
            // Listed, but evicted or written since: no, only this thread does that; but the list is but a hint.
            if !self.cache.start_writing(block, &mut staging[taken * BLOCK..(taken + 1) * BLOCK]) {
                continue;
            }
            batch[taken] = block;
            match runs.last_mut() {
                Some((first, count)) if batch[*first] + *count as u64 == block => *count += 1,
                _ => runs.push((taken, 1)),
            }
            taken += 1;
        }
        let mut pending = 0;
        for (index, &(first, count)) in runs.iter().enumerate() {
            let bytes = &staging[first * BLOCK..(first + count) * BLOCK];
            let entry = opcode::Write::new(types::Fd(self.sidecar.fd()), bytes.as_ptr(), bytes.len() as u32)
                .offset(self.layout.position(batch[first]))
                .build()
                .user_data(Owner::Store.user_data(index as u64));
            // SAFETY: the staging area is neither written nor freed before all completions have been taken below.
            unsafe { ring.push(&entry) };
            pending += 1;
        }
        let mut result = Ok(());
        while pending > 0 {
            if let Err(error) = ring.submit(Some(PERIOD)) {
                // Short of memory, say. The staging area is the kernel's until the writes have ended, so: again.
                log::warn!("{}: io_uring_enter: {error}", self.sidecar.path.display());
                std::thread::sleep(Duration::from_millis(10));
            }
            while let Some((user_data, moved)) = ring.reap() {
                pending -= 1;
                let (first, count) = runs[Owner::of(user_data).1 as usize];
                let written =
                    self.end_of_write(&batch[first..first + count], moved, &staging[first * BLOCK..]);
                for block in &batch[first..first + count] {
                    self.cache.written(*block, written);
                }
                result = result.and(written);
            }
        }
        result
    }

    /// Reads the result of a run's write; one that was cut short is gone on with.
    fn end_of_write(&self, run: &[u64], moved: i32, bytes: &[u8]) -> Result<(), Errno> {
        let whole = run.len() * BLOCK;
        match usize::try_from(moved) {
            Ok(moved) if moved >= whole => Ok(()),
            Err(_) if moved != -libc::EINTR && moved != -libc::EAGAIN => Err(Errno(-moved)),
            _ => {
                let at = self.layout.position(run[0]);
                let again = self.sidecar.file.write_all_at(&bytes[..whole], at);
                again.map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))
            }
        }
    }
}
