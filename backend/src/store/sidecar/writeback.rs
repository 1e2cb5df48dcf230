//! Dirty blocks on their way to disk: copied out together, written in runs of neighbours.
//!
//! ```text
//! list -> sorted -> batches of BATCH:  take: copied out of the cache -> [what has to be durable first] -> put: written
//! ```

use crate::io::{Owner, Ring};
use crate::store::Errno;
use crate::store::medium::Medium;
use crate::store::sidecar::cache::Cache;
use crate::store::sidecar::{BLOCK, Layout};
use io_uring::{opcode, types};
use memmap2::{MmapMut, MmapOptions};
use std::io;
use std::time::Duration;

/// Blocks written at once: few enough that a flush does not wait long for them.
pub(super) const BATCH: usize = 512;
/// Longest wait for a completion before the wait begins anew.
const WAIT: Duration = Duration::from_secs(1);

/// The maintenance thread's memory and its ring.
pub(super) struct Writeback {
    ring: Ring,
    /// Copies of a batch of blocks.
    staging: MmapMut,
    /// The blocks that are copied there.
    taken: Vec<u64>,
    /// Runs of neighbours among them: where, and how many.
    runs: Vec<(usize, usize)>,
}

impl Writeback {
    /// Made by the thread that will use it.
    pub(super) fn new() -> io::Result<Self> {
        let mut ring = Ring::new(64).map_err(io::Error::other)?;
        ring.enable()?;
        let staging = MmapOptions::new().len(BATCH * BLOCK).map_anon()?;
        Ok(Self { ring, staging, taken: Vec::new(), runs: Vec::new() })
    }

    /// Copies the blocks of a batch that are dirty out of the cache; every one of them ends in [`put`](Self::put) or
    /// [`give_up`](Self::give_up).
    pub(super) fn take(&mut self, cache: &Cache, batch: &[u64]) {
        let Self { staging, taken, runs, .. } = self;
        debug_assert!(taken.is_empty() && batch.len() <= BATCH);
        runs.clear();
        for block in batch {
            let at = taken.len();
            // Listed, but dropped since.
            if !cache.start_writing(*block, &mut staging[at * BLOCK..][..BLOCK]) {
                continue;
            }
            match runs.last_mut() {
                Some((first, count)) if taken[*first] + *count as u64 == *block => *count += 1,
                _ => runs.push((at, 1)),
            }
            taken.push(*block);
        }
    }

    /// They cannot be written now, and stay dirty.
    pub(super) fn give_up(&mut self, cache: &Cache, error: Errno) {
        for block in self.taken.drain(..) {
            // It is not written: whether it is still there says nothing more.
            let _ = cache.written(block, Err(error));
        }
    }

    /// Writes what was taken.
    pub(super) fn put(&mut self, cache: &Cache, sidecar: &Medium, layout: &Layout) -> Result<(), Errno> {
        let Self { ring, staging, taken, runs } = self;
        let mut pending = 0;
        for (index, &(first, count)) in runs.iter().enumerate() {
            let bytes = &staging[first * BLOCK..(first + count) * BLOCK];
            let entry = opcode::Write::new(types::Fd(sidecar.fd()), bytes.as_ptr(), bytes.len() as u32)
                .offset(layout.position(taken[first]))
                .build()
                .user_data(Owner::Store.user_data(index as u64));
            // SAFETY: the staging area is neither written nor freed before all completions have been taken below.
            unsafe { ring.push(&entry) };
            pending += 1;
        }
        let mut result = Ok(());
        while pending > 0 {
            if let Err(error) = ring.submit(Some(WAIT)) {
                // Short of memory, say. The staging area is the kernel's until the writes have ended, so: again.
                log::warn!("{}: io_uring_enter: {error}", sidecar.path.display());
                std::thread::sleep(Duration::from_millis(10));
            }
            while let Some((user_data, moved)) = ring.reap() {
                pending -= 1;
                let (first, count) = runs[Owner::of(user_data).1 as usize];
                let (bytes, at) =
                    (&staging[first * BLOCK..(first + count) * BLOCK], layout.position(taken[first]));
                let written = end_of_write(sidecar, at, bytes, moved);
                for block in &taken[first..first + count] {
                    result = result.and(cache.written(*block, written));
                }
            }
        }
        taken.clear();
        result
    }
}

/// Reads the result of a run's write; one that was cut short is gone on with.
fn end_of_write(sidecar: &Medium, at: u64, bytes: &[u8], moved: i32) -> Result<(), Errno> {
    match usize::try_from(moved) {
        Ok(moved) if moved >= bytes.len() => Ok(()),
        Err(_) if moved != -libc::EINTR && moved != -libc::EAGAIN => Err(Errno(-moved)),
        _ => {
            let again = sidecar.write_all_at(bytes, at);
            again.map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))
        }
    }
}
