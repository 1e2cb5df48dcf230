//! The counters behind [`Statistics`].

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::Statistics;

/// A counter several threads add to.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub(super) fn add(&self, count: u64) {
        // Relaxed, here and below: the numbers order nothing.
        self.0.fetch_add(count, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What a handle counts outside its copiers.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) mapped: Counter,
    pub(super) unmapped: Counter,
    pub(super) notified: Counter,
    pub(super) events: Counter,
    pub(super) channels_opened: Counter,
    pub(super) channels_closed: Counter,
}

impl Counters {
    /// A snapshot, without the copiers.
    pub(super) fn snapshot(&self) -> Statistics {
        Statistics {
            mapped: self.mapped.get(),
            unmapped: self.unmapped.get(),
            notified: self.notified.get(),
            events: self.events.get(),
            channels_opened: self.channels_opened.get(),
            channels_closed: self.channels_closed.get(),
            ..Statistics::default()
        }
    }
}

/// What one copier counts. Only its thread writes, so plain loads and stores do and cost nothing; on lines
/// of its own, so that copiers do not slow each other.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct CopyCounters {
    calls: AtomicU64,
    copies: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

impl CopyCounters {
    /// Counts one batch; the copier's thread alone.
    #[inline]
    pub(super) fn add(&self, copies: u64, bytes: u64, failures: u64) {
        for (counter, count) in
            [(&self.calls, 1), (&self.copies, copies), (&self.bytes, bytes), (&self.failures, failures)]
        {
            counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
        }
    }

    /// Adds them to a snapshot.
    pub(super) fn add_to(&self, statistics: &mut Statistics) {
        statistics.copy_calls += self.calls.load(Relaxed);
        statistics.copies += self.copies.load(Relaxed);
        statistics.copied_bytes += self.bytes.load(Relaxed);
        statistics.copy_failures += self.failures.load(Relaxed);
    }
}
