//! The bitmap of a disk that keeps no log: which regions may have been cut short in a write.
//!
//! ```text
//! queues -- mark(region) --> clean: bit set, to be durable first ---- the bitmap's thread ---> Wake::Announced
//!                            dirty: go on at once
//! queues -- release(region)
//! maintenance thread: idle regions listed -> everything made durable -> still idle? bit cleared, written some time
//! ```
//!
//! As dm-integrity's bitmap mode has it: after a crash, what does not match in a dirty region is sealed anew. A bit that
//! is set for no reason costs time after a crash; a bit that is not set when it should be is what must not happen.
//! A disk that has grown beyond the bitmap begins anew at its first bit: a bit speaks for every region it is used for.

mod recover;

pub(super) use recover::recover;

use crate::limit::Limit;
use crate::store::inbox::{Waiter, Wake};
use crate::store::medium::Medium;
use crate::store::sidecar::Header;
use crate::store::{Errno, StoreError};
use memmap2::MmapOptions;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Smallest region: so much is read after a crash for one write.
const REGION: u64 = 1 << 20;
/// Most bits: so many pages of the bitmap are ever written.
const MOST: u64 = 512 << 10;
/// What is written at once.
const PAGE: usize = 4096;

/// Where a region stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mark {
    #[default]
    Clean,
    /// Its bit is to be written.
    Wanted,
    /// Its bit is being written.
    Under,
    /// Its bit is durable.
    Dirty,
}

#[derive(Clone, Copy, Debug, Default)]
struct Region {
    mark: Mark,
    users: u32,
    /// Used since the maintenance thread looked.
    touched: bool,
}

struct State {
    regions: Vec<Region>,
    bits: Vec<u8>,
    /// Which pages are to be written.
    pages: Vec<bool>,
    waiters: Vec<Waiter>,
    failed: Option<Errno>,
    stop: bool,
}

/// What became of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    /// The regions are dirty, durably.
    Now,
    /// The waiter gets [`Wake::Announced`] when they are.
    Wait,
    /// They can be marked no more; nothing is to be released.
    Failed(Errno),
}

/// See the module's head.
pub(super) struct Bitmap {
    state: Mutex<State>,
    bell: Condvar,
    /// Bytes of data in a region.
    region: u64,
    start: u64,
}

impl Bitmap {
    /// A bitmap for the disk of that header, all clean. It has to be [`written`](Self::clear) before the header says so.
    pub(super) fn new(header: &Header, sidecar: &Path) -> Result<Self, StoreError> {
        let (start, area) = header.log;
        if area < PAGE as u64 {
            return Err(StoreError::SmallLog { path: sidecar.to_owned(), found: area, needed: PAGE as u64 });
        }
        let most = MOST.min(area / PAGE as u64 * PAGE as u64 * 8);
        let region = REGION.max(header.data_bytes.div_ceil(most).next_power_of_two());
        // In whole pages, so that a disk can grow for a while before bits are shared. Bounded by MOST.
        let pages = header.data_bytes.div_ceil(region).div_ceil(PAGE as u64 * 8) as usize;
        let state = State {
            regions: vec![Region::default(); pages * PAGE * 8],
            bits: vec![0; pages * PAGE],
            pages: vec![false; pages],
            waiters: Vec::new(),
            failed: None,
            stop: false,
        };
        Ok(Self { state: Mutex::new(state), bell: Condvar::new(), region, start })
    }

    /// What the header says of it.
    pub(super) fn header(&self) -> [u64; 3] {
        [self.region, self.lock().regions.len() as u64, 0]
    }

    /// Writes it as it is, all clean, before anything else is done.
    pub(super) fn clear(&self, sidecar: &Medium) -> std::io::Result<()> {
        let mut page = MmapOptions::new().len(self.lock().bits.len()).map_anon()?;
        page.fill(0);
        sidecar.write_all_at(&page, self.start)
    }

    /// The regions of a range of bytes. Their bits are these numbers modulo the bitmap's length.
    fn regions(&self, offset: u64, bytes: u64) -> RangeInclusive<u64> {
        offset / self.region..=(offset + bytes.max(1) - 1) / self.region
    }

    /// Has the regions of a range marked, and used until [`release`](Self::release).
    pub(super) fn mark(&self, offset: u64, bytes: u64, waiter: impl FnOnce() -> Waiter) -> Marked {
        let mut state = self.lock();
        if let Some(errno) = state.failed {
            return Marked::Failed(errno);
        }
        let mut durable = true;
        for region in self.regions(offset, bytes) {
            // Both fit: the remainder is below the length of a vector.
            let index = (region % state.regions.len() as u64) as usize;
            let region = &mut state.regions[index];
            region.users += 1;
            region.touched = true;
            durable &= region.mark == Mark::Dirty;
            if region.mark == Mark::Clean {
                region.mark = Mark::Wanted;
                state.bits[index / 8] |= 1 << (index % 8);
                state.pages[index / 8 / PAGE] = true;
            }
        }
        if durable {
            return Marked::Now;
        }
        state.waiters.push(waiter());
        drop(state);
        self.bell.notify_one();
        Marked::Wait
    }

    /// A request is over.
    pub(super) fn release(&self, offset: u64, bytes: u64) {
        let mut state = self.lock();
        for region in self.regions(offset, bytes) {
            let index = (region % state.regions.len() as u64) as usize;
            state.regions[index].users -= 1;
        }
    }

    /// Whether any bit is set.
    pub(super) fn any(&self) -> bool {
        self.lock().bits.iter().any(|byte| *byte != 0)
    }

    /// How many regions are dirty.
    pub(super) fn dirty(&self) -> u64 {
        self.lock().bits.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// Lists the regions that are idle and have been since the last look.
    pub(super) fn idle(&self, idle: &mut Vec<usize>) {
        idle.clear();
        for (index, region) in self.lock().regions.iter_mut().enumerate() {
            let touched = std::mem::take(&mut region.touched);
            if region.mark == Mark::Dirty && region.users == 0 && !touched {
                idle.push(index);
            }
        }
    }

    /// Everything that was done in the regions before they were listed is durable: those that are still idle are clean.
    /// Their bits are written with the next ones that must be, for there is no haste.
    pub(super) fn clean(&self, idle: &[usize]) {
        let mut state = self.lock();
        for &index in idle {
            let region = &mut state.regions[index];
            if region.mark == Mark::Dirty && region.users == 0 && !region.touched {
                region.mark = Mark::Clean;
                state.bits[index / 8] &= !(1 << (index % 8));
                state.pages[index / 8 / PAGE] = true;
            }
        }
        drop(state);
        self.bell.notify_one();
    }

    /// The thread is to end.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.bell.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of it leaves bits that are set too often at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: writes the pages that changed.
    pub(super) fn run(&self, sidecar: &Medium) {
        let Ok(mut page) = MmapOptions::new().len(PAGE).map_anon() else {
            return self.fail(sidecar, Errno(libc::ENOMEM), Vec::new());
        };
        let (mut bits, mut pages, mut waiters) = (Vec::new(), Vec::new(), Vec::new());
        while self.take(&mut bits, &mut pages, &mut waiters) {
            let mut write = |number: usize| {
                page.copy_from_slice(&bits[number * PAGE..][..PAGE]);
                let written = sidecar.write_all_at(&page, self.start + (number * PAGE) as u64);
                written.map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))
            };
            let mut result = pages.iter().try_for_each(|number| write(*number));
            // Bits that were only cleared can wait.
            if result.is_ok() && !waiters.is_empty() {
                result = sidecar.sync();
            }
            if let Err(error) = result {
                return self.fail(sidecar, error, waiters);
            }
            for region in &mut self.lock().regions {
                if region.mark == Mark::Under {
                    region.mark = Mark::Dirty;
                }
            }
            for waiter in waiters.drain(..) {
                waiter.post(Wake::Announced(Ok(())), None);
            }
        }
    }

    /// No region can be marked any more: nothing that is not dirty is written from now on.
    fn fail(&self, sidecar: &Medium, error: Errno, mut waiters: Vec<Waiter>) {
        let name = sidecar.path.display().to_string();
        let limit = Limit::of(&name, "bitmap", module_path!());
        limit.log(log::Level::Error, || format!("{name}: cannot write the bitmap: {error}"));
        let mut state = self.lock();
        state.failed = Some(error);
        waiters.append(&mut state.waiters);
        drop(state);
        for waiter in waiters {
            waiter.post(Wake::Announced(Err(error)), None);
        }
    }

    /// Waits for something to write; copies it.
    fn take(&self, bits: &mut Vec<u8>, pages: &mut Vec<usize>, waiters: &mut Vec<Waiter>) -> bool {
        let mut state = self.lock();
        while state.waiters.is_empty() && !state.pages.contains(&true) {
            if state.stop {
                return false;
            }
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let State { regions, pages: wanted, waiters: waiting, bits: all, .. } = &mut *state;
        for region in regions.iter_mut().filter(|region| region.mark == Mark::Wanted) {
            region.mark = Mark::Under;
        }
        pages.clear();
        pages.extend(
            wanted.iter_mut().enumerate().filter_map(|(at, wanted)| std::mem::take(wanted).then_some(at)),
        );
        std::mem::swap(waiters, waiting);
        bits.clear();
        bits.extend_from_slice(all);
        true
    }
}
