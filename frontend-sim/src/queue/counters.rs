//! What a queue did.

use std::ops::{Add, Sub};

/// Counters since the queue was connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests submitted.
    pub requests: u64,
    /// Responses taken: two for a request with DIX.
    pub responses: u64,
    /// Notifications sent.
    pub notifications: u64,
    /// Events received.
    pub events: u64,
    /// Times it slept and woke.
    pub wakeups: u64,
    /// Waits that ended without sleeping.
    pub spins: u64,
    /// Requests sent again because the backend went away.
    pub requeued: u64,
}

impl Counters {
    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            requests: with(self.requests, other.requests),
            responses: with(self.responses, other.responses),
            notifications: with(self.notifications, other.notifications),
            events: with(self.events, other.events),
            wakeups: with(self.wakeups, other.wakeups),
            spins: with(self.spins, other.spins),
            requeued: with(self.requeued, other.requeued),
        }
    }
}

impl Add for Counters {
    type Output = Self;

    /// Of two queues.
    fn add(self, other: Self) -> Self {
        self.zip(other, |one, two| one + two)
    }
}

impl Sub for Counters {
    type Output = Self;

    /// What happened since an earlier look.
    fn sub(self, earlier: Self) -> Self {
        self.zip(earlier, |now, then| now - then)
    }
}
