//! The counters behind [`Statistics`].

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Statistics;

/// A counter several threads add to.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub(crate) fn add(&self, count: u64) {
        // Relaxed, here and below: the numbers order nothing.
        self.0.fetch_add(count, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What a handle counts.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) mapped: Counter,
    pub(crate) unmapped: Counter,
    pub(crate) notified: Counter,
    pub(crate) events: Counter,
    pub(crate) channels_opened: Counter,
    pub(crate) channels_closed: Counter,
    copying: Mutex<Copying>,
}

/// Counters of the copiers there are, and the sum of those there were.
#[derive(Default)]
struct Copying {
    live: Vec<Arc<CopyCounters>>,
    gone: Statistics,
}

impl Counters {
    /// A new copier's counters.
    pub(crate) fn copier(&self) -> Arc<CopyCounters> {
        let counters = Arc::<CopyCounters>::default();
        self.with_copying(|copying| copying.live.push(Arc::clone(&counters)));
        counters
    }

    /// Keeps what a copier counted beyond its end.
    pub(crate) fn retire(&self, counters: &Arc<CopyCounters>) {
        self.with_copying(|copying| {
            copying.live.retain(|other| !Arc::ptr_eq(other, counters));
            counters.add_to(&mut copying.gone);
        });
    }

    fn with_copying<T>(&self, act: impl FnOnce(&mut Copying) -> T) -> T {
        // Numbers: nothing a panic could leave half-changed.
        act(&mut self.copying.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A snapshot.
    pub(crate) fn snapshot(&self) -> Statistics {
        let copied = self.with_copying(|copying| {
            let mut copied = copying.gone;
            copying.live.iter().for_each(|counters| counters.add_to(&mut copied));
            copied
        });
        Statistics {
            mapped: self.mapped.get(),
            unmapped: self.unmapped.get(),
            notified: self.notified.get(),
            events: self.events.get(),
            channels_opened: self.channels_opened.get(),
            channels_closed: self.channels_closed.get(),
            ..copied
        }
    }
}

/// What one copier counts. Only its thread writes, so plain loads and stores do and cost nothing; on lines
/// of its own, so that copiers do not slow each other.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct CopyCounters {
    calls: AtomicU64,
    copies: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

impl CopyCounters {
    /// Counts one batch; the copier's thread alone.
    #[inline]
    pub(crate) fn add(&self, copies: u64, bytes: u64, failures: u64) {
        for (counter, count) in
            [(&self.calls, 1), (&self.copies, copies), (&self.bytes, bytes), (&self.failures, failures)]
        {
            counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
        }
    }

    fn add_to(&self, statistics: &mut Statistics) {
        statistics.copy_calls += self.calls.load(Relaxed);
        statistics.copies += self.copies.load(Relaxed);
        statistics.copied_bytes += self.bytes.load(Relaxed);
        statistics.copy_failures += self.failures.load(Relaxed);
    }
}
