//! The metadata cache of one disk: sidecar blocks in memory, shared by its queues, bounded.
//!
//! Set-associative: block `b` may be in any of the 16 frames of set `b % sets`. A set is one short mutex over 16
//! tags that fit in two cache lines; the work under it is to find the tag and to copy a few entries, so queues meet
//! there only when they use the same few blocks at the same instant. The number of sets is a prime, for blocks a
//! power of two apart (a file system's group headers) are to spread, and neighbours too.
//!
//! ```text
//!              access: miss                 loaded                      access: change
//!   (empty) ----------------> loading ----------------> clean  -------------------------> dirty
//!      ^                         | failed                 |  ^    written                   | next_dirty: copied out
//!      +-------------------------+-- evicted, forgotten --+  +------------- writing <-------+
//! ```
//!
//! Entries are changed and copied out under the set's mutex only, so what goes to disk never holds half an entry.
//! A frame that is loading, writing, dirty or pinned is not evicted. A frame that was loaded for someone is pinned
//! until that someone has looked at it, so every miss makes progress however small the cache is; a request that finds
//! no frame to evict waits, holding none, until one can be. A set with nearly nothing but dirty frames takes no more
//! changes until some are written, so reads go on while the sidecar's disk is full.

use crate::store::Errno;
use crate::store::inbox::{Inbox, Waiter, Wake};
use crate::store::sidecar::BLOCK;
use crate::store::sidecar::pifile::invert;
use crossbeam_utils::CachePadded;
use memmap2::{MmapOptions, MmapRaw};
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod set;
#[cfg(test)]
mod tests;

use set::{EMPTY, Set, WAYS};

/// What a request does with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Looks at entries.
    Read,
    /// Changes entries.
    Change,
    /// Changes all entries that the block has: what is on disk need not be read.
    Replace,
}

/// What became of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is done, and the maintenance thread may have to be told.
    Done(Kick),
    /// The waiter will be told.
    Wait,
    /// The waiter will be told, once blocks of this set have been written: the maintenance thread is to hurry.
    Starved,
    /// The waiter will be told, and the caller has to load this frame.
    Load(Frame),
}

/// What the maintenance thread is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kick {
    /// Nothing.
    No,
    /// That there is something to write in a while.
    Later,
    /// That too much is dirty.
    Now,
}

/// A frame to be loaded: the caller reads its block to its address and calls [`Cache::loaded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame(pub(crate) u32);

/// The cache.
pub(crate) struct Cache {
    sets: Box<[CachePadded<Mutex<Set>>]>,
    arena: MmapRaw,
    dirty: AtomicUsize,
    /// More dirty frames than this are too many.
    dirty_limit: usize,
    pub(crate) counters: Counters,
}

/// What has happened, for statistics; counted off the normal way only.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) loads: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) starvations: AtomicU64,
}

impl Cache {
    /// A cache of about `bytes`, at least one set.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let sets = largest_prime(bytes / BLOCK / WAYS);
        let arena = MmapOptions::new().len(sets * WAYS * BLOCK).map_anon()?.into();
        Ok(Self {
            sets: (0..sets).map(|_| CachePadded::new(Mutex::new(Set::new()))).collect(),
            arena,
            dirty: AtomicUsize::new(0),
            dirty_limit: sets * WAYS / 2,
            counters: Counters::default(),
        })
    }

    /// How many blocks it has room for.
    pub(crate) fn frames(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// How many blocks are dirty.
    pub(crate) fn dirty(&self) -> usize {
        // Relaxed: who acts on it takes each set's mutex and sees for himself.
        self.dirty.load(Ordering::Relaxed)
    }

    /// Does `work` on a block's bytes, or has `waiter` told when to try again. `pinned` says that this call follows
    /// an event that had the block pinned.
    pub(crate) fn access(
        &self,
        block: u64,
        access: Access,
        pinned: bool,
        waiter: impl FnOnce() -> Waiter,
        work: impl FnOnce(&mut [u8]),
    ) -> Found {
        let (number, mut set) = self.set_of(block);
        let set = &mut *set;
        let found = set.find(block);
        let changes = matches!(access, Access::Change | Access::Replace);
        if let Some(way) = found {
            let state = &mut set.states[way];
            if state.loading {
                state.waiters.push(waiter());
                return Found::Wait;
            }
            state.used = true;
            state.pins -= u32::from(pinned);
        }
        if changes && set.has_too_much_unwritten_beside(found) {
            self.counters.starvations.fetch_add(1, Ordering::Relaxed);
            set.throttled.push((block, waiter()));
            set.tell_starved();
            return Found::Starved;
        }
        if let Some(way) = found {
            // SAFETY: this set's mutex is held and the frame is not being loaded, so nobody else is at it.
            work(unsafe { self.bytes(number, way) });
            let kick = if changes { self.dirtied(set, way) } else { Kick::No };
            if pinned {
                set.tell_starved();
            }
            return Found::Done(kick);
        }
        debug_assert!(!pinned, "a pinned block was evicted");
        let Some(way) = set.evict(&self.counters) else {
            self.counters.starvations.fetch_add(1, Ordering::Relaxed);
            set.starved.push((block, waiter()));
            return Found::Starved;
        };
        set.tags[way] = block;
        let state = &mut set.states[way];
        state.used = true;
        if access == Access::Replace {
            // SAFETY: as above; the frame was evictable, so it is nobody's.
            let bytes = unsafe { self.bytes(number, way) };
            // The slack behind the last entry, too, is to be a hole's.
            bytes.fill(0xFF);
            work(bytes);
            return Found::Done(self.dirtied(set, way));
        }
        state.loading = true;
        state.waiters.push(waiter());
        self.counters.loads.fetch_add(1, Ordering::Relaxed);
        Found::Load(self.frame(number, way))
    }

    /// Takes a block out of the cache, whatever its entries are; false if it is on its way to or from the disk.
    pub(crate) fn forget(&self, block: u64) -> bool {
        let (_, mut set) = self.set_of(block);
        let Some(way) = set.find(block) else { return true };
        let state = &mut set.states[way];
        if state.loading || state.writing || state.pins > 0 {
            return false;
        }
        if std::mem::take(&mut state.dirty) {
            self.dirty.fetch_sub(1, Ordering::Relaxed);
        }
        state.used = false;
        set.tags[way] = EMPTY;
        set.tell_throttled(None);
        set.tell_starved();
        true
    }

    /// The block of a frame that is being loaded.
    pub(crate) fn block_of(&self, frame: Frame) -> u64 {
        let (number, way) = (frame.0 as usize / WAYS, frame.0 as usize % WAYS);
        lock(&self.sets[number]).tags[way]
    }

    /// Where to load a frame.
    pub(crate) fn address(&self, frame: Frame) -> *mut u8 {
        self.arena.as_mut_ptr().wrapping_add(frame.0 as usize * BLOCK)
    }

    /// A load has ended. `me` is the inbox of the calling queue.
    pub(crate) fn loaded(&self, frame: Frame, result: Result<(), Errno>, me: &Arc<Inbox>) {
        let (number, way) = (frame.0 as usize / WAYS, frame.0 as usize % WAYS);
        let mut set = lock(&self.sets[number]);
        let set = &mut *set;
        let block = set.tags[way];
        let state = &mut set.states[way];
        debug_assert!(state.loading);
        state.loading = false;
        let error = result.err();
        if error.is_none() {
            // SAFETY: this set's mutex is held, and the load, whose frame this was, is over.
            invert(unsafe { self.bytes(number, way) });
            state.pins += state.waiters.len() as u32;
        } else {
            set.tags[way] = EMPTY;
        }
        let wake = Wake::Block { block, pinned: error.is_none(), error };
        for waiter in state.waiters.drain(..) {
            waiter.post(wake, Some(me));
        }
        set.tell_starved();
    }

    /// Lists the dirty blocks.
    pub(crate) fn list_dirty(&self, blocks: &mut Vec<u64>) {
        for set in &self.sets {
            let set = lock(set);
            let dirty = set.tags.iter().zip(&set.states).filter(|(_, state)| state.dirty);
            blocks.extend(dirty.map(|(tag, _)| *tag));
        }
    }

    /// Copies a dirty block out in its form on disk and marks it as being written; false if it is not dirty.
    pub(crate) fn start_writing(&self, block: u64, to: &mut [u8]) -> bool {
        let (number, mut set) = self.set_of(block);
        let Some(way) = set.find(block).filter(|way| set.states[*way].dirty) else { return false };
        let state = &mut set.states[way];
        (state.dirty, state.writing) = (false, true);
        self.dirty.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: this set's mutex is held, and a dirty frame is not being loaded.
        to.copy_from_slice(unsafe { self.bytes(number, way) });
        drop(set);
        invert(to);
        true
    }

    /// A block that was being written is written, or is not and stays dirty; then who would make more of its set dirty
    /// gets the reason, for waiting longer might be for ever.
    ///
    /// # Errors
    /// The block's; or EIO if the block is gone, which the states of a frame forbid: then nobody knows whether what was
    /// written was the newest, and nothing may be built on it.
    pub(crate) fn written(&self, block: u64, result: Result<(), Errno>) -> Result<(), Errno> {
        let (_, mut set) = self.set_of(block);
        let Some(way) = set.find(block).filter(|way| set.states[*way].writing) else {
            debug_assert!(false, "a block was evicted while it was written");
            log::error!("block {block} of metadata was lost while it was written");
            return Err(Errno(libc::EIO));
        };
        let state = &mut set.states[way];
        state.writing = false;
        match result {
            Ok(()) => {
                set.tell_throttled(None);
                set.tell_starved();
            }
            Err(error) => {
                if !state.dirty {
                    state.dirty = true;
                    self.dirty.fetch_add(1, Ordering::Relaxed);
                }
                set.tell_throttled(Some(error));
            }
        }
        result
    }

    /// Blocks cannot be written, and not all were tried: who would make more dirty gets the reason.
    pub(crate) fn refuse(&self, error: Errno) {
        for set in &self.sets {
            lock(set).tell_throttled(Some(error));
        }
    }

    /// Marks a frame dirty.
    fn dirtied(&self, set: &mut Set, way: usize) -> Kick {
        if std::mem::replace(&mut set.states[way].dirty, true) {
            return Kick::No;
        }
        // Relaxed: the count is a hint; the maintenance thread looks at the sets themselves.
        let before = self.dirty.fetch_add(1, Ordering::Relaxed);
        let in_set = set.states.iter().filter(|state| state.dirty).count();
        if before == self.dirty_limit || in_set > WAYS * 3 / 4 {
            Kick::Now
        } else if before == 0 {
            Kick::Later
        } else {
            Kick::No
        }
    }

    fn set_of(&self, block: u64) -> (usize, MutexGuard<'_, Set>) {
        let number = (block % self.sets.len() as u64) as usize;
        (number, lock(&self.sets[number]))
    }

    fn frame(&self, set: usize, way: usize) -> Frame {
        Frame((set * WAYS + way) as u32)
    }

    /// A frame's bytes.
    ///
    /// # Safety
    /// The set's mutex is held while the slice is used, and the frame is not being loaded.
    #[expect(clippy::mut_from_ref, reason = "the exclusive access is the set's mutex'")]
    unsafe fn bytes(&self, set: usize, way: usize) -> &mut [u8] {
        let start = self.address(self.frame(set, way));
        // SAFETY: the frame lies in the arena, which is initialised and lives as long as `self`; that nobody else
        // is at it is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(start, BLOCK) }
    }
}

/// A panic while a set was locked leaves it usable: its fields are changed one by one, each into a valid state.
fn lock(set: &Mutex<Set>) -> MutexGuard<'_, Set> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The largest prime up to `n`, or 1.
fn largest_prime(n: usize) -> usize {
    let prime = |n: &usize| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (1..=n.max(1)).rev().find(prime).unwrap_or(1)
}
