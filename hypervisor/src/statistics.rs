//! What a handle did: for benchmarks and for tests that look for leaks.

use std::ops::Sub;

/// Counters of one handle since it was opened, over everything made from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Pages mapped.
    pub mapped: u64,
    /// Pages unmapped; `mapped - unmapped` are mapped now.
    pub unmapped: u64,
    /// Calls of [`Copier::copy`](crate::Copier::copy); on Xen, one ioctl each.
    pub copy_calls: u64,
    /// Copies in those calls.
    pub copies: u64,
    /// Bytes copied.
    pub copied_bytes: u64,
    /// Copies whose status was not okay.
    pub copy_failures: u64,
    /// Notifications sent.
    pub notified: u64,
    /// Events acknowledged.
    pub events: u64,
    /// Channels opened.
    pub channels_opened: u64,
    /// Channels closed.
    pub channels_closed: u64,
}

impl Sub for Statistics {
    type Output = Self;

    /// What happened between two snapshots.
    fn sub(self, earlier: Self) -> Self {
        Self {
            mapped: self.mapped - earlier.mapped,
            unmapped: self.unmapped - earlier.unmapped,
            copy_calls: self.copy_calls - earlier.copy_calls,
            copies: self.copies - earlier.copies,
            copied_bytes: self.copied_bytes - earlier.copied_bytes,
            copy_failures: self.copy_failures - earlier.copy_failures,
            notified: self.notified - earlier.notified,
            events: self.events - earlier.events,
            channels_opened: self.channels_opened - earlier.channels_opened,
            channels_closed: self.channels_closed - earlier.channels_closed,
        }
    }
}

/// A handle that counts.
pub trait Counted {
    /// A snapshot. Counters of other threads are exact once those threads are idle.
    fn statistics(&self) -> Statistics;
}
